"""What something is worth in units of a reference: the point of a reference curve with the same value.

Nothing is extrapolated: a value outside the reference curve has no equivalent. Legend: values are nats, x is what the
reference varies (training instances, parameters).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True)
class Mean:
    """A mean of n values with a t(n−1) interval; low and high are NaN for a single value."""

    value: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Mean:
    """The mean of independent values, such as differences between seeds, without those that are NaN; NaN for none."""
    x = np.asarray(values, dtype=np.float64)
    x = x[~np.isnan(x)]
    if len(x) == 0:
        return Mean(math.nan, math.nan, math.nan, 0)
    value = float(x.mean())
    if len(x) == 1:
        return Mean(value, math.nan, math.nan, 1)
    half = float(stdtrit(len(x) - 1, 0.5 + confidence / 2) * x.std(ddof=1) / math.sqrt(len(x)))
    return Mean(value, value - half, value + half, len(x))


def geometric_mean_interval(values: Sequence[float], confidence: float = 0.95) -> Mean:
    """As ``mean_interval``, of positive values on a logarithmic scale."""
    found = mean_interval(np.log(np.asarray(values, dtype=np.float64)), confidence)
    return Mean(*(math.exp(v) if not math.isnan(v) else v for v in (found.value, found.low, found.high)), found.n)


def equivalent(x: Sequence[float], reference: Sequence[float], value: float) -> float:
    """The x at which a falling reference curve has ``value``; NaN outside the curve.

    x: of the reference, positive, at least two. Interpolates ln value linearly in ln x between neighbours. Where the
    curve is not monotone it is first made so (a running minimum, from the smallest x on).
    """
    order = np.argsort(x)
    at, curve = np.log(np.asarray(x, float)[order]), np.log(np.asarray(reference, float)[order])
    curve = np.minimum.accumulate(curve)
    target = math.log(value) if 0 < value < math.inf else math.nan
    if len(at) < 2 or not curve[-1] <= target <= curve[0]:
        return math.nan
    return float(np.exp(np.interp(-target, -curve, at)))


def null_width(ratios: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Between which values the equivalent of a single reference model itself would fall: exp(±t·sd of ln ratio).

    ratios: of reference models, each against the curve of the other seeds, over its own x; NaN values are left out.
    (NaN, NaN) for fewer than three.
    """
    logs = np.log(np.asarray(ratios, dtype=np.float64))
    logs = logs[~np.isnan(logs)]
    if len(logs) < 3:
        return math.nan, math.nan
    half = float(stdtrit(len(logs) - 1, 0.5 + confidence / 2) * logs.std(ddof=1))
    return math.exp(-half), math.exp(half)
