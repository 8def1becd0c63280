"""A band for exponents over k that holds for all k at once: each k's own interval, widened by a factor.

The exponents of all k come from the same models and documents, so their errors go together, and the band is much
narrower than that of as many exponents on their own. How much they go together is estimated apart for the two sources
of error (``fits.gls``). For documents it is what each of them moves the exponents by. For the scatter between models it
is the residuals, and these are few: the correlation of n − 2 residuals looks stronger than it is as often as weaker,
and a band that takes it as it is covers too little with four or five models. It is lowered by one standard error of its
Fisher transform, which leaves it near 1 where it is near 1. The factor of a k is the mean of the two, weighted by the
share of each source in the variance of its exponent. tests/coverage/RESULTS.md holds what the band covers.

Legend: K thresholds k, n models, G documents.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import special

from rbp_lab.fits.result import FitResult

SIMULATIONS = 4000
SEED = 0
_MOST_FREEDOM = 20  # the factor hardly depends on more
_COLUMNS = ["k", "alpha", "low", "high", "simultaneous_low", "simultaneous_high"]


def simultaneous_band(fits: Sequence[FitResult]) -> pd.DataFrame:
    """Exponents over k with a band that holds for all k at once: columns k, alpha, low, high, simultaneous_low/high.

    fits: power laws of one family over the same models, one per k. The band is each k's own interval times its
    ``simultaneous_factors``. Empty when fewer than two k were fitted.
    """
    usable = [f for f in fits if f.ok]
    usable = [f for f in usable if f.points.names == usable[0].points.names]
    if len(usable) < 2:
        return pd.DataFrame(columns=_COLUMNS)
    rows = []
    for f, factor in zip(usable, simultaneous_factors(usable), strict=True):
        alpha, (low, high) = f.params["alpha"], f.intervals["alpha"]
        half = factor * (high - low) / 2
        rows.append((f.label.k, alpha, low, high, alpha - half, alpha + half))
    return pd.DataFrame(rows, columns=_COLUMNS)


def simultaneous_factors(fits: Sequence[FitResult]) -> np.ndarray:
    """By how much the interval of each fit grows to hold for all at once, at the fits' confidence [K]; at least 1."""
    rng, confidence = np.random.default_rng(SEED), fits[0].confidence
    x = np.log(fits[0].points.x)
    dx = x - x.mean()
    design = np.column_stack([np.ones(len(x)), dx])
    y = np.stack([np.log(f.points.value) for f in fits], axis=1)
    freedom = len(x) - 2
    of_models = _lowered(_correlation(y - design @ np.linalg.pinv(design) @ y), freedom)
    models = _factor(of_models, freedom, confidence, rng)
    share = np.array([f.document_share or 0.0 for f in fits])
    if not share.any():
        return np.full(len(fits), models)
    moved = np.stack([f.points.errors.values @ dx for f in fits], axis=1)  # exponents by documents, up to a factor
    documents = _factor(_correlation(moved), fits[0].error.freedom_documents, confidence, rng)
    return share * documents + (1 - share) * models


def _correlation(values: np.ndarray) -> np.ndarray:
    """Correlation about 0 of the columns of values [m,K]; 0 where a column is 0."""
    length = np.sqrt((values**2).sum(axis=0))
    scaled = np.divide(values, length, out=np.zeros_like(values), where=length > 0)
    return scaled.T @ scaled


def _lowered(correlation: np.ndarray, freedom: int) -> np.ndarray:
    """Correlations of normals with ``freedom`` ≥ 1 degrees of freedom, each nearer 0 by one standard error of artanh.

    The variance of artanh r is ψ′((freedom − 1)/2)/2 where the truth is 0: without end for one degree of freedom.
    """
    error = np.sqrt(special.polygamma(1, (freedom - 1) / 2) / 2)
    z = np.arctanh(np.clip(correlation, -1 + 1e-15, 1 - 1e-15))
    return np.sign(z) * np.tanh(np.maximum(np.abs(z) - error, 0.0))


def _factor(correlation: np.ndarray, freedom: float, confidence: float, rng: np.random.Generator) -> float:
    """Quantile of the largest |t| over K that have this correlation, in units of the quantile of one; at least 1."""
    size, direction = np.linalg.eigh(correlation - np.diag(np.diag(correlation)) + np.eye(len(correlation)))
    # The symmetric root: signs and order of eigenvectors are not the same on every processor, and do not show in it.
    root = (direction * np.sqrt(np.maximum(size, 0.0))) @ direction.T
    rows = int(min(max(round(freedom), 1), _MOST_FREEDOM))
    noise = rng.standard_normal((SIMULATIONS, rows + 1, len(root))) @ root
    t = np.abs(noise[:, 0]) / np.sqrt((noise[:, 1:] ** 2).mean(axis=1))
    largest = (t / np.quantile(t, confidence, axis=0)).max(axis=1)
    return max(1.0, float(np.quantile(largest, confidence)))
