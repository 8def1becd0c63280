"""The record of a measurement whose shards are all there: their sum, one shard in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rbp_lab import metrics
from rbp_lab.measurement.devices import Runtime
from rbp_lab.measurement.parts import documents_from_arrays, stats_from_arrays
from rbp_lab.measurement.prepare import Prepared
from rbp_lab.measurement.sharding import provenance, read_shard
from rbp_lab.records import RunRecord
from rbp_lab.stats import DocumentTable, RankStats
from rbp_lab.store.records import write_record


def make_record(ready: Prepared, runtime: Runtime, seconds: float) -> Path:
    """Write the record of all shards, remove them, and return its directory.

    seconds: that this command took. Raises DamagedShard when one does not hold what it must; it is removed, to be
    measured again. Raises LabError when the store cannot be written; the shards are kept then.
    """
    header = ready.identity.header
    stats, ran = _totals(ready)
    documents = int(stats.num_documents)
    packed = ready.job.dataset.protocol.windows == "packed"
    record = RunRecord(
        header=header,
        stats=stats,
        documents=DocumentTable.zeros(header.scoring.thresholds),
        document_names=ready.names,
        summary=metrics.summary(stats, header.scoring.thresholds),
        provenance={
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "processes": runtime.world,
            "batch_tokens": ready.job.scoring.batch_tokens,
            "documents_without_tokens": 0 if packed else ready.num_documents - documents,
            **provenance(ran),
        },
    )
    path = write_record(ready.job.store, record, _documents(ready))
    ready.partial.remove()
    return path


def _totals(ready: Prepared) -> tuple[RankStats, list[dict[str, Any]]]:
    """The sum of the shards' totals, and what each says of how it was measured."""
    spec, model = ready.identity.header.scoring, ready.identity.header.model
    stats, ran = RankStats.zeros(model.vocab_rows, spec.window_lengths), []
    for index in range(len(ready.partial.plan)):
        arrays, about = _read(ready, index)
        stats = stats + stats_from_arrays(arrays, model.vocab_rows, spec.window_lengths)
        ran.append(about["ran"])
    return stats, ran


def _documents(ready: Prepared) -> Iterator[DocumentTable]:
    for index in range(len(ready.partial.plan)):
        arrays, _ = _read(ready, index)
        yield documents_from_arrays(arrays, ready.identity.header.scoring.thresholds)


def _read(ready: Prepared, index: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A shard, which holds each document of its part once, and as many tokens in its totals as in its documents."""

    def wrong(arrays: Mapping[str, np.ndarray]) -> str | None:
        if not np.array_equal(arrays["documents.document_id"], ready.shard_documents(index)):
            return "does not hold the documents from which it was made"
        return None if arrays["counts"].sum() == arrays["documents.num_scored"].sum() else (
            "has other totals than its documents"
        )  # fmt: skip

    return read_shard(ready, index, wrong)
