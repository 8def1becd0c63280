"""The local store, the source of truth: one directory per finished measurement, named by its key.

``<store>/runs/<key>/`` holds record.json (readable: infos, protocol, summary, provenance, and the sha256 of every file)
and parquet tables:

* ranks: rank, count, count_optimistic, nll_sum — one row per rank that occurs
* windows: window, max_rank, count — windows of N scored tokens by their largest rank
* documents: one row per document — document_id, name, num_scored, num_bytes, nll_sum, nll_sq, entropy_sum, num_tied,
  log_rank, log_rank_sq
* document_ranks: document_id, rank, count — each document's histogram of ranks
* document_runs: document_id, k, length, count — maximal runs of consecutive tokens of rank ≤ k

A record is written under a temporary name and renamed, so a directory that bears a key is complete. While one replaces
another, and after a writer was killed in the middle of that, either is there (``Store.record`` finds it).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from rbp_lab.errors import LabError, note
from rbp_lab.records import RunHeader, RunRecord
from rbp_lab.stats import DocumentTable, RankStats
from rbp_lab.store.atomic import atomic_directory, atomic_path
from rbp_lab.store.consistency import contradiction
from rbp_lab.store.header import (
    CHECKSUMS,
    TABLES,
    DamagedRecord,
    damage_named,
    header_text,
    read_header,
    run_header,
    sha256,
    sha256_of,
)
from rbp_lab.store.layout import RecordFiles, Store
from rbp_lab.store.record_tables import (
    Columns,
    columns_of,
    document_tables,
    documents_from_tables,
    stats_from_tables,
    totals_tables,
)


def record_path(store: str | Path, key: str) -> Path:
    """Where the record of this key lies, or will lie."""
    return Store(store).record(key).directory


def has_record(store: str | Path, key: str) -> bool:
    """Whether a finished record of this key is in the store."""
    return Store(store).record(key).header.is_file()


def write_record(store: str | Path, record: RunRecord, parts: Iterable[DocumentTable] | None = None) -> Path:
    """Write a finished record atomically and return its directory; an older record of the key is replaced.

    parts: the rows of ``record.documents`` in parts, rising by document, of which one is in memory at a time; then
    ``record.documents`` is not looked at. The names of the older record are kept as other names. Raises LabError when
    the disk is full or may not be written.
    """
    files = Store(store).record(record.key)
    header = record.header
    if files.header.is_file():
        with suppress(LabError):  # a damaged record leaves nothing to keep
            header = run_header(read_header(files)).named(*header.names)
    target = files.directory.with_name(record.key)
    with atomic_directory(target) as directory:
        inside = RecordFiles(directory)
        for name, table in totals_tables(record.stats).items():
            pq.write_table(table, inside.table(name))
        with ExitStack() as open_files:
            writers: dict[str, pq.ParquetWriter] = {}
            for part in [record.documents] if parts is None else parts:
                for name, table in document_tables(part, record.document_names).items():
                    if name not in writers:
                        writers[name] = open_files.enter_context(pq.ParquetWriter(inside.table(name), table.schema))
                    writers[name].write_table(table)
        checksums = {inside.table(name).name: sha256_of(inside.table(name)) for name in TABLES}
        inside.header.write_text(header_text(replace(record, header=header), checksums), encoding="utf-8")
    return target


def with_header(store: str | Path, record: RunRecord, header: RunHeader) -> RunRecord:
    """The record with another header of the same key, in the store as well.

    Raises LabError when the store may not be written.
    """
    files = Store(store).record(record.key)
    checksums = read_header(files).get(CHECKSUMS, {})
    tables = {
        files.table(n).name: checksums.get(files.table(n).name) or sha256(files.table(n).read_bytes()) for n in TABLES
    }
    changed = replace(record, header=header)
    with atomic_path(files.header) as temporary:
        temporary.write_text(header_text(changed, tables), encoding="utf-8")
    return changed


def read_record(directory: str | Path, key: str | None = None) -> RunRecord:
    """The record in a directory, equal to the last bit to the one written.

    Checksums are verified; a record that was written without them is read as well, and counts that contradict each
    other are refused in any. key: the one that it must be of, where that is known. Raises DamagedRecord, or another
    LabError when the files may not be read.
    """
    files = RecordFiles(Path(directory))
    before = _identity(files.directory)
    try:
        return _read(files, key)
    except DamagedRecord:
        if _identity(files.directory) == before:
            raise
        return _read(files, key)  # another record took its place while it was read


def _identity(directory: Path) -> int | None:
    try:
        return directory.stat().st_ino
    except OSError:
        return None


def _read(files: RecordFiles, key: str | None) -> RunRecord:
    with damage_named(files):
        header = read_header(files, key)
        tables = {name: _table(files, name, header) for name in TABLES}
        about, stats = run_header(header), stats_from_tables(header, tables["ranks"], tables["windows"])
        documents = documents_from_tables(about.scoring.thresholds, tables)
        why = contradiction(stats, documents)
        if why is None and stats.num_tokens != header["totals"]["num_tokens"]:
            why = "the tables do not hold as many tokens as record.json says"
        if why is not None:
            raise ValueError(why)
        names = _names(tables["documents"], about.dataset.num_documents)
        return RunRecord(about, stats, documents, names, header["summary"], header["provenance"])


def read_totals(directory: str | Path, key: str | None = None) -> RunRecord:
    """The record in a directory without its documents: quick, also where they are many.

    Arguments and errors as of ``read_record``. The checksums of every file are verified; one that was written without
    them is read as a whole.
    """
    files = RecordFiles(Path(directory))
    with damage_named(files):
        header = read_header(files, key)
        if CHECKSUMS not in header:
            return read_record(directory, key)
        _verify(files, header)
        stats = stats_from_tables(header, _table(files, "ranks", header), _table(files, "windows", header))
        about = run_header(header)
        documents = DocumentTable.zeros(about.scoring.thresholds)
        return RunRecord(about, stats, documents, (), header["summary"], header["provenance"])


def read_stats(files: RecordFiles) -> RankStats:
    """The totals of a record by rank, without its windows (``window_max`` has no columns); checksums are verified."""
    with damage_named(files):
        header = read_header(files, files.key)
        windows = dict.fromkeys(("window", "max_rank", "count"), np.zeros(0, np.int64))
        stats = stats_from_tables(header, _table(files, "ranks", header), windows)
        return replace(stats, window_max=np.zeros((len(stats.window_lengths), 0), np.int64))


def read_documents(files: RecordFiles) -> DocumentTable:
    """The document table of a record; checksums are verified."""
    with damage_named(files):
        header = read_header(files, files.key)
        tables = {name: _table(files, name, header) for name in ("documents", "document_ranks", "document_runs")}
        return documents_from_tables(run_header(header).scoring.thresholds, tables)


def _table(files: RecordFiles, name: str, header: Mapping[str, Any]) -> Columns:
    """The columns of a table, verified when the header has its checksum."""
    data = files.table(name).read_bytes()
    if CHECKSUMS in header:
        _compare(files.table(name), header, sha256(data))
    return columns_of(pq.ParquetFile(io.BytesIO(data)).read(use_threads=False))


def _verify(files: RecordFiles, header: Mapping[str, Any]) -> None:
    """ValueError unless every table's file has the checksum that the header has of it, if it has any."""
    for name in TABLES:
        found = sha256_of(files.table(name))
        if CHECKSUMS in header:
            _compare(files.table(name), header, found)


def _compare(path: Path, header: Mapping[str, Any], found: str) -> None:
    if found != header[CHECKSUMS][path.name]:
        raise ValueError(f"the checksum of {path.name} does not hold")


def _names(table: Columns, num_documents: int) -> tuple[str, ...]:
    names = [""] * max(num_documents, int(table["document_id"].max(initial=-1)) + 1)
    for i, name in zip(table["document_id"], table["name"], strict=True):
        names[i] = name
    return tuple(names)


def list_headers(store: str | Path) -> tuple[list[dict[str, Any]], list[DamagedRecord]]:
    """record.json of every finished record, ordered as ``list_records`` orders them, and what is wrong with others.

    Checksums of the tables are verified; no table is opened.
    """
    headers, damaged = [], []
    for files in Store(store).records():
        try:
            with damage_named(files):
                header = read_header(files, files.key)
                _verify(files, header)
                headers.append((run_header(header).order, header))
        except LabError as error:
            damaged.append(error)
    return [header for _, header in sorted(headers, key=lambda h: h[0])], damaged


def list_records(store: str | Path, on_damage: Callable[[str], None] = note) -> list[RunRecord]:
    """Every finished record of the store, ordered by dataset, family and model size; [] when there is none.

    One that cannot be read is left out, and ``on_damage`` gets the sentence that says why.
    """
    found = []
    for files in Store(store).records():
        try:
            found.append(read_record(files.directory, files.key))
        except LabError as error:
            on_damage(str(error))
    return sorted(found, key=lambda record: record.header.order)
