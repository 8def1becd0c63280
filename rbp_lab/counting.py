"""From the scores of tokens to statistics: RankStats and DocumentTable of some whole documents.

Legend: V vocabulary rows, W window lengths, M documents, n scored tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rbp_lab.stats import MAX_NATS, RUN_VALUES, UNIT, DocumentTable, RankStats


@dataclass(frozen=True, eq=False)
class DocumentScores:
    """Scores of whole documents, from which both tables are counted.

    Per document [M]: document_id int64, unique; num_scored int64; num_bytes int64 (bytes of the scored text, 0 when
    unknown). Per scored token, documents one after another [n]: nll and entropy float32 in nats; num_greater and
    num_equal int32, the candidates v ≠ target whose logit is greater than, or equal to, the target's.
    """

    document_id: np.ndarray
    num_scored: np.ndarray
    num_bytes: np.ndarray
    nll: np.ndarray
    num_greater: np.ndarray
    num_equal: np.ndarray
    entropy: np.ndarray


def to_units(nats: np.ndarray) -> np.ndarray:
    """Fixed point of nats (2**-24 nats each), int64; ValueError when a value is not finite or beyond 2**20 nats."""
    if not np.isfinite(nats).all() or (np.abs(nats) > MAX_NATS).any():
        raise ValueError("scores must be finite and below 2**20 nats")
    return np.rint(nats.astype(np.float64) / UNIT).astype(np.int64)


def rank_stats(scores: DocumentScores, vocab_rows: int, window_lengths: tuple[int, ...]) -> RankStats:
    """The totals of some whole documents; see RankStats. Raises ValueError on scores that are not finite."""
    optimistic = scores.num_greater.astype(np.int64)
    pessimistic = optimistic + scores.num_equal
    nll_units = np.zeros(vocab_rows, np.int64)
    np.add.at(nll_units, optimistic, to_units(scores.nll))
    return RankStats(
        counts=np.bincount(pessimistic, minlength=vocab_rows),
        counts_optimistic=np.bincount(optimistic, minlength=vocab_rows),
        nll_units=nll_units,
        window_lengths=tuple(window_lengths),
        window_max=_window_maxima(pessimistic, scores.num_scored, window_lengths, vocab_rows),
        entropy_units=int(to_units(scores.entropy).sum()),
        num_tied=int((scores.num_equal > 0).sum()),
        num_bytes=int(scores.num_bytes.sum()),
        num_documents=len(scores.document_id),
    )


def _window_maxima(ranks0: np.ndarray, sizes: np.ndarray, lengths: tuple[int, ...], vocab_rows: int) -> np.ndarray:
    """Histogram [W,V] of the largest rank (from 0) in each window, by doubling: level p holds maxima over 2**p."""
    out = np.zeros((len(lengths), vocab_rows), np.int64)
    end = np.repeat(np.cumsum(sizes), sizes)
    left = end - np.arange(len(ranks0))  # tokens from here to the end of the document
    level, span = ranks0, 1
    for w in np.argsort(lengths, kind="stable"):
        length = lengths[w]
        while span * 2 <= length and span < len(level):
            level = np.maximum(level[:-span], level[span:])
            span *= 2
        begin = np.flatnonzero(left >= length)
        if len(begin):
            out[w] = np.bincount(np.maximum(level[begin], level[begin + length - span]), minlength=vocab_rows)
    return out


def document_table(scores: DocumentScores, thresholds: tuple[int, ...]) -> DocumentTable:
    """One row per document; see DocumentTable. Raises ValueError on scores that are not finite."""
    m = len(scores.document_id)
    row = np.repeat(np.arange(m), scores.num_scored)
    rank = 1 + scores.num_greater.astype(np.int64) + scores.num_equal
    log_rank = np.log(rank)

    def per_document(values: np.ndarray) -> np.ndarray:
        # bincount adds in reading order, so a document's float sum does not depend on its neighbours
        return np.bincount(row, weights=values, minlength=m)

    def per_document_exact(units: np.ndarray) -> np.ndarray:
        out = np.zeros(m, np.int64)
        np.add.at(out, row, units)
        return out

    top = int(rank.max(initial=0)) + 1
    pairs, count = _distinct(row, top, rank)
    table = DocumentTable(
        thresholds=tuple(thresholds),
        document_id=scores.document_id.astype(np.int64),
        num_scored=scores.num_scored.astype(np.int64),
        num_bytes=scores.num_bytes.astype(np.int64),
        nll_units=per_document_exact(to_units(scores.nll)),
        entropy_units=per_document_exact(to_units(scores.entropy)),
        num_tied=per_document_exact((scores.num_equal > 0).astype(np.int64)),
        nll_sq=per_document(scores.nll.astype(np.float64) ** 2),
        log_rank=per_document(log_rank),
        log_rank_sq=per_document(log_rank**2),
        indptr=np.searchsorted(pairs, np.arange(m + 1) * top).astype(np.int64),
        rank=(pairs % top).astype(np.int32),
        count=count.astype(np.int32),
        **_runs(rank, row, thresholds),
    )
    return DocumentTable.zeros(table.thresholds) + table  # sorted by document_id, and unique


def _distinct(row: np.ndarray, base: int, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distinct values of row · base + value, rising, int64; how often each occurs), for 0 ≤ value < base."""
    key = row * base + value
    if key.max(initial=0) < 2**31:
        key = key.astype(np.int32)  # sorts faster, and sorting is a third of what a table costs
    distinct, count = np.unique(key, return_counts=True)
    return distinct.astype(np.int64), count


def runs_of_hits(hit: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maximal runs of hits inside each document: (document, length, how many), by document and length.

    hit: bool [n]. row: of each token's document [n], integers ≥ 0; a document's tokens stand together.
    """
    new_document = np.concatenate([[True], np.diff(row) != 0]) if len(row) else np.zeros(0, bool)
    last_of_document = np.concatenate([new_document[1:], [True]]) if len(row) else new_document
    before = np.concatenate([[False], hit[:-1]]) & ~new_document if len(row) else hit
    after = np.concatenate([hit[1:], [False]]) & ~last_of_document if len(row) else hit
    first, last = np.flatnonzero(hit & ~before), np.flatnonzero(hit & ~after)
    longest = len(hit) + 1
    key, count = _distinct(row[first], longest, last - first + 1)
    return key // longest, key % longest, count


def _runs(rank: np.ndarray, row: np.ndarray, thresholds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Lengths of the maximal runs of rank ≤ k inside each document, counted, for every threshold."""
    parts: list[tuple[np.ndarray, ...]] = []
    for t, k in enumerate(thresholds):
        of, length, count = runs_of_hits(rank <= k, row)
        parts.append((of, np.full(len(of), t), length, count))
    names = ("run_row", *RUN_VALUES)
    if not parts:
        return {name: np.zeros(0, np.int32) for name in names}
    return {name: np.concatenate(c).astype(np.int32) for name, c in zip(names, zip(*parts, strict=True), strict=True)}
