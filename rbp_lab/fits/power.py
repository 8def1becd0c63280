"""The power law as the paper fits it: ordinary least squares of log10 value on log10 S, with an honest interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from rbp_lab.fits.gls import LineError, fit_line
from rbp_lab.fits.points import AXES, NO_LABEL, FitPoints, Label
from rbp_lab.fits.result import FEW_MODELS, NOT_FALLING, FitResult, refused
from rbp_lab.text import significant

METHOD = "least squares of log10 value on log10 {axis}, t(n−2) interval of the residuals"
METHOD_WITH_DOCUMENTS = (
    "least squares of log10 value on log10 {axis}; interval from the errors of documents, common to the models, and "
    "from the residuals (fits/gls.py)"
)


def why_not(points: FitPoints, minimum: int = 3) -> str | None:
    """The sentence that refuses to fit a slope to these points, or None when a slope can be fitted.

    Needs ``minimum`` points, two distinct places on their axis, positive values, and values that are not all the same.
    """
    n, (what, kind) = len(points), AXES[points.axis]
    if n < minimum:
        more = "; model.checkpoints=8 measures eight of a training" if points.axis == "D" else ""
        return f"an exponent with an interval needs at least {minimum} {kind}s; got {n}{more}"
    if np.ptp(points.x) == 0:
        same = f"the same {what} = {significant(points.x[0], 6)}"
        return f"all {n} {kind}s have {same}: a slope against {points.axis} needs two that differ"
    never = [name for name, value in zip(points.names, points.value, strict=True) if math.isinf(value)]
    if never:
        return f"the event was never seen for {_first(never)}: the value is only a bound, and has no logarithm"
    zero = [name for name, value in zip(points.names, points.value, strict=True) if value == 0]
    if len(zero) == n:
        return f"the value is 0 for every {kind} (every token within the threshold): its logarithm does not exist"
    if zero:
        return f"the value is 0 for {_first(zero)}: it has no logarithm, and clipping it would bias the slope"
    named = zip(points.names, points.value, strict=True)
    negative = [f"{name} ({significant(value)})" for name, value in named if value < 0]
    if negative:
        return f"the value is negative for {_first(negative)}: its logarithm does not exist"
    if np.ptp(points.value) == 0:
        return f"the value is {significant(points.value[0], 6)} for every {kind}: there is no variation to fit"
    return None


def _first(names: Sequence[str], most: int = 4) -> str:
    """The names, or the first few and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def fit_power(points: FitPoints, label: Label = NO_LABEL, confidence: float = 0.95) -> FitResult:
    """Exponent α of value = a·S^−α ([RBP] section 4: least squares of log10 value on log10 S, no constant term).

    points: n ≥ 3 models. Returns alpha = −slope and log_a = ln a with t(n−2) intervals; R² is taken in log10-log10.
    Every point weighs the same. Where the errors of documents are known (``points.errors``), intervals count them
    beside the residuals (``fits.gls``); the intervals of the paper's method are ``least_squares`` of the result.
    Degenerate input is refused with a sentence, never NaN.
    """
    why = why_not(points)
    if why:
        return refused("power", points, label, why)
    alpha, log_a, residual = _line(points)
    n, dof, error = len(points), len(points) - 2, _error(points)
    intervals = {
        "alpha": _around(alpha, error.half((1, 0), confidence)), "log_a": _around(log_a, error.half((0, 1), confidence))
    }  # fmt: skip
    log_value = np.log(points.value)
    total = float(((log_value - log_value.mean()) ** 2).sum())
    return FitResult(
        form="power", points=points, status="ok", message="fitted", label=label, confidence=confidence, dof=dof,
        params={"alpha": alpha, "log_a": log_a}, covariance=error.covariance, error=error,
        method=(METHOD if points.errors is None else METHOD_WITH_DOCUMENTS).format(axis=points.axis),
        intervals=intervals, r2=1 - float(residual @ residual) / total, r2_space="log10-log10",
        rmse_percent=100 * math.sqrt(float(residual @ residual) / n), aicc=aicc(residual, 2),
        leave_largest_out=_leave_largest_out(points), warnings=(*_warnings(points), *not_falling(intervals["alpha"])),
    )  # fmt: skip


def _around(value: float, half: float) -> tuple[float, float]:
    return value - half, value + half


def aicc(residual: np.ndarray, parameters: int) -> float | None:
    """Corrected Akaike criterion of normal residuals [n]; the scatter is counted beside the form's ``parameters``.

    None where it is undefined (n ≤ parameters + 2). Residuals below 1e-12 count as 1e-12: an exact fit is exact.
    """
    n, count = len(residual), parameters + 1
    if n - count - 1 <= 0:
        return None
    mean_square = max(float(residual @ residual) / n, 1e-24)
    return n * math.log(mean_square) + 2 * count + 2 * count * (count + 1) / (n - count - 1)


def _line(points: FitPoints) -> tuple[float, float, np.ndarray]:
    """Least-squares α, ln a, residuals of ln value [n].

    Log S is centred before it is squared: near 20 with a spread of 1, the plain normal equations lose six digits.
    """
    x, y = np.log(points.x), np.log(points.value)
    centre = x.mean()
    dx = x - centre
    slope = float(dx @ y) / float(dx @ dx)
    return -slope, float(y.mean()) - slope * centre, y - y.mean() - slope * dx


def _error(points: FitPoints) -> LineError:
    """Error of (α, ln a)."""
    x = np.log(points.x)
    centre = x.mean()
    _, error = fit_line(np.column_stack([np.ones(len(x)), x - centre]), np.log(points.value), points.errors)
    return error.transformed(np.array([[0.0, -1.0], [1.0, -centre]]))  # (mean, slope) -> (α, ln a)


def _leave_largest_out(points: FitPoints) -> float | None:
    """Percent by which the line through all but the largest model misses that model (positive: predicted too high)."""
    rest = points.without_largest()
    if why_not(rest, minimum=2):
        return None
    alpha, log_a, _ = _line(rest)
    with np.errstate(over="ignore"):
        return 100 * float(np.expm1(log_a - alpha * math.log(points.x[-1]) - math.log(points.value[-1])))


def not_falling(interval: tuple[float, float]) -> tuple[str, ...]:
    """The code "not_falling" when the interval of an exponent is not above 0, else nothing."""
    return () if interval[0] > 0 else (NOT_FALLING,)


def _warnings(points: FitPoints) -> tuple[str, ...]:
    found = []
    if len(points) < FEW_MODELS:
        found.append("few_models")
    if curvature_p_value(points) < 0.05:
        found.append("curvature")
    return tuple(found)


def curvature_p_value(points: FitPoints) -> float:
    """Two-sided p-value of a quadratic term in log S added to the log-log line, t(n−3); 1 when n < 5.

    Documents count as they do for the exponent: their error may bend all models alike.
    """
    n = len(points)
    if n < 5 or len(np.unique(points.x)) < 4:
        return 1.0
    x = np.log(points.x) - np.log(points.x).mean()
    x /= np.abs(x).max()
    beta, error = fit_line(np.column_stack([np.ones(n), x, x**2]), np.log(points.value), points.errors)
    return error.p_value(beta, 2)


def implied_interval(slope: float, r2: float, n: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """Interval of an exponent that a published (slope, R², n) implies: se = |α|·sqrt((1/R² − 1)/(n − 2)).

    Returns (low, high) for α = −slope, or None where it is not defined (n < 3, R² ≤ 0).
    """
    if n < 3 or not 0 < r2 <= 1:
        return None
    half = stdtrit(n - 2, 0.5 + confidence / 2) * abs(slope) * math.sqrt((1 / r2 - 1) / (n - 2))
    return -slope - half, -slope + half
