"""Entropy calibration (after arXiv 2511.11966, teacher-forced): mean predictive entropy − cross-entropy over S."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pandas as pd

from rbp_lab.figures.calibration import calibration_figure
from rbp_lab.fits.calibration import CalibrationTrend, calibration_table, calibration_trend
from rbp_lab.laws.base import Inputs, LawResult, families
from rbp_lab.report.sections import Drawing, ReportTable, Section, switched
from rbp_lab.text import interval, percent

name = "calibration"
needs_runs = "it needs the entropy of the predictive distributions"


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration(LawResult):
    """trends: the gap over log10 S, by data set and family."""

    trends: dict[tuple[str, str], CalibrationTrend]


def compute(inputs: Inputs) -> Calibration:
    """The gap of every run, and its trend in every family."""
    gap = calibration_table(inputs.records, inputs.size, inputs.confidence)
    last = calibration_table(inputs.runs, inputs.size, inputs.confidence)
    trends = {
        (d, f): calibration_trend(last, d, f, inputs.confidence, inputs.effects.get(d))
        for d, f, _ in families(inputs.records)
    }
    rows = pd.DataFrame([{"dataset": d, "family": f, **vars(trend)} for (d, f), trend in trends.items()])
    tables = {"calibration": gap, "calibration_trends": rows}
    return Calibration(inputs=inputs, tables=tables, over_documents=True, trends=trends)


def section(result: Calibration) -> Section:
    """The gap per model and its trend in S."""
    figures: dict[str, Drawing] = {}
    for dataset, rows in result.tables["calibration"].groupby("dataset"):
        title = f"Calibration on {dataset}"
        figures[dataset] = partial(calibration_figure, rows, title, result.inputs.styles)
    trends = pd.DataFrame([
        {"data set": dataset, "family": family, "models": t.models,
         "nats per decade of S": interval(t.per_decade, t.low, t.high), "result": t.message}
        for (dataset, family), t in result.trends.items()
    ])  # fmt: skip
    lead = (
        "Mean entropy of the predictive distribution minus cross-entropy, teacher-forced (after arXiv 2511.11966): 0 "
        "for a calibrated model, below 0 the model is surer than it should be. The gap may change sign, so its trend "
        "is a straight line in log10 S, not a power law. Its interval counts the shared error of documents."
    )
    caption = f"Bars: {percent(result.inputs.confidence)} over documents."
    return Section(
        "calibration", "Entropy calibration", lead, switched("calibration", figures, caption),
        (ReportTable("Trend", trends),),
    )  # fmt: skip
