"""The size at which a law reaches a level, such as p_{N,k} = 1/2."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rbp_lab.errors import LabError
from rbp_lab.fits.against_k import REACH
from rbp_lab.fits.result import FitResult


@dataclass(frozen=True)
class SizeAtLevel:
    """The S at which a law reaches a level. size None when the law does not fall; low or high None: unbounded there.

    extrapolates: the size lies outside the models of the fit. message: what to read into it.
    """

    level: float
    size: float | None
    low: float | None
    high: float | None
    extrapolates: bool
    message: str


def size_at_level(law: FitResult, level: float) -> SizeAtLevel:
    """S at which p_{N,k} (or RBP_k) reaches ``level`` by a fitted power law of −log p in S, with Fieller's interval.

    The interval is the set of S whose fitted curve is compatible with the level at the law's confidence: it says
    where the curve crosses, not where a single new model will. It is unbounded on a side where the interval of the
    exponent holds zero. A size more than a thousandfold outside the models is no number to read: it is None, and the
    message says on which side.
    """
    if not 0 < level < 1:
        raise LabError(f"a level lies between 0 and 1; got {level}")
    if not law.ok:
        return SizeAtLevel(level, None, None, None, False, law.message)
    alpha, log_a = law.params["alpha"], law.params["log_a"]
    if alpha <= 0:
        return SizeAtLevel(
            level, None, None, None, False, "the law does not fall with size: the level is never reached"
        )
    target = math.log(-math.log(level))
    x = (log_a - target) / alpha
    t2 = law.error.critical((-x, 1), law.confidence) ** 2  # of the curve where it crosses the level
    c = law.covariance
    # (α·δ)² ≤ t²·variance of the curve at x + δ, a quadratic in δ, the distance from the crossing in ln S
    a2 = alpha**2 - t2 * c[0, 0]
    a1 = -2 * t2 * (x * c[0, 0] - c[0, 1])
    a0 = -t2 * max(c[1, 1] - 2 * x * c[0, 1] + x**2 * c[0, 0], 0.0)
    sizes = law.points.x
    first, last = math.log(sizes.min()), math.log(sizes.max())

    def within_reach(log_size: float) -> float | None:
        return math.exp(log_size) if first - REACH <= log_size <= last + REACH else None

    if within_reach(x) is None:
        side = "below" if x < first else "above"
        why = f"the level lies more than a thousandfold {side} the sizes measured"
        return SizeAtLevel(level, None, None, None, True, why)
    outside = not first - 1e-9 <= x <= last + 1e-9
    note = "outside the sizes measured" if outside else "within the sizes measured"
    root = a1**2 - 4 * a2 * a0
    if a2 <= 0 or root < 0:
        return SizeAtLevel(level, within_reach(x), None, None, outside, f"{note}; its interval is unbounded")
    low, high = (within_reach(x + (-a1 + sign * math.sqrt(root)) / (2 * a2)) for sign in (-1, 1))
    if low is None or high is None:
        note += "; its interval reaches more than a thousandfold outside them"
    return SizeAtLevel(level, within_reach(x), low, high, outside, note)
