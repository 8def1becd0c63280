"""Measurements as arrays, for the files of shards. Ranks that do not occur take no room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from rbp_lab.measurement.observers import Measurement
from rbp_lab.stats import DocumentTable, RankStats

_TOTALS = ("entropy_units", "num_tied", "num_bytes", "num_documents")
_DOCUMENTS = tuple(field.name for field in fields(DocumentTable) if field.name != "thresholds")


def to_arrays(measurement: Measurement) -> dict[str, np.ndarray]:
    """Every number of a measurement; ``from_arrays`` gives it back to the last bit."""
    stats, documents = measurement.stats, measurement.documents
    seen = np.flatnonzero((stats.counts != 0) | (stats.counts_optimistic != 0) | (stats.nll_units != 0))
    window, top = np.nonzero(stats.window_max)
    return {
        "rank": seen,
        "counts": stats.counts[seen],
        "counts_optimistic": stats.counts_optimistic[seen],
        "nll_units": stats.nll_units[seen],
        "window": window,
        "window_rank": top,
        "window_count": stats.window_max[window, top],
        "totals": np.array([getattr(stats, name) for name in _TOTALS], np.int64),
        **{f"documents.{name}": getattr(documents, name) for name in _DOCUMENTS},
    }


def stats_from_arrays(arrays: Mapping[str, np.ndarray], vocab_rows: int, window_lengths: tuple[int, ...]) -> RankStats:
    """The totals of what ``to_arrays`` was given. vocab_rows, window_lengths: as they were."""
    empty = RankStats.zeros(vocab_rows, window_lengths)
    for name in ("counts", "counts_optimistic", "nll_units"):
        getattr(empty, name)[arrays["rank"]] = arrays[name]
    empty.window_max[arrays["window"], arrays["window_rank"]] = arrays["window_count"]
    totals: dict[str, Any] = dict(zip(_TOTALS, map(int, arrays["totals"]), strict=True))
    return RankStats(
        empty.counts, empty.counts_optimistic, empty.nll_units, window_lengths, empty.window_max, **totals
    )  # fmt: skip


def documents_from_arrays(arrays: Mapping[str, np.ndarray], thresholds: tuple[int, ...]) -> DocumentTable:
    """The document table of what ``to_arrays`` was given. thresholds: as they were."""
    return DocumentTable(thresholds, **{name: arrays[f"documents.{name}"] for name in _DOCUMENTS})
