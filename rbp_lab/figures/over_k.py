"""The law over k ([RBP] figure 6): R² and exponent of −log RBP_k against k."""

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
    exponent_text,
    family_legend,
    family_styles,
    headline,
    k_ticks,
    new_figure,
    styled,
)
from rbp_lab.fits.points import POOLED
from rbp_lab.fits.result import FitResult
from rbp_lab.quantities import CE, RBP
from rbp_lab.text import percent


@styled
def over_k_figure(
    fits: Sequence[FitResult],
    title: str,
    styles: dict[str, FamilyStyle] | None = None,
    bands: pd.DataFrame | None = None,
) -> Figure:
    """R² and exponent α of −log RBP_k against k, by family, with its interval; cross-entropy as a dotted line.

    fits: of one data set. A k whose fit was refused leaves a gap. The band is the interval of each k by itself; with
    bands (rows of ``simultaneous_band`` with a column family), thin lines bound the band that holds for all k at once.
    """
    fits = [f for f in fits if f.label.family is not POOLED]  # pooled R² would squeeze the families' into a line
    usable = [f for f in fits if f.ok and f.label.metric == RBP.name]
    if not usable:
        raise LabError("there is no fitted k to draw: every fit was refused")
    families = sorted({f.label.family for f in fits})
    styles = styles or family_styles(families)
    ks = sorted({f.label.k for f in fits if f.label.k is not None})
    figure = new_figure(8.2, 3.6)
    r2_axes, alpha_axes = figure.subplots(1, 2)
    for family in families:
        style = styles[family]
        by_k = {f.label.k: f for f in usable if f.label.family == family}
        grid = [by_k.get(k) for k in ks]
        line = {"color": style.color, "marker": style.marker, "ms": 4}
        (r2_line,) = r2_axes.plot(ks, [f.r2 if f else np.nan for f in grid], **line)
        here = [f"{family}, k = {k}\n{exponent_text(f) if f else ''}" for k, f in zip(ks, grid, strict=True)]
        describe_points(r2_line, here)
        (alpha_line,) = alpha_axes.plot(ks, [f.params["alpha"] if f else np.nan for f in grid], **line)
        describe_points(alpha_line, here)
        low, high = ([f.intervals["alpha"][side] if f else np.nan for f in grid] for side in (0, 1))
        alpha_axes.fill_between(ks, low, high, color=style.color, alpha=0.15, lw=0)
        if bands is not None:
            both = bands[bands["family"] == family].sort_values("k")
            for side in ("simultaneous_low", "simultaneous_high"):
                alpha_axes.plot(both["k"], both[side], color=style.color, lw=0.7, ls=(0, (4, 2)))
        ce = next((f for f in fits if f.ok and f.label.metric == CE.name and f.label.family == family), None)
        if ce is not None:
            alpha_axes.axhline(ce.params["alpha"], color=style.color, ls=":", lw=1)
            r2_axes.axhline(ce.r2, color=style.color, ls=":", lw=1)
    for ax in (r2_axes, alpha_axes):
        k_ticks(ax, ks)
        ax.set_xlabel("k")
    worst = min(f.r2 for f in fits if f.ok and f.label.metric in (CE.name, RBP.name))
    r2_axes.set_ylim(max(0.0, worst - 0.05 * (1 - worst) - 0.002), 1 + 0.03 * (1 - max(0.0, worst)))
    r2_axes.set_title("R² of the power law (log10-log10)")
    level = percent(usable[0].confidence)
    alone, joint = f"bands: {level} for each k", f"{level}, bands: each k, lines: all k"
    alpha_axes.set_title(f"exponent α ({alone if bands is None else joint})")
    if any(f.ok and f.label.metric == CE.name for f in fits):
        alpha_axes.plot([], [], color=GREY, ls=":", lw=1, label="cross-entropy")
        alpha_axes.legend(loc="best")
    family_legend(figure, styles, families)
    headline(figure, title, families)
    return figure
