"""What a coarser precision costs, against its bits."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from rbp_lab.errors import LabError
from rbp_lab.figures.style import GREY, describe_points, grid, grid_size, headline, literal, new_figure, shades, styled
from rbp_lab.text import number, si

WIDTH = 0.1  # of the places of models at one number of bits, in octaves to either side


@styled
def precision_figure(table: pd.DataFrame, title: str) -> Figure:
    """Difference to the finest run against bits: a panel per quantity, a shade per model size (darker for larger).

    table: rows of ``law_precision`` of one data set. Bars are their intervals. LabError without rows.
    """
    if table.empty:
        raise LabError("there is nothing to draw: no model was measured at two precisions")
    quantities, sizes = list(dict.fromkeys(table["quantity"])), sorted(table["size"].unique())
    colours = dict(zip(sizes, shades(len(sizes)), strict=True))
    apart = dict(zip(sizes, np.linspace(-WIDTH, WIDTH, len(sizes)) if len(sizes) > 1 else [0.0], strict=True))
    figure = new_figure(*grid_size(len(quantities), 3.6, 2.9))
    for ax, quantity in zip(grid(figure, len(quantities)), quantities, strict=True):
        for size, rows in table[table["quantity"] == quantity].groupby("size"):
            # probabilities in points of a percent, cross-entropy in nats
            unit = 1 if quantity == "CE" else 100
            y, ends = rows["difference"].to_numpy(float) * unit, rows[["low", "high"]].to_numpy(float) * unit
            error = np.nan_to_num(np.stack([y - ends[:, 0], ends[:, 1] - y]))
            drawn = ax.errorbar(
                rows["bits"] * 2.0 ** apart[size], y, yerr=error, fmt="o", ms=4, color=colours[size], mec="white",
                mew=0.5, elinewidth=1, capsize=2, label=f"S = {si(size)}",
            )  # fmt: skip
            describe_points(drawn[0], [
                f"{model}\n{quantity}: {number(value)}" for model, value in zip(rows["model"], y, strict=True)
            ])  # fmt: skip
        ax.axhline(0, color=GREY, lw=1)
        bits = sorted(table["bits"].unique())
        ax.set_xscale("log", base=2)
        ax.set_xlim(bits[0] / 1.4, bits[-1] * 1.4)
        ax.xaxis.set_major_locator(FixedLocator(bits))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.set_xlabel("bits")
        ax.set_title(f"{literal(quantity)} ({'nats' if quantity == 'CE' else 'points of a percent'})")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(handles)))
    headline(figure, title)
    return figure
