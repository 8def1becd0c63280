"""Checkpoints of a training: what it needs to go on after it was killed, as if it had not been.

A training draws no random number once its weights and the order of its rows are made, so the weights, the state of the
optimiser and the losses so far are all there is.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbp_lab.errors import LabError, note, warn
from rbp_lab.hub_errors import first_line
from rbp_lab.store.atomic import atomic_path

if TYPE_CHECKING:
    import numpy as np
    import torch

# How much of a training's time writing may take: on a slow disk checkpoints become rarer, not more expensive.
MOST_OF_THE_TIME = 0.01


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
    ):
        """seconds: between two checkpoints, at least. on_kept: called with the step of each once it is on the disk.

        most: the share of the time that writing may take; the time between two checkpoints is lengthened to it.
        """
        self._directory, self._interval, self._on_kept, self._most = Path(directory), seconds, on_kept, most
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
        for path in sorted(self._directory.glob("step-*.safetensors"), reverse=True):
            try:
                about, tensors = _read(path)
            except MemoryError:
                raise
            except Exception as error:  # whatever damage provokes in the reader
                note(f"the checkpoint {path} is damaged ({first_line(error)}); an earlier one is used")
                continue
            state: dict[int, dict[str, torch.Tensor]] = {}
            weights = {}
            for name, tensor in tensors.items():
                kind, _, rest = name.partition(".")
                if kind == "model":
                    weights[rest] = tensor
                elif kind == "optimizer":
                    index, _, key = rest.partition(".")
                    state.setdefault(int(index), {})[key] = tensor
            model.load_state_dict(weights)
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
            self._newest, step = path, about["step"]
            self.seconds, self.resumed_at = about["seconds"], [*about["resumed_at"], step]
            losses[:step] = tensors["losses"].numpy()
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
        path = self._writing = self._directory / f"step-{step:010}.safetensors"
        about = {"step": step, "seconds": self.seconds + now - self._begin, "resumed_at": self.resumed_at, **_here()}
        try:
            _write(path, about, _tensors(model, optimizer, losses))
        except LabError as error:
            if not self._failing:
                warn(f"no checkpoint of step {step}: {error}; the training goes on, and a kill would cost it all "
                     f"since {f'step {_step(self._newest)}' if self._newest else 'its beginning'}")  # fmt: skip
            self._failing = True
        else:
            for other in self._directory.glob("step-*.safetensors"):
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
            return f"the checkpoint of step {_step(newest)} is kept, and the same command goes on from there"
        return f"there is no checkpoint yet (one is written every {self._interval:g} s); the same command begins anew"

    def remove(self) -> None:
        """Remove all checkpoints: the training is finished."""
        shutil.rmtree(self._directory, ignore_errors=True)


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _tensors(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, losses: np.ndarray
) -> dict[str, torch.Tensor]:
    import torch

    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
    return tensors | {"losses": torch.from_numpy(losses)}


def _write(path: Path, about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a checkpoint whole or not at all. Raises LabError when the disk does not take it."""
    from safetensors.torch import save_file

    text = json.dumps(about, sort_keys=True)
    with atomic_path(path) as temporary:
        save_file(dict(tensors), temporary, {"about": text, "sha256": _checksum(text, tensors)})


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What ``_write`` wrote; any exception when it is not as it was written."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        meta = file.metadata() or {}
        # Copies, in memory that torch aligns: how sums are taken may depend on the alignment.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
    if meta["sha256"] != _checksum(meta["about"], tensors):
        raise ValueError("the checksum differs")
    return json.loads(meta["about"]), tensors


def _checksum(about: str, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


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
