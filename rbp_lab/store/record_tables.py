"""The parquet tables of a record (what each holds: ``store.records``) and the values that they hold.

Ranks and k count from 1, sums are in nats: the tables are for people and other programs as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rbp_lab.stats import UNIT, DocumentTable, RankStats

Columns = Mapping[str, np.ndarray]  # of a table, by name, as they are read


def totals_tables(stats: RankStats) -> dict[str, pa.Table]:
    """The tables ranks and windows."""
    seen = np.flatnonzero((stats.counts > 0) | (stats.counts_optimistic > 0))
    window, top = np.nonzero(stats.window_max)
    return {
        "ranks": _table(
            {
                "rank": seen + 1,
                "count": stats.counts[seen],
                "count_optimistic": stats.counts_optimistic[seen],
                "nll_sum": stats.nll_sum[seen],
            }
        ),
        "windows": _table(
            {
                "window": np.array(stats.window_lengths, np.int64)[window],
                "max_rank": top + 1,
                "count": stats.window_max[window, top],
            }
        ),
    }


def document_tables(documents: DocumentTable, names: Sequence[str]) -> dict[str, pa.Table]:
    """The tables documents, document_ranks and document_runs. names: of the documents, by document_id."""
    row_of_rank = np.repeat(np.arange(len(documents)), np.diff(documents.indptr))
    return {
        "documents": _table(
            {
                "document_id": documents.document_id,
                "name": [names[i] for i in documents.document_id],
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
        "document_ranks": _table(
            {
                "document_id": documents.document_id[row_of_rank],
                "rank": documents.rank,
                "count": documents.count,
            }
        ),
        "document_runs": _table(
            {
                "document_id": documents.document_id[documents.run_row],
                "k": np.array(documents.thresholds, np.int32)[documents.run_threshold],
                "length": documents.run_length,
                "count": documents.run_count,
            }
        ),
    }


def _table(columns: Mapping[str, np.ndarray | list[str]]) -> pa.Table:
    return pa.table({name: _column(values) for name, values in columns.items()})


def _column(values: np.ndarray | list[str]) -> pa.Array:
    """Numbers, or names. As in ``_values``, without pandas."""
    if isinstance(values, list):
        return pa.array(values, pa.string())
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, buffer])


def columns_of(table: pa.Table) -> Columns:
    """The columns of a table as it is read. ValueError when one has gaps, which is how pandas writes NaN."""
    if gaps := [name for name in table.column_names if table[name].null_count]:
        raise ValueError(f"{gaps[0]} holds values that are missing or not finite")
    return {name: _values(table[name]) for name in table.column_names}


def _values(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers, or names as objects. Arrow's own conversions import pandas, which takes longer than to read a record."""
    if pa.types.is_primitive(column.type):
        return np.from_dlpack(column.combine_chunks())
    return np.array(column.to_pylist(), object)


def stats_from_tables(header: Mapping[str, Any], ranks: Columns, windows: Columns) -> RankStats:
    """The totals of a record from its tables and record.json; ValueError when these cannot be of one record."""
    totals, lengths = header["totals"], tuple(header["scoring"]["window_lengths"])
    per_rank = RankStats.zeros(totals["vocab_rows"], lengths)
    at = ranks["rank"] - 1
    per_rank.counts[at] = ranks["count"]
    per_rank.counts_optimistic[at] = ranks["count_optimistic"]
    per_rank.nll_units[at] = _units(ranks, "nll_sum")
    window, rank = _places(windows, "window", np.array(lengths)), windows["max_rank"] - 1
    per_rank.window_max[window, rank] = windows["count"]
    (entropy,) = _units({"entropy_sum": np.array([totals["entropy_sum"]], np.float64)}, "entropy_sum")
    return RankStats(
        per_rank.counts, per_rank.counts_optimistic, per_rank.nll_units, lengths, per_rank.window_max,
        int(entropy), totals["num_tied"], totals["num_bytes"], totals["num_documents"],
    )  # fmt: skip


def documents_from_tables(thresholds: tuple[int, ...], tables: Mapping[str, Columns]) -> DocumentTable:
    """The document table of a record; ValueError when its tables cannot be of one record."""
    table, hist, runs = tables["documents"], tables["document_ranks"], tables["document_runs"]
    ids = table["document_id"]
    return DocumentTable(
        thresholds=thresholds,
        document_id=ids,
        num_scored=table["num_scored"],
        num_bytes=table["num_bytes"],
        nll_units=_units(table, "nll_sum"),
        entropy_units=_units(table, "entropy_sum"),
        num_tied=table["num_tied"],
        nll_sq=table["nll_sq"],
        log_rank=table["log_rank"],
        log_rank_sq=table["log_rank_sq"],
        indptr=np.concatenate(
            [[0], np.cumsum(np.bincount(_places(hist, "document_id", ids), minlength=len(ids)))]
        ).astype(np.int64),
        rank=hist["rank"].astype(np.int32, copy=False),
        count=hist["count"].astype(np.int32, copy=False),
        run_row=_places(runs, "document_id", ids).astype(np.int32),
        run_threshold=_places(runs, "k", np.array(thresholds)).astype(np.int32),
        run_length=runs["length"].astype(np.int32, copy=False),
        run_count=runs["count"].astype(np.int32, copy=False),
    )


def _places(table: Columns, name: str, among: np.ndarray) -> np.ndarray:
    """Where in ``among`` each value of a column stands; ValueError when one is not there."""
    values, order = table[name], np.argsort(among, kind="stable")
    places = order[np.minimum(np.searchsorted(among[order], values), len(among) - 1)] if len(values) else order[:0]
    if not np.array_equal(among[places], values):
        raise ValueError(f"{name} holds values that this record has not")
    return places


def _units(table: Columns, name: str) -> np.ndarray:
    """Fixed point from nats; exact, since a float64 holds any multiple of 2**-24 below 2**29 nats."""
    nats = table[name]
    if not np.isfinite(nats).all():
        raise ValueError(f"{name} holds values that are not finite")
    units = np.rint(nats / UNIT).astype(np.int64)
    if not np.array_equal(units * UNIT, nats):
        raise ValueError(f"{name} holds values that are no multiples of 2**-24 nats")
    return units
