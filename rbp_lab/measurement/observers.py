"""Observers of a measurement: when they are notified, and of what.

A callback is any object with the methods of ``Callback``; one of your own is a YAML file under ``callbacks/`` whose
``_target_`` names its class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rbp_lab.data.windows import TokenBatch
from rbp_lab.errors import warn
from rbp_lab.records import RunHeader, RunRecord
from rbp_lab.stats import DocumentTable, RankStats

if TYPE_CHECKING:  # it brings torch, which an analysis has no use for
    from rbp_lab.scoring.types import TokenScores


@dataclass(frozen=True)
class RunInfo:
    """What is about to be measured; every callback gets it at the start.

    model, dataset: display names. num_rows, num_positions: rows and (padded) tokens of the whole measurement.
    vocab_rows: V. thresholds, window_lengths: of the record. rank, world: this process and their number. header: of
    the record that will be written, None when none will be. finished_positions: of num_positions, those that were
    finished before this process began.
    """

    model: str
    dataset: str
    num_rows: int
    num_positions: int
    vocab_rows: int
    thresholds: tuple[int, ...]
    window_lengths: tuple[int, ...]
    rank: int = 0
    world: int = 1
    header: RunHeader | None = None
    finished_positions: int = 0


@dataclass(frozen=True)
class Progress:
    """Where a measurement stands, seen from one of its processes.

    positions: tokens (padded) that are done, by any process, in this run or before. seconds: since this process began.
    finished_positions: those done before it began. stats: over the documents that this process has completed. tables:
    the rows of those documents that are new since the last Progress, in parts.
    """

    positions: int
    seconds: float
    finished_positions: int
    stats: RankStats
    tables: tuple[DocumentTable, ...] = ()

    @property
    def positions_per_second(self) -> float:
        """What all processes together have done per second since this one began."""
        return (self.positions - self.finished_positions) / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Measurement:
    """The result of one pass over a part of a corpus."""

    stats: RankStats
    documents: DocumentTable

    def __add__(self, other: Measurement) -> Measurement:
        return Measurement(self.stats + other.stats, self.documents + other.documents)


class Callback:
    """Does nothing at every point; subclass and override what you need. A tracker is a callback.

    With several processes each has callbacks of its own, and sees its own batches and shards. A measurement ends with
    ``on_record`` or with ``on_error``; ``close`` is last in either case. A callback that raises is reported and
    switched off; it never costs a measurement.
    """

    def on_start(self, run: RunInfo) -> None: ...

    def on_batch(self, batch: TokenBatch, scores: TokenScores) -> None:
        """After each batch; ``scores`` are those of the scored positions of ``batch`` in row-major order [n]."""

    def on_log(self, progress: Progress) -> None:
        """Every few seconds, and after the last batch of each shard."""

    def on_shard(self, measurement: Measurement) -> None:
        """This process has measured one shard of the documents, and it is kept."""

    def on_record(self, record: RunRecord, path: Path) -> None:
        """The record of all shards lies in the directory ``path``; called in process 0 only."""

    def on_error(self, error: BaseException) -> None:
        """The measurement broke off with ``error``, which is raised again afterwards."""

    def close(self) -> None:
        """Release what is held."""


class Observers:
    """The callbacks of one measurement; a context manager that reports an error to them and closes them.

    Callbacks are notified in order. One that raises is reported on stderr and switched off.
    """

    def __init__(self, callbacks: Sequence[Callback] = ()):
        self._callbacks = list(callbacks)

    def notify(self, point: str, *what: object) -> None:
        """Call the method named ``point`` of every callback that is still on."""
        for callback in self._callbacks[:]:
            try:
                getattr(callback, point)(*what)
            except (Exception, SystemExit) as error:  # a library that calls sys.exit must not end the measurement
                self._callbacks.remove(callback)
                warn(
                    f"callback {type(callback).__name__} failed at {point} and is switched off: "
                    f"{type(error).__name__}: {error}"
                )

    def listen(self, point: str) -> bool:
        """Whether a callback that is still on does something at ``point``."""
        return any(getattr(type(callback), point, None) is not getattr(Callback, point) for callback in self._callbacks)

    def __enter__(self) -> Observers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self.notify("on_error", error)
        self.notify("close")
