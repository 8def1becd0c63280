"""What the tables of one record must agree on; a count that contradicts another is damage, whoever did it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rbp_lab.stats import MAX_NATS, UNIT, DocumentTable, RankStats

# Rounding of float32 scores may take the nll of a certain token this far below 0, in nats.
_BELOW_ZERO = 1e-3
_RELATIVE = 1e-6  # of sums of float64 taken in another order


def contradiction(stats: RankStats, documents: DocumentTable) -> str | None:
    """The first thing in which the totals and the document table cannot both be right, as a clause; None when all can.

    Whatever is counted in two places is compared exactly; what is held in floating point, to rounding.
    """
    for checks in (_documents, _ranks, _histograms, _runs, _windows):
        for holds, what in checks(stats, documents):
            if not holds:
                return what
    return None


def _documents(stats: RankStats, documents: DocumentTable) -> Iterator[tuple[bool, str]]:
    n, nll, nll_sq = documents.num_scored, documents.nll_units * UNIT, documents.nll_sq
    yield (
        bool((documents.document_id >= 0).all() and (np.diff(documents.document_id) > 0).all()),
        ("document ids do not rise"),
    )
    for name in ("num_scored", "num_bytes", "num_tied"):
        yield bool((getattr(documents, name) >= 0).all()), f"{name} of a document is negative"
    yield bool((documents.num_tied <= n).all()), "a document has more ties than tokens"
    for name in ("nll_sq", "log_rank", "log_rank_sq"):
        values = getattr(documents, name)
        yield bool(np.isfinite(values).all() and (values >= 0).all()), f"{name} of a document is negative or not finite"
    for name in ("nll_units", "entropy_units"):
        nats = getattr(documents, name) * UNIT
        yield (
            bool((nats >= -_BELOW_ZERO * n).all() and (nats <= MAX_NATS * n).all()),
            (f"{name} of a document is out of range"),
        )
    least, most = np.maximum(nll - UNIT * n, 0), nll + 2 * _BELOW_ZERO * n
    slack = _RELATIVE * nll_sq
    yield bool((least**2 <= n * (nll_sq + slack)).all()), "Σ nll² of a document is less than its Σ nll allows"
    yield bool((nll_sq <= most**2 + slack).all()), "Σ nll² of a document is more than its Σ nll allows"
    totals = {
        "num_documents": (stats.num_documents, len(documents)),
        "num_tokens": (stats.num_tokens, int(n.sum())),
        "num_bytes": (stats.num_bytes, int(documents.num_bytes.sum())),
        "num_tied": (stats.num_tied, int(documents.num_tied.sum())),
        "Σ nll": (int(stats.nll_units.sum()), int(documents.nll_units.sum())),
        "Σ entropy": (stats.entropy_units, int(documents.entropy_units.sum())),
    }
    for name, (total, summed) in totals.items():
        yield total == summed, f"{name} of the corpus is not the sum over its documents"


def _ranks(stats: RankStats, documents: DocumentTable) -> Iterator[tuple[bool, str]]:
    counts, optimistic, nll = stats.counts, stats.counts_optimistic, stats.nll_units * UNIT
    yield bool((counts >= 0).all() and (optimistic >= 0).all()), "the count of a rank is negative"
    yield int(counts.sum()) == int(optimistic.sum()), "the two tie rules count different numbers of tokens"
    yield bool((np.cumsum(optimistic) >= np.cumsum(counts)).all()), "an optimistic rank is above the pessimistic one"
    yield (
        bool((nll >= -_BELOW_ZERO * optimistic).all() and (nll <= MAX_NATS * optimistic).all()),
        ("Σ nll of a rank is out of range"),
    )


def _histograms(stats: RankStats, documents: DocumentTable) -> Iterator[tuple[bool, str]]:
    rank, count, sizes = documents.rank, documents.count.astype(np.int64), np.diff(documents.indptr)
    row = np.repeat(np.arange(len(documents)), sizes)
    yield bool((rank >= 1).all() and (rank <= stats.vocab_rows).all()), "a rank is not in 1…V"
    yield bool((count > 0).all()), "the count of a document's rank is not positive"
    rising = np.diff(rank.astype(np.int64)) > 0
    yield bool((rising | (np.diff(row) > 0)).all()), "the ranks of a document do not rise"
    yield _same(_sum_by(row, count, len(documents)), documents.num_scored), "a document's ranks are not its tokens"
    yield _same(_sum_by(rank - 1, count, stats.vocab_rows), stats.counts), "ranks by document do not add up to ranks"
    logs = np.log(rank)
    for name, values in (("log_rank", logs), ("log_rank_sq", logs**2)):
        expected = np.bincount(row, weights=values * count, minlength=len(documents))
        yield (
            bool(np.allclose(getattr(documents, name), expected, _RELATIVE, 1e-9)),
            (f"{name} of a document does not follow from its ranks"),
        )


def _runs(stats: RankStats, documents: DocumentTable) -> Iterator[tuple[bool, str]]:
    thresholds = len(documents.thresholds)
    row, threshold = documents.run_row.astype(np.int64), documents.run_threshold.astype(np.int64)
    length, count = documents.run_length.astype(np.int64), documents.run_count.astype(np.int64)
    inside = (row >= 0) & (row < len(documents)) & (threshold >= 0) & (threshold < thresholds)
    yield bool(inside.all()), "a run is of no document or threshold of this record"
    yield bool((length > 0).all() and (count > 0).all()), "a run has no length or count"
    cell = row * thresholds + threshold
    order = np.lexsort((length, cell))
    twice = (np.diff(cell[order]) == 0) & (np.diff(length[order]) == 0)
    yield not twice.any(), "a length of run is listed twice"
    hits = _sum_by(cell, length * count, len(documents) * thresholds).reshape(-1, thresholds)
    runs = _sum_by(cell, count, len(documents) * thresholds).reshape(-1, thresholds)
    for i, k in enumerate(documents.thresholds):
        yield _same(hits[:, i], documents.hits(k)), f"the runs at k = {k} do not hold the document's tokens of rank ≤ k"
    # Runs are maximal: between two of them lies a token that is in neither.
    yield bool((hits + runs <= documents.num_scored[:, None] + 1).all()), "there are more runs than fit in a document"


def _windows(stats: RankStats, documents: DocumentTable) -> Iterator[tuple[bool, str]]:
    yield bool((stats.window_max >= 0).all()), "the count of a window is negative"
    for length, histogram in zip(stats.window_lengths, stats.window_max, strict=True):
        total = int(documents.windows(length).sum())
        yield int(histogram.sum()) == total, f"there are not as many windows of N = {length} as the documents hold"
        for k in documents.thresholds:
            hits = int(documents.window_hits(length, k).sum())
            yield int(histogram[:k].sum()) == hits, f"windows of N = {length} contradict the runs at k = {k}"
        if length == 1:
            yield _same(histogram, stats.counts), "windows of one token are not the tokens"


def _sum_by(index: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Σ of integers by index, exact: int64 [size]."""
    out = np.zeros(size, np.int64)
    np.add.at(out, index, values)
    return out


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a, b))
