"""A measurement as a W&B run: live curves while it runs, the record when it is finished."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rbp_lab.measurement.observers import Callback, Progress, RunInfo
from rbp_lab.metrics import rbp
from rbp_lab.records import RunHeader, RunRecord
from rbp_lab.tracking.ledger import Ledger
from rbp_lab.tracking.live import LiveIntervals
from rbp_lab.tracking.settings import Destination, Tracking, destination
from rbp_lab.tracking.wandb import names
from rbp_lab.tracking.wandb.session import RunSpec, Session, digest_files

NOT_LOST = "; the measurement goes on and its record is kept: rbp-lab sync mirrors it later"


class MeasurementTracker(Callback):
    """Mirrors a measurement to W&B: snapshots while it runs, then the finished record with its files.

    A measurement that breaks off leaves a failed run. The live values are of the documents that process 0 has scored
    since the command began (``live_values_are_of`` in the run's configuration); the final ones are of the record.
    """

    def __init__(self, tracking: Tracking, store: str | Path, config: Mapping[str, Any] | None = None):
        """config: the resolved configuration of the command, shown under ``rbp_lab``."""
        self._tracking, self._store, self._config = tracking, store, dict(config or {})
        self._where: Destination | None = None
        self._session: Session | None = None

    def on_start(self, run: RunInfo) -> None:
        if run.rank != 0 or run.header is None:
            return
        self._where = destination(self._tracking)
        if self._where is None:
            return
        whole = run.world == 1 and not run.finished_positions
        live = "all documents" if whole else "the documents that process 0 has scored since the command began"
        self._session = Session(self._tracking, self._where, self._store, NOT_LOST)
        self._session.start(_spec(run.header, {"rbp_lab": self._config, "live_values_are_of": live}))
        self._run, self._intervals = run, LiveIntervals(run.thresholds)
        self._edges = names.bin_edges(run.vocab_rows)
        self._logged = time.monotonic()

    def on_log(self, progress: Progress) -> None:
        session = self._session
        if session is None or not session.ok:
            return
        self._intervals.update(progress.tables)
        last = progress.positions == self._run.num_positions  # the finished record gives that point
        if last or not progress.stats.num_tokens or time.monotonic() - self._logged < self._tracking.seconds:
            return
        self._logged = time.monotonic()
        with session.guarded("logging"):
            session.log([self._row(progress)])

    def _row(self, progress: Progress) -> dict[str, Any]:
        stats, intervals = progress.stats, self._intervals
        row = names.totals(stats) | {"tokens_per_s": progress.positions_per_second}
        ce = intervals.cross_entropy()
        if ce is not None:
            row |= {"ce": ce.value, "ce/lower": ce.lower, "ce/upper": ce.upper}
        for i, k in enumerate(self._run.thresholds):
            row |= {f"rbp/{k}": rbp(stats, k), **names.rbp_interval(f"rbp/{k}", intervals.rbp(i))}
        return row | {names.RANKS: names.histogram(stats.counts, self._edges)}

    def on_record(self, record: RunRecord, path: Path) -> None:
        if self._session is not None and self._session.ok and self._where is not None:
            session, self._session = self._session, None
            finish_record(session, Ledger(self._store, self._tracking, self._where), record, path)

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:  # no record came
            session.finish(exit_code=1)


def _spec(header: RunHeader, more: Mapping[str, Any] = MappingProxyType({})) -> RunSpec:
    """The W&B run of a measurement."""
    name = f"{header.model.name} on {header.dataset.name}"
    id = names.run_id(names.MEASURE, header.key)
    return RunSpec(id, name, header.model.family, names.MEASURE, {**names.record_config(header), **more})


def mirror_record(tracking: Tracking, store: str | Path, record: RunRecord, directory: Path) -> str | None:
    """Mirror a record that is in the store, as if it had been tracked; the run's address when online and complete."""
    where = destination(tracking)
    if where is None:
        return None
    session = Session(tracking, where, store, "; the record is kept: rbp-lab sync can be repeated")
    session.start(_spec(record.header))
    return finish_record(session, Ledger(store, tracking, where), record, directory)


def finish_record(session: Session, ledger: Ledger, record: RunRecord, directory: Path) -> str | None:
    """Write everything a finished record has to show into an open session, close it, and note that it arrived."""
    digest = ""
    with session.guarded("mirroring a record"):
        digest = digest_files(list(directory.iterdir()))
        if session.call("summary", names.RECORD) != digest:  # else the last point is there already
            edges = names.bin_edges(record.model.vocab_rows)
            last = names.final_row(record) | {names.RANKS: names.histogram(record.stats.counts, edges)}
            session.call("log", [last])
        session.call("summarize", names.record_summary(record) | {names.RECORD: digest})
        card = names.model_card(record.model)
        session.call("card", names.model_artifact(record.model.name), names.MODEL_TYPE, card, True)
        about = names.record_config(record.header) | {names.RECORD: digest, "provenance": record.provenance}
        session.call("artifact", names.record_artifact(record.key), names.RECORD_TYPE, str(directory), about)
    if session.finish(confirm=(names.RECORD, digest)):
        with session.guarded("noting that it has arrived"):
            ledger.note(names.run_id(names.MEASURE, record.key), digest)
            return session.url
    return None
