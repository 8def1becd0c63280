"""Intervals of a law in size and tokens (``fits.tokens``) whose floor E lies at its bound 0, by profile likelihood.

There the fits without one training each lie at the bound too, and do not show how far a moves with an E above 0. A
value of a or E lies inside when the least sum of squares of ln value with it exceeds the smallest by at most
s²·F(1, R − 2), with s² of the trainings: the residuals of one training share its error, so s² is of their means, and
at the bound two numbers, A and a, are fitted to R trainings (Bates and Watts, Nonlinear Regression Analysis and Its
Applications, chapter 6).

Legend: n points, R trainings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize
from scipy.special import fdtri

if TYPE_CHECKING:
    from rbp_lab.fits.tokens import SurfacePoints

EXPONENTS = (1e-3, 5.0)  # bounds of a and b, as in the fit
_TINY = 1e-6  # of the least value: a floor below counts as 0
_PRECISION = 1e-4  # of an end of an interval: of E, of the least value


def intervals_at_bound(
    points: SurfacePoints, params: Mapping[str, float], confidence: float, half_documents: float
) -> dict[str, tuple[float, float]]:
    """The intervals of E and a, for params of least squares with E = 0 and a term in size.

    half_documents: half of the interval of a that documents which move all trainings alike would give alone; each half
    of the profile's is added to it in squares. An end of a that the points do not bound is 0 or infinite.
    """
    profile = _Profile(points, params)
    residual = profile.residual(params)
    runs = len(points.runs)
    of_runs = sum(residual[points.run == run].mean() ** 2 * (points.run == run).sum() for run in points.runs)
    more = max(of_runs / (runs - 2), 1e-24) * fdtri(1, runs - 2, confidence)
    most = float(points.value.min())

    def end(name: str, outside: float, precision: float = _PRECISION) -> float | None:
        # The profile fits points without errors less well than the fit: its floor is above 0, and its steps are others.
        limit = max(float(residual @ residual), profile.least(name, params[name])) + more
        if profile.least(name, outside) <= limit:
            return None
        return float(optimize.brentq(
            lambda value: profile.least(name, value) - limit, params[name], outside, xtol=precision
        ))  # fmt: skip

    low, high = end("a", EXPONENTS[0]), end("a", EXPONENTS[1])
    floor = end("E", (1 - 1e-6) * most, _PRECISION * most)
    a = params["a"]
    return {
        "E": (0.0, most if floor is None else floor),
        "a": (
            0.0 if low is None else a - math.hypot(a - low, half_documents),
            math.inf if high is None else a + math.hypot(high - a, half_documents),
        ),
    }


class _Profile:
    """Least sum of squares of ln value when one param is given."""

    def __init__(self, points: SurfacePoints, params: Mapping[str, float]) -> None:
        self.value, self.params = points.value, params
        self.x = {"A": np.log(points.size), "B": np.log(points.tokens)}
        self.middle = {name: x.mean() for name, x in self.x.items()}
        self.terms = [pair for pair in (("A", "a"), ("B", "b")) if pair[1] in params]

    def residual(self, params: Mapping[str, float]) -> np.ndarray:
        parts = [params[amplitude] * np.exp(-params[e] * self.x[amplitude]) for amplitude, e in self.terms]
        return np.log((params["E"] + sum(parts)) / self.value)

    def least(self, name: str, given: float) -> float:
        """The least sum with this value of ``name``, "E" or "a"; amplitudes are those at the middle of the points."""
        smallest = float(self.value.min())
        start, low, high, free = [], [], [], []
        for amplitude, exponent in self.terms:
            here = self.params[exponent]
            free.append(amplitude)
            start.append(math.log(self.params[amplitude]) - here * self.middle[amplitude])
            low, high = [*low, -60.0], [*high, 60.0]
            if exponent != name:
                free.append(exponent)
                start.append(here)
                low, high = [*low, EXPONENTS[0]], [*high, EXPONENTS[1]]
        if name != "E":
            free.append("E")
            start.append(math.log(0.05 * smallest))
            low, high = [*low, math.log(_TINY * smallest)], [*high, math.log(smallest)]

        def terms(u: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
            at = dict(zip(free, u, strict=True))
            parts = {
                amplitude: np.exp(at[amplitude] - at.get(e, given) * (self.x[amplitude] - self.middle[amplitude]))
                for amplitude, e in self.terms
            }
            return math.exp(at["E"]) if "E" in at else given, parts

        def residual(u: np.ndarray) -> np.ndarray:
            floor, parts = terms(u)
            return np.log((floor + sum(parts.values())) / self.value)

        def jacobian(u: np.ndarray) -> np.ndarray:
            floor, parts = terms(u)
            whole = floor + sum(parts.values())
            columns = {"E": floor / whole}
            for amplitude, exponent in self.terms:
                columns[amplitude] = parts[amplitude] / whole
                columns[exponent] = -columns[amplitude] * (self.x[amplitude] - self.middle[amplitude])
            return np.stack([columns[one] for one in free], axis=1)

        inside = np.clip(start, np.array(low) + 1e-9, np.array(high) - 1e-9)
        return 2 * optimize.least_squares(
            residual, inside, jacobian, bounds=(low, high), x_scale="jac", xtol=1e-10, ftol=1e-10, gtol=1e-10,
            max_nfev=200,
        ).cost  # fmt: skip
