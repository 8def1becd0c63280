"""Arrays longer than memory should hold, in a directory: written piece by piece, checked once, read by slices.

``<name>.npy`` holds one array, about.json the description, and type, length and SHA-256 of each array.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rbp_lab.errors import LabError
from rbp_lab.store.atomic import atomic_directory

_CHECKED = 2**18  # numbers that are read at a time to check them
_TOGETHER = 2**16  # numbers that are written at a time


class LongArray:
    """A one-dimensional array in a file, which stays open: it can be read on when its name is gone."""

    def __init__(self, path: Path, dtype: np.dtype, length: int):
        """Raises LabError unless the file has the head and the size of such an array."""
        head = _head(dtype, length)
        self.path, self.dtype, self._length, self._begin = path, dtype, length, len(head)
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        if os.fstat(self._file).st_size != len(head) + length * dtype.itemsize:
            raise LabError(f"{path.name} has not the size of {length} numbers")
        if os.pread(self._file, len(head), 0) != head:
            raise LabError(f"{path.name} does not begin as an array of {length} numbers does")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        """The numbers of a slice, in memory. Raises LabError when the file cannot be read."""
        first, last, step = part.indices(self._length)
        values = np.empty(max(0, last - first), self.dtype)
        left, at = values.view(np.uint8), self._begin + first * self.dtype.itemsize
        while len(left):
            try:
                count = os.preadv(self._file, [left], at)
            except OSError as error:
                raise LabError(f"cannot read {self.path}: {error.strerror}; run again") from error
            if count == 0:
                raise LabError(f"{self.path} was cut short while it was read; run again")
            left, at = left[count:], at + count
        return values[::step]

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for first in range(0, self._length, _CHECKED):
            digest.update(self[first : first + _CHECKED].data)
        return digest.hexdigest()


class _Written:
    """An array that grows in a file."""

    def __init__(self, path: Path, dtype: np.dtype):
        self.dtype, self._length, self._sha256 = dtype, 0, hashlib.sha256()
        self._waiting: list[np.ndarray] = []  # short pieces are written together
        self._waiting_length = 0
        self._file = path.open("wb")
        self._file.write(_head(dtype, 0))

    def append(self, values: np.ndarray) -> None:
        self._waiting.append(values)
        self._waiting_length += len(values)
        if self._waiting_length >= _TOGETHER:
            self._write()

    def _write(self) -> None:
        values = np.concatenate([*self._waiting, np.zeros(0, self.dtype)]).astype(self.dtype, copy=False)
        self._file.write(values.data)
        self._sha256.update(values.data)
        self._length += len(values)
        self._waiting, self._waiting_length = [], 0

    def close(self) -> dict[str, Any]:
        """Complete the file and say what it holds."""
        self._write()
        self._file.seek(0)
        self._file.write(_head(self.dtype, self._length))  # as long as the one of no numbers: numpy leaves room
        self._file.close()
        return {"dtype": self.dtype.str, "length": self._length, "sha256": self._sha256.hexdigest()}

    def abandon(self) -> None:
        self._file.close()


@contextmanager
def write_long_arrays(
    path: Path, dtypes: Mapping[str, Any], about: Mapping[str, Any], replace: bool = False, make_directory: bool = True
) -> Iterator[Mapping[str, _Written]]:
    """What arrays of these names and types are appended to; on success they become the directory ``path``.

    about: JSON-ready description. replace: what is there. make_directory: as of ``atomic_path``. Raises AlreadyThere
    when another process was faster and it is not to be replaced, and LabError as ``atomic_directory`` does.
    """
    with atomic_directory(path, replace, make_directory) as directory, ExitStack() as files:
        arrays = {name: _Written(directory / f"{name}.npy", np.dtype(dtype)) for name, dtype in dtypes.items()}
        for array in arrays.values():
            files.callback(array.abandon)
        yield arrays
        content = {"about": dict(about), "arrays": {name: array.close() for name, array in arrays.items()}}
        (directory / "about.json").write_text(_sealed(content), encoding="utf-8")


def read_long_arrays(path: Path) -> tuple[dict[str, LongArray], dict[str, Any]]:
    """The arrays and their description.

    Raises FileNotFoundError when nothing is there, and LabError when it does not hold what was written.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        text = (path / "about.json").read_text(encoding="utf-8")
        content = json.loads(text)["content"]
        if text != _sealed(content):
            raise LabError("the checksum of about.json differs")
        arrays = {
            name: LongArray(path / f"{name}.npy", np.dtype(one["dtype"]), one["length"])
            for name, one in content["arrays"].items()
        }
        for name, array in arrays.items():
            if array.sha256() != content["arrays"][name]["sha256"]:
                raise LabError(f"the checksum of {name}.npy differs")
        return arrays, content["about"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise LabError(f"about.json or an array cannot be read: {reason or type(error).__name__}") from error


def _head(dtype: np.dtype, length: int) -> bytes:
    head = io.BytesIO()
    about = {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(head, about)
    return head.getvalue()


def _sealed(content: Mapping[str, Any]) -> str:
    text = json.dumps(content)
    return json.dumps({"content": content, "sha256": hashlib.sha256(text.encode()).hexdigest()})
