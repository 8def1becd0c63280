"""Is there a floor? The profile likelihood of E in value = E + a·S^−α, of which the power law is the case E = 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy.special import fdtri

from rbp_lab.fits.points import FitPoints
from rbp_lab.fits.result import FitResult
from rbp_lab.text import number, percent, significant

PRECISION = 1e-6  # of an end of the interval, as a share of the smallest value


@dataclass(frozen=True)
class Floor:
    """The floor E of value = E + a·S^−α and what the points say of it, in the unit of the value.

    value: the most likely E. low, high: profile-likelihood interval at ``confidence``; low is 0 when the power law
    alone is compatible with the points, high is infinite when so is a value that does not fall at all. smallest: the
    smallest value among the points.
    """

    value: float
    low: float
    high: float
    smallest: float
    confidence: float

    @property
    def supported(self) -> bool:
        """Whether the interval excludes a floor of 0."""
        return self.low > 0

    @property
    def share(self) -> float:
        """The upper end in units of the smallest value."""
        return self.high / self.smallest

    @property
    def sentence(self) -> str:
        """What the points say of a floor."""
        found = f"a floor: E = {significant(self.value)}, {significant(self.low)} ≤ E"
        start = found if self.supported else "no support for a floor: E"
        if math.isinf(self.high):
            return f"{start} has no upper bound at {percent(self.confidence)}"
        share = f"{number(100 * self.share, 0)}% of the smallest value"
        return f"{start} ≤ {significant(self.high)} at {percent(self.confidence)} ({share})"


def floor_of(law: FitResult) -> Floor | None:
    """The floor of a fitted power law plus constant; None when it was not fitted."""
    if law.form != "power_constant" or "E" not in law.intervals:
        return None
    return Floor(law.params["E"], *law.intervals["E"], float(law.points.value.min()), law.confidence)


def floor_interval(points: FitPoints, most_likely: float, confidence: float) -> tuple[float, float]:
    """Profile-likelihood interval of E over n ≥ 4 points with residuals of ln value; (0, inf) excludes nothing.

    E lies inside when the least sum of squares of ln value with that E, over a and α, exceeds the smallest of all by at
    most s²·F(1, n − 3), with s² the residual variance: the likelihood ratio in the form that holds for few points
    (Bates and Watts, Nonlinear Regression Analysis and Its Applications, chapter 6).
    """
    profile, dof = _Profile(points), len(points) - 3
    zero = profile(0.0)
    best, least = min(((e, profile(e)) for e in (0.0, most_likely)), key=lambda pair: pair[1])
    limit = least + max(least / dof, 1e-24) * fdtri(1, dof, confidence)

    def end(outside: float) -> float:
        tolerance = PRECISION * float(points.value.min())
        return float(optimize.brentq(lambda floor: profile(floor) - limit, best, outside, xtol=tolerance))

    # with the floor at the mean level nothing is left that falls: the worst a floor can do
    level = max(best, float(np.exp(np.log(points.value).mean())))
    return end(0.0) if zero > limit else 0.0, end(level) if profile(level) > limit else math.inf


class _Profile:
    """Least sum of squares of ln value − ln(E + a·S^−α) over a and α > 0, as a function of E."""

    def __init__(self, points: FitPoints) -> None:
        self.x = np.log(points.x) - np.log(points.x).mean()
        self.value, self.y = points.value, np.log(points.value)

    def __call__(self, floor: float) -> float:
        rest = np.log(np.maximum(self.value - floor, 0.02 * self.value))
        slope, level = np.polyfit(self.x, rest, 1)
        starts = [(np.log(max(-slope, 0.01)), level), (np.log(0.1), np.log(0.1 * self.value.mean()))]
        return min(self._least(floor, np.array(start)) for start in starts)

    def _least(self, floor: float, start: np.ndarray) -> float:
        """The least sum from one start (ln α, ln a); α stays between 1e-3 and 20, as in the form itself."""

        def part(u: np.ndarray) -> tuple[float, np.ndarray]:
            alpha = np.exp(np.clip(u[0], -7.0, 3.0))
            return alpha, np.exp(np.clip(u[1] - alpha * self.x, -500.0, 500.0))

        def residual(u: np.ndarray) -> np.ndarray:
            return self.y - np.log(floor + part(u)[1])

        def jacobian(u: np.ndarray) -> np.ndarray:
            alpha, falling = part(u)
            share = falling / (floor + falling)
            return np.stack([share * alpha * self.x, -share], axis=1)

        return 2 * optimize.least_squares(residual, start, jacobian, method="lm", max_nfev=100).cost
