"""Which process this is among those that measure together, and on which device it computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rbp_lab.errors import LabError

WEIGHTS = 0.9  # share of a device's memory that may hold weights: activations and logits need some


@dataclass(frozen=True)
class Runtime:
    """This process among its fellows: rank of world, on a device ("cpu", "cuda").

    local_world: its fellows on this machine, itself included, as far as is known.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"
    local_world: int = 1

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


def number_of_processes(asked: int | str, device: str, gpus_each: Callable[[list[int]], int]) -> int:
    """launch.processes as a number.

    "auto": as many as there are GPUs for, of which ``gpus_each`` says how many one takes, given the bytes that each has
    for weights. One on a CPU, whose threads share one copy of a model.
    """
    if isinstance(asked, int):
        return asked
    if device != "cuda":
        return 1
    import torch

    # What is free on a GPU is known only after something was put there, which this process may have no use for.
    sizes = [torch.cuda.get_device_properties(i).total_memory for i in range(len(visible_gpus()))]
    return max(1, len(sizes) // gpus_each([int(WEIGHTS * size) for size in sizes])) if sizes else 1


def group_of(gpus: Sequence[str], process: int, number: int) -> list[str]:
    """The GPUs of one of ``number`` processes: all have equally many, and share them only if there are too few."""
    size = max(1, len(gpus) // number)
    first = process * size % max(1, len(gpus))
    return list(gpus[first : first + size])


def memory_for_weights(runtime: Runtime) -> dict[int | str, int]:
    """Bytes of weights that a process may put on each device: its GPUs by index, its first one first, then "cpu"."""
    import psutil

    cpu = {"cpu": int(WEIGHTS * psutil.virtual_memory().available / runtime.local_world)}
    if runtime.device == "cpu":
        return cpu
    import torch

    _, _, own = runtime.device.partition(":")
    gpus = [int(own)] if own else range(len(visible_gpus()))

    def free(gpu: int) -> int:
        kept = torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)  # of torch, to use again
        return torch.cuda.mem_get_info(gpu)[0] + kept

    return {gpu: int(WEIGHTS * free(gpu)) for gpu in gpus} | cpu


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
