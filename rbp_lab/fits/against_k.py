"""RBP against k ([RBP] appendix B): the exponent in k, and what a step in k is worth in model size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rbp_lab.errors import LabError
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import FitResult

REACH = math.log(1000.0)  # how far outside the models, in ln S, a curve of equal RBP is drawn
# The k of [RBP] appendix B, table 1.
TABLE1_KS = (1, 2, 3, 5, 7, 10, 18, 30, 50, 78, 100)


def fit_against_k(points: pd.DataFrame, model: str, dataset: str, confidence: float = 0.95) -> FitResult:
    """Exponent of −log RBP_k ∝ k^−α for one model, over those of TABLE1_KS that were measured ([RBP] appendix B).

    points: the tidy table. Returns a power law in k: alpha is minus the slope of Table 1, and the "models" of the
    result are the k. Its residuals are a smooth curve, not noise, so the interval speaks of the scatter around the
    line, not of documents. Refused with fewer than three k.
    """
    rows = points[(points["model"] == model) & (points["dataset"] == dataset) & (points["metric"] == "neg_log_rbp")]
    rows = rows[rows["k"].isin(TABLE1_KS) & (rows["value"] > 0)]
    k = rows["k"].to_numpy(float)
    data = FitPoints(k, rows["value"].to_numpy(), tuple(f"k={int(v)}" for v in k), axis="k")
    return fit_power(data, Label(model, dataset, "−log RBP against k"), confidence)


def table1(points: pd.DataFrame, laws: Mapping[tuple[str, str], FitResult]) -> pd.DataFrame:
    """R² and slope of −log RBP against k per model and data set, as in [RBP] table 1; refusals carry their message.

    laws: of ``fit_against_k`` by (model, data set).
    """
    rows = []
    pairs = points[["dataset", "family", "size", "model"]].drop_duplicates().sort_values(["dataset", "family", "size"])
    for dataset, family, size, model in pairs.itertuples(index=False):
        fit = laws[model, dataset]
        slope = -fit.params["alpha"] if fit.ok else None
        rows.append((dataset, family, model, size, slope, fit.r2, fit.rmse_percent, fit.n, fit.message))
    columns = ["dataset", "family", "model", "size", "slope", "r2", "rmse_percent", "num_k", "message"]
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class TradeOff:
    """What k is worth in S at equal RBP: S'/S = (k'/k)^−exponent, near (k, S). low, high: interval of the exponent."""

    exponent: float
    low: float
    high: float
    k: int
    size: float


def trade_off(against_size: FitResult, against_k: FitResult, size: float) -> TradeOff:
    """The exponent α_k/α_S of the trade-off ΔS/S ≈ −(α_k/α_S)·Δk/k ([RBP] appendix B), with a delta-method interval.

    against_size: law of −log RBP_k in S, at its k; against_k: law in k of the model of that size. Both exponents are
    local, so the result names the (k, S) they were taken at. LabError when either was refused, or its
    interval is not positive: the ratio would be anything.
    """
    for fit in (against_size, against_k):
        if not fit.ok:
            raise LabError(f"no trade-off without both laws: {fit.message}")
        if fit.intervals["alpha"][0] <= 0:
            raise LabError(f"no trade-off where −log RBP does not clearly fall: {fit!r}")
    alpha_s, alpha_k = against_size.params["alpha"], against_k.params["alpha"]
    se_log = math.hypot(against_size.se["alpha"] / alpha_s, against_k.se["alpha"] / alpha_k)
    t = max(law.error.critical((1, 0), against_size.confidence) for law in (against_size, against_k))
    ratio = alpha_k / alpha_s
    low, high = ratio * math.exp(-t * se_log), ratio * math.exp(t * se_log)
    return TradeOff(ratio, low, high, int(against_size.label.k or 0), size)


def iso_rbp(fits: Sequence[FitResult], levels: Sequence[float]) -> pd.DataFrame:
    """Curves of equal RBP in the (k, S) plane: columns level, k, size, extrapolates.

    fits: power laws in S, one per k, of one family and data set. size is the S at which RBP_k = level by the law of
    that k. Left out: laws that were refused or do not clearly fall (the interval of α reaches 0), and sizes more than
    a thousandfold outside the models.
    """
    rows = []
    for level in levels:
        if not 0 < level < 1:
            raise LabError(f"a level of RBP lies between 0 and 1; got {level}")
        for fit in fits:
            if not fit.ok or fit.intervals["alpha"][0] <= 0:
                continue
            log_size = (fit.params["log_a"] - math.log(-math.log(level))) / fit.params["alpha"]
            low, high = math.log(fit.points.x.min()), math.log(fit.points.x.max())
            if low - REACH <= log_size <= high + REACH:
                rows.append((level, fit.label.k, math.exp(log_size), not low <= log_size <= high))
    return pd.DataFrame(rows, columns=["level", "k", "size", "extrapolates"])
