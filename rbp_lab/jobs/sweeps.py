"""The jobs of a sweep before the first one begins, and each composed once.

Hydra composes every job of a sweep twice, to see that it can be composed and to run it, and a look ahead would do it a
third time; that is most of what a record costs that is found.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from rbp_lab.errors import LabError, WrongUsage
from rbp_lab.jobs.composition import job_overrides, plain

BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
SLURM = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"


class SweepStart(Callback):
    """Hydra's callback, by ``conf/output/store.yaml``. hook: given the configuration of a sweep that starts."""

    hook: Callable[[DictConfig], None] = staticmethod(lambda config: None)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self.hook(config)


def launcher_of(sweep: DictConfig) -> str | None:
    """The class that runs the jobs: ``BASIC`` one after another in this process; None when there is no such value."""
    node = OmegaConf.select(sweep, "hydra.launcher")
    return node.get("_target_") if isinstance(node, DictConfig) else None


class Refused(BaseException):
    """The mistake that stops a sweep before its first job: Hydra makes a warning of every Exception of a callback."""

    def __init__(self, mistake: LabError) -> None:
        super().__init__(mistake)
        self.mistake = mistake


def refuse_what_is_not_here(sweep: DictConfig, here: Mapping[str, Callable[[], int]]) -> None:
    """Refuse jobs for which Ray, started on this machine, would wait for ever: each asks for more than there is.

    here: counts the "gpus" and the "cpus".
    """
    node = OmegaConf.select(sweep, "hydra.launcher.ray")
    if not isinstance(node, DictConfig) or "cluster" in node or os.environ.get("RAY_ADDRESS"):
        return  # another launcher, or Ray elsewhere
    init, job = (OmegaConf.to_container(node.get(name) or OmegaConf.create()) for name in ("init", "remote"))
    if init.get("address") is not None:
        return
    for what, count in here.items():
        asked, there = job.get(f"num_{what}"), init.get(f"num_{what}")
        if not isinstance(asked, int | float) or asked <= 0:
            continue
        there = count() if there is None else there
        if isinstance(there, int | float) and asked > there:
            path = f"hydra.launcher.ray.remote.num_{what}"
            why = f"there are {there} here: it would wait for ever; give {path}={there}"
            raise Refused(WrongUsage(f"{path}={asked} is what each job asks for, and {why}"))


def compose_once() -> None:
    """Have Hydra keep the jobs that it composes from now on: 17 kB each."""
    loader, kept = GlobalHydra.instance().config_loader(), {}
    compose = loader.load_sweep_config

    def load_sweep_config(master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        job = tuple(sweep_overrides)
        if job not in kept:
            kept[job] = pickle.dumps(compose(master_config, sweep_overrides))
        config = pickle.loads(kept[job])
        OmegaConf.copy_cache(from_config=master_config, to_config=config)  # such as the time that names a directory
        return config

    loader.load_sweep_config = load_sweep_config  # type: ignore[method-assign]


def jobs_of(sweep: DictConfig) -> list[tuple[str, ...]]:
    """The overrides of each job; none when they cannot be read, as running them says why."""
    try:
        return list(job_overrides(OmegaConf.to_container(sweep.hydra.overrides.task, resolve=False)))
    except (HydraException, ValueError):
        return []


def composed_jobs(sweep: DictConfig) -> list[dict[str, Any]]:
    """The configuration of each job; none when one cannot be composed, as running it says why."""
    loader, found = GlobalHydra.instance().config_loader(), []
    try:
        for overrides in jobs_of(sweep):
            job = loader.load_sweep_config(sweep, list(overrides))
            with read_write(job), open_dict(job):
                del job["hydra"]
            found.append(plain(job))
    except (LabError, HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError):
        return []
    return found
