"""Intervals of one study by the code that analyses use, and whether each holds the truth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from rbp_lab import metrics
from rbp_lab.fits.band import simultaneous_band
from rbp_lab.fits.cloglog import CountPoints, fit_cloglog
from rbp_lab.fits.emergence import fit_emergence
from rbp_lab.fits.forecast import forecast
from rbp_lab.fits.gls import DocumentErrors
from rbp_lab.fits.levels import size_at_level
from rbp_lab.fits.paired import exponent_difference
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import FitResult

Sums = tuple[np.ndarray, np.ndarray]
K = {"k1": 1, "k10": 10, "k100": 100}


def document_errors(sums: Sums, scale: str) -> DocumentErrors | None:
    """Errors of documents in ln value; scale: "log", "neg_log" as in ``metrics``, "share" for the ratio itself."""
    columns = [
        metrics.ratio_deviation(x, n) if scale == "share" else metrics.ratio_influence(x, n, scale)
        for x, n in zip(sums[0].T, sums[1].T, strict=True)
    ]
    if any(column is None for column in columns):
        return None
    effective = min(metrics.effective_documents(n) for n in sums[1].T)
    return DocumentErrors(np.stack(columns, axis=1), np.arange(len(sums[0])), effective)


def law(name: str, sums: Sums, sizes: np.ndarray, shift: np.ndarray | float = 0.0) -> FitResult:
    """The power law of one quantity; shift: added to ln value [n], for resampled studies."""
    ratio = sums[0].sum(0) / sums[1].sum(0)
    value = (ratio if name == "ce" else -np.log(ratio)) * np.exp(shift)
    errors = document_errors(sums, "log" if name == "ce" else "neg_log")
    label = Label("F", "D", "ce") if name == "ce" else Label("F", "D", "neg_log_rbp", K.get(name, 1))
    return fit_power(FitPoints(sizes, value, errors=errors), label)


def law_of_counts(sums: Sums, sizes: np.ndarray) -> FitResult:
    """The same from counts of hits."""
    hit, tried = sums
    effect = []
    for x, n in zip(hit.T, tried.T, strict=True):
        found = metrics.ratio_estimate(x, n, scale="neg_log")
        effect.append(np.nan if found is None else max(1.0, found.design_effect))
    known = [e for e in effect if np.isfinite(e)]
    effect = np.nan_to_num(effect, nan=max(known, default=1.0))
    names = tuple(map(str, range(len(sizes))))
    misses = (tried - hit).sum(0)
    return fit_cloglog(
        CountPoints(sizes, misses, tried.sum(0), effect, names, document_errors((tried - hit, tried), "share"))
    )


class _Effects:
    """Stands for the documents of runs."""

    def __init__(self, sums: Mapping[int, Sums]) -> None:
        self._errors = {length: document_errors(s, "neg_log") for length, s in sums.items()}

    def of(self, label: Label, models: tuple[str, ...]) -> DocumentErrors | None:
        return self._errors[label.window]


def emergence(sums: Mapping[int, Sums], sizes: np.ndarray, shift: Mapping[int, np.ndarray] | None = None):
    """The law of N in a row from sums of windows by N."""
    p = [hit.sum(0) / tried.sum(0) for hit, tried in sums.values()]
    p = p if shift is None else [np.exp(np.log(p) * np.exp(shift[n])) for p, n in zip(p, sums, strict=True)]
    table = pd.DataFrame({
        "family": "F", "dataset": "D", "k": 10, "model": [f"m{i:02d}" for i in range(len(sizes))] * len(sums),
        "size": np.tile(sizes, len(sums)), "window": np.repeat(list(sums), len(sizes)), "p": np.concatenate(p),
    })  # fmt: skip
    return fit_emergence(table, "F", "D", 10, effects=_Effects(sums))


def inside(interval: tuple[float | None, float | None] | None, truth: float) -> float:
    """1 when the interval holds the truth, 0 when not, NaN when there is none; an open end is unbounded."""
    if interval is None:
        return np.nan
    low, high = (side if side is not None else end for side, end in zip(interval, (-np.inf, np.inf), strict=True))
    return float(low <= truth <= high)


def checked(
    laws: Mapping[str, FitResult], alphas: Mapping[str, float], centre: float, level: float, next_value: float
) -> dict[str, float]:
    """Which intervals of the laws of CE and −log RBP_k hold the truth.

    level: RBP_10 at size ``centre``, so that this is the size at the level. next_value: CE of one more model, ten times
    larger than the largest.
    """
    found = {name: inside(fit.intervals["alpha"], alphas[name]) for name, fit in laws.items()}
    ce = laws["ce"]
    found["ce, least squares"] = inside(ce.least_squares["alpha"], alphas["ce"])
    difference = exponent_difference(ce, laws["k1"])
    found["difference"] = inside((difference.low, difference.high), alphas["ce"] - alphas["k1"])
    band = simultaneous_band([laws[name] for name in K])
    truth = band["k"].map({k: alphas[name] for name, k in K.items()})
    found["band over k"] = float(((band["simultaneous_low"] <= truth) & (truth <= band["simultaneous_high"])).all())
    at = size_at_level(laws["k10"], level)
    found["size at level"] = np.nan if at.size is None else inside((at.low, at.high), centre)
    ahead = forecast(ce, [10 * ce.points.x.max()]).iloc[0]
    found["forecast"] = inside((ahead["low"], ahead["high"]), next_value)
    return found
