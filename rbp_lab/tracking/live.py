"""Intervals while measuring, at the price of a few sums: no document table is merged.

The ratio estimator of ``metrics.ratio_estimate`` needs, of documents with numerator x and denominator n, only M, Σx,
Σn, Σx², Σxn and Σn². They add up over the tables of documents as those are finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from rbp_lab.metrics import Estimate
from rbp_lab.stats import UNIT, DocumentTable

LEVEL = 0.95


class LiveIntervals:
    """Running document-level intervals of RBP_k for k in ``thresholds`` and of cross-entropy."""

    def __init__(self, thresholds: Sequence[int]):
        """thresholds: rising."""
        self._thresholds = np.asarray(thresholds)
        self._documents = 0
        columns = len(thresholds) + 1  # the last one is Σ nll
        self._x, self._xx, self._xn = np.zeros(columns), np.zeros(columns), np.zeros(columns)
        self._n, self._nn = 0.0, 0.0

    def update(self, tables: Sequence[DocumentTable]) -> None:
        """Take in the tables of further documents."""
        for table in tables:
            n = table.num_scored.astype(np.float64)
            x = np.column_stack([_hits(table, self._thresholds), table.nll_units * UNIT])
            self._documents += int((n > 0).sum())
            self._x += x.sum(0)
            self._xx += (x**2).sum(0)
            self._xn += n @ x
            self._n += n.sum()
            self._nn += n @ n

    def rbp(self, index: int) -> Estimate | None:
        """−log RBP_k of the ``index``-th threshold, as ``metrics.neg_log_rbp`` gives it; None when undefined."""
        ratio, variance = self._ratio(index)
        if not 0 < ratio < 1:
            return None
        value = -np.log(ratio)
        return self._estimate(value, np.sqrt(variance) / (ratio * value))

    def cross_entropy(self) -> Estimate | None:
        """Cross-entropy in nats, as ``metrics.cross_entropy_estimate`` gives it; None when undefined."""
        ratio, variance = self._ratio(-1)
        return self._estimate(ratio, np.sqrt(variance) / ratio) if ratio > 0 else None

    def _ratio(self, column: int) -> tuple[float, float]:
        """Σx/Σn and its linearised variance over documents; (0, 0) for fewer than two documents."""
        m, n = self._documents, self._n
        if m < 2:
            return 0.0, 0.0
        ratio = self._x[column] / n
        squares = self._xx[column] - 2 * ratio * self._xn[column] + ratio**2 * self._nn
        return float(ratio), float(m / (m - 1) * max(0.0, squares) / n**2)

    def _estimate(self, value: float, se_log: float) -> Estimate:
        t = _quantile(self._documents - 1)
        lower, upper = value * np.exp(np.array([-t, t]) * se_log)
        return Estimate(float(value), float(lower), float(upper), float(se_log), None, self._documents, LEVEL)


@lru_cache(maxsize=4)  # slow, and the same for every k of a row
def _quantile(freedom: int) -> float:
    from scipy.special import stdtrit  # not where a record is found

    return float(stdtrit(freedom, 0.5 + LEVEL / 2))


def _hits(table: DocumentTable, thresholds: np.ndarray) -> np.ndarray:
    """Tokens of rank ≤ k per document and threshold [M,K], in one sweep over the sparse histogram."""
    m, columns = len(table), len(thresholds) + 1
    row = np.repeat(np.arange(m), np.diff(table.indptr))
    first = np.searchsorted(thresholds, table.rank)  # the smallest threshold that the rank does not exceed
    counts = np.bincount(row * columns + first, weights=table.count, minlength=m * columns)
    return np.cumsum(counts.reshape(m, columns), axis=1)[:, :-1]
