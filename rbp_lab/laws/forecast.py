"""Forecasts: each law beyond its models with a prediction interval, and how forecasts of the largest models did."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from rbp_lab.figures.forecast import backtest_figure, forecast_figure
from rbp_lab.fits.forecast import backtest
from rbp_lab.fits.result import Label
from rbp_lab.laws.base import Inputs, LawResult, by_dataset, draw, join
from rbp_lab.report.sections import Drawing, ReportTable, Section, switched
from rbp_lab.text import interval, number, percent, si, significant

name = "forecast"
needs_runs = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Forecast(LawResult):
    """backtests: by label of the law, one row per held-out model."""

    backtests: dict[Label, pd.DataFrame]


def compute(inputs: Inputs) -> Forecast:
    """Refit every law of a family without its largest models, and forecast them."""
    laws = [f for f in inputs.fits if f.label.family is not None]
    backtests = {law.label: backtest(law) for law in laws}
    table = join(
        rows.assign(dataset=at.dataset, family=at.family, metric=at.metric, k=at.k, window=at.window)
        for at, rows in backtests.items()
    )
    return Forecast(inputs=inputs, tables={"backtest": table}, backtests=backtests)


def section(result: Forecast) -> Section | None:
    """The laws that are shown, ten times beyond their models, and their backtest; None when nothing was fitted."""
    inputs = result.inputs
    ahead: dict[str, Drawing] = {}
    back: dict[str, Drawing] = {}
    shown = [at for at in result.backtests if at.k is None or at.k in inputs.shown]
    if not any(f.ok for f in inputs.fits if f.label in shown):
        return None
    table = join(
        result.backtests[at].assign(dataset=at.dataset, family=at.family, quantity=at.quantity, tex=at.tex)
        for at in shown
    )
    for dataset, mine in by_dataset(f for f in inputs.fits if f.label in shown).items():
        draw(ahead, dataset, lambda f=mine, d=dataset: forecast_figure(f, f"Forecasts on {d}", inputs.styles))
        rows = table[table["dataset"] == dataset] if len(table) else table
        if len(rows):
            draw(back, dataset, lambda r=rows, d=dataset: backtest_figure(r, f"Backtest on {d}", inputs.styles))
    lead = (
        "What the laws say of a model ten times larger than the largest, with an interval for one new model of the "
        "family: it counts the uncertainty of the line and the scatter between models, and holds only if the law does. "
        "The backtest drops the one, two and three largest models, refits, and compares."
    )
    return Section(
        "forecast", "Forecasts and how they did", lead,
        (*switched("forecast", ahead, "Solid within the sizes measured, dashed beyond: an extrapolation."),
         *switched("backtest", back, "A bar is the prediction interval; one that misses 0 is a forecast that failed.")),
        *_outcome(table, inputs.confidence),
    )  # fmt: skip


def _outcome(table: pd.DataFrame, confidence: float) -> tuple[tuple[ReportTable, ...], tuple[str, ...]]:
    """The table of the backtest, and how often the interval held."""
    if not len(table):
        return (), ()
    frame = pd.DataFrame([
        {"data set": r.dataset, "family": r.family, "quantity": r.quantity, "held out": r.held, "model": r.model,
         "S": r.size, "measured": r.actual, "forecast": interval(r.forecast, r.low, r.high),
         "error %": r.error_percent, "inside": bool(r.inside), "beyond": f"× {significant(r.beyond, 3)}"}
        for r in table.itertuples()
    ])  # fmt: skip
    note = (
        f"Of {len(frame)} forecasts of held-out models, {int(frame['inside'].sum())} had the measured value in their "
        f"{percent(confidence)} interval; the median absolute error was {number(frame['error %'].abs().median(), 1)} %."
    )
    return (ReportTable("Backtest", frame, {"S": si, "measured": 4, "error %": 1}, folded=True),), (note,)
