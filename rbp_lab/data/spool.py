"""Texts that are longer together than memory should hold: kept in a temporary file, read one at a time."""

from __future__ import annotations

import tempfile
import weakref
from array import array
from collections.abc import Iterator, Sequence
from typing import Protocol

from rbp_lab.errors import LabError

IN_MEMORY = 2**22  # bytes of UTF-8 that stay in memory; a corpus of more goes to a file


class Spool:
    """Texts numbered in the order in which they are put in. The file has no name, so that it goes with the process."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 (closed with this object)
        weakref.finalize(self, self._file.close)
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, text: str) -> None:
        """Keep a text; LabError when there is no room."""
        data = text.encode("utf-8", "surrogatepass")
        try:
            self._file.seek(self._ends[-1])
            self._file.write(data)
        except OSError as error:
            raise _unkept(error) from error
        self._ends.append(self._ends[-1] + len(data))

    def text(self, number: int) -> str:
        """The text that was put in as the number-th, from 0. LabError when it cannot be read."""
        begin, end = self._ends[number], self._ends[number + 1]
        try:
            self._file.seek(begin)
            return self._file.read(end - begin).decode("utf-8", "surrogatepass")
        except OSError as error:  # also what is found only now of what was written before
            raise _unkept(error) from error


class Numbered(Protocol):
    """Texts that can be had by number."""

    def text(self, number: int) -> str: ...


class SpooledTexts(Sequence[str]):
    """Texts of a spool in an order of their own. Equal to any sequence of the same texts."""

    def __init__(self, spool: Numbered, numbers: Sequence[int]):
        """numbers: of the texts, in the order in which they are given."""
        self._spool, self._numbers = spool, array("q", numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, at):
        numbers = self._numbers[at]
        return SpooledTexts(self._spool, numbers) if isinstance(at, slice) else self._spool.text(numbers)

    def __iter__(self) -> Iterator[str]:
        return map(self._spool.text, self._numbers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None


def _unkept(error: OSError) -> LabError:
    return LabError(
        f"texts cannot be kept in {tempfile.tempdir or 'a temporary file'}: {error.strerror}; name a directory "
        "with more room in the environment variable TMPDIR"
    )
