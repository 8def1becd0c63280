"""Exponents from counts, for large k and rare events: binomial, complementary log-log, with scatter between models.

With q = P(rank > k), −log RBP_k = a·S^−α reads cloglog(q) = log(−log(1 − q)) = log a − α·log S. Counts go in, so a
model with no miss is legal: it is never clipped. What is written by hand here (REML scatter, document error common to
the models, a binomial working response) no library offers together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rbp_lab import metrics
from rbp_lab.errors import LabError
from rbp_lab.fits.documents import DocumentEffects
from rbp_lab.fits.gls import DocumentErrors, LineError, fit_line
from rbp_lab.fits.points import NO_LABEL, FitPoints, Label
from rbp_lab.fits.power import aicc, not_falling
from rbp_lab.fits.result import FEW_MODELS, FitResult, refused
from rbp_lab.records import RunRecord

METHOD = (
    "binomial cloglog on counts, models weighted by binomial variance and scatter (REML); interval from the errors of "
    "documents and the weighted residuals (fits/gls.py)"
)
MIN_EVENTS = 5  # effective events on both sides that make a model informative
MIN_INFORMATIVE = 3


@dataclass(frozen=True, eq=False)
class CountPoints:
    """Counts of one family at one k, sorted by size.

    size: S [n]. misses, total: tokens beyond k and in all [n]. design_effect: variance over that of
    independent tokens [n], ≥ 1; effective counts are counts divided by it. names: of the models. errors: of documents
    in the share of misses, None when unknown.
    """

    size: np.ndarray
    misses: np.ndarray
    total: np.ndarray
    design_effect: np.ndarray
    names: tuple[str, ...]
    errors: DocumentErrors | None = None

    def __post_init__(self) -> None:
        order = np.argsort(self.size, kind="stable")
        if self.errors is not None:
            object.__setattr__(self, "errors", self.errors.of(order))
        for name in ("size", "misses", "total", "design_effect"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64)[order])
        object.__setattr__(self, "names", tuple(self.names[i] for i in order))
        if ((self.misses < 0) | (self.misses > self.total) | (self.total <= 0)).any():
            raise LabError("counts must satisfy 0 ≤ misses ≤ total and total > 0")

    @property
    def points(self) -> FitPoints:
        """−log of the share of hits [n] in nats: 0 without a miss, +inf without a hit."""
        with np.errstate(divide="ignore"):
            return FitPoints(self.size, -np.log1p(-self.misses / self.total) + 0.0, self.names)

    @property
    def informative(self) -> np.ndarray:
        """Models with at least 5 effective events on both sides, bool [n]."""
        return np.minimum(self.misses, self.total - self.misses) / self.design_effect >= MIN_EVENTS


def counts_from_records(records: Sequence[RunRecord], k: int, size: str = "non_embedding_params") -> CountPoints:
    """Misses of rank ≤ k per model, with the design effect of documents.

    A model without a miss or without a hit shows no design effect; it takes the largest among the others.
    """
    misses, total, effect, moved = [], [], [], []
    for record in records:
        tried, hit = record.documents.num_scored, record.documents.hits(k)
        estimate = metrics.ratio_estimate(hit, tried, scale="neg_log")
        moved.append((record, metrics.ratio_deviation(tried - hit, tried), tried))
        misses.append(int(tried.sum() - hit.sum()))
        total.append(int(tried.sum()))
        effect.append(math.nan if estimate is None else max(1.0, estimate.design_effect))
    known = [e for e in effect if math.isfinite(e)]
    design = [e if math.isfinite(e) else max(known, default=1.0) for e in effect]
    sizes = [record.model.params.size(size) for record in records]
    return CountPoints(
        np.array(sizes), np.array(misses), np.array(total), np.array(design), tuple(r.model.name for r in records),
        None if any(deviation is None for _, deviation, _ in moved) else DocumentEffects(records).rows(moved),
    )  # fmt: skip


def fit_cloglog(counts: CountPoints, label: Label = NO_LABEL, confidence: float = 0.95) -> FitResult:
    """Exponent α of −log RBP_k = a·S^−α from counts; parameters alpha and log_a as ``fit_power`` gives them.

    Where misses are many this is least squares of log(−log RBP_k); where they are few, models weigh by their
    information. Refused ("saturated") with fewer than 3 models that have at least 5 effective events on both sides.
    """
    n, points = len(counts.size), counts.points
    informative = int(counts.informative.sum())
    if informative < MIN_INFORMATIVE:
        why = (
            f"saturated: {informative} of {n} models have at least {MIN_EVENTS} effective events on both sides of the "
            f"threshold, {MIN_INFORMATIVE} are needed"
        )
        return refused("power", points, label, why, ("saturated",))
    if np.ptp(counts.size[counts.informative]) == 0:
        return refused("power", points, label, "all informative models have the same size: there is no slope to fit")
    x = np.log(counts.size)
    centre = x.mean()
    beta, error, converged = _fit(np.column_stack([np.ones(n), x - centre]), counts)
    change = np.array([[0.0, -1.0], [1.0, -centre]])  # (mean, slope) -> (alpha, log_a)
    (alpha, log_a), error = change @ beta, error.transformed(change)
    half = [error.half(gradient, confidence) for gradient in np.eye(2)]
    interval = (alpha - half[0], alpha + half[0])
    seen = np.isfinite(points.value) & (points.value > 0)
    target = np.log(points.value[seen])
    residual, total = target - (log_a - alpha * x[seen]), float(((target - target.mean()) ** 2).sum())
    error = replace(error, mean_square=float(residual @ residual) / max(len(residual) - 2, 1))  # of an unweighted model
    warnings = [code for code, on in (("few_models", n < FEW_MODELS), ("zero_counts", not seen.all())) if on]
    return FitResult(
        form="power", points=points, status="ok" if converged else "not_converged", label=label,
        message="fitted" if converged else "the working response did not settle",
        params={"alpha": float(alpha), "log_a": float(log_a)}, covariance=error.covariance, error=error,
        confidence=confidence, dof=n - 2,
        intervals={"alpha": interval, "log_a": (log_a - half[1], log_a + half[1])},
        r2=1 - float(residual @ residual) / total if total > 0 else None,
        r2_space="log10-log10", rmse_percent=100 * math.sqrt(float(residual @ residual) / len(residual)),
        aicc=aicc(residual, 2), warnings=(*warnings, *not_falling(interval)), method=METHOD,
    )  # fmt: skip


def _fit(design: np.ndarray, counts: CountPoints) -> tuple[np.ndarray, LineError, bool]:
    """(β, its error, converged): iterate working response and weighted line with REML scatter until β settles."""
    q = counts.misses / counts.total
    n_eff = counts.total / counts.design_effect
    start = np.clip((q * n_eff + 0.5) / (n_eff + 1), 1e-9, 1 - 1e-9)
    beta, tau2, change = np.linalg.lstsq(design, np.log(-np.log1p(-start)), rcond=None)[0], 0.0, math.inf
    for _ in range(100):
        eta = np.clip(design @ beta, -40.0, 3.5)
        rate = np.exp(eta)
        mu = np.clip(-np.expm1(-rate), 1e-15, 1 - 1e-15)
        slope = (1 - mu) * rate
        variance = np.minimum(mu * (1 - mu) / (n_eff * slope**2), 1e4)
        # a wild first guess must not throw the response: one step moves at most this far on the cloglog scale
        response = eta + np.clip((q - mu) / slope, -1.0, 2.0)
        tau2 = scatter(design, response, variance, tau2)
        new, _ = fit_line(design, response, weight=1 / (variance + tau2))
        change = np.abs(new - beta).max()
        beta = 0.5 * (beta + new)
        if change < 1e-7:
            break
    errors = None if counts.errors is None else replace(counts.errors, values=counts.errors.values / slope)
    beta, error = fit_line(design, response, errors, 1 / (variance + tau2))
    return beta, error, bool(change < 1e-4)


def scatter(design: np.ndarray, response: np.ndarray, variance: np.ndarray, start: float = 0.0) -> float:
    """τ² of response [n] ~ N(design·β, variance + τ²) by REML; variance [n] > 0 known, design [n,p].

    Fisher scoring of the restricted likelihood, from the residual variance of least squares unless start is positive.
    """
    n, p = design.shape
    plain = response - design @ np.linalg.lstsq(design, response, rcond=None)[0]
    tau2 = start or float(plain @ plain) / (n - p)
    for _ in range(50):
        weight = 1 / (variance + tau2)
        weighted = design * weight[:, None]
        projection = np.diag(weight) - weighted @ np.linalg.solve(design.T @ weighted, weighted.T)
        fitted = projection @ response
        step = float(fitted @ fitted - np.trace(projection)) / float((projection**2).sum())
        before, tau2 = tau2, max(tau2 + step, 0.0)
        if abs(tau2 - before) <= 1e-6 * before or tau2 == before == 0:
            break
    return tau2


def zero_bound(effective_trials: float, confidence: float = 0.95) -> float:
    """Upper bound of a proportion when none was seen in so many effective trials: 1 − (1 − confidence)^(1/n)."""
    return -math.expm1(math.log1p(-confidence) / effective_trials)
