"""Documents from local files: text, JSON (lines or a list), parquet and CSV."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as default
from pathlib import Path
from typing import Any

from rbp_lab.data.corpus import Corpus, Selection, check_name, check_selection
from rbp_lab.data.decoding import CHUNK, COMPRESSED, read_pieces
from rbp_lab.data.readers import read_rows
from rbp_lab.data.rows import RowReader, as_cells, flat, row_text
from rbp_lab.data.tables import corpus_from_tables, picked
from rbp_lab.data.windows import Windowing
from rbp_lab.errors import LabError, note_once, shown

FORMATS = {
    "text": (".txt", ".text", ".md"),
    "json": (".jsonl", ".json", ".ndjson"),
    "parquet": (".parquet",),
    "csv": (".csv",),
}


@dataclass(frozen=True)
class LocalText:
    """Documents from files of one format.

    files: a path or glob (``**`` reaches into subdirectories), or a list of them, in that order and sorted within a
    glob. format: text, json, parquet or csv; null takes it from the file names, which may end in .gz, .zst, .bz2 or
    .xz as well. Nothing is guessed: a text is what the file holds, line ends included. field, template: where a row's
    text is, see ``rows.row_text``. where: fields and the value (or list of values) they must have. separator: for
    text, a regular expression; a line that it matches as a whole ends a document and belongs to none, or begins the
    next one if keep_separator. Without it a text file is one document. protocol: how documents are cut when scored.
    The rest is as in ``corpus.Selection``; the defaults are those of [RBP] (arXiv 2510.20387, section 4).
    """

    files: Any
    name: str = "local"
    format: str | None = None
    field: str | None = None
    template: str | None = None
    where: dict[str, Any] | None = None
    separator: str | None = None
    keep_separator: bool = False
    shuffle_seed: int | None = 42
    num_documents: int | None = 1000
    min_chars: int = 1
    protocol: Windowing = default(default_factory=Windowing)

    def __post_init__(self) -> None:
        check_name(self.name)
        check_selection(self.shuffle_seed, self.num_documents, self.min_chars)
        if self.format is not None and self.format not in FORMATS:
            raise LabError(f"dataset.format must be one of {', '.join(FORMATS)}, or null; got {self.format!r}")
        row_text(self.field, self.template)
        try:
            re.compile(self.separator or "")
        except re.error as error:
            raise LabError(f"dataset.separator {self.separator!r} is not a regular expression: {error}") from None

    def corpus(self) -> Corpus:
        """The selected documents; ids are file names (below their common directory) and the number in the file.

        Every call reads the files anew, once for the lengths and once for the chosen documents, which it copies to a
        temporary file where they are many.

        Raises:
            LabError: no file, an unreadable one (with its line), a missing field, or nothing selected.
        """
        paths = find_files(self.files)
        kind = self.format or _common_format(paths)
        selection = Selection(self.name, self.shuffle_seed, self.num_documents, self.min_chars)
        info = {"source": "local", "files": [str(path) for path in paths], "format": kind}
        named = zip(paths, _labels(paths), strict=True)
        if kind == "text":
            if self.field or self.template or self.where:
                raise LabError("dataset.field, template and where are for rows with fields; text files have none")
            info |= {"separator": self.separator, "keep_separator": self.keep_separator}
            parted: set[Path] = set()
            texts = [TextFile(path, label, self.separator, self.keep_separator, parted) for path, label in named]
            return corpus_from_tables(texts, selection, info, check=lambda: self._check_parted(parted))
        if self.separator is not None:
            raise LabError(f"dataset.separator is for text files; these are {kind}, where each row is a document")
        info |= {"field": self.field, "template": self.template, "where": self.where}
        wanted = flat(self.where or {})
        reader = RowReader(
            row_text(self.field, self.template), as_cells(wanted) if kind == "csv" else wanted, fixed=kind != "json"
        )
        tables = [RowFile(path, label, kind, f"dataset {self.name!r}, {label}", reader) for path, label in named]
        return corpus_from_tables(tables, selection, info, check=reader.check)

    def _check_parted(self, parted: set[Path]) -> None:
        """Note a separator that parts no file, which is rarely what was meant. parted: files of which it parts some."""
        if self.separator is not None and not parted:
            note_once(
                f"dataset.separator {self.separator!r} matches no whole line of dataset {self.name}, so each file is "
                "one document; it is a regular expression for a line, such as '=== .*'"
            )


@dataclass(frozen=True)
class TextFile:
    """The documents of a text file: the whole file, or what stands between lines that match separator.

    parted: a set to which the file is added when one does.
    """

    path: Path
    label: str
    separator: str | None
    keep_separator: bool
    parted: set[Path]
    length: int | None = None

    @property
    def place(self) -> str:
        return str(self.path)

    def documents(self) -> Iterator[tuple[str | None, str | None]]:
        if self.separator is None:
            yield "".join(read_pieces(self.path, size=CHUNK)), None
            return
        separator = re.compile(self.separator)
        document: list[str] = []
        for line in read_pieces(self.path, newline=""):
            if separator.fullmatch(line.rstrip("\r\n")) is None:
                document.append(line)
                continue
            self.parted.add(self.path)
            yield from _not_blank(document)
            document = [line] if self.keep_separator else []
        yield from _not_blank(document)

    def pick(self, numbers: Sequence[int]) -> Iterator[str]:
        return picked(self, numbers)

    def id_of(self, number: int) -> str:
        return self.label if self.separator is None else f"{self.label}/{number}"


def _not_blank(lines: list[str]) -> Iterator[tuple[str, None]]:
    """The text of a document without the blank lines around it; nothing between two separators is no document."""
    text = "".join(lines).strip("\r\n")
    if text.strip():
        yield text, None


@dataclass(frozen=True)
class RowFile:
    """The documents of a json, csv or parquet file: its rows, as ``reader`` sees them. place: names it in messages."""

    path: Path
    label: str
    kind: str
    place: str
    reader: RowReader
    length: int | None = None

    def documents(self) -> Iterator[tuple[str | None, str | None]]:
        for number, row in enumerate(read_rows(self.kind, self.path, self.reader.fields)):
            yield self.reader(row, f"{self.place}, row {number}")

    def pick(self, numbers: Sequence[int]) -> Iterator[str]:
        return picked(self, numbers)

    def id_of(self, number: int) -> str:
        return f"{self.label}/{number}"


def find_files(files: Any) -> list[Path]:
    """The files that paths and globs name, each once, in the order given. LabError when one names none."""
    patterns = [files] if isinstance(files, str | Path) else list(files) if isinstance(files, list | tuple) else None
    if not patterns or not all(isinstance(one, str | Path) for one in patterns):
        raise LabError(f"dataset.files must be a path, a glob or a list of them; got {shown(files)}")
    found: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(os.path.expanduser(pattern))
        if path.is_dir():
            raise LabError(f"dataset.files: {pattern} is a directory; name its files, for example {pattern}/**/*.jsonl")
        matched = [path] if path.is_file() else [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
        matched = [one for one in matched if one.is_file()]
        if not matched:
            raise LabError(f"dataset.files: no file {pattern} (looked from {Path.cwd()})")
        found.update({one.resolve(): one for one in matched if one.resolve() not in found})
    return list(found)


def _common_format(paths: list[Path]) -> str:
    kinds = {path: next((k for k, ends in FORMATS.items() if _suffix(path) in ends), None) for path in paths}
    for path, kind in kinds.items():
        if kind is None:
            known = " ".join(end for ends in FORMATS.values() for end in ends)
            raise LabError(f"dataset.files: unknown kind of file {path.name}; known are {known}; or set dataset.format")
    if len(set(kinds.values())) > 1:
        raise LabError(f"dataset.files mixes formats ({', '.join(sorted(set(kinds.values())))}); give files of one")
    return kinds[paths[0]]


def _suffix(path: Path) -> str:
    path = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return path.suffix.lower()


def _labels(paths: list[Path]) -> list[str]:
    """Names that stay the same when all files move together: relative to their common directory."""
    root = os.path.commonpath([path.absolute().parent for path in paths])
    return [Path(os.path.relpath(path.absolute(), root)).as_posix() for path in paths]
