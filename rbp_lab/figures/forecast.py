"""Forecasts: a law beyond the models it has seen, and how forecasts of the largest models turned out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rbp_lab.errors import LabError
from rbp_lab.figures.style import (
    GREY,
    FamilyStyle,
    describe_points,
    family_legend,
    family_styles,
    grid,
    grid_size,
    headline,
    log_ticks,
    new_figure,
    size_ticks,
    styled,
)
from rbp_lab.fits.forecast import forecast
from rbp_lab.fits.result import FitResult
from rbp_lab.text import bracket, number, percent, si

AHEAD = 10.0  # how far beyond the largest model the fan is drawn


@styled
def forecast_figure(laws: Sequence[FitResult], title: str, styles: dict[str, FamilyStyle] | None = None) -> Figure:
    """Each law with its prediction interval for one new model, up to AHEAD times the largest: a panel per quantity.

    laws: power laws of one data set; refused ones are left out. Solid inside the sizes measured, dashed beyond.
    """
    laws = [law for law in laws if law.ok and law.form == "power"]
    panels: dict[str, list[FitResult]] = {}
    for law in laws:
        panels.setdefault(law.label.quantity, []).append(law)
    if not panels:
        raise LabError("there is nothing to draw: every law was refused")
    families = sorted({law.label.family for law in laws})
    styles = styles or family_styles(families)
    figure = new_figure(*grid_size(len(panels), 4.1, 3.0, 2))
    for ax, (name, group) in zip(grid(figure, len(panels), 2), panels.items(), strict=True):
        reach: list[float] = []
        for law in group:
            style, points = styles[law.label.family], law.points
            span = np.geomspace(points.x.min(), points.x.max() * AHEAD, 80)
            reach += [span[0], span[-1]]
            fan = forecast(law, span)
            inside = span <= points.x.max()
            ax.fill_between(span, fan["low"], fan["high"], color=style.color, alpha=0.15, lw=0)
            ax.plot(span[inside], fan["value"][inside], color=style.color)
            ax.plot(span[~inside], fan["value"][~inside], color=style.color, ls="--")
            (dots,) = ax.plot(points.x, points.value, style.marker, ms=5, color=style.color, mec="white", mew=0.5)
            describe_points(dots, [
                f"{m}, S = {si(s)}\n{name} {number(v)}"
                for m, s, v in zip(points.names, points.x, points.value, strict=True)
            ])  # fmt: skip
        size_ticks(ax, reach)
        log_ticks(ax, "y")
        ax.set_xlabel("S")
        ax.set_title(f"${group[0].label.tex}$ (nats)")
    family_legend(figure, styles, families)
    headline(figure, f"{title} (bands: {percent(laws[0].confidence)} for one new model)")
    return figure


@styled
def backtest_figure(table: pd.DataFrame, title: str, styles: dict[str, FamilyStyle] | None = None) -> Figure:
    """Error of forecasts of held-out models in percent, against how far beyond the fit they lie; a panel per quantity.

    table: rows of ``backtest`` with columns family, quantity and tex, of one data set. Bars are the prediction
    intervals around the forecast, so a bar that misses 0 is a forecast that failed.
    """
    if table.empty:
        raise LabError("there is nothing to draw: no model could be held out")
    families = sorted(table["family"].unique())
    styles = styles or family_styles(families)
    quantities = list(dict.fromkeys(table["quantity"]))
    figure = new_figure(*grid_size(len(quantities), 4.1, 2.8, 2))
    for ax, quantity in zip(grid(figure, len(quantities), 2), quantities, strict=True):
        mine = table[table["quantity"] == quantity]
        for family, rows in mine.groupby("family"):
            style = styles[family]
            values = {c: rows[c].to_numpy(float) for c in ("actual", "forecast", "low", "high", "beyond", "size")}
            error, low, high = (100 * (values[c] / values["actual"] - 1) for c in ("forecast", "low", "high"))
            bars = ax.errorbar(
                values["beyond"], error, yerr=np.stack([error - low, high - error]), fmt=style.marker, ms=5, mew=0.5,
                color=style.color, mec="white", elinewidth=1, capsize=2,
            )  # fmt: skip
            describe_points(bars[0], [
                f"{r.model}, S = {si(float(r.size))}, held out with {r.held - 1} more\n"
                f"forecast {number(r.forecast)} {bracket(r.low, r.high)}, measured {number(r.actual)}"
                for r in rows.itertuples(index=False)
            ])  # fmt: skip
        ax.axhline(0, color=GREY, lw=1)
        log_ticks(ax, "x", lambda v: f"{v:g}×")
        ax.set_xlabel("S beyond the largest model of the fit")
        ax.set_title(f"${mine['tex'].iloc[0]}$: forecast − measured (%)")
    family_legend(figure, styles, families)
    headline(figure, title)
    return figure
