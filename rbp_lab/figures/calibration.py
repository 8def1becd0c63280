"""The calibration gap over model size."""

from __future__ import annotations

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
    headline,
    new_figure,
    size_ticks,
    styled,
)
from rbp_lab.text import number, si


@styled
def calibration_figure(table: pd.DataFrame, title: str, styles: dict[str, FamilyStyle] | None = None) -> Figure:
    """Mean predictive entropy − cross-entropy against S, families by colour; 0 is calibrated, below it too sure.

    table: rows of ``calibration_table`` of one data set; bars are their intervals over documents.
    """
    if table.empty:
        raise LabError("there is nothing to draw: no run")
    families = sorted(table["family"].unique())
    styles = styles or family_styles(families)
    figure = new_figure(5.6, 3.4)
    ax = figure.subplots()
    for family, rows in table.groupby("family"):
        rows, style = rows.sort_values("size"), styles[family]
        gap = rows["gap"].to_numpy(float)
        error = np.nan_to_num(np.stack([gap - rows["low"], rows["high"] - gap]))
        bars = ax.errorbar(
            rows["size"], gap, yerr=error, fmt=style.marker, ms=5, color=style.color, mec="white", mew=0.5,
            elinewidth=1, capsize=2,
        )  # fmt: skip
        describe_points(bars[0], [
            f"{m}, S = {si(s)}\ngap {number(v)} nats" for m, s, v in zip(rows["model"], rows["size"], gap, strict=True)
        ])  # fmt: skip
    ax.axhline(0, color=GREY, lw=1)
    low, high = ax.get_ylim()
    low, high = low - 0.07 * (high - low), high + 0.07 * (high - low)  # room for the words
    ax.set_ylim(low, high)
    for y, text, va in ((high, "too cautious", "top"), (low, "too sure", "bottom")):
        if y * (1 if va == "top" else -1) > 0.15 * (high - low):
            ax.annotate(text, (1, y), xycoords=("axes fraction", "data"), ha="right", va=va, fontsize=8, color=GREY)
    size_ticks(ax, table["size"])
    ax.set_xlabel("S")
    ax.set_title("entropy − CE (nats per token; bars: documents)")
    family_legend(figure, styles, families)
    headline(figure, title)
    return figure
