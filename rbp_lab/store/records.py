"""The local store, the source of truth: one directory per finished measurement, named by its key.

``<store>/runs/<key>/`` holds record.json (readable: infos, protocol, summary, provenance) and parquet tables:

* ranks: rank, count, count_optimistic, nll_sum — one row per rank that occurs
* windows: window, max_rank, count — windows of N scored tokens by their largest rank
* documents: one row per document — document_id, name, num_scored, num_bytes, nll_sum, nll_sq, entropy_sum, num_tied,
  log_rank, log_rank_sq
* document_ranks: document_id, rank, count — each document's histogram of ranks
* document_runs: document_id, k, length, count — maximal runs of consecutive tokens of rank ≤ k

A record is written under a temporary name and renamed, so a directory that bears a key is complete.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rbp_lab.errors import LabError
from rbp_lab.records import RECORD_VERSION, DatasetInfo, ModelInfo, ParamCounts, RunHeader, RunRecord, ScoringSpec
from rbp_lab.stats import UNIT, DocumentTable, RankStats
from rbp_lab.store.atomic import atomic_directory
from rbp_lab.store.layout import RecordFiles, Store

TABLES = ("ranks", "windows", "documents", "document_ranks", "document_runs")


def record_path(store: str | Path, key: str) -> Path:
    """Where the record of this key lies, or will lie."""
    return Store(store).record(key).directory


def has_record(store: str | Path, key: str) -> bool:
    """Whether a finished record of this key is in the store."""
    return Store(store).record(key).header.is_file()


def write_record(store: str | Path, record: RunRecord) -> Path:
    """Write a finished record atomically and return its directory; an older record of the key is replaced."""
    path = record_path(store, record.key)
    with atomic_directory(path) as directory:
        for name, table in record_tables(record).items():
            table.to_parquet(RecordFiles(directory).table(name), index=False)
        RecordFiles(directory).header.write_text(json.dumps(_header(record), indent=2, allow_nan=False) + "\n")
    return path


def _header(record: RunRecord) -> dict[str, Any]:
    stats = record.stats
    return {
        "version": RECORD_VERSION,
        "key": record.key,
        "model": asdict(record.model) | {"non_embedding_params": record.model.params.non_embedding},
        "dataset": asdict(record.dataset),
        "scoring": asdict(record.scoring),
        "summary": record.summary,
        "totals": {
            "vocab_rows": stats.vocab_rows,
            "num_tokens": stats.num_tokens,
            "num_documents": stats.num_documents,
            "num_bytes": stats.num_bytes,
            "num_tied": stats.num_tied,
            "entropy_sum": stats.entropy_units * UNIT,
        },
        "provenance": record.provenance,
    }


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


def read_record(directory: str | Path) -> RunRecord:
    """The record in a directory, equal to the last bit to the one written.

    Raises LabError when it is incomplete or of another version.
    """
    files = RecordFiles(Path(directory))
    try:
        header = json.loads(files.header.read_text())
        version = header["version"]
        if version != RECORD_VERSION:
            raise LabError(f"{directory}: record version {version}, this rbp_lab reads {RECORD_VERSION}; measure again")
        tables = {name: pd.read_parquet(files.table(name)) for name in TABLES}
        return _from_parts(header, tables)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(
            f"{directory} is not a readable record ({type(error).__name__}: {error}); "
            "remove the directory and measure again"
        ) from error


def _from_parts(header: dict[str, Any], tables: dict[str, pd.DataFrame]) -> RunRecord:
    model = {k: v for k, v in header["model"].items() if k != "non_embedding_params"}
    scoring = header["scoring"]
    spec = ScoringSpec(**{**scoring, **{k: tuple(scoring[k]) for k in ("thresholds", "window_lengths")}})
    totals = header["totals"]
    ranks, windows, table = tables["ranks"], tables["windows"], tables["documents"]
    per_rank = RankStats.zeros(totals["vocab_rows"], spec.window_lengths)
    at = ranks["rank"].to_numpy() - 1
    per_rank.counts[at] = ranks["count"]
    per_rank.counts_optimistic[at] = ranks["count_optimistic"]
    per_rank.nll_units[at] = _units(ranks["nll_sum"])
    index = {n: i for i, n in enumerate(spec.window_lengths)}
    per_rank.window_max[windows["window"].map(index).to_numpy(int), windows["max_rank"].to_numpy() - 1] = windows[
        "count"
    ]
    stats = RankStats(
        per_rank.counts, per_rank.counts_optimistic, per_rank.nll_units, spec.window_lengths, per_rank.window_max,
        round(totals["entropy_sum"] / UNIT), totals["num_tied"], totals["num_bytes"], totals["num_documents"],
    )  # fmt: skip
    ids = table["document_id"].to_numpy()
    hist, runs = tables["document_ranks"], tables["document_runs"]
    thresholds = np.array(spec.thresholds)
    order = np.argsort(thresholds)
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
            [[0], np.cumsum(np.bincount(np.searchsorted(ids, hist["document_id"]), minlength=len(ids)))]
        ).astype(np.int64),
        rank=hist["rank"].to_numpy(np.int32),
        count=hist["count"].to_numpy(np.int32),
        run_row=np.searchsorted(ids, runs["document_id"]).astype(np.int32),
        run_threshold=order[np.searchsorted(thresholds[order], runs["k"])].astype(np.int32),
        run_length=runs["length"].to_numpy(np.int32),
        run_count=runs["count"].to_numpy(np.int32),
    )
    params = ParamCounts(**model.pop("params"))
    return RunRecord(
        header=RunHeader(header["key"], ModelInfo(**model, params=params), DatasetInfo(**header["dataset"]), spec),
        stats=stats,
        documents=documents,
        document_names=_names(table, header["dataset"]["num_documents"]),
        summary=header["summary"],
        provenance=header["provenance"],
    )


def _units(nats: pd.Series) -> np.ndarray:
    """Fixed point from nats; exact, since a float64 holds any multiple of 2**-24 below 2**29 nats."""
    return np.rint(nats.to_numpy() / UNIT).astype(np.int64)


def _names(table: pd.DataFrame, num_documents: int) -> tuple[str, ...]:
    names = [""] * max(num_documents, int(table["document_id"].max()) + 1 if len(table) else 0)
    for i, name in zip(table["document_id"], table["name"], strict=True):
        names[i] = name
    return tuple(names)


def list_headers(store: str | Path) -> list[dict[str, Any]]:
    """record.json of every finished record, ordered as ``list_records`` orders them; reads no table."""
    headers = []
    for files in Store(store).records():
        try:
            headers.append(json.loads(files.header.read_text()))
        except (OSError, ValueError) as error:
            raise LabError(
                f"{files.header} is not readable ({error}); remove its directory and measure again"
            ) from error
    return sorted(
        headers,
        key=lambda h: (h["dataset"]["name"], h["model"]["family"], h["model"]["non_embedding_params"], h["key"]),
    )


def list_records(store: str | Path) -> list[RunRecord]:
    """Every finished record of the store, ordered by dataset, family and model size; [] when there is none."""
    found = [read_record(files.directory) for files in Store(store).records()]
    return sorted(found, key=lambda r: (r.dataset.name, r.model.family, r.model.params.non_embedding, r.key))
