"""Rows and text of local files exactly as they are written: no type is inferred, no line end is changed.

Every reader yields as it reads, so memory does not grow with the file. What cannot be read (not UTF-8, cut off,
damaged, malformed) is a LabError that names the file and the line.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from rbp_lab.errors import LabError
from rbp_lab.hub_errors import first_line

COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
CHUNK = 2**16  # characters read at a time where lines do not matter
ROWS = 256  # rows of parquet decoded at a time
_SPACE = re.compile(r"[ \t\n\r]*")  # what JSON allows between values
_LONGEST_INTEGER = 4000  # digits; Python refuses to convert more than 4300


def read_rows(kind: str, path: Path, fields: list[str]) -> Iterator[Mapping[str, Any]]:
    """The rows of a json, csv or parquet file, in order, each a mapping from field names to values.

    json: objects, one a line or in one list (a list of texts is one of objects with the field "text"). csv: cells are
    texts, the first row names them. fields: dotted names that will be asked for; other columns of parquet may be
    missing in the rows.
    """
    return _READERS[kind](path, fields)


def read_pieces(path: Path, *, newline: str = "\n", size: int | None = None) -> Iterator[str]:
    """A UTF-8 text file, compressed or not, piece by piece without its byte-order mark; joined they are its text.

    The pieces are lines with their ends, or of ``size`` characters. newline: "\\n" alone ends a line, or "" for any
    of \\n, \\r\\n and \\r.
    """
    line = 1
    with _explained(path), _opened(path) as raw, TextIOWrapper(raw, "utf-8-sig", newline=newline) as stream:
        for piece in stream if size is None else iter(lambda: stream.read(size), ""):
            if "\0" in piece:
                line += piece.count("\n", 0, piece.index("\0"))
                raise LabError(f"{path}, line {line} holds a NUL byte, so it is no UTF-8 text; convert it")
            yield piece
            line += piece.count("\n")


def _opened(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".zst":
        import pyarrow

        return pyarrow.input_stream(str(path), compression="zstd")
    return {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(suffix, open)(path, "rb")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever a file that cannot be read provokes, as a LabError with the line."""
    try:
        yield
    except UnicodeDecodeError:
        line, byte = _first_undecodable(path)
        raise LabError(f"{path}, line {line} is not UTF-8 text (byte {byte} of it); convert the file") from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError) as error:
        raise LabError(_damaged(path, error)) from error
    except OSError as error:
        if path.suffix.lower() in COMPRESSED and error.errno is None:
            raise LabError(_damaged(path, error)) from error
        raise LabError(f"cannot read {path}: {error.strerror or first_line(error)}") from error


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path} is cut off or damaged in line {_damaged_line(path)} ({first_line(error)}); copy or download it again"
    )


def _damaged_line(path: Path) -> int:
    """The line, from 1, in which reading a compressed file fails."""
    line = 1
    try:
        with _opened(path) as raw:
            while piece := raw.read1(CHUNK):
                line += piece.count(b"\n")
    except Exception:  # the damage itself
        pass
    return line


def _first_undecodable(path: Path) -> tuple[int, int]:
    """Line and byte in the line, from 1, of the first byte that is not UTF-8."""
    with _opened(path) as raw, TextIOWrapper(raw, "latin-1", newline="\n") as bytes_as_text:
        for number, line in enumerate(bytes_as_text, 1):
            try:
                line.encode("latin-1").decode("utf-8")
            except UnicodeDecodeError as error:
                return number, error.start + 1
    return 1, 1  # the file changed in between


def csv_rows(path: Path, *, skip_spaces: bool = False) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with the line each begins on, every cell a text. skip_spaces: after a comma."""
    csv.field_size_limit(2**31 - 1)  # a document is a cell, and may be long
    rows = csv.reader(read_pieces(path, newline=""), strict=True, skipinitialspace=skip_spaces)
    header: list[str] | None = None
    while True:
        line = rows.line_num + 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise LabError(f"{path}, line {line} is not CSV: {error}; quote cells as RFC 4180 says") from error
        if cells is None:
            break
        if not cells:  # a blank line is no row
            continue
        if header is None:
            header = cells
            twice = next((one for one in header if one and header.count(one) > 1), None)
            if twice is not None:
                raise LabError(f"{path}, line {line}: the header names {twice!r} twice; give each column its own name")
            continue
        if len(cells) != len(header):
            raise LabError(
                f"{path}, line {line} has {len(cells)} cells, but the header names {len(header)}; a cell that holds "
                'commas, quotes or line breaks is written "in quotes"'
            )
        yield line, dict(zip(header, cells, strict=True))
    if header is None:
        raise LabError(f"{path} is empty")


def _csv_rows(path: Path, fields: list[str]) -> Iterator[dict[str, str]]:
    return (row for _, row in csv_rows(path))


class _Number(float):
    """A JSON number that prints as it is written."""

    def __new__(cls, literal: str) -> _Number:
        number = super().__new__(cls, literal)
        number.literal = literal
        return number

    def __str__(self) -> str:
        return self.literal


class _NamedTwice(ValueError):
    """An object names a field twice; the message is the rest of a sentence about it."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a JSON object, each of one name: json itself keeps the last of several."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _NamedTwice(f"names the field {twice!r} twice; give each field its own name")
    return fields


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_float=_Number,
    parse_constant=_Number,
    parse_int=lambda literal: _Number(literal) if literal == "-0" or len(literal) > _LONGEST_INTEGER else int(literal),
)


def _json_rows(path: Path, fields: list[str]) -> Iterator[dict[str, Any]]:
    first = _first_line_with_text(path)
    if not first:
        raise LabError(f"{path} is empty")
    lines = not first.startswith("[")
    if lines and not {".jsonl", ".ndjson"} & {suffix.lower() for suffix in path.suffixes}:  # or values over many lines
        try:
            _DECODER.decode(first)
        except _NamedTwice:
            pass
        except (ValueError, RecursionError):
            lines = False
    for line, value in (_json_lines if lines else _json_values)(path):
        if isinstance(value, str):
            value = {"text": value}
        if not isinstance(value, dict):
            raise LabError(f"{path}, line {line} holds no object with fields, but {json.dumps(value)[:40]}")
        yield value


def _first_line_with_text(path: Path) -> str:
    """Of a list its first character, else the first line that is not blank; "" when there is none."""
    for piece in read_pieces(path, size=CHUNK):
        if piece.strip():
            if piece.lstrip().startswith("["):
                return "["
            break
    return next((line.strip() for line in read_pieces(path) if line.strip()), "")


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(read_pieces(path), 1):
        if line.strip():
            try:
                yield number, _DECODER.decode(line)
            except json.JSONDecodeError as error:
                raise LabError(f"{path}, line {number} is not JSON: {error.msg} (column {error.colno})") from None
            except _NamedTwice as error:
                raise LabError(f"{path}, line {number} {error}") from None
            except RecursionError:
                raise LabError(f"{path}, line {number} is nested too deeply to be read") from None


def _json_values(path: Path) -> Iterator[tuple[int, Any]]:
    """The values of a JSON list, or values one after another, each over any number of lines."""
    text = _JsonText(path)
    if text.next_character() != "[":
        while text.next_character():
            yield text.line, text.value()
        return
    text.at += 1
    if text.next_character() == "]":
        text.at += 1
    else:
        while True:
            text.next_character()
            yield text.line, text.value()
            mark = text.next_character()
            text.at += 1
            if mark == "]":
                break
            if mark != ",":
                raise LabError(f"{path} is not JSON: expected ',' or ']' after an element, line {text.line}")
    if text.next_character():
        raise LabError(f"{path} is not JSON: more follows the end of the list, line {text.line}")


class _JsonText:
    """A window that moves over a JSON file: ``text`` from ``at`` on is still to be decoded."""

    def __init__(self, path: Path) -> None:
        self.path, self.text, self.at, self._line = path, "", 0, 1
        self._pieces = read_pieces(path, size=CHUNK)

    @property
    def line(self) -> int:
        return self._line + self.text.count("\n", 0, self.at)

    def more(self) -> bool:
        """Drop what is decoded and at least double what is left; False at the end of the file."""
        wanted = max(CHUNK, len(self.text) - self.at)
        pieces: list[str] = []
        while wanted > 0 and (piece := next(self._pieces, "")):
            pieces.append(piece)
            wanted -= len(piece)
        self._line, self.text, self.at = self.line, self.text[self.at :] + "".join(pieces), 0
        return bool(pieces)

    def next_character(self) -> str:
        """The next character that is not blank, "" at the end of the file."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def value(self) -> Any:
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                # A value that goes on beyond the window stops near its end, or inside a text that does not end.
                unfinished = error.pos > len(self.text) - 64 or error.msg.startswith("Unterminated string")
                if unfinished and self.more():
                    continue
                self.at = error.pos
                raise LabError(f"{self.path} is not JSON: {error.msg}, line {self.line}") from None
            except _NamedTwice as error:
                raise LabError(f"{self.path}, line {self.line}: the value that begins here {error}") from None
            except RecursionError:
                raise LabError(f"{self.path}, line {self.line} is nested too deeply to be read") from None
            if end == len(self.text) and not isinstance(value, str | list | dict) and self.more():
                continue  # a number may go on
            self.at = end
            return value


def _parquet_rows(path: Path, fields: list[str]) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    if path.stat().st_size == 0:
        raise LabError(f"{path} is empty")
    number = 0
    try:
        source = path if path.suffix.lower() not in COMPRESSED else pyarrow.BufferReader(_opened(path).read())
        # pre_buffer would hold every row group that is asked for, buffer_size=0 a whole column of one.
        file = parquet.ParquetFile(source, pre_buffer=False, buffer_size=2**20, page_checksum_verification=True)
        there = set(file.schema_arrow.names)
        columns = sorted({name if name in there else name.split(".")[0] for name in fields})
        # Without a field that is asked for, whole rows: the message names what is there.
        for batch in file.iter_batches(ROWS, columns=columns if set(columns) <= there else None):
            yield from batch.to_pylist()
            number += batch.num_rows
    except UnicodeDecodeError:
        raise LabError(f"{path}: a text after row {number} is not UTF-8") from None
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file provokes in the reader
        raise LabError(f"cannot read {path} as parquet: {first_line(error)}") from error


_READERS: dict[str, Callable[[Path, list[str]], Iterator[Mapping[str, Any]]]] = {
    "json": _json_rows,
    "csv": _csv_rows,
    "parquet": _parquet_rows,
}
