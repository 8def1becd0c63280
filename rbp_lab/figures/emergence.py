"""Emergence (figure 7 of [RBP]): p_{N,k} against S, measured, fitted, and as independence would have it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rbp_lab.errors import LabError
from rbp_lab.figures.style import GREY, describe_points, headline, log_ticks, new_figure, shades, size_ticks, styled
from rbp_lab.fits.emergence import EmergenceFit
from rbp_lab.text import number, percent, si, significant

# The k of [RBP] figure 7.
FIGURE7_KS = (1, 5, 10, 50, 100, 500, 2500, 10000)


@styled
def emergence_figure(table: pd.DataFrame, fits: Sequence[EmergenceFit], title: str) -> Figure:
    """p_{N,k} against S for one family on one data set: two panels per k, a shade per N (darker for longer).

    Left as the paper draws it, from 0 to 1; right with a logarithmic p, where small ones are seen as well. table: rows
    of ``emergence_table`` of that family. Bars: interval over documents; an arrow hangs from the upper bound where no
    window was hit. Solid: the fitted law with a free exponent of N, where there is one. Dashed: RBP_k^N, what
    independent tokens would give. LabError without a fit's k in the table.
    """
    shown = [fit for fit in fits if (table["k"] == fit.k).any()]
    if not shown:
        raise LabError("there is nothing to draw: no measured p_{N,k} for the k of these fits")
    figure = new_figure(7.8, 3.0 * len(shown) + 0.8)
    axes = figure.subplots(len(shown), 2, squeeze=False)
    windows = sorted(table["window"].unique())
    colors = shades(len(windows))
    for pair, fit in zip(axes, shown, strict=True):
        for ax, logarithmic in zip(pair, (False, True), strict=True):
            _panel(ax, table[table["k"] == fit.k], fit, dict(zip(windows, colors, strict=True)), logarithmic)
    handles = [
        Line2D([], [], color=c, marker="o", ls="-", label=f"N = {n}") for n, c in zip(windows, colors, strict=True)
    ]
    handles.append(Line2D([], [], color=GREY, ls="--", label="independent: RBP$_k^N$"))
    title = f"{title} (bars: {percent(shown[0].confidence)}, documents)"
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
    headline(figure, title)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, fit: EmergenceFit, colors: dict[int, np.ndarray], logarithmic: bool) -> None:
    sizes = rows["size"].to_numpy()
    span = np.geomspace(sizes.min(), sizes.max(), 100)
    for window, color in colors.items():
        mine = rows[rows["window"] == window].sort_values("size")
        seen, bound = mine[~mine["bound"]], mine[mine["bound"]]
        p = seen["p"].to_numpy()
        error = np.nan_to_num(np.stack([p - seen["low"], seen["high"] - p]))
        drawn = ax.errorbar(
            seen["size"], p, yerr=error, fmt="o", ms=4, color=color, mec="white", mew=0.4, elinewidth=1, capsize=1.5,
            zorder=3,
        )  # fmt: skip
        describe_points(drawn[0], [
            f"{r.model}, S = {si(s)}\nN = {window}, k = {fit.k}: p = {significant(r.p, 3)} "
            f"[{significant(r.low, 3)}, {significant(r.high, 3)}]"
            f"\nindependence ratio {number(r.ratio, 2)}"
            for s, r in zip(seen["size"], seen.itertuples(), strict=True)
        ])  # fmt: skip
        ax.errorbar(
            bound["size"], bound["high"], yerr=bound["high"] * 0.4 if logarithmic else 0.04, uplims=True, fmt="none",
            ecolor=color, elinewidth=1, capsize=2,
        )  # fmt: skip
        ax.plot(mine["size"], mine["independent"], color=color, ls="--", lw=0.9, zorder=1)
        if fit.alpha is not None and window in fit.windows:
            ax.plot(span, fit.predict(window, span), color=color, zorder=2)
    size_ticks(ax, sizes)
    ax.set_xlabel("S")
    if logarithmic:
        _logarithmic(ax, rows)
        return
    ax.set_ylim(-0.02, 1.02)
    note = "no law fitted"
    if fit.alpha is not None:
        note = f"$-\\log p \\propto N^{{{fit.beta:.2f}}}\\,S^{{{-fit.alpha:.3f}}}$"
    ax.set_title(f"$p_{{N,{fit.k}}}$: {note}")


def _logarithmic(ax: Axes, rows: pd.DataFrame) -> None:
    """A logarithmic p that ends below the least that was measured, or bounded; what lies deeper is cut."""
    seen = pd.concat([rows.loc[~rows["bound"], "p"], rows.loc[rows["bound"], "high"]]).dropna()
    ax.set_ylim(min(0.5, float(seen.min())) / 3, 1.3)
    log_ticks(ax, "y")
    ax.set_title("the same, logarithmic")
