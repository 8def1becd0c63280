"""Two runs on the same documents: the relative differences with their intervals, and the documents one by one."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rbp_lab.comparison.differences import Difference
from rbp_lab.comparison.summary import per_document
from rbp_lab.figures.style import GREY, PALETTE, describe_points, headline, new_figure, styled
from rbp_lab.text import bracket, number


@styled
def comparison_figure(found: Sequence[Difference], documents: pd.DataFrame, title: str) -> Figure:
    """Left: (b − a)/a of every quantity with its interval, in percent. Right: nats per token of each document, bits per
    byte where tokens differ.

    found: the differences; those without an interval, or of a quantity that is 0 for a, are left out. documents: as of
    ``per_document``; those without a value are left out.
    """
    shown = [d for d in found if d.low is not None and d.a != 0]
    figure = new_figure(8.6, max(3.2, 0.3 * len(shown) + 1.4))
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    place = np.arange(len(shown))
    percent = np.array([[d.difference, d.low, d.high] for d in shown]) * 100 / np.array([[d.a] for d in shown])
    percent = np.sort(percent[:, 1:], axis=1), percent[:, 0]
    left.hlines(place, percent[0][:, 0], percent[0][:, 1], color=PALETTE[0], lw=1.6)
    (line,) = left.plot(percent[1], place, "o", color=PALETTE[0], ms=5, mec="white", mew=0.5)
    between = [f"b − a {number(d.difference, 6)} {bracket(d.low, d.high, 6)}" for d in shown]
    values = [f"{d.name}\na {number(d.a)}, b {number(d.b)}" for d in shown]
    describe_points(line, [f"{one}\n{other}" for one, other in zip(values, between, strict=True)])
    left.axvline(0, color=GREY, lw=0.9)
    left.set_yticks(place, [re.sub(r"_\{?([\w,]+)\}?$", r"$_{\1}$", d.name) for d in shown])
    left.xaxis.set_major_locator(MaxNLocator(6))
    left.invert_yaxis()
    left.set_xlabel("(b − a) / a, percent")
    unit, *each = per_document(documents)
    there = each[0].notna() & each[1].notna()
    a, b = (value[there] for value in each)
    (points,) = right.plot(a, b, "o", color=PALETTE[1], ms=4, mec="white", mew=0.4, alpha=0.8)
    describe_points(
        points,
        [
            f"{name}\na {number(x)}, b {number(y)}"
            for name, x, y in zip(documents["document"][there], a, b, strict=True)
        ],
    )
    ends = [min(a.min(), b.min()), max(a.max(), b.max())]
    right.plot(ends, ends, color=GREY, lw=0.9, zorder=0)
    right.set_xlabel(f"{unit} of a document, a")
    right.set_ylabel("b")
    headline(figure, title)
    return figure
