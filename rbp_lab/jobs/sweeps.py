"""The jobs of a sweep before the first one begins, and each composed once.

Hydra composes every job of a sweep twice, to see that it can be composed and to run it, and a look ahead would do it a
third time; that is most of what a record costs that is found.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from rbp_lab.errors import LabError
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
