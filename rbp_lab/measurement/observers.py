"""Observers of a measurement: when they are notified, and the rank accumulator, which is one of them.

A callback is any object with the methods of ``Callback``; one of your own is a YAML file under ``callbacks/`` whose
``_target_`` names its class.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from rbp_lab.data.windows import TokenBlocks
from rbp_lab.records import RunHeader, RunRecord
from rbp_lab.scoring.types import TokenScores
from rbp_lab.stats import DocumentScores, DocumentTable, RankStats, document_table, rank_stats


@dataclass(frozen=True)
class RunPlan:
    """What is about to be measured; every callback gets it at the start.

    model, dataset: display names. num_rows, num_positions: rows and (padded) tokens of this process's share.
    vocab_rows: V. thresholds, window_lengths: of the record. rank, world: this process and their number. header: of
    the record that will be written, None when none will be.
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


@dataclass(frozen=True)
class Progress:
    """Where the loop stands at a log point; ``stats`` covers the documents that are complete so far.

    rows, positions: done by this process. seconds: since the loop began. tables: those documents' rows, in parts as
    they were reduced; a later Progress begins with the same parts, so that an observer need look at the new ones only.
    """

    rows: int
    positions: int
    seconds: float
    stats: RankStats
    tables: tuple[DocumentTable, ...] = ()

    @property
    def positions_per_second(self) -> float:
        return self.positions / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Measurement:
    """The result of one pass over a share of a corpus."""

    stats: RankStats
    documents: DocumentTable

    def __add__(self, other: Measurement) -> Measurement:
        return Measurement(self.stats + other.stats, self.documents + other.documents)


class Callback:
    """Does nothing at every point; subclass and override what you need. A tracker is a callback.

    A measurement ends with ``on_end`` and ``on_record`` or with ``on_error``; ``close`` is last in either case. A
    callback that raises is reported and switched off; it never costs a measurement.
    """

    def on_start(self, run: RunPlan) -> None: ...

    def on_batch(self, blocks: TokenBlocks, scores: TokenScores) -> None:
        """After each batch; ``scores`` are those of the scored positions of ``blocks`` in row-major order [n]."""

    def on_log(self, progress: Progress) -> None:
        """Every few seconds, and once after the last batch."""

    def on_end(self, measurement: Measurement) -> None:
        """This process's share is measured."""

    def on_record(self, record: RunRecord, path: Path) -> None:
        """The record of all processes lies in the directory ``path``; called in process 0 only."""

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
                print(
                    f"warning: callback {type(callback).__name__} failed at {point} and is switched off: "
                    f"{type(error).__name__}: {error}",
                    file=sys.stderr,
                )

    def __enter__(self) -> Observers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self.notify("on_error", error)
        self.notify("close")


class RankAccumulator(Callback):
    """Turns batches into RankStats and a DocumentTable; memory grows with documents, not with tokens × vocabulary.

    A document counts once all of its rows have come, in any batching; rows of one document must come in reading
    order. Scores wait in float32/int32 (16 bytes a token) until ``fold_tokens`` of them are worth reducing.
    """

    def __init__(self, rows_of: dict[int, int], fold_tokens: int = 1 << 18):
        """rows_of: number of rows of each document expected in this share, by document_id."""
        self._rows_of = rows_of
        self._fold_tokens = fold_tokens
        self._waiting: list[tuple[np.ndarray, ...]] = []
        self._waiting_tokens = 0
        self._tables: list[DocumentTable] = []

    def on_start(self, run: RunPlan) -> None:
        self._run = run
        self._stats = RankStats.zeros(run.vocab_rows, run.window_lengths)

    def on_batch(self, blocks: TokenBlocks, scores: TokenScores) -> None:
        arrays = (scores.nll, scores.num_greater, scores.num_equal, scores.entropy)
        per_token = tuple(np.asarray(a) for a in arrays)
        self._waiting.append((blocks.document_id, blocks.scored.sum(1), blocks.num_bytes, *per_token))
        self._waiting_tokens += len(per_token[0])
        if self._waiting_tokens >= self._fold_tokens:
            self._fold()

    def _fold(self) -> None:
        """Reduce every complete document; keep the rows of the others waiting."""
        if not self._waiting:
            return
        ids, sizes, num_bytes, *per_token = (np.concatenate(c) for c in zip(*self._waiting, strict=True))
        documents, inverse, rows = np.unique(ids, return_inverse=True, return_counts=True)
        complete = np.array([self._rows_of[int(d)] for d in documents]) == rows
        ready = complete[inverse]
        self._waiting, self._waiting_tokens = [], 0
        if not ready.all():
            token_waits = np.repeat(~ready, sizes)
            kept = tuple(a[token_waits] for a in per_token)
            self._waiting = [(ids[~ready], sizes[~ready], num_bytes[~ready], *kept)]
            self._waiting_tokens = len(kept[0])
        if not complete.any():
            return
        order = np.argsort(ids[ready], kind="stable")  # rows of one document together, in the order they came
        begin = np.concatenate([[0], np.cumsum(sizes)])[:-1][ready][order]
        length = sizes[ready][order]
        end = np.cumsum(length)
        token = np.repeat(begin - (end - length), length) + np.arange(int(length.sum()))
        row_document = np.searchsorted(documents[complete], ids[ready][order])
        per_document = [
            np.bincount(row_document, weights=v, minlength=int(complete.sum())).astype(np.int64)
            for v in (length, num_bytes[ready][order])
        ]
        scores = DocumentScores(documents[complete], *per_document, *(a[token] for a in per_token))
        self._stats = self._stats + rank_stats(scores, self._run.vocab_rows, self._run.window_lengths)
        self._tables.append(document_table(scores, self._run.thresholds))

    def snapshot(self) -> RankStats:
        """Totals over the documents that are complete by now."""
        self._fold()
        return self._stats

    def tables(self) -> tuple[DocumentTable, ...]:
        """The rows of the documents reduced so far, in parts; grows at its end."""
        return tuple(self._tables)

    def result(self) -> Measurement:
        """The measurement of the whole share; RuntimeError when a document's rows have not all come."""
        self._fold()
        tables = self._tables or [DocumentTable.zeros(self._run.thresholds)]
        while len(tables) > 1:  # pairwise, so that each row is moved a logarithmic number of times
            tables = [a + b for a, b in zip(tables[::2], tables[1::2], strict=False)] + tables[len(tables) & ~1 :]
        self._tables = tables
        if self._waiting or len(tables[0]) != len(self._rows_of):
            raise RuntimeError(
                f"{len(self._rows_of) - len(tables[0])} of {len(self._rows_of)} documents are incomplete"
            )
        return Measurement(self._stats, tables[0])
