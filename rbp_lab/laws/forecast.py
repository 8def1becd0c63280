"""Forecasts: each law beyond its models with a prediction interval, and how forecasts of the largest models did."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import pandas as pd

from rbp_lab.figures.forecast import backtest_figure, forecast_figure
from rbp_lab.fits.forecast import backtest
from rbp_lab.fits.forms import FORMS
from rbp_lab.fits.points import Label
from rbp_lab.fits.result import FitResult
from rbp_lab.laws.base import Inputs, LawResult, by_dataset, join
from rbp_lab.report.sections import Drawing, ReportTable, Section, laws, switched
from rbp_lab.text import interval, number, percent, si, significant

name = "forecast"
needs_runs = ""
DISTANCES = ((0.0, 2.0), (2.0, 5.0), (5.0, 10.0), (10.0, math.inf))  # of a held-out model, as factors on S


@dataclass(frozen=True, eq=False, kw_only=True)
class Forecast(LawResult):
    """backtests: by label of the law, one row per held-out model. withheld: why a law is not extended, by its label."""

    backtests: dict[Label, pd.DataFrame]
    withheld: dict[Label, str]


def compute(inputs: Inputs) -> Forecast:
    """Refit every law of a family without its largest models, and forecast them."""
    laws = [f for f in inputs.fits if f.label.family is not None]
    backtests = {law.label: backtest(law) for law in laws}
    table = join(rows.assign(**at.columns) for at, rows in backtests.items())
    withheld = {law.label: why for law in laws if law.ok and (why := _why_withheld(law, inputs))}
    return Forecast(inputs=inputs, tables={"backtest": table}, backtests=backtests, withheld=withheld)


def _why_withheld(law: FitResult, inputs: Inputs) -> str:
    """Why the points speak against the law that a forecast would extend; "" when they do not."""
    form = inputs.forms[law.label].preferred if law.label in inputs.forms else ""
    if form:
        return f"the points support {FORMS[form].formula} against the power law"
    return "its residuals bend (curvature)" if "curvature" in law.warnings else ""


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
        extended = [f for f in mine if f.ok and f.label not in result.withheld]
        if extended:
            ahead[dataset] = partial(forecast_figure, extended, f"Forecasts on {dataset}", inputs.styles)
        rows = table[table["dataset"] == dataset] if len(table) else table
        if len(rows):
            back[dataset] = partial(backtest_figure, rows, f"Backtest on {dataset}", inputs.styles)
    lead = (
        "What the laws say of a model ten times larger than the largest, with an interval for one new model of the "
        "family: it counts the uncertainty of the line and the scatter between models, and holds only if the law does. "
        "Where residuals bend or another form is supported it does not, and the forecast is withheld. The backtest "
        "trains on the smaller models and tests on the larger: it drops the one, two and three largest and the larger "
        "half, refits, and compares."
    )
    tables, notes = _outcome(table, inputs.confidence)
    about: dict[str, list[Label]] = {}
    for at, why in result.withheld.items():
        about.setdefault(why, []).append(at)
    notes = (*(f"No forecast for {laws(labels)}: {why}." for why, labels in about.items()), *notes)
    return Section(
        "forecast", "Forecasts and how they did", lead,
        (*switched("forecast", ahead, "Solid within the sizes measured, dashed beyond: an extrapolation."),
         *switched("backtest", back, "A bar is the prediction interval; one that misses 0 is a forecast that failed.")),
        tables, notes,
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
    tables = _by_distance(table), ReportTable("Backtest", frame, {"S": si, "measured": 4, "error %": 1}, folded=True)
    return tables, (note,)


def _by_distance(table: pd.DataFrame) -> ReportTable:
    """How forecasts did by how far the held-out model lies beyond the models of the fit."""
    beyond = table["beyond"].astype(float)
    rows = []
    for low, high in DISTANCES:
        mine = table[(beyond > low) & (beyond <= high)]
        if len(mine):
            rows.append({
                "S beyond the fit": f"× {low:g} to {high:g}" if math.isfinite(high) else f"more than × {low:g}",
                "forecasts": len(mine), "in their interval": int(mine["inside"].sum()),
                "median |error| %": float(mine["error_percent"].astype(float).abs().median()),
            })  # fmt: skip
    title = "Backtest by distance"
    return ReportTable(title, pd.DataFrame(rows), {"median |error| %": 1})
