"""Checkpoints of a training: what it needs to go on after it was killed, as if it had not been.

A training draws no random number once its weights and the order of its rows are made, so the weights, the state of the
optimiser and the losses so far are all there is.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbp_lab.errors import LabError, note, warn
from rbp_lab.store.arrays import read_arrays, write_arrays
from rbp_lab.store.layout import CheckpointFiles
from rbp_lab.store.lease import Lease, Leases, owner_of

if TYPE_CHECKING:
    import numpy as np
    import torch

# How much of a training's time writing may take: on a slow disk checkpoints become rarer, not more expensive.
MOST_OF_THE_TIME = 0.01
WAIT = 0.5  # seconds between looks at what another process trains


def alone(directory: Path, name: str) -> Lease:
    """The lease on the training with these checkpoints; waits, with a note, while another process has it.

    name: of the model, for the note.
    """
    path, leases, told = CheckpointFiles(directory).lease, Leases(), False
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # the other process has finished and removed the directory
            lease = leases.take(path)
            if lease is not None:
                return lease
            if not told:
                note(f"{name} is being trained by {owner_of(path) or 'another process'}; waiting for it")
            told = True
        time.sleep(WAIT)


def remove(directory: Path) -> None:
    """Remove the checkpoints of a training that is finished; the caller has its lease."""
    shutil.rmtree(directory, ignore_errors=True)


def remove_abandoned(directory: Path) -> None:
    """Remove what a process left that was killed between the end of its training and ``remove``."""
    with suppress(OSError):
        if directory.is_dir() and (lease := Leases().take(CheckpointFiles(directory).lease)) is not None:
            with lease:
                remove(directory)


class Checkpoints:
    """The checkpoints of one training: ``restore`` before its first step, ``after_step`` after each.

    The two newest are kept, so that there is another one when the newest is damaged. ``resumed_at`` lists the steps at
    which the training was resumed; ``seconds`` is the time it had taken until then.
    """

    def __init__(
        self,
        directory: Path,
        seconds: float,
        on_kept: Callable[[int], None] = lambda step: None,
        most: float = MOST_OF_THE_TIME,
        before: int | None = None,
    ):
        """seconds: between two checkpoints, at least. on_kept: called with the step of each once it is on the disk.

        most: the share of the time that writing may take; the time between two checkpoints is lengthened to it.
        before: only those of earlier steps are restored, because the training is wanted for what it has at this one.
        """
        self._files, self._interval, self._on_kept, self._most = CheckpointFiles(directory), seconds, on_kept, most
        self._before = before
        self._newest: Path | None = None  # the newest that is known to be sound
        self._writing: Path | None = None
        self._failing = False
        self.resumed_at: list[int] = []
        self.seconds = 0.0
        self._begin = time.monotonic()
        self._due = self._begin + seconds

    def restore(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, losses: np.ndarray) -> int:
        """Bring back the newest sound checkpoint: weights, the optimiser's state and losses, in place.

        Returns the number of steps that are done, 0 without a checkpoint. A damaged one is named in a note.
        """
        self._begin = time.monotonic()
        self._due = self._begin + self._interval
        for path in self._files.checkpoints():
            if self._before is not None and self._files.step(path) >= self._before:
                continue
            try:
                arrays, about = read_arrays(path)
            except LabError as error:
                note(f"the checkpoint {path} is damaged ({error}); an earlier one is used")
                continue
            _bring_back(arrays, model, optimizer)
            self._newest, step = path, about["step"]
            self.seconds, self.resumed_at = about["seconds"], [*about["resumed_at"], step]
            losses[:step] = arrays["losses"]
            note(f"resumed at step {step} of {len(losses)}{_rounding(about)}")
            return step
        return 0

    def after_step(
        self, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, losses: np.ndarray
    ) -> None:
        """Write a checkpoint when one is due. losses: of the ``step`` steps so far.

        One that cannot be written, on a full disk say, costs a warning; the training goes on, the earlier ones stay,
        and the next is tried when it is due.
        """
        now = time.monotonic()
        if now < self._due:
            return
        path = self._writing = self._files.checkpoint(step)
        about = {"step": step, "seconds": self.seconds + now - self._begin, "resumed_at": self.resumed_at, **_here()}
        try:
            write_arrays(path, _arrays(model, optimizer, losses), about)
        except LabError as error:
            if not self._failing:
                since = f"step {self._files.step(self._newest)}" if self._newest else "its beginning"
                warn(
                    f"no checkpoint of step {step}: {error}; the training goes on, and a kill would cost it all since "
                    f"{since}"
                )
            self._failing = True
        else:
            for other in self._files.checkpoints():
                if other not in (path, self._newest):
                    with suppress(OSError):
                        other.unlink()
            self._newest, self._failing = path, False
            self._on_kept(step)
        written = time.monotonic()
        self._due = written + max(self._interval, (written - now) / self._most)

    def kept(self) -> str:
        """What is on the disk should the training end now."""
        # An interrupt may have come between the writing of a checkpoint and its noting.
        newest = self._writing if self._writing is not None and self._writing.exists() else self._newest
        if newest is not None:
            return f"the checkpoint of step {self._files.step(newest)} is kept, and the same command goes on from there"
        return f"there is no checkpoint yet (one is written every {self._interval:g} s); the same command begins anew"


def _arrays(model: torch.nn.Module, optimizer: torch.optim.Optimizer, losses: np.ndarray) -> dict[str, np.ndarray]:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
    return {name: tensor.numpy() for name, tensor in tensors.items()} | {"losses": losses}


def _bring_back(arrays: Mapping[str, np.ndarray], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    import torch

    weights: dict[str, torch.Tensor] = {}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in arrays.items():
        kind, _, rest = name.partition(".")
        # Copies, in memory that torch aligns: how sums are taken may depend on the alignment.
        if kind == "model":
            weights[rest] = torch.from_numpy(array).clone()
        elif kind == "optimizer":
            index, _, key = rest.partition(".")
            state.setdefault(int(index), {})[key] = torch.from_numpy(array).clone()
    model.load_state_dict(weights)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _here() -> dict[str, Any]:
    """What the last bits of a training depend on, apart from the machine."""
    import torch

    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


def _rounding(about: Mapping[str, Any]) -> str:
    """What to add when a checkpoint comes from other threads or another torch than this process has."""
    here = _here()
    if all(about[name] == value for name, value in here.items()):
        return ""
    before, now = (f"{a['threads']} threads and torch {a['torch']}" for a in (about, here))
    return f", which was reached with {before}; with {now} the model is that of an uninterrupted training to rounding"
