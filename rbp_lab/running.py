"""The jobs of one command line, as Hydra begins and runs them, here or in processes of a launcher."""

from __future__ import annotations

import importlib
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import yaml

from rbp_lab.config.arguments import Arguments
from rbp_lab.errors import LabError, WrongUsage
from rbp_lab.jobs.composition import explain, plain, refuse_hidden_files
from rbp_lab.jobs.failures import Failures, print_error, sentence
from rbp_lab.jobs.outcomes import JobOutcome, count, leave, left_in
from rbp_lab.jobs.own_places import WRITING, Place, own_places
from rbp_lab.jobs.slurm import array_of, job_failure, wait_for, watch_queue
from rbp_lab.store.layout import check_root

if TYPE_CHECKING:
    from omegaconf import DictConfig


class Jobs:
    """The jobs of one command line: what Hydra calls for them, and what became of them.

    A launcher sends it, as it is before the first job, to the processes in which it has jobs run.
    """

    def __init__(self, command: str, arguments: Arguments) -> None:
        self.command, self.arguments = command, arguments
        self.failures, self.process = Failures(), _this_process()
        self.store: str | None = None  # of a sweep
        # Of jobs that run in other processes: the directory in which they leave their outcomes, and their names.
        self.elsewhere: tuple[str, list[str]] | None = None
        self.broken: str | None = None  # what a launcher raised once jobs had begun
        self.places: dict[int, Place] = {}  # of jobs that would write over each other's results
        self.compared: list[dict[str, Any]] = []  # configurations of a sweep of comparisons

    def begin(self, sweep: DictConfig) -> None:
        """Before the first job of a sweep; where it measures in this process, look at all of its models."""
        from rbp_lab.jobs.sweeps import (
            BASIC,
            SLURM,
            compose_once,
            composed_jobs,
            jobs_of,
            launcher_of,
            refuse_what_is_not_here,
        )
        from rbp_lab.measurement import devices

        refuse_what_is_not_here(sweep, {"gpus": lambda: len(devices.visible_gpus()), "cpus": devices.processors})
        self.store = str(sweep.store)
        if (launcher := launcher_of(sweep)) == BASIC:
            compose_once()
        else:
            self.elsewhere = sweep.hydra.sweep.dir, [" ".join(overrides) for overrides in jobs_of(sweep)]
            if launcher == SLURM:
                watch_queue()
        if self.command in WRITING:
            composed, places = composed_jobs(sweep), self.places
            places.update(own_places(self.command, jobs_of(sweep), composed))
            if self.command == "compare_models":
                self.compared = [one | (places[i].change if i in places else {}) for i, one in enumerate(composed)]
        if self.command == "measure" and launcher == BASIC:
            from rbp_lab.commands.sweep import look_ahead

            look_ahead(composed_jobs(sweep))

    def run(self, config: DictConfig) -> None:
        """One job. A sweep goes on when it fails: what failed is listed at the end."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        self.failures.jobs += 1
        chosen = HydraConfig.get()
        name, store, ended, said, misused = "", None, None, None, False
        try:
            if chosen.mode == RunMode.MULTIRUN:
                name = " ".join(chosen.overrides.task) or f"job {chosen.job.num}"
            refuse_hidden_files(chosen.runtime.config_sources)
            composed = plain(config)
            if name and chosen.job.num in self.places:
                composed |= self.places[chosen.job.num].change
            store = composed["store"] if isinstance(composed.get("store"), str) else None
            check_root(store or ".")
            ended = importlib.import_module(f"rbp_lab.commands.{self.command}").run(composed) or "done"
            self.failures.ended[ended] += 1
        except BrokenPipeError:
            raise
        except Exception as error:
            said = self.failures.add(name, error, store)
            misused = isinstance(error, WrongUsage)
        if _this_process() != self.process:
            leave(JobOutcome(chosen.job.num, name, ended, said, misused), chosen.runtime.output_dir)

    def broke(self, error: Exception) -> None:
        """What Hydra or a launcher raised is an error of its own, unless jobs elsewhere came to something."""
        message = _in_words(error, self.command, self.arguments, self.store)
        if (array := array_of(error)) is not None:
            with suppress(LabError):
                wait_for([array])  # one task was lost; the others are not
        if self.elsewhere is None:
            raise message from error
        directory, names = self.elsewhere
        if not left_in(directory) and (array is None or len(names) < 2):
            raise message from error
        print_error(str(message))
        self.broken = str(message)

    def finish(self) -> None:
        """After the last job: gather what those elsewhere came to, and say where results of their own are."""
        if self.elsewhere is not None and not self.failures.jobs:
            directory, names = self.elsewhere
            count(self.failures, left_in(directory), names)
            if self.broken is not None and not self.failures.failed:
                self.failures.failed.append(("a job", self.broken))
        for place in self.places.values():
            if place.directory is not None and place.directory.is_dir():
                print(f"results of a job of this sweep: {place.directory}", flush=True)
        if len({repr(config["dataset"]) for config in self.compared}) > 1:
            from rbp_lab.commands.compare_over import show_sweep

            show_sweep(self.compared)


def _this_process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


def _in_words(error: Exception, command: str, arguments: Arguments, store: str | None) -> LabError:
    """What Hydra or a launcher raised: jobs keep their exceptions, so it is of composing, or of launching."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OSError) and error.errno is not None:
        return LabError(f"cannot write {error.filename or 'the store'}: {error.strerror}")
    if (failed := job_failure(error)) is not None:
        return LabError(failed)
    if not arguments.launcher or isinstance(error, (HydraException, OmegaConfBaseException, yaml.YAMLError)):
        return WrongUsage(explain(error, command, arguments))
    return LabError(sentence(error, store, "a mistake in hydra.launcher, or a defect of that launcher"))
