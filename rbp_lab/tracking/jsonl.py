"""A measurement as JSON lines: a file per record key, an object per line, appended to when it is measured again."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rbp_lab.errors import LabError
from rbp_lab.measurement.observers import Callback, Progress, RunInfo
from rbp_lab.metrics import cross_entropy, rbp
from rbp_lab.records import RunRecord


class JsonLines(Callback):
    """Writes start, progress, record and error to ``directory``/<key>.jsonl.

    Every line has ``event`` and ``time`` (UTC). Progress is over the documents that process 0 has completed by then:
    tokens scored, cross-entropy in nats, RBP_k by k. The record's line holds its path and its summary.
    """

    def __init__(self, directory: str, seconds: float = 5.0):
        """seconds: between lines of progress."""
        if not seconds > 0:
            raise LabError(f"seconds must be positive; got {seconds}")
        self._directory, self._seconds = Path(directory), seconds
        self._file: Path | None = None

    def on_start(self, run: RunInfo) -> None:
        if run.rank != 0 or run.header is None:
            return
        self._thresholds = run.thresholds
        self._written = time.monotonic()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._file = self._directory / f"{run.header.key}.jsonl"
        self._write("start", key=run.header.key, model=run.model, dataset=run.dataset, processes=run.world)

    def on_log(self, progress: Progress) -> None:
        stats = progress.stats
        if not stats.num_tokens or time.monotonic() - self._written < self._seconds:
            return
        self._written = time.monotonic()
        self._write(
            "progress", tokens=stats.num_tokens, documents=stats.num_documents, ce=cross_entropy(stats),
            rbp={k: rbp(stats, k) for k in self._thresholds}, tokens_per_s=progress.positions_per_second,
        )  # fmt: skip

    def on_record(self, record: RunRecord, path: Path) -> None:
        self._write("record", path=str(path), summary=record.summary)

    def on_error(self, error: BaseException) -> None:
        self._write("error", error=f"{type(error).__name__}: {error}")

    def _write(self, event: str, **values: Any) -> None:
        if self._file is not None:
            line = json.dumps({"event": event, "time": datetime.now(UTC).isoformat(timespec="seconds"), **values})
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
