"""The command line: lets Hydra compose a configuration, and gives it to a command.

hydra is imported where it is used, so that an interrupt in the second which that takes finds ``main``; torch is
imported by the commands alone.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import yaml

from rbp_lab import __version__
from rbp_lab.config.arguments import Arguments, parse
from rbp_lab.config.directory import CONF
from rbp_lab.errors import LabError, WrongUsage, no_such
from rbp_lab.garbage import look_seldom
from rbp_lab.interrupts import CODES, end_on_signals
from rbp_lab.jobs.composition import (
    NO_JOB,
    check_override,
    explain,
    plain,
    refuse_hidden_files,
    register_resolvers,
    shown_jobs,
    users_first,
)
from rbp_lab.jobs.failures import Failures, print_error, sentence
from rbp_lab.jobs.outcomes import JobOutcome, count, leave, left_in
from rbp_lab.jobs.own_places import WRITING, Place, own_places
from rbp_lab.jobs.slurm import array_of, check_slurm, job_failure, wait_for, watch_queue
from rbp_lab.jobs.subcommand_help import wrapped
from rbp_lab.store.layout import check_root

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Subcommand → what it is for. Each is a module of rbp_lab.commands with ``run(config)``, and a YAML file of conf/.
COMMANDS = {
    "demo": "train a ladder of small models, measure it and fit its laws, offline",
    "train": "train one model of the ladder (-m 'model=glob(ladder-*)' for all)",
    "measure": "measure one model on one corpus (-m for a sweep)",
    "analyze": "fit the laws of finished runs, or of a CSV of published values",
    "compare": "how two finished runs differ (A B), or two models token by token (model@a=A model@b=B), loaded in turn "
    "when they do not fit together",
    "sync": "mirror to Weights & Biases what the store has and W&B lacks; safe to repeat",
    "dashboard": "create or update the W&B workspace with the papers' panels",
    "ls": "list models, datasets, finished and unfinished runs",
    "clean": "remove what crashes left in a store, and on request unfinished work",
}
# Commands that make figures by the dozen, see ``garbage.look_seldom``.
DRAWING = ("analyze", "compare", "compare_models")
GONE = {"bench": "the benchmarks run from a clone of the project: make bench, or python -m tests.benchmarks"}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``rbp-lab``; exits with 0 when everything held, 1 on a failure, 2 on wrong usage that kept all
    work from beginning.

    Interrupted by Ctrl-C it exits with 130, terminated with 143, and with 141 when nobody reads what it prints.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that the terminal lacks is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        with end_on_signals():
            code = _run(sys.argv[1:] if arguments is None else arguments)
            sys.stdout.flush()
    except LabError as error:
        code = 2 if isinstance(error, WrongUsage) else 1
        print_error(str(error))
    except KeyboardInterrupt:
        print("interrupted; finished work is kept, nothing half-done is left", file=sys.stderr)
        code = 130
    except SystemExit as error:
        if error.code != CODES[signal.SIGTERM]:
            raise
        print("terminated; finished work is kept, nothing half-done is left", file=sys.stderr, flush=True)
        code = error.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes
        code = 141
    sys.exit(code)


def usage() -> str:
    """What ``rbp-lab --help`` prints."""
    return "\n".join(
        [
            "usage: rbp-lab SUBCOMMAND [flags and hydra overrides, in any order]",
            "",
            "subcommands:",
            *(wrapped(f"  {name:11}{text}", " " * 13) for name, text in COMMANDS.items()),
            "",
            wrapped(
                "rbp-lab SUBCOMMAND --help shows its keys and what they mean, --cfg job prints the composed "
                "configuration, -m sweeps, --config-dir DIR puts YAML files of your own before the packaged ones "
                "(DIR/model/mine.yaml: model=mine).",
                "",
            ),
            wrapped("Exit codes: 0 all held, 1 something failed, 2 wrong usage, seen before any work began.", "  "),
        ]
    )


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    command, *rest = words
    if command == "--version" or "--version" in rest:
        print(f"rbp-lab {__version__}")
        return 0
    if command in GONE:
        raise WrongUsage(GONE[command])
    if command not in COMMANDS:
        raise WrongUsage(no_such("rbp-lab", f"subcommand {command!r}", command, COMMANDS))
    if {"RANK", "WORLD_SIZE"} <= set(os.environ):
        raise WrongUsage(
            "rbp-lab starts its own processes: run it without torchrun or accelerate launch, use launch.processes=N"
        )
    arguments = parse(command, rest)
    if arguments.launcher and not arguments.asks:
        if not arguments.multirun:
            raise WrongUsage("hydra/launcher takes -m: it runs the jobs of a sweep, which may be a single one")
        if arguments.launcher == "slurm":
            check_slurm()
    failures = _compose_and_run(arguments.command, arguments)
    if summary := failures.summary():
        print(f"\n{summary}", flush=True)
    if table := failures.table():
        print(f"\n{table}", file=sys.stderr)
    if not failures.jobs and arguments.multirun and not arguments.asks:
        raise WrongUsage(NO_JOB)
    return failures.code()


def _compose_and_run(command: str, arguments: Arguments) -> Failures:
    """Let Hydra compose and run the command's jobs. LabError when there is nothing to run."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from rbp_lab.jobs.sweeps import (
        BASIC,
        SLURM,
        Refused,
        SweepStart,
        compose_once,
        composed_jobs,
        jobs_of,
        launcher_of,
        refuse_what_is_not_here,
    )
    from rbp_lab.measurement import devices

    for override in arguments.overrides:
        check_override(override, arguments.multirun)
    failures, process = Failures(), (socket.gethostname(), os.getpid())
    broken: list[str] = []  # what a launcher raised once jobs had begun
    launched: list[tuple[str, list[str]]] = []  # of jobs that run elsewhere: their directory, and what each is called
    stores: list[str] = []  # of the sweep
    compared: list[dict[str, Any]] = []  # configurations of a sweep of comparisons
    places: dict[int, Place] = {}  # of jobs that would write over each other's results

    def job(config: DictConfig) -> None:
        failures.jobs += 1
        chosen = HydraConfig.get()
        name, store, ended, said, misused = "", None, None, None, False
        try:
            if chosen.mode == RunMode.MULTIRUN:
                name = " ".join(chosen.overrides.task) or f"job {chosen.job.num}"
            refuse_hidden_files(chosen.runtime.config_sources)
            composed = plain(config)
            if name and chosen.job.num in places:
                composed |= places[chosen.job.num].change
            store = composed["store"] if isinstance(composed.get("store"), str) else None
            check_root(store or ".")
            ended = importlib.import_module(f"rbp_lab.commands.{command}").run(composed) or "done"
            failures.ended[ended] += 1
        except BrokenPipeError:
            raise
        except Exception as error:
            said = failures.add(name, error, store)  # a sweep goes on; what failed is listed at its end
            misused = isinstance(error, WrongUsage)
        if (socket.gethostname(), os.getpid()) != process:
            leave(JobOutcome(chosen.job.num, name, ended, said, misused), chosen.runtime.output_dir)

    def begin(sweep: DictConfig) -> None:
        """Before the first job of a sweep; where it measures in this process, look at all of its models."""
        refuse_what_is_not_here(sweep, {"gpus": lambda: len(devices.visible_gpus()), "cpus": devices.processors})
        stores.append(str(sweep.store))
        if (launcher := launcher_of(sweep)) == BASIC:
            compose_once()
        else:
            launched.append((sweep.hydra.sweep.dir, [" ".join(overrides) for overrides in jobs_of(sweep)]))
            if launcher == SLURM:
                watch_queue()
        if command in WRITING:
            composed = composed_jobs(sweep)
            places.update(own_places(command, jobs_of(sweep), composed))
            if command == "compare_models":
                compared.extend(one | (places[i].change if i in places else {}) for i, one in enumerate(composed))
        if command == "measure" and launcher == BASIC:
            from rbp_lab.commands.sweep import look_ahead

            look_ahead(composed_jobs(sweep))

    looks = gc.get_threshold()
    if command not in DRAWING:
        look_seldom()
    # Hydra would print its own shortened report and exit; asked for full errors it lets exceptions through to us.
    register_resolvers(command, COMMANDS[command.partition("_")[0]])
    asked = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    argv, sys.argv = sys.argv, [f"rbp-lab {command}", *arguments.flags, *arguments.overrides]
    users_first().directory = arguments.config_dir
    try:
        if arguments.shows_jobs:
            for text in shown_jobs(command, arguments):
                print(text)
            return failures
        SweepStart.hook = staticmethod(begin)
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)(job)()
    except (LabError, BrokenPipeError):
        raise
    except Refused as refused:
        raise refused.mistake from None
    except Exception as error:
        if asked:
            raise
        message = _in_words(error, command, arguments, stores[0] if stores else None)
        if (array := array_of(error)) is not None:
            with suppress(LabError):
                wait_for([array])  # one task was lost; the others are not
        if not launched or not (left_in(launched[0][0]) or (array is not None and len(launched[0][1]) > 1)):
            raise message from error
        print_error(str(message))
        broken.append(str(message))
    finally:
        sys.argv = argv
        gc.set_threshold(*looks)
        users_first().directory = None
        SweepStart.hook = staticmethod(lambda sweep: None)
        if asked is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
    if launched and not failures.jobs:
        directory, names = launched[0]
        count(failures, left_in(directory), names)
        if broken and not failures.failed:
            failures.failed.append(("a job", broken[0]))
    for place in places.values():
        if place.directory is not None and place.directory.is_dir():
            print(f"results of a job of this sweep: {place.directory}", flush=True)
    if len({repr(config["dataset"]) for config in compared}) > 1:
        from rbp_lab.commands.compare_over import show_sweep

        show_sweep(compared)
    return failures


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
