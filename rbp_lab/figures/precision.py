"""What a coarser precision costs, against its bits."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from rbp_lab.errors import LabError
from rbp_lab.figures.style import GREY, describe_points, grid, grid_size, headline, new_figure, shades, styled
from rbp_lab.text import number, si

WIDTH = 0.1  # of the places of models at one number of bits, in octaves to either side


@styled
def precision_figure(table: pd.DataFrame, title: str) -> Figure:
    """Difference to the finest run against bits, and ranks that moved: a panel each, a shade per model size (darker for
    larger).

    table: rows of ``law_precision`` of one data set. Bars are their intervals, grey ones the noise floors. Ranks moved
    are filled where a comparison knows them all, hollow where a record knows the least number. LabError without rows.
    """
    if table.empty:
        raise LabError("there is nothing to draw: no model was measured at two precisions")
    quantities, sizes = list(dict.fromkeys(table["quantity"])), sorted(table["size"].unique())
    colours = dict(zip(sizes, shades(len(sizes)), strict=True))
    apart = dict(zip(sizes, np.linspace(-WIDTH, WIDTH, len(sizes)) if len(sizes) > 1 else [0.0], strict=True))
    figure = new_figure(*grid_size(len(quantities) + 1, 3.6, 2.9))
    *panels, last = grid(figure, len(quantities) + 1)
    for ax, quantity in zip(panels, quantities, strict=True):
        for size, rows in table[table["quantity"] == quantity].groupby("size"):
            # probabilities in points of a percent, cross-entropy in nats
            unit = 1 if quantity == "CE" else 100
            y, ends = rows["difference"].to_numpy(float) * unit, rows[["low", "high"]].to_numpy(float) * unit
            error = np.nan_to_num(np.stack([y - ends[:, 0], ends[:, 1] - y]))
            x, floor = rows["bits"] * 2.0 ** apart[size], rows["floor"].astype(float).to_numpy() * unit
            ax.vlines(x, -floor, floor, color=GREY, alpha=0.45, lw=5, zorder=1)
            drawn = ax.errorbar(
                x, y, yerr=error, fmt="o", ms=4, color=colours[size], mec="white",
                mew=0.5, elinewidth=1, capsize=2, label=f"S = {si(size)}",
            )  # fmt: skip
            describe_points(drawn[0], [
                f"{model}\n{quantity}: {number(value)}" for model, value in zip(rows["model"], y, strict=True)
            ])  # fmt: skip
        name = re.sub(r"_(\d+)$", r"$_{\1}$", quantity)  # RBP_10, with its k below the line
        ax.set_title(f"{name} ({'nats' if quantity == 'CE' else 'points of a percent'})")
    _moved(last, table, colours, apart)
    bits = sorted(table["bits"].unique())
    for ax in (*panels, last):
        ax.axhline(0, color=GREY, lw=1)
        ax.set_xscale("log", base=2)
        ax.set_xlim(bits[0] / 1.4, bits[-1] * 1.4)
        ax.xaxis.set_major_locator(FixedLocator(bits))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.set_xlabel("bits")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(handles)))
    headline(figure, title)
    return figure


def _moved(ax: Axes, table: pd.DataFrame, colours: Mapping[float, object], apart: Mapping[float, float]) -> None:
    """Percent of tokens whose rank moved against bits."""
    for size, rows in table.drop_duplicates(["model", "precision"]).groupby("size"):
        exact = rows["moved"].notna().to_numpy()
        y = 100 * np.where(exact, rows["moved"], rows["moved_at_least"]).astype(float)
        x = rows["bits"].to_numpy() * 2.0 ** apart[size]
        for mask, fill in ((exact, colours[size]), (~exact, "white")):
            (line,) = ax.plot(x[mask], y[mask], "o", ms=4.5, color=colours[size], mfc=fill)
            how = "at least " if mask is not exact else ""
            names = rows["model"].to_numpy()[mask]
            texts = zip(names, y[mask], strict=True)
            describe_points(line, [f"{name}\nranks moved: {how}{number(value)}%" for name, value in texts])
    ax.set_ylim(bottom=0)
    ax.set_title("ranks moved (percent of tokens)")
