"""Documents from local files: text, JSON (lines or a list), parquet and CSV."""

from __future__ import annotations

import glob
import gzip
import io
import json
import os
import re
from dataclasses import dataclass
from dataclasses import field as default
from pathlib import Path
from typing import Any

from rbp_lab.data.corpus import Corpus, build_corpus
from rbp_lab.data.rows import corpus_from_rows, row_text
from rbp_lab.data.windows import Protocol
from rbp_lab.errors import LabError
from rbp_lab.hub_errors import explain, quiet

FORMATS = {
    "text": (".txt", ".text", ".md"),
    "json": (".jsonl", ".json", ".ndjson"),
    "parquet": (".parquet",),
    "csv": (".csv",),
}
_COMPRESSED = (".gz", ".zst", ".bz2", ".xz")


@dataclass(frozen=True)
class LocalText:
    """Documents from files of one format.

    files: a path or glob (``**`` reaches into subdirectories), or a list of them, in that order and sorted within a
    glob. format: text, json, parquet or csv; null takes it from the file names, which may end in .gz as well.
    field, template: where a row's text is, see ``rows.row_text``. where: fields and the value (or list of values)
    they must have. separator: for text, a regular expression; a line that it matches as a whole ends a document and
    belongs to none, or begins the next one if keep_separator. Without it a text file is one document.
    protocol: how documents are cut when scored. The rest is as in ``data.corpus.select``; the defaults are those of
    [RBP] (arXiv 2510.20387, section 4).
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
    protocol: Protocol = default(default_factory=Protocol)

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise LabError(f"dataset.format must be one of {', '.join(FORMATS)}, or null; got {self.format!r}")
        row_text(self.field, self.template)
        try:
            re.compile(self.separator or "")
        except re.error as error:
            raise LabError(f"dataset.separator {self.separator!r} is not a regular expression: {error}") from None

    def corpus(self) -> Corpus:
        """The selected documents; ids are file names (below their common directory) and the number in the file.

        Raises:
            LabError: no file, an unreadable one (with its line), a missing field, or nothing selected.
        """
        paths = find_files(self.files)
        kind = self.format or _common_format(paths)
        chosen = {"shuffle_seed": self.shuffle_seed, "num_documents": self.num_documents, "min_chars": self.min_chars}
        info = {"source": "local", "files": [str(path) for path in paths], "format": kind}
        if kind == "text":
            if self.field or self.template or self.where:
                raise LabError("dataset.field, template and where are for rows with fields; text files have none")
            documents = [one for path, label in zip(paths, _labels(paths), strict=True)
                         for one in self._split(label, read_text(path))]  # fmt: skip
            info |= {"separator": self.separator, "keep_separator": self.keep_separator}
            return build_corpus(self.name, [t for _, t in documents], [n for n, _ in documents], info=info, **chosen)
        if self.separator is not None:
            raise LabError(f"dataset.separator is for text files; these are {kind}, where each row is a document")
        text = row_text(self.field, self.template)
        tables = [(label, read_table(kind, path)) for path, label in zip(paths, _labels(paths), strict=True)]
        info |= {"field": self.field, "template": self.template, "where": self.where}
        return corpus_from_rows(self.name, tables, text, self.where or {}, info=info, **chosen)

    def _split(self, label: str, content: str) -> list[tuple[str, str]]:
        """(id, text) of the documents in a text file; blank ones between two separators are none."""
        if self.separator is None:
            return [(label, content)]
        pieces: list[list[str]] = [[]]
        for line in content.split("\n"):
            if re.fullmatch(self.separator, line) is None:
                pieces[-1].append(line)
            else:
                pieces.append([line] if self.keep_separator else [])
        texts = [text for piece in pieces if (text := "\n".join(piece).strip("\n")).strip()]
        return [(f"{label}/{number}", text) for number, text in enumerate(texts)]


def find_files(files: Any) -> list[Path]:
    """The files that paths and globs name, each once, in the order given. LabError when one names none."""
    patterns = [files] if isinstance(files, str | Path) else list(files) if isinstance(files, list | tuple) else None
    if not patterns or not all(isinstance(one, str | Path) for one in patterns):
        raise LabError(f"dataset.files must be a path, a glob or a list of them; got {files!r}")
    found: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
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
    path = path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path
    return path.suffix.lower()


def _labels(paths: list[Path]) -> list[str]:
    """Names that stay the same when all files move together: relative to their common directory."""
    root = os.path.commonpath([path.absolute().parent for path in paths])
    return [Path(os.path.relpath(path.absolute(), root)).as_posix() for path in paths]


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, gzipped or not, without byte-order mark, every line end as \\n."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
        return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise LabError(f"{path} is not UTF-8 text (byte {error.start}); convert it") from error
    except OSError as error:
        raise LabError(f"cannot read {path}: {error}") from error


def read_table(kind: str, path: Path) -> Any:
    """The rows of a json, parquet or csv file as a memory-mapped ``datasets.Dataset``; no network is used."""
    import datasets

    if path.stat().st_size == 0:
        raise LabError(f"{path} is empty")
    try:
        with quiet():
            return datasets.load_dataset(kind, data_files=glob.escape(str(path.absolute())), split="train")
    except Exception as error:  # whatever a broken file provokes in the readers
        broken = _broken_json(path) if kind == "json" else None
        raise LabError(broken or f"cannot read {path} as {kind}: {explain(error)}") from error


def _broken_json(path: Path) -> str | None:
    """Where a JSON file stops being JSON, as a sentence; None when it does not or cannot be opened here."""
    opened = {".gz": gzip.open, "": open}.get(path.suffix.lower() if path.suffix.lower() in _COMPRESSED else "")
    if opened is None:
        return None
    try:
        with opened(path, "rt", encoding="utf-8-sig") as stream:
            lines = stream.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        return f"cannot read {path}: {error}"
    first = next((line for line in lines if line.strip()), "")
    try:
        json.loads(first)
    except ValueError:
        if _suffix(path) == ".json":  # one value over many lines
            try:
                json.loads("\n".join(lines))
            except ValueError as error:
                return f"{path} is not JSON: {error}"
            return None
    for number, line in enumerate(lines, 1):
        try:
            json.loads(line or "null")
        except ValueError as error:
            return f"{path}, line {number} is not JSON: {error}"
    return None
