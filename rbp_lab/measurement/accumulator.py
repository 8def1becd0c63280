"""The rank accumulator: batches of scores in, the sufficient statistics of every rank out."""

from __future__ import annotations

import numpy as np

from rbp_lab.counting import DocumentScores, document_table, rank_stats
from rbp_lab.data.windows import TokenBatch
from rbp_lab.measurement.observers import Callback, Measurement, RunInfo
from rbp_lab.scoring.types import TokenScores
from rbp_lab.stats import DocumentTable, RankStats


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

    def on_start(self, run: RunInfo) -> None:
        self._run = run
        self._stats = RankStats.zeros(run.vocab_rows, run.window_lengths)

    def on_batch(self, batch: TokenBatch, scores: TokenScores) -> None:
        arrays = (scores.nll, scores.num_greater, scores.num_equal, scores.entropy)
        per_token = tuple(np.asarray(a) for a in arrays)
        self._waiting.append((batch.document_id, batch.scored.sum(1), batch.num_bytes, *per_token))
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
