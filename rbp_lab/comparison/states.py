"""Hidden states of one model on disk, read again in place of its forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rbp_lab.comparison.pair import Half
from rbp_lab.data.windows import TokenBatch
from rbp_lab.models.pair_scorer import passes
from rbp_lab.store.long_arrays import read_long_arrays, write_long_arrays


def write_states(
    path: Path,
    half: Half,
    batches: Iterable[TokenBatch],
    about: Mapping[str, Any],
    advance: Callable[[TokenBatch], object] = lambda batch: None,
) -> None:
    """Write the states of every scored position of some batches, to the last bit, as the directory ``path``.

    about: what they are of, as plain JSON. advance: is told of every batch. A few of them are in memory at a time.
    Raises FileNotFoundError when there is no directory to hold ``path``; LabError when the disk refuses.
    """
    parts = _states(half, batches, advance)
    first = next(parts)
    form = {"dtype": str(first.dtype).removeprefix("torch."), "width": first.shape[1]}
    with write_long_arrays(path, {"states": np.uint8}, {**about, **form}, replace=True, make_directory=False) as arrays:
        for part in chain([first], parts):
            arrays["states"].append(part.contiguous().view(torch.uint8).reshape(-1).cpu().numpy())


def _states(
    half: Half, batches: Iterable[TokenBatch], advance: Callable[[TokenBatch], object]
) -> Iterator[torch.Tensor]:
    with torch.inference_mode():
        for batch in batches:
            tokens, scored = torch.from_numpy(batch.tokens), torch.from_numpy(batch.scored)
            for at in passes(len(tokens), half.side.device):
                yield half.side.states(tokens[at], scored[at])
            advance(batch)


class StoredStates:
    """What ``write_states`` wrote, as ``Side.states``: of the next rows, in the order of the writing.

    about: as written. device: where they are to be.
    """

    def __init__(self, path: Path, device: torch.device):
        """FileNotFoundError when there is nothing; LabError when it does not hold what was written."""
        arrays, self.about = read_long_arrays(path)
        self._bytes, self._at, self._device = arrays["states"], 0, device
        self._dtype, self._width = getattr(torch, self.about["dtype"]), self.about["width"]

    def __call__(self, tokens: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
        begin = self._at
        self._at += int(scored.sum()) * self._width * self._dtype.itemsize
        rows = torch.from_numpy(self._bytes[begin : self._at]).reshape(-1, self._width * self._dtype.itemsize)
        return rows.view(self._dtype).to(self._device)

    def check_end(self) -> None:
        """ValueError unless all of it was read, and nothing beyond."""
        if self._at != len(self._bytes):
            raise ValueError(f"{self._at} bytes of hidden states were asked for, but {len(self._bytes)} are stored")
