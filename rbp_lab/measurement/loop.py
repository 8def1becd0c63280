"""The measuring loop: rows in, scores to the observers, one measurement out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from rbp_lab.data.windows import TokenBatch, WindowPlan
from rbp_lab.errors import LabError
from rbp_lab.measurement.accumulator import RankAccumulator
from rbp_lab.measurement.observers import Measurement, Observers, Progress, RunInfo
from rbp_lab.scoring.types import NonFiniteLogits, TokenScores, check_finite


class NonFiniteScores(LabError):
    """A logit is NaN or infinite; the message says where."""


def measure(
    plan: WindowPlan,
    score: Callable[[TokenBatch], TokenScores],
    run: RunInfo,
    observers: Observers | None = None,
    batch_tokens: int = 8192,
    log_seconds: float = 5.0,
    fold_tokens: int = 1 << 18,
) -> Measurement:
    """Score every row of ``plan`` once and return the sums.

    score: the scores of a batch's scored positions, in row-major order, unchecked; a batch ahead of what the observers
    see. observers: notified beside the rank accumulator; the caller closes them. fold_tokens: as in RankAccumulator.
    The result is independent of ``batch_tokens``, ``fold_tokens`` and the order of rows of different documents. Raises
    NonFiniteScores naming document and token.
    """
    documents, rows = np.unique(plan.document_id, return_counts=True)
    accumulator = RankAccumulator(dict(zip(documents.tolist(), rows.tolist(), strict=True)), fold_tokens)
    accumulator.on_start(run)
    observers = observers or Observers()
    observers.notify("on_start", run)
    _loop(plan, score, accumulator, observers, batch_tokens, log_seconds)
    measurement = accumulator.result()
    observers.notify("on_end", measurement)
    return measurement


def _loop(
    plan: WindowPlan,
    score: Callable[[TokenBatch], TokenScores],
    accumulator: RankAccumulator,
    observers: Observers,
    batch_tokens: int,
    log_seconds: float,
) -> None:
    begin = logged = time.monotonic()
    rows = positions = 0
    for batch, scores in _ahead(plan.batches(batch_tokens), score):
        try:
            check_finite(scores)
        except NonFiniteLogits as error:
            raise NonFiniteScores(_where(batch, error.index)) from None
        accumulator.on_batch(batch, scores)
        observers.notify("on_batch", batch, scores)
        rows += len(batch.tokens)
        positions += batch.tokens.size
        now = time.monotonic()
        if now - logged >= log_seconds:
            logged = now
            seconds = now - begin
            observers.notify("on_log", Progress(rows, positions, seconds, accumulator.snapshot(), accumulator.tables()))
    seconds = time.monotonic() - begin
    observers.notify("on_log", Progress(rows, positions, seconds, accumulator.snapshot(), accumulator.tables()))


def _ahead(
    batches: Iterable[TokenBatch], score: Callable[[TokenBatch], TokenScores]
) -> Iterator[tuple[TokenBatch, TokenScores]]:
    """Each batch with its scores on the host, the next batch already given to the device: a GPU works on it while the
    host copies, counts and prepares."""
    waiting: tuple[TokenBatch, Callable[[], TokenScores]] | None = None
    for batch in batches:
        arriving = batch, _to_host(score(batch))
        if waiting is not None:
            yield waiting[0], waiting[1]()
        waiting = arriving
    if waiting is not None:
        yield waiting[0], waiting[1]()


def _to_host(scores: TokenScores) -> Callable[[], TokenScores]:
    """Begins to copy; the function returned waits for the end of it."""
    if scores.nll.device.type != "cuda":
        return lambda: scores
    import torch

    copies = scores.map(lambda values: values.to("cpu", non_blocking=True))
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(scores.nll.device))

    def arrived() -> TokenScores:
        copied.synchronize()
        return copies

    return arrived


def _where(batch: TokenBatch, index: int) -> str:
    row, position = (int(i[index]) for i in np.nonzero(batch.scored))
    return (
        f"non-finite logits in document {int(batch.document_id[row])} at position {position} of its row "
        f"(token id {int(batch.tokens[row, position])})"
    )
