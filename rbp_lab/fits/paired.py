"""Comparing exponents on the same models: the difference is regressed directly, so what both share cancels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rbp_lab.fits.gls import LineError, combined, independent
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import NOT_FALLING, FitPoints, FitResult

SIMULATIONS = 4000


@dataclass(frozen=True)
class ExponentDifference:
    """α_first − α_second over the same models. low, high: its interval at ``confidence``, None when refused.

    gain: how many times narrower the interval is than that of two separate exponents of these models, the root sum
    of squares of their standard errors over the paired one; None when refused or the ratio is an exact power. models:
    number of models in common. warnings: of the two laws, about their exponents. message: "fitted", or why there is
    none. error: of the line through the ratio, whose first parameter the difference is.
    """

    first: str
    second: str
    difference: float | None
    low: float | None
    high: float | None
    models: int
    confidence: float
    message: str
    gain: float | None = None
    warnings: tuple[str, ...] = ()
    error: LineError | None = None

    @property
    def differs(self) -> bool | None:
        """Whether the interval excludes 0; None when there is no interval."""
        return None if self.low is None else not self.low <= 0 <= self.high

    def to_frame(self) -> pd.DataFrame:
        """One row with every field."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "error"}
        return pd.DataFrame([row | {"warnings": " ".join(self.warnings)}])


def exponent_difference(first: FitResult, second: FitResult, same_documents: bool = True) -> ExponentDifference:
    """α of one law minus α of another, from ln(value₁/value₂) against ln S over the models that both have.

    Documents and the particular models are common to both, so the interval is narrower than that of two separate
    exponents; ``gain`` says how much (cross-entropy against −log RBP_1 is the paper's figure 8a). What documents do to
    the ratio counts where both laws know it. same_documents: False for laws on two corpora.
    """
    by_name = {name: i for i, name in enumerate(second.points.names)}
    common = [(i, by_name[name]) for i, name in enumerate(first.points.names) if name in by_name]
    names = (str(first.label), str(second.label))
    a, b = first.points, second.points
    ratio, size = [], []
    for i, j in common:
        if not (0 < a.value[i] < np.inf and 0 < b.value[j] < np.inf):
            why = f"{a.names[i]} has a value of 0 or no finite one: the ratio has no logarithm"
            return ExponentDifference(*names, None, None, None, len(common), first.confidence, why)
        ratio.append(a.value[i] / b.value[j])
        size.append(a.x[i])
    errors = None
    if a.errors is not None and b.errors is not None:
        of_ratio = combined if same_documents else independent
        errors = of_ratio([a.errors.of([i for i, _ in common]), b.errors.of([j for _, j in common])], (1, -1))
    points = FitPoints(np.array(size), np.array(ratio), tuple(a.names[i] for i, _ in common), errors=errors)
    fit = fit_power(points, confidence=first.confidence)
    if not fit.ok:
        return ExponentDifference(*names, None, None, None, len(common), first.confidence, fit.message)
    low, high = fit.intervals["alpha"]
    separate = [law if law.n == fit.n else fit_power(law.points.of(fit.points.names)) for law in (first, second)]
    falling = dict.fromkeys(code for law in separate for code in law.warnings if code == NOT_FALLING)
    gain = None
    if fit.se["alpha"] > 0 and all(law.ok for law in separate):
        gain = math.hypot(*(law.se["alpha"] for law in separate)) / fit.se["alpha"]
    return ExponentDifference(
        *names, fit.params["alpha"], low, high, len(common), first.confidence, "fitted", gain, tuple(falling),
        fit.error,
    )  # fmt: skip


def simultaneous_band(fits: Sequence[FitResult], seed: int = 0) -> pd.DataFrame:
    """Exponents over k with a band that holds for all k at once: columns k, alpha, low, high, simultaneous_low/high.

    fits: power laws of one family over the same models, one per k. Their errors are strongly correlated (they are the
    same models and documents), so that the band is each k's own interval times one factor that normal errors with that
    correlation give (``simultaneous_factor``). Empty when fewer than two k were fitted.
    """
    usable = [f for f in fits if f.ok]
    usable = [f for f in usable if f.points.names == usable[0].points.names]
    if len(usable) < 2:
        return pd.DataFrame(columns=["k", "alpha", "low", "high", "simultaneous_low", "simultaneous_high"])
    factor = simultaneous_factor(usable, seed)
    rows = []
    for f in usable:
        alpha, (low, high) = f.params["alpha"], f.intervals["alpha"]
        half = factor * (high - low) / 2
        rows.append((f.label.k, alpha, low, high, alpha - half, alpha + half))
    return pd.DataFrame(rows, columns=["k", "alpha", "low", "high", "simultaneous_low", "simultaneous_high"])


def simultaneous_factor(fits: Sequence[FitResult], seed: int = 0) -> float:
    """By how much the intervals of single fits grow to hold for all fits at once, at the fits' confidence; at least 1.

    The quantile of the largest |α̂ − α|/se over fits, each in units of its own quantile, under the correlation of their
    errors.
    """
    rng = np.random.default_rng(seed)
    x = np.log(fits[0].points.x)
    dx = x - x.mean()
    n, dof, sxx = len(x), len(x) - 2, float(dx @ dx)
    design = np.column_stack([np.ones(n), dx])
    residual = np.stack([np.log(f.points.value) for f in fits], axis=1)
    residual = residual - design @ np.linalg.pinv(design) @ residual
    # normals mixed by the root of residual's products [≤ n, K] have the estimated covariance between k; turned so that
    # one row of them is the slope, the dof others are what is left of the residuals
    root = np.linalg.qr(residual / math.sqrt(dof * sxx), mode="r")
    noise = rng.standard_normal((SIMULATIONS, dof + 1, len(root))) @ root
    slope, variance = noise[:, 0], (noise[:, 1:] ** 2).mean(axis=1)
    moved = _slopes_by_document(fits, dx / sxx)
    if moved is not None:
        slope = slope + rng.standard_normal((SIMULATIONS, len(moved))) @ moved
        freedom = fits[0].error.freedom_documents
        known = (moved**2).sum(axis=0)
        variance = variance + known * rng.chisquare(freedom, (SIMULATIONS, 1)) / freedom
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.abs(slope) / np.sqrt(variance)
        largest = np.nanmax(deviation / np.nanquantile(deviation, fits[0].confidence, axis=0), axis=1)
    return max(1.0, float(np.quantile(largest, fits[0].confidence)))


def _slopes_by_document(fits: Sequence[FitResult], along: np.ndarray) -> np.ndarray | None:
    """[≤ K,K], whose products are the covariance of exponents by documents beyond the residuals; None if unknown."""
    if any(f.points.errors is None for f in fits):
        return None
    moved = np.stack([f.points.errors.values @ along for f in fits], axis=1)
    total = (moved**2).sum(axis=0)
    beyond = np.array([f.error.documents[0, 0] for f in fits])
    moved = moved * np.sqrt(np.divide(beyond, total, out=np.zeros_like(total), where=total > 0))
    return np.linalg.qr(moved, mode="r")
