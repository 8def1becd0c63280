"""Local files as text, compressed or not: decoded piece by piece, and what cannot be read is an error with its line."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from rbp_lab.errors import LabError, first_line

COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
CHUNK = 2**16  # characters read at a time where lines do not matter


def read_pieces(path: Path, *, newline: str = "\n", size: int | None = None) -> Iterator[str]:
    """A UTF-8 text file, compressed or not, piece by piece without its byte-order mark; joined they are its text.

    The pieces are lines with their ends, or of ``size`` characters. newline: "\\n" alone ends a line, or "" for any
    of \\n, \\r\\n and \\r.
    """
    line = 1
    with _explained(path), opened(path) as raw, TextIOWrapper(raw, "utf-8-sig", newline=newline) as stream:
        for piece in stream if size is None else iter(lambda: stream.read(size), ""):
            if "\0" in piece:
                line += piece.count("\n", 0, piece.index("\0"))
                raise LabError(f"{path}, line {line} holds a NUL byte, so it is no UTF-8 text; convert it")
            yield piece
            line += piece.count("\n")


def opened(path: Path) -> Any:
    """The bytes of a file, decompressed as its name says."""
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
        with opened(path) as raw:
            while piece := raw.read1(CHUNK):
                line += piece.count(b"\n")
    except Exception:  # the damage itself
        pass
    return line


def _first_undecodable(path: Path) -> tuple[int, int]:
    """Line and byte in the line, from 1, of the first byte that is not UTF-8."""
    with opened(path) as raw, TextIOWrapper(raw, "latin-1", newline="\n") as bytes_as_text:
        for number, line in enumerate(bytes_as_text, 1):
            try:
                line.encode("latin-1").decode("utf-8")
            except UnicodeDecodeError as error:
                return number, error.start + 1
    return 1, 1  # the file changed in between
