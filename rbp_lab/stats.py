"""Sufficient statistics of a corpus under a model: a commutative monoid of integers.

Batched, sharded, distributed, interrupted and resumed measurements are all the same operation, ``a + b``. Counts are
int64 and sums of nll and entropy are held in fixed point (int64 multiples of 2**-24 nats), so the result does not
depend, to the last bit, on the order of addition.

Legend: V vocabulary rows, W window lengths, K thresholds, M documents, n scored tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

# One fixed-point unit in nats. float32 scores carry 24 significant bits, so rounding to 2**-24 adds less than 3e-8
# nats to a token; 2**63 units are 5.5e11 nats, enough for 10^10 tokens.
UNIT = 2.0**-24
# Larger nll or entropy (in nats) would eat the headroom of the fixed point; real logits stay far below.
MAX_NATS = 2.0**20


class _Monoid:
    """Equality to the last bit, shared by the two tables."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None


@dataclass(frozen=True, eq=False)
class RankStats(_Monoid):
    """Corpus totals by rank; entry r−1 of an array belongs to rank r = 1…V.

    counts: int64 [V], tokens by pessimistic rank 1 + num_greater + num_equal ([RBP] eq. 3, the headline rank).
    counts_optimistic: int64 [V], tokens by optimistic rank 1 + num_greater (rank-based error + 1 of [EE]).
    nll_units: int64 [V], Σ nll by optimistic rank in units of 2**-24 nats (the grouping of [EE], section 3).
    window_lengths: the N of the windows. window_max: int64 [W,V], windows of N consecutive scored tokens of one
    document (stride 1) by their largest pessimistic rank. entropy_units: Σ predictive entropy, same unit.
    num_tied: tokens with num_equal > 0. num_bytes: bytes of scored text, 0 when unknown. num_documents: documents.
    """

    counts: np.ndarray
    counts_optimistic: np.ndarray
    nll_units: np.ndarray
    window_lengths: tuple[int, ...]
    window_max: np.ndarray
    entropy_units: int
    num_tied: int
    num_bytes: int
    num_documents: int

    @classmethod
    def zeros(cls, vocab_rows: int, window_lengths: tuple[int, ...] = (1,)) -> RankStats:
        """The neutral element for V = ``vocab_rows``."""
        z = np.zeros(vocab_rows, np.int64)
        windows = np.zeros((len(window_lengths), vocab_rows), np.int64)
        return cls(z, z.copy(), z.copy(), tuple(window_lengths), windows, 0, 0, 0, 0)

    def __add__(self, other: RankStats) -> RankStats:
        if self.vocab_rows != other.vocab_rows or self.window_lengths != other.window_lengths:
            raise ValueError(
                f"cannot add statistics of {self.vocab_rows} rows, windows {self.window_lengths} "
                f"and of {other.vocab_rows} rows, windows {other.window_lengths}"
            )
        summed = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return RankStats(**{**summed, "window_lengths": self.window_lengths})

    @property
    def vocab_rows(self) -> int:
        return len(self.counts)

    @property
    def num_tokens(self) -> int:
        """n, scored tokens."""
        return int(self.counts.sum())

    def hits(self, k: int, ties: str = "pessimistic") -> int:
        """Tokens of rank ≤ k, by the pessimistic or the "optimistic" rank."""
        return int((self.counts if ties == "pessimistic" else self.counts_optimistic)[:k].sum())

    @property
    def nll_sum(self) -> np.ndarray:
        """Σ nll in nats by optimistic rank, float64 [V]."""
        return self.nll_units * UNIT


@dataclass(frozen=True, eq=False)
class DocumentTable(_Monoid):
    """What resampling documents needs: one row per document, nothing per token; rows sorted by document_id.

    Per document [M]: document_id, num_scored, num_bytes, nll_units, entropy_units, num_tied int64; nll_sq,
    log_rank, log_rank_sq float64 (Σ nll², Σ ln rank, Σ ln² rank; pessimistic rank). Histogram of pessimistic ranks,
    sparse: row m holds rank[i] int32 (rising) with count[i] int32 for i in indptr[m]…indptr[m+1]. Runs: for each
    threshold k, maximal runs of consecutive scored tokens with rank ≤ k as tuples (run_row, run_threshold,
    run_length, run_count): they give p_{N,k} of every N, since a run of length L holds max(0, L−N+1) windows.
    run_row indexes the rows of this table, run_threshold indexes ``thresholds``.
    """

    thresholds: tuple[int, ...]
    document_id: np.ndarray
    num_scored: np.ndarray
    num_bytes: np.ndarray
    nll_units: np.ndarray
    entropy_units: np.ndarray
    num_tied: np.ndarray
    nll_sq: np.ndarray
    log_rank: np.ndarray
    log_rank_sq: np.ndarray
    indptr: np.ndarray
    rank: np.ndarray
    count: np.ndarray
    run_row: np.ndarray
    run_threshold: np.ndarray
    run_length: np.ndarray
    run_count: np.ndarray

    @classmethod
    def zeros(cls, thresholds: tuple[int, ...] = ()) -> DocumentTable:
        """The neutral element: no document."""
        i64, f64, i32 = np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int32)
        return cls(
            tuple(thresholds), i64, i64, i64, i64, i64, i64, f64, f64, f64,
            np.zeros(1, np.int64), i32, i32, i32, i32, i32, i32,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.document_id)

    def __add__(self, other: DocumentTable) -> DocumentTable:
        """The union of two disjoint sets of documents; ValueError when a document is in both."""
        if self.thresholds != other.thresholds:
            raise ValueError(f"cannot add document tables of thresholds {self.thresholds} and {other.thresholds}")
        ids = np.concatenate([self.document_id, other.document_id])
        order = np.argsort(ids, kind="stable")
        if len(ids) and (np.diff(ids[order]) == 0).any():
            twice = ids[order][1:][np.diff(ids[order]) == 0]
            raise ValueError(f"documents counted twice: {twice[:5].tolist()}{' …' if len(twice) > 5 else ''}")
        per_row = {name: np.concatenate([getattr(self, name), getattr(other, name)])[order] for name in PER_DOCUMENT}
        sizes = np.concatenate([np.diff(self.indptr), np.diff(other.indptr)])
        indptr = np.concatenate([[0], np.cumsum(sizes[order])]).astype(np.int64)
        start = np.concatenate([[0], np.cumsum(sizes)])[:-1][order]
        take = np.repeat(start - indptr[:-1], sizes[order]) + np.arange(indptr[-1])
        new_row = np.empty(len(ids), np.int32)
        new_row[order] = np.arange(len(ids), dtype=np.int32)
        run_row = new_row[np.concatenate([self.run_row, other.run_row + np.int32(len(self))])]
        runs = {n: np.concatenate([getattr(self, n), getattr(other, n)]) for n in RUN_VALUES}
        by_row = np.lexsort((runs["run_length"], runs["run_threshold"], run_row))
        return DocumentTable(
            thresholds=self.thresholds,
            **per_row,
            indptr=indptr,
            rank=np.concatenate([self.rank, other.rank])[take],
            count=np.concatenate([self.count, other.count])[take],
            run_row=run_row[by_row],
            **{name: value[by_row] for name, value in runs.items()},
        )

    def hits(self, k: int) -> np.ndarray:
        """Tokens of pessimistic rank ≤ k by document, int64 [M]; any k ≥ 1."""
        inside = np.concatenate([[0], np.cumsum(np.where(self.rank <= k, self.count, 0), dtype=np.int64)])
        return inside[self.indptr[1:]] - inside[self.indptr[:-1]]

    def windows(self, length: int) -> np.ndarray:
        """Windows of ``length`` consecutive scored tokens by document, int64 [M]."""
        return np.maximum(self.num_scored - length + 1, 0)

    def window_hits(self, length: int, k: int) -> np.ndarray:
        """Windows of ``length`` tokens all of rank ≤ k by document, int64 [M]; k must be one of ``thresholds``."""
        if k not in self.thresholds:
            raise ValueError(f"runs are stored for k in {self.thresholds}; got {k}")
        mine = self.run_threshold == self.thresholds.index(k)
        hit = self.run_count[mine].astype(np.int64) * np.maximum(self.run_length[mine].astype(np.int64) - length + 1, 0)
        out = np.zeros(len(self), np.int64)
        np.add.at(out, self.run_row[mine], hit)
        return out


PER_DOCUMENT = (
    "document_id", "num_scored", "num_bytes", "nll_units", "entropy_units", "num_tied", "nll_sq", "log_rank",
    "log_rank_sq",
)  # fmt: skip
RUN_VALUES = ("run_threshold", "run_length", "run_count")
