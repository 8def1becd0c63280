"""GGUF files as bytes: what their headers say, and the files of a split model joined to one.

The layout is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: a header of pairs (key, value), a table
of tensors, and their data, which begins at a multiple of the alignment.
"""

from __future__ import annotations

import mmap
import re
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbp_lab.errors import LabError

MAGIC = b"GGUF"
_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
# Value type → its struct format; strings (8) and arrays (9) are read apart.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Tensor:
    """An entry of the table: where it stands in the file, with the offset of the data as its last 8 bytes.

    type: number of a ggml type. elements: of the tensor. offset: of its data, from the beginning of all data.
    """

    name: str
    type: int
    elements: int
    offset: int
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What stands before the data of a file. values: the keys whose values are numbers or texts.

    pairs: where the pairs begin and end. data: where the data begin, a multiple of alignment. size: of the whole file
    in bytes.
    """

    path: Path
    version: int
    num_pairs: int
    values: dict[str, Any]
    tensors: tuple[Tensor, ...]
    alignment: int
    pairs: tuple[int, int]
    data: int
    size: int


class _Cursor:
    def __init__(self, data: mmap.mmap, at: int):
        self.data, self.at = data, at

    def take(self, kind: str) -> Any:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += struct.calcsize(f"<{kind}")
        return value

    def text(self) -> str:
        length = self.take("Q")
        self.skip(length)
        return self.data[self.at - length : self.at].decode("utf-8", "replace")

    def skip(self, length: int) -> None:
        self.at += length
        if self.at > len(self.data):
            raise ValueError("the file ends within its header")

    def value(self, kind: int) -> Any:
        """The value at this place, None for an array, which is stepped over."""
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.take(_SCALARS[kind])
        kind, length = self.take("I"), self.take("Q")
        if kind in _SCALARS:
            self.skip(length * struct.calcsize(f"<{_SCALARS[kind]}"))
        else:
            for _ in range(length):
                self.value(kind)
        return None


def read_header(path: Path) -> Header:
    """What stands before the data of a GGUF file. LabError for another file, and for one that is cut off."""
    try:
        with path.open("rb") as stream:
            if stream.read(4) != MAGIC:
                raise LabError(f"{path} is not a GGUF file; give one that llama.cpp or its kin wrote")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _header(path, data)
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror or error}") from error
    except (struct.error, ValueError, KeyError, OverflowError, RecursionError) as error:
        raise LabError(
            f"{path} is damaged or incomplete: its header cannot be read ({error}); copy or download it again"
        ) from error


def _header(path: Path, data: mmap.mmap) -> Header:
    cursor = _Cursor(data, len(MAGIC))
    version = cursor.take("I")
    if version not in (2, 3):
        raise LabError(f"{path} is a GGUF file of version {version}; versions 2 and 3, little-endian, are read")
    num_tensors, num_pairs = cursor.take("Q"), cursor.take("Q")
    begin, values = cursor.at, {}
    for _ in range(num_pairs):
        key = cursor.text()
        value = cursor.value(cursor.take("I"))
        if value is not None:
            values[key] = value
    end, tensors = cursor.at, []
    for _ in range(num_tensors):
        start, name, elements = cursor.at, cursor.text(), 1
        for _ in range(cursor.take("I")):
            elements *= cursor.take("Q")
        kind, offset = cursor.take("I"), cursor.take("Q")
        tensors.append(Tensor(name, kind, elements, offset, start, cursor.at))
    alignment = int(values.get("general.alignment", 32))
    if alignment < 1:
        raise ValueError(f"an alignment of {alignment}")
    first = -(-cursor.at // alignment) * alignment
    return Header(path, version, num_pairs, values, tuple(tensors), alignment, (begin, end), first, len(data))


def split_names(name: str) -> list[str]:
    """The names of all files of the split model that one of them is of; the name alone when it is none."""
    match = _SPLIT.fullmatch(name)
    if match is None:
        return [name]
    return [f"{match[1]}-{number:05}-of-{match[3]}.gguf" for number in range(1, int(match[3]) + 1)]


def model_name(name: str) -> str:
    """The name of a GGUF file without what says that it is one, and of which part."""
    match = _SPLIT.fullmatch(name)
    return match[1] if match else name.removesuffix(".gguf")


def join(headers: Sequence[Header], target: Path, data: bool = True) -> None:
    """Write the files of a split model as one, with the pairs of the first.

    data: False leaves a hole where the data belong, which takes no space; names, shapes and places are right.
    LabError when the parts do not fit together.
    """
    first = headers[0]
    if len({(header.version, header.alignment) for header in headers}) > 1:
        raise LabError(f"the parts of {first.path} were not written together: versions or alignments differ")
    parts = [header.path.open("rb") for header in headers]
    try:
        with target.open("wb") as out:
            tensors = sum(len(header.tensors) for header in headers)
            out.write(MAGIC + struct.pack("<IQQ", first.version, tensors, first.num_pairs))
            parts[0].seek(first.pairs[0])
            out.write(parts[0].read(first.pairs[1] - first.pairs[0]))
            before = 0
            for header, part in zip(headers, parts, strict=True):
                for tensor in header.tensors:
                    part.seek(tensor.begin)
                    out.write(part.read(tensor.end - tensor.begin - 8) + struct.pack("<Q", before + tensor.offset))
                before += -(-(header.size - header.data) // first.alignment) * first.alignment
            for header, part in zip(headers, parts, strict=True):
                out.write(bytes(-out.tell() % first.alignment))
                if data:
                    part.seek(header.data)
                    shutil.copyfileobj(part, out, 1 << 24)
                else:
                    out.seek(header.size - header.data, 1)
            out.truncate()
    finally:
        for part in parts:
            part.close()
