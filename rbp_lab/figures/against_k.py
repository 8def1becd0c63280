"""RBP against k ([RBP] appendix B): the curves with their power laws, and what k is worth in model size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rbp_lab.errors import LabError
from rbp_lab.figures.style import (
    FamilyStyle,
    describe_points,
    family_styles,
    grid,
    grid_size,
    headline,
    k_ticks,
    literal,
    log_ticks,
    new_figure,
    shades,
    styled,
)
from rbp_lab.fits.forms import predict
from rbp_lab.fits.result import FitResult
from rbp_lab.text import number, si


@styled
def curves_figure(families: dict[str, Sequence[tuple[float, FitResult]]], title: str) -> Figure:
    """−log RBP_k against k on log-log axes with each model's power law: a panel per family, darker for larger models.

    families: per family, (S, law in k) of its models, on one data set; a refused law shows its points only. LabError
    when there is no point at all.
    """
    families = {f: sorted(laws, key=lambda pair: pair[0]) for f, laws in families.items()}
    families = {f: laws for f, laws in families.items() if any(len(law.points) for _, law in laws)}
    if not families:
        raise LabError("there is nothing to draw: no model has values at the k of appendix B")
    figure = new_figure(*grid_size(len(families), 3.9, 3.3))
    axes = grid(figure, len(families))
    for ax, (family, laws) in zip(axes, families.items(), strict=True):
        ks: set[float] = set()
        for (size, law), color in zip(laws, shades(len(laws)), strict=True):
            k, value = law.points.x, law.points.value
            ks |= set(k)
            (dots,) = ax.plot(k, value, "o", ms=4, color=color, mec="white", mew=0.4, zorder=3)
            model = law.label.family
            describe_points(
                dots, [f"{model}, S = {si(size)}\nk = {at:g}: {number(v)}" for at, v in zip(k, value, strict=True)]
            )
            if law.ok:
                span = np.geomspace(k.min(), k.max(), 50)
                ax.plot(span, predict(law, span), color=color, lw=1)
        ends = ((laws[0], shades(len(laws))[0], "bottom"), (laws[-1], shades(len(laws))[-1], "top"))
        for (size, law), color, where in ends[: len(laws)]:
            i = len(law.points) // 2
            shift = 1.12 if where == "bottom" else 0.88
            ax.text(
                law.points.x[i], law.points.value[i] * shift, f"S = {si(size)}", color=color, fontsize=8, va=where,
                ha="left" if where == "bottom" else "right",
            )  # fmt: skip
        k_ticks(ax, [int(k) for k in ks])
        log_ticks(ax, "y")
        ax.set_xlabel("k")
        ax.set_title(f"{literal(family)}: $-\\log\\,\\mathrm{{RBP}}_k$ (nats)")
    headline(figure, title)
    return figure


@styled
def iso_figure(curves: pd.DataFrame, title: str, styles: dict[str, FamilyStyle] | None = None) -> Figure:
    """Curves of equal RBP in the (k, S) plane, a panel per family; dashed where S leaves the sizes measured.

    curves: rows of ``iso_rbp`` with a column family, of one data set. Curves are cut at a factor of 30 beyond the
    sizes that stay inside. LabError when no curve is left.
    """
    curves = curves.astype({"k": float, "size": float, "level": float, "extrapolates": bool})
    inside = curves[~curves["extrapolates"]].groupby("family")["size"].agg(["min", "max"])
    families = sorted(inside.index)
    if not families:
        raise LabError("there is nothing to draw: no level of RBP is reached within the sizes measured")
    styles = styles or family_styles(families)
    figure = new_figure(*grid_size(len(families), 3.9, 3.3))
    for ax, family in zip(grid(figure, len(families)), families, strict=True):
        mine = curves[curves["family"] == family]
        low, high = inside.loc[family, "min"] / 30, inside.loc[family, "max"] * 30
        mine = mine[mine["size"].between(low, high)]
        color = styles[family].color
        for level, rows in mine.groupby("level"):
            rows = rows.sort_values("k")
            ax.plot(rows["k"], rows["size"], color=color, ls=(0, (3, 2)), lw=0.9, alpha=0.8)
            solid = rows["size"].where(~rows["extrapolates"])
            (dots,) = ax.plot(rows["k"], solid, color=color, marker=styles[family].marker, ms=4, mec="white", mew=0.4)
            describe_points(
                dots,
                [f"RBP = {level:g} at k = {r.k:g}\nneeds S = {si(r.size)}" for r in rows.itertuples()],
            )
            last = rows.iloc[-1]
            ax.annotate(
                f"{level:g}", (last["k"], last["size"]), xytext=(5, 0), textcoords="offset points", color=color,
                fontsize=8, va="center",
            )  # fmt: skip
        ks = [int(k) for k in mine["k"]]
        k_ticks(ax, ks)
        ax.set_xlim(min(ks) / 1.3, max(ks) * 2.2)  # room for the labels of the levels
        log_ticks(ax, "y", si)
        ax.set_xlabel("k")
        ax.set_ylabel("S")
        ax.set_title(f"{literal(family)}: lines of equal RBP$_k$")
    headline(figure, title)
    return figure
