"""Comparing exponents on the same models: the difference is regressed directly, so what both share cancels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rbp_lab.fits.gls import LineError, combined, independent
from rbp_lab.fits.points import FitPoints
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import NOT_FALLING, FitResult


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
