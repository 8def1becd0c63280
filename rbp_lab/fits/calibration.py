"""Entropy calibration (arXiv 2511.11966, teacher-forced): mean predictive entropy − cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from rbp_lab.fits.documents import DocumentEffects
from rbp_lab.fits.gls import fit_line
from rbp_lab.records import RunRecord
from rbp_lab.stats import UNIT


def calibration_table(
    records: Sequence[RunRecord], size: str = "non_embedding_params", confidence: float = 0.95
) -> pd.DataFrame:
    """The gap per run in nats per token: below 0 the model is surer than it should be, 0 is calibrated.

    Columns: model, family, dataset, size, gap, low, high (interval over documents, missing for a single document).
    """
    rows = []
    for record in records:
        table, model = record.documents, record.model
        keep = table.num_scored > 0
        n = table.num_scored[keep].astype(np.float64)
        x = (table.entropy_units[keep] - table.nll_units[keep]) * UNIT
        gap = float(x.sum() / n.sum())
        half = math.nan
        if len(n) > 1:
            variance = len(n) / (len(n) - 1) * float(((x - gap * n) ** 2).sum()) / n.sum() ** 2
            half = stdtrit(len(n) - 1, 0.5 + confidence / 2) * math.sqrt(variance)
        about = (model.name, model.family, record.dataset.name, model.params.size(size))
        rows.append((*about, gap, gap - half, gap + half))
    return pd.DataFrame(rows, columns=["model", "family", "dataset", "size", "gap", "low", "high"])


@dataclass(frozen=True)
class CalibrationTrend:
    """Gap per decade of S in nats, with its interval; None with a sentence when there is none."""

    per_decade: float | None
    low: float | None
    high: float | None
    models: int
    message: str


def calibration_trend(
    table: pd.DataFrame,
    dataset: str,
    family: str,
    confidence: float = 0.95,
    effects: DocumentEffects | None = None,
) -> CalibrationTrend:
    """Straight line of the gap (which may change sign, so no power law) against log10 S over one family's models.

    effects: errors of documents, which the models share; without them the interval is of the residuals alone.
    """
    rows = table[(table["dataset"] == dataset) & (table["family"] == family)]
    n = len(rows)
    if n < 3 or rows["size"].nunique() < 2:
        return CalibrationTrend(None, None, None, n, f"a trend needs three models at two sizes; got {n}")
    design = np.stack([np.log10(rows["size"]), np.ones(n)], axis=1)
    errors = None if effects is None else effects.of_calibration(rows["model"].tolist())
    (slope, _), error = fit_line(design, rows["gap"].to_numpy(float), errors)
    half = error.half((1, 0), confidence)
    return CalibrationTrend(float(slope), float(slope) - half, float(slope) + half, n, "fitted")
