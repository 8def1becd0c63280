"""Forecasts from a fitted law, flagged where they extrapolate, and a backtest of how such forecasts did."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from rbp_lab.errors import LabError
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import FitResult
from rbp_lab.quantities import QUANTITIES

FORECAST_COLUMNS = ("size", "value", "low", "high", "probability", "probability_low", "probability_high",
                    "extrapolates", "beyond")  # fmt: skip


def forecast(law: FitResult, sizes: Sequence[float]) -> pd.DataFrame:
    """Value of a power law at new sizes S with a prediction interval for one new model of the family.

    law: from ``fit_power`` or ``fit_cloglog``. The interval counts the uncertainty of the line, with that of documents
    where it is known, and the scatter between models; it holds only if the law does. Columns: size; value, low, high in
    the metric's unit; probability, probability_low, probability_high = exp(−value) for −log RBP_k and −log p_{N,k}
    (missing for other metrics); extrapolates; beyond, the factor by which S leaves the range of the fit (1 inside).
    LabError for a refused law or one of another form.
    """
    if not law.ok:
        raise LabError(f"there is no law to forecast from: {law.message}")
    if law.error is None:
        raise LabError(f"prediction intervals are for power laws; got the form {law.form}")
    low_size, high_size = law.points.x.min(), law.points.x.max()
    quantity = QUANTITIES.get(law.label.metric)
    is_probability = quantity is not None and quantity.probability
    rows = []
    for size in sizes:
        if not size > 0:
            raise LabError(f"a model size is positive; got {size}")
        centre = law.params["log_a"] - law.params["alpha"] * math.log(size)
        half = law.error.half((-math.log(size), 1.0), law.confidence, new_model=True)
        with np.errstate(over="ignore"):  # an end beyond the largest float is open
            value, low, high = (float(np.exp(centre + shift)) for shift in (0.0, -half, half))
        p = (math.exp(-value), math.exp(-high), math.exp(-low)) if is_probability else (None, None, None)
        beyond = max(1.0, size / high_size, low_size / size)
        rows.append((float(size), value, low, high, *p, beyond > 1, beyond))
    return pd.DataFrame(rows, columns=list(FORECAST_COLUMNS))


def backtest(law: FitResult) -> pd.DataFrame:
    """How forecasts of the largest models did: ``law`` fitted without them, against their values.

    Left out are the largest, the two and the three largest, and the larger half. One row per held-out model: held (how
    many were left out), model, size, actual, forecast, low, high, error_percent (positive: forecast too high), inside
    (the interval at the law's confidence held it), beyond. Cuts that leave fewer than three models are not made; the
    table is empty when none is left.
    """
    rows = []
    points = law.points
    for count in sorted({1, 2, 3, len(points) // 2} - {0}):
        rest = fit_power(points.without_largest(count), law.label, law.confidence)
        if not rest.ok or (points.value[-count:] <= 0).any():
            continue
        predicted = forecast(rest, points.x[-count:])
        for i, row in enumerate(predicted.itertuples(), start=len(points) - count):
            actual = float(points.value[i])
            error = 100 * (row.value / actual - 1)
            inside = bool(row.low <= actual <= row.high)
            rows.append((
                count, points.names[i], row.size, actual, row.value, row.low, row.high, error, inside, row.beyond,
            ))  # fmt: skip
    columns = ["held", "model", "size", "actual", "forecast", "low", "high", "error_percent", "inside", "beyond"]
    return pd.DataFrame(rows, columns=columns)
