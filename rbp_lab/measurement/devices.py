"""Devices and processes: the only file that knows accelerate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from rbp_lab.errors import LabError


@dataclass(frozen=True)
class Runtime:
    """This process among its fellows: rank of world, on a device ("cpu", "cuda:0", …)."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def merge(self, share: Any) -> Any:
        """The sum (``+``) of every process's ``share``, on all of them."""
        if self.world == 1:
            return share
        from accelerate.utils import gather_object

        return reduce(add, gather_object([share]))

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


def choose_device(device: str) -> str:
    """ "auto" → "cuda" when there is one, else "cpu"; LabError when cuda is asked for and absent."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise LabError("launch.device=cuda, but torch sees no CUDA device here; use launch.device=cpu or auto")
    return device


@contextmanager
def distributed(device: str) -> Iterator[Runtime]:
    """The runtime of one of several processes started by torch's launcher (RANK, WORLD_SIZE in the environment).

    Joins the process group through accelerate, one device each, and leaves it in the order that does not abort:
    everybody waits, then the group ends.
    """
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=choose_device(device) == "cpu")
    expected = int(os.environ["WORLD_SIZE"])
    if accelerator.num_processes != expected:
        raise RuntimeError(f"accelerate joined {accelerator.num_processes} processes instead of {expected}")
    yield Runtime(accelerator.process_index, accelerator.num_processes, str(accelerator.device))
    accelerator.wait_for_everyone()
    accelerator.end_training()
