"""The measuring loop: rows in, scores to the observers, one measurement out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from rbp_lab.data.windows import TokenBatch, WindowPlan
from rbp_lab.errors import LabError
from rbp_lab.measurement.accumulator import RankAccumulator
from rbp_lab.measurement.observers import Measurement, Observers, Progress, RunInfo
from rbp_lab.scoring.pairs import PairScores
from rbp_lab.scoring.types import NonFiniteLogits, TokenScores
from rbp_lab.stats import RankStats

Scores = TypeVar("Scores", TokenScores, PairScores)


class NonFiniteScores(LabError):
    """A logit is NaN or infinite; the message says where."""


class Watch:
    """What the observers are shown of a process's work, over all the shards that it measures."""

    def __init__(self, run: RunInfo, observers: Observers | None = None, log_seconds: float = 5.0):
        """log_seconds: between two calls of ``on_log``."""
        self._run, self._observers, self._log_seconds = run, observers or Observers(), log_seconds
        self._begin = self._logged = time.monotonic()
        self._stats = RankStats.zeros(run.vocab_rows, run.window_lengths)  # of the shards that are done
        self._shown = 0  # tables of the present shard that were shown
        self._positions = 0
        self._others = lambda: 0

    def count_others(self, positions: Callable[[], int]) -> None:
        """positions: gives the tokens that other processes have finished since the beginning."""
        self._others = positions

    def batch(self, batch: TokenBatch, scores: TokenScores, accumulator: RankAccumulator) -> None:
        """A batch was scored and counted."""
        self._observers.notify("on_batch", batch, scores)
        self._positions += batch.tokens.size
        if time.monotonic() - self._logged >= self._log_seconds:
            self._log(accumulator)

    def shard(self, accumulator: RankAccumulator) -> None:
        """Every batch of a shard was scored."""
        self._log(accumulator)
        self._stats = self._stats + accumulator.snapshot()
        self._shown = 0

    def _log(self, accumulator: RankAccumulator) -> None:
        self._logged = time.monotonic()
        stats, tables = self._stats + accumulator.snapshot(), accumulator.tables()
        done = self._run.finished_positions + self._positions + self._others()
        self._observers.notify(
            "on_log",
            Progress(done, self._logged - self._begin, self._run.finished_positions, stats, tables[self._shown :]),
        )
        self._shown = len(tables)


def measure(
    plan: WindowPlan,
    score: Callable[[TokenBatch], TokenScores],
    run: RunInfo,
    watch: Watch | None = None,
    batch_tokens: int = 8192,
    fold_tokens: int = 1 << 18,
) -> Measurement:
    """Score every row of ``plan`` once and return the sums.

    score: the scores of a batch's scored positions, in row-major order, unchecked; a batch ahead of what the observers
    see. watch: shows the work to observers. fold_tokens: as in RankAccumulator. The result is independent of
    ``batch_tokens``, ``fold_tokens`` and the order of rows of different documents. Raises NonFiniteScores naming
    document and token.
    """
    documents, rows = np.unique(plan.document_id, return_counts=True)
    accumulator = RankAccumulator(dict(zip(documents.tolist(), rows.tolist(), strict=True)), fold_tokens)
    accumulator.on_start(run)
    watch = watch or Watch(run)
    for batch, scores in scored(plan.batches(batch_tokens), score):
        accumulator.on_batch(batch, scores)
        watch.batch(batch, scores, accumulator)
    watch.shard(accumulator)
    return accumulator.result()


def scored(batches: Iterable[TokenBatch], score: Callable[[TokenBatch], Scores]) -> Iterator[tuple[TokenBatch, Scores]]:
    """Each batch with its scores on the host, those of one model or of two; NonFiniteScores when one is not finite."""
    for batch, scores in _ahead(batches, score):
        try:
            scores.check_finite()
        except NonFiniteLogits as error:
            raise NonFiniteScores(_where(batch, error.index)) from None
        yield batch, scores


def _ahead(batches: Iterable[TokenBatch], score: Callable[[TokenBatch], Scores]) -> Iterator[tuple[TokenBatch, Scores]]:
    """Each batch with its scores on the host, the next batch already given to the device: a GPU works on it while the
    host copies, counts and prepares."""
    waiting: tuple[TokenBatch, Callable[[], Scores]] | None = None
    for batch in batches:
        arriving = batch, _to_host(score(batch))
        if waiting is not None:
            yield waiting[0], waiting[1]()
        waiting = arriving
    if waiting is not None:
        yield waiting[0], waiting[1]()


def _to_host(scores: Scores) -> Callable[[], Scores]:
    """Begins to copy; the function returned waits for the end of it."""
    if scores.device.type != "cuda":
        return lambda: scores
    import torch

    copies = scores.map(lambda values: values.to("cpu", non_blocking=True))
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(scores.device))

    def arrived() -> Scores:
        copied.synchronize()
        return copies

    return arrived


def _where(batch: TokenBatch, index: int) -> str:
    row, position = (int(i[index]) for i in np.nonzero(batch.scored))
    return (
        f"non-finite logits in document {int(batch.document_id[row])} at position {position} of its row "
        f"(token id {int(batch.tokens[row, position])})"
    )
