"""Token streams longer than memory should hold, of which one slice at a time is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

PIECE = 2**20  # numbers of a stream that are in memory at a time where all are gone through


class Stream(Protocol):
    """Numbers one after another: a numpy array, or what reads them from a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray:
        """The numbers of a slice, in memory."""
        ...


def pieces(stream: Stream) -> Iterator[tuple[int, np.ndarray]]:
    """The whole stream in order, as (place of the first number, up to PIECE numbers)."""
    for first in range(0, len(stream), PIECE):
        yield first, stream[first : first + PIECE]


@dataclass(frozen=True, eq=False)
class Separated:
    """A stream with a number put in: ``np.insert(stream, ends, separator)``, of which slices are made when asked for.

    ends: int64, rising places of ``stream``.
    """

    stream: Stream
    ends: np.ndarray
    separator: int

    @cached_property
    def _places(self) -> np.ndarray:
        """Where the separators stand."""
        return self.ends + np.arange(len(self.ends))

    def __len__(self) -> int:
        return len(self.stream) + len(self.ends)

    def __getitem__(self, part: slice) -> np.ndarray:
        first, last, step = part.indices(len(self))
        before, until = np.searchsorted(self._places, (first, max(first, last))).tolist()
        begin, end = first - before, max(first, last) - until
        return np.insert(self.stream[begin:end], self.ends[before:until] - begin, self.separator)[::step]
