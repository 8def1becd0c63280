"""The local store, the source of truth: one directory per finished measurement, named by its key.

``<store>/runs/<key>/`` holds record.json (readable: infos, protocol, summary, provenance, and the sha256 of every file)
and parquet tables:

* ranks: rank, count, count_optimistic, nll_sum — one row per rank that occurs
* windows: window, max_rank, count — windows of N scored tokens by their largest rank
* documents: one row per document — document_id, name, num_scored, num_bytes, nll_sum, nll_sq, entropy_sum, num_tied,
  log_rank, log_rank_sq
* document_ranks: document_id, rank, count — each document's histogram of ranks
* document_runs: document_id, k, length, count — maximal runs of consecutive tokens of rank ≤ k

A record is written under a temporary name and renamed, so a directory that bears a key is complete.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rbp_lab.errors import LabError, note
from rbp_lab.records import RunHeader, RunRecord
from rbp_lab.stats import UNIT, DocumentTable, RankStats
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
)
from rbp_lab.store.layout import RecordFiles, Store


def record_path(store: str | Path, key: str) -> Path:
    """Where the record of this key lies, or will lie."""
    return Store(store).record(key).directory


def has_record(store: str | Path, key: str) -> bool:
    """Whether a finished record of this key is in the store."""
    return Store(store).record(key).header.is_file()


def write_record(store: str | Path, record: RunRecord) -> Path:
    """Write a finished record atomically and return its directory; an older record of the key is replaced.

    The names of the older one are kept as other names. Raises LabError when the disk is full or may not be written.
    """
    files = Store(store).record(record.key)
    header = record.header
    if files.header.is_file():
        with suppress(LabError):  # a damaged record leaves nothing to keep
            header = run_header(read_header(files)).named(*header.names)
    with atomic_directory(files.directory) as directory:
        inside = RecordFiles(directory)
        checksums = {}
        for name, table in record_tables(record).items():
            table.to_parquet(inside.table(name), index=False)
            checksums[inside.table(name).name] = sha256(inside.table(name).read_bytes())
        inside.header.write_text(header_text(replace(record, header=header), checksums), encoding="utf-8")
    return files.directory


def rename_record(store: str | Path, record: RunRecord, model: str, family: str, dataset: str) -> RunRecord:
    """The record under other names, in the store as well; its present names are kept as other names.

    Raises LabError when the store may not be written.
    """
    files = Store(store).record(record.key)
    checksums = read_header(files).get(CHECKSUMS, {})
    tables = {
        files.table(n).name: checksums.get(files.table(n).name) or sha256(files.table(n).read_bytes()) for n in TABLES
    }
    renamed = replace(record, header=record.header.named(model, family, dataset))
    with atomic_path(files.header) as temporary:
        temporary.write_text(header_text(renamed, tables), encoding="utf-8")
    return renamed


def record_tables(record: RunRecord) -> dict[str, pd.DataFrame]:
    """The parquet tables of a record (see the module's text) by name; ranks and k count from 1."""
    stats, documents = record.stats, record.documents
    seen = np.flatnonzero((stats.counts > 0) | (stats.counts_optimistic > 0))
    window, top = np.nonzero(stats.window_max)
    row_of_rank = np.repeat(np.arange(len(documents)), np.diff(documents.indptr))
    return {
        "ranks": pd.DataFrame(
            {
                "rank": seen + 1,
                "count": stats.counts[seen],
                "count_optimistic": stats.counts_optimistic[seen],
                "nll_sum": stats.nll_sum[seen],
            }
        ),
        "windows": pd.DataFrame(
            {
                "window": np.array(stats.window_lengths, np.int64)[window],
                "max_rank": top + 1,
                "count": stats.window_max[window, top],
            }
        ),
        "documents": pd.DataFrame(
            {
                "document_id": documents.document_id,
                "name": [record.document_names[i] for i in documents.document_id],
                "num_scored": documents.num_scored,
                "num_bytes": documents.num_bytes,
                "nll_sum": documents.nll_units * UNIT,
                "nll_sq": documents.nll_sq,
                "entropy_sum": documents.entropy_units * UNIT,
                "num_tied": documents.num_tied,
                "log_rank": documents.log_rank,
                "log_rank_sq": documents.log_rank_sq,
            }
        ),
        "document_ranks": pd.DataFrame(
            {
                "document_id": documents.document_id[row_of_rank],
                "rank": documents.rank,
                "count": documents.count,
            }
        ),
        "document_runs": pd.DataFrame(
            {
                "document_id": documents.document_id[documents.run_row],
                "k": np.array(documents.thresholds, np.int32)[documents.run_threshold],
                "length": documents.run_length,
                "count": documents.run_count,
            }
        ),
    }


def read_record(directory: str | Path, key: str | None = None) -> RunRecord:
    """The record in a directory, equal to the last bit to the one written.

    Checksums are verified; a record that was written without them is read as well, and counts that contradict each
    other are refused in any. key: the one that it must be of, where that is known. Raises DamagedRecord, or another
    LabError when the files may not be read.
    """
    files = RecordFiles(Path(directory))
    with damage_named(files):
        header = read_header(files, key)
        tables = {name: pd.read_parquet(io.BytesIO(_table_bytes(files, name, header))) for name in TABLES}
        record = _from_parts(header, tables)
        why = contradiction(record.stats, record.documents)
        if why is None and record.stats.num_tokens != header["totals"]["num_tokens"]:
            why = "the tables do not hold as many tokens as record.json says"
        if why is not None:
            raise ValueError(why)
        return record


def _table_bytes(files: RecordFiles, name: str, header: Mapping[str, Any]) -> bytes:
    """The file of a table, verified when the header has its checksum."""
    path = files.table(name)
    data = path.read_bytes()
    if CHECKSUMS in header and sha256(data) != header[CHECKSUMS][path.name]:
        raise ValueError(f"the checksum of {path.name} does not hold")
    return data


def _from_parts(header: dict[str, Any], tables: dict[str, pd.DataFrame]) -> RunRecord:
    about = run_header(header)
    spec = about.scoring
    totals = header["totals"]
    ranks, windows, table = tables["ranks"], tables["windows"], tables["documents"]
    per_rank = RankStats.zeros(totals["vocab_rows"], spec.window_lengths)
    at = ranks["rank"].to_numpy() - 1
    per_rank.counts[at] = ranks["count"]
    per_rank.counts_optimistic[at] = ranks["count_optimistic"]
    per_rank.nll_units[at] = _units(ranks["nll_sum"])
    per_rank.window_max[
        _places(windows["window"], np.array(spec.window_lengths)), windows["max_rank"].to_numpy() - 1
    ] = windows["count"]
    (entropy,) = _units(pd.Series([totals["entropy_sum"]], name="entropy_sum"))
    stats = RankStats(
        per_rank.counts, per_rank.counts_optimistic, per_rank.nll_units, spec.window_lengths, per_rank.window_max,
        int(entropy), totals["num_tied"], totals["num_bytes"], totals["num_documents"],
    )  # fmt: skip
    ids = table["document_id"].to_numpy()
    hist, runs = tables["document_ranks"], tables["document_runs"]
    documents = DocumentTable(
        thresholds=spec.thresholds,
        document_id=ids,
        num_scored=table["num_scored"].to_numpy(),
        num_bytes=table["num_bytes"].to_numpy(),
        nll_units=_units(table["nll_sum"]),
        entropy_units=_units(table["entropy_sum"]),
        num_tied=table["num_tied"].to_numpy(),
        nll_sq=table["nll_sq"].to_numpy(),
        log_rank=table["log_rank"].to_numpy(),
        log_rank_sq=table["log_rank_sq"].to_numpy(),
        indptr=np.concatenate(
            [[0], np.cumsum(np.bincount(_places(hist["document_id"], ids), minlength=len(ids)))]
        ).astype(np.int64),
        rank=hist["rank"].to_numpy(np.int32),
        count=hist["count"].to_numpy(np.int32),
        run_row=_places(runs["document_id"], ids).astype(np.int32),
        run_threshold=_places(runs["k"], np.array(spec.thresholds)).astype(np.int32),
        run_length=runs["length"].to_numpy(np.int32),
        run_count=runs["count"].to_numpy(np.int32),
    )
    return RunRecord(
        header=about,
        stats=stats,
        documents=documents,
        document_names=_names(table, header["dataset"]["num_documents"]),
        summary=header["summary"],
        provenance=header["provenance"],
    )


def _places(values: pd.Series, among: np.ndarray) -> np.ndarray:
    """Where in ``among`` each value stands; ValueError when one is not there."""
    order = np.argsort(among, kind="stable")
    places = order[np.minimum(np.searchsorted(among[order], values), len(among) - 1)] if len(values) else order[:0]
    if not np.array_equal(among[places], values):
        raise ValueError(f"{values.name} holds values that this record has not")
    return places


def _units(nats: pd.Series) -> np.ndarray:
    """Fixed point from nats; exact, since a float64 holds any multiple of 2**-24 below 2**29 nats."""
    values = nats.to_numpy()
    if not np.isfinite(values).all():
        raise ValueError(f"{nats.name} holds values that are not finite")
    units = np.rint(values / UNIT).astype(np.int64)
    if not np.array_equal(units * UNIT, nats):
        raise ValueError(f"{nats.name} holds values that are no multiples of 2**-24 nats")
    return units


def _names(table: pd.DataFrame, num_documents: int) -> tuple[str, ...]:
    names = [""] * max(num_documents, int(table["document_id"].max()) + 1 if len(table) else 0)
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
                header = read_header(files, files.directory.name)
                for name in TABLES:
                    _table_bytes(files, name, header)
                headers.append((_order(run_header(header)), header))
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
            found.append(read_record(files.directory, files.directory.name))
        except LabError as error:
            on_damage(str(error))
    return sorted(found, key=lambda record: _order(record.header))


def _order(header: RunHeader) -> tuple[object, ...]:
    return header.dataset.name, header.model.family, header.model.params.non_embedding, header.key
