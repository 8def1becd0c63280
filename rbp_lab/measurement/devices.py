"""Which process this is among those that measure together, and on which device it computes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from rbp_lab.errors import LabError


@dataclass(frozen=True)
class Runtime:
    """This process among its fellows: rank of world, on a device ("cpu", "cuda")."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def choose_device(device: str) -> str:
    """ "auto" → "cuda" when there is one, else "cpu"; LabError when cuda is asked for and absent."""
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.cuda.is_available():
        raise LabError("launch.device=cuda, but torch sees no CUDA device here; use launch.device=cpu or auto")
    return device


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(i) for i in range(count)]


def processors() -> int:
    """Processors that this process may use, at least one."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def number_of_processes(asked: int | str, device: str) -> int:
    """launch.processes as a number. "auto": one for each GPU; one on a CPU, whose threads share one copy of a model."""
    if isinstance(asked, int):
        return asked
    return max(1, len(visible_gpus())) if device == "cuda" else 1


def place_in_cluster(environment: Mapping[str, str], device: str) -> Runtime:
    """This process among the tasks of a Slurm job step, each with a GPU of its node; the only one elsewhere."""
    names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    try:
        rank, world, local = (int(environment[name]) for name in names)
    except (KeyError, ValueError):
        return Runtime(device=device)
    if not 0 <= rank < world:
        return Runtime(device=device)
    if device == "cuda" and world > 1:
        device = f"cuda:{local % max(1, len(visible_gpus()))}"
    return Runtime(rank, world, device)
