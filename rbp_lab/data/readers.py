"""Rows of local files exactly as they are written: no type is inferred, no line end is changed.

Every reader yields as it reads, so memory does not grow with the file. What cannot be read (not UTF-8, cut off,
damaged, malformed) is a LabError that names the file and the line.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rbp_lab.data.decoding import COMPRESSED, opened, read_pieces
from rbp_lab.data.json_rows import json_rows
from rbp_lab.errors import LabError, first_line

ROWS = 256  # rows of parquet decoded at a time


def read_rows(kind: str, path: Path, fields: list[str]) -> Iterator[Mapping[str, Any]]:
    """The rows of a json, csv or parquet file, in order, each a mapping from field names to values.

    json: objects, one a line or in one list (a list of texts is one of objects with the field "text"). csv: cells are
    texts, the first row names them. fields: dotted names that will be asked for; other columns of parquet may be
    missing in the rows.
    """
    return _READERS[kind](path, fields)


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


def _parquet_rows(path: Path, fields: list[str]) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    if path.stat().st_size == 0:
        raise LabError(f"{path} is empty")
    number = 0
    try:
        source = path if path.suffix.lower() not in COMPRESSED else pyarrow.BufferReader(opened(path).read())
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
    "json": json_rows,
    "csv": _csv_rows,
    "parquet": _parquet_rows,
}
