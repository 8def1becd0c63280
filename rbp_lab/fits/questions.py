"""What the papers leave open, as numbers: each question is a value that is 0 under one answer, with its interval.

Legend: n models of a family, G documents.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from rbp_lab.fits.gls import LineError, beside, fit_line
from rbp_lab.fits.points import FitPoints
from rbp_lab.fits.power import why_not

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
    difference: float, error: LineError, gradient: Sequence[float], confidence: float, units: int, documents: int = 0,
    unit: str = "models",
) -> Answer:  # fmt: skip
    """What a fitted line, or a mean, answers. documents: G behind ``error``, 0 when unknown.

    Needed are more units alike where the residuals carry most of the variance, else more documents.
    """
    half = error.half(gradient, confidence)
    needed, of = None, unit
    if abs(difference) <= half:
        g = np.asarray(gradient, np.float64)
        by_documents = bool(documents) and float(g @ error.documents @ g) > float(g @ error.residuals @ g)
        present, of = (documents, "documents") if by_documents else (units, unit)
        needed = more(difference, error, gradient, confidence, present, by_documents)
    return Answer(difference, difference - half, difference + half, units, unit, needed, of)


def more(
    difference: float, error: LineError, gradient: Sequence[float], confidence: float, present: int,
    by_documents: bool = False,
) -> int | None:  # fmt: skip
    """The least number of units, more than ``present``, with which ``difference`` is told with POWER.

    With c times as many units as are behind ``error``, their part of its covariance is divided by c, and its degrees of
    freedom grow with them; the other part stays. by_documents: the units are documents. None above MOST_NEEDED.
    """

    def enough(count: int) -> bool:
        times = count / present
        if by_documents:
            freedom = times * (error.freedom_documents + 1) - 1
            then = replace(error, documents=error.documents / times, freedom_documents=freedom)
        else:
            freedom = error.freedom_residuals + count - present
            then = replace(error, residuals=error.residuals / times, freedom_residuals=freedom)
        variance, freedom = then.variance(gradient)
        reach = then.critical(gradient, confidence) + float(stdtrit(freedom, POWER))
        return reach * math.sqrt(variance) <= abs(difference)

    count = bisect_left(range(MOST_NEEDED + 1), True, lo=present + 1, key=enough)
    return count if count <= MOST_NEEDED else None


def of_values(values: Sequence[float], confidence: float, unit: str) -> Answer:
    """What the mean of independent values answers, by Student's t; each value is a unit."""
    x = np.asarray(values, np.float64)
    if len(x) < LEAST_TARGETS:
        return Answer(units=len(x), unit=unit, message=f"at least {LEAST_TARGETS} {unit} are needed; got {len(x)}")
    variance = np.array([[x.var(ddof=1) / len(x)]])
    error = LineError(np.zeros((1, 1)), variance, math.nan, len(x) - 1.0, float(x.var(ddof=1)))
    return answer(float(x.mean()), error, (1,), confidence, len(x), unit=unit)


def forecast_errors(points: FitPoints) -> dict[str, float]:
    """|ln forecast − ln value| of each model from the line through all smaller ones, at least three; by model."""
    order = np.argsort(points.x, kind="stable")
    x, y = np.log(points.x[order]), np.log(points.value[order])
    names = [points.names[i] for i in order]
    errors = {}
    for i in range(3, len(x)):
        if x[i] > x[i - 1] and np.ptp(x[:i]) > 0:
            _, level = np.polyfit(x[:i] - x[i], y[:i], 1)
            errors[names[i]] = abs(level - y[i])
    return errors


def paired_errors(first: dict[str, float], second: dict[str, float], confidence: float, unit: str) -> Answer:
    """Mean of first − second over the models that both have, as a share (0.01 is 1 %)."""
    return of_values([first[name] - second[name] for name in first if name in second], confidence, unit)


def families_differ(first: FitPoints, second: FitPoints, confidence: float) -> Answer:
    """α of one family minus α of another on the same data set: one fit with a line each and one scatter."""
    for points in (first, second):
        if why := why_not(points):
            return Answer(units=len(first) + len(second), message=why)
    errors = beside(first.errors, second.errors)
    x = [np.log(points.x) for points in (first, second)]
    design = np.zeros((len(x[0]) + len(x[1]), 4))
    for i, mine in enumerate(x):
        rows = slice(0, len(x[0])) if i == 0 else slice(len(x[0]), None)
        design[rows, 2 * i] = 1
        design[rows, 2 * i + 1] = mine - mine.mean()
    beta, error = fit_line(design, np.log(np.concatenate([first.value, second.value])), errors)
    documents = 0 if errors is None else len(errors.ids)
    return answer(float(beta[3] - beta[1]), error, (0, -1, 0, 1), confidence, len(design), documents)
