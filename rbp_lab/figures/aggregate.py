"""What groups of instances are worth: equivalent data against S, and RBP_1 beside supervised training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rbp_lab.errors import LabError
from rbp_lab.figures.style import (
    GREY,
    LIGHT,
    describe_points,
    family_legend,
    family_styles,
    headline,
    literal,
    new_figure,
    size_ticks,
    styled,
)
from rbp_lab.text import bracket, number, si


@styled
def equivalent_figure(worth: pd.DataFrame, title: str) -> Figure:
    """Equivalent data N_eq/N against S, one colour per observation; the band is the null width.

    worth: rows of the table of equivalents, of one task. LabError when no size has a value.
    """
    rows = worth[worth["size"].map(lambda s: not isinstance(s, str)) & worth["equivalent_data"].notna()]
    if rows.empty:
        raise LabError("there is nothing to draw: no value lies within the supervised range")
    families = sorted(rows["family"].unique())
    styles = family_styles(families)
    figure = new_figure(6.4, 3.8)
    ax = figure.subplots()
    low, high = rows["null_equivalent_data_low"].iloc[0], rows["null_equivalent_data_high"].iloc[0]
    if np.isfinite(low):
        ax.axhspan(low, high, color=LIGHT, alpha=0.6, lw=0)
    ax.axhline(1, color=GREY, lw=1)
    for i, family in enumerate(families):
        mine, style = rows[rows["family"] == family].sort_values("size"), styles[family]
        x = mine["size"].to_numpy(float) * 1.04 ** (i - (len(families) - 1) / 2)  # bars beside each other
        y = mine["equivalent_data"].to_numpy(float)
        error = np.stack([y - mine["equivalent_data_low"], mine["equivalent_data_high"] - y])
        bars = ax.errorbar(
            x, y, yerr=np.nan_to_num(error), fmt=style.marker, ms=5, color=style.color, mec="white", mew=0.5,
            elinewidth=1, capsize=2,
        )  # fmt: skip
        describe_points(bars[0], [
            f"{family}, S = {si(r.size_)}\nequivalent data {number(r.equivalent_data, 2)} "
            f"{bracket(r.equivalent_data_low, r.equivalent_data_high, 2)}"
            for r in mine.rename(columns={"size": "size_"}).itertuples()
        ])  # fmt: skip
    size_ticks(ax, rows["size"].astype(float))
    highest = float(np.nanmax(rows["equivalent_data_high"].fillna(rows["equivalent_data"])))
    ax.set_ylim(0, max(1.25, min(1.05 * highest, 2 * float(rows["equivalent_data"].max()))))
    ax.set_xlabel("S, non-embedding parameters")
    ax.set_title("equivalent data: labelled instances / instances in groups")
    family_legend(figure, styles, families)
    headline(figure, title, families)
    return figure


@styled
def difference_figure(accuracy: pd.DataFrame, title: str) -> Figure:
    """RBP_1 minus that of supervised training in points, one line per family; of the largest size where several are.

    accuracy: rows of the table of accuracies, of one task. LabError when no row has a difference.
    """
    rows = accuracy[accuracy["than_supervised"].notna()]
    rows = rows[rows["instances"] == rows["instances"].max()]
    rows = rows[rows["size"] == rows.groupby("family")["size"].transform("max")]
    if rows.empty:
        raise LabError("there is nothing to draw: no run has a supervised counterpart")
    rows = rows.iloc[::-1]
    figure = new_figure(7.2, 1.4 + 0.26 * len(rows))
    ax = figure.subplots()
    y, x = np.arange(len(rows)), rows["than_supervised"].to_numpy(float)
    error = np.nan_to_num(np.stack([x - rows["than_supervised_low"], rows["than_supervised_high"] - x]))
    ax.axvline(0, color=GREY, lw=1)
    bars = ax.errorbar(x, y, xerr=error, fmt="o", ms=4.5, color="#0072B2", elinewidth=1, capsize=2)
    describe_points(bars[0], [
        f"{r.family}\n{number(r.than_supervised, 2)} {bracket(r.than_supervised_low, r.than_supervised_high, 2)} points"
        for r in rows.itertuples()
    ])  # fmt: skip
    ax.set_yticks(y, [literal(f"{r.family} ({r.classifier}, S = {si(r.size_)})", 60)
                      for r in rows.rename(columns={"size": "size_"}).itertuples()])  # fmt: skip
    ax.set_xlabel("RBP_1 minus supervised, points")
    headline(figure, title)
    return figure
