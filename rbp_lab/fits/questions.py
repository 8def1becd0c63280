"""What the papers leave open, as numbers: each question is a value that is 0 under one answer, with its interval.

Legend: n models of a family, G documents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rbp_lab.fits.gls import DocumentErrors, LineError, fit_line
from rbp_lab.fits.power import why_not
from rbp_lab.fits.result import FitPoints

POWER = 0.8  # with which the number needed would tell a difference as large as the one seen
MOST_NEEDED = 10_000
LEAST_TARGETS = 3


@dataclass(frozen=True)
class Answer:
    """A difference and its interval at ``confidence``, or why there is none (message).

    units, unit: what it was estimated from, such as 6 "models". needed: how many of ``needed_unit`` would tell a
    difference of this size with a power of 80 %; None where that is more than 10,000, or the interval leaves out 0.
    """

    difference: float | None = None
    low: float | None = None
    high: float | None = None
    units: int = 0
    unit: str = "models"
    needed: int | None = None
    needed_unit: str = "models"
    message: str = ""

    @property
    def told(self) -> bool | None:
        """Whether the interval leaves out 0; None without one."""
        return None if self.difference is None else not self.low <= 0 <= self.high


def answer(
    difference: float, error: LineError, gradient: Sequence[float], confidence: float, models: int, documents: int
) -> Answer:
    """That of a fitted line. documents: G behind ``error``, 0 when unknown.

    Needed are more models over the same sizes where the residuals carry most of the variance, else more documents.
    """
    half = error.half(gradient, confidence)
    g = np.asarray(gradient, np.float64)
    by_documents, by_models = float(g @ error.documents @ g), float(g @ error.residuals @ g)
    needed, unit = None, "models"
    if abs(difference) <= half:
        if by_documents > by_models and documents:
            needed, unit = more(difference, by_documents * documents, confidence, by_models), "documents"
        else:
            parameters = models - round(error.freedom_residuals)
            needed = more(difference, by_models * models, confidence, by_documents, parameters)
    return Answer(difference, difference - half, difference + half, models, "models", needed, unit)


def of_values(values: Sequence[float], confidence: float, unit: str) -> Answer:
    """That of the mean of independent values, Student's t; one unit a value."""
    x = np.asarray(values, np.float64)
    if len(x) < LEAST_TARGETS:
        return Answer(units=len(x), unit=unit, message=f"at least {LEAST_TARGETS} {unit} are needed; got {len(x)}")
    variance = float(x.var(ddof=1))
    half = float(stats.t.ppf(0.5 + confidence / 2, len(x) - 1)) * math.sqrt(variance / len(x))
    mean = float(x.mean())
    needed = more(mean, variance, confidence, 0.0, 1) if abs(mean) <= half else None
    return Answer(mean, mean - half, mean + half, len(x), unit, needed, unit)


def more(difference: float, per_unit: float, confidence: float, fixed: float, parameters: int = 1) -> int | None:
    """The least number of units with which ``difference`` is told with POWER, None when it is more than MOST_NEEDED.

    per_unit: variance of the difference times the number of units; fixed: variance that more units do not lessen.
    """
    counts = np.arange(parameters + 1, MOST_NEEDED + 1)
    freedom = counts - parameters
    t = stats.t.ppf(0.5 + confidence / 2, freedom) + stats.t.ppf(POWER, freedom)
    enough = t * np.sqrt(per_unit / counts + fixed) <= abs(difference)
    return int(counts[np.argmax(enough)]) if enough.any() else None


def forecast_errors(points: FitPoints, least: int = 3) -> dict[str, float]:
    """|ln forecast − ln value| of each model from the line through all smaller ones, at least ``least``; by model."""
    order = np.argsort(points.x, kind="stable")
    x, y = np.log(points.x[order]), np.log(points.value[order])
    names = [points.names[i] for i in order]
    errors = {}
    for i in range(least, len(x)):
        if x[i] > x[i - 1] and np.ptp(x[:i]) > 0:
            _, level = np.polyfit(x[:i] - x[i], y[:i], 1)
            errors[names[i]] = abs(level - y[i])
    return errors


def left_out_errors(points: FitPoints) -> dict[str, float]:
    """|ln prediction − ln value| of each model from the line through all others; by model."""
    x, y = np.log(points.x), np.log(points.value)
    basis, _ = np.linalg.qr(np.column_stack([np.ones(len(x)), x - x.mean()]))
    residual = y - basis @ (basis.T @ y)
    leverage = (basis**2).sum(axis=1)
    return {
        name: abs(r) / (1 - h) for name, r, h in zip(points.names, residual.tolist(), leverage.tolist(), strict=True)
        if h < 1 - 1e-12
    }  # fmt: skip


def paired_errors(first: dict[str, float], second: dict[str, float], confidence: float, unit: str) -> Answer:
    """Mean of first − second over the models that both have, as a share (0.01 is 1 %)."""
    return of_values([first[name] - second[name] for name in first if name in second], confidence, unit)


def families_differ(
    first: FitPoints, second: FitPoints, errors: DocumentErrors | None, confidence: float, documents: int
) -> Answer:
    """α of one family minus α of another on the same documents: one fit with a line each and one scatter.

    errors: of documents in ln value of the models of both, first then second.
    """
    for points in (first, second):
        if why := why_not(points):
            return Answer(units=len(first) + len(second), message=why)
    x = [np.log(points.x) for points in (first, second)]
    design = np.zeros((len(x[0]) + len(x[1]), 4))
    for i, mine in enumerate(x):
        rows = slice(0, len(x[0])) if i == 0 else slice(len(x[0]), None)
        design[rows, 2 * i] = 1
        design[rows, 2 * i + 1] = mine - mine.mean()
    beta, error = fit_line(design, np.log(np.concatenate([first.value, second.value])), errors)
    gradient = (0, -1, 0, 1)
    return answer(float(beta[3] - beta[1]), error, gradient, confidence, len(design), documents)
