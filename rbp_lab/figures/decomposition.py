"""The error-entropy split ([EE]): how the parts scale, p_e and q_e by rank, shares, and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rbp_lab.errors import LabError
from rbp_lab.figures.style import (
    GREY,
    PALETTE,
    FamilyStyle,
    describe_points,
    family_legend,
    family_styles,
    grid,
    grid_size,
    headline,
    literal,
    log_ticks,
    new_figure,
    plain,
    shades,
    size_ticks,
    styled,
)
from rbp_lab.fits.decomposition import PartScaling
from rbp_lab.fits.forms import predict
from rbp_lab.text import number, si, significant

PART_NAMES = {"cross_entropy": "CE", "error_entropy": "error entropy", "self_alignment": "self-alignment",
              "confidence": "confidence"}  # fmt: skip
PART_SIZES = PART_NAMES | {"confidence": "|confidence|"}  # where absolute values are drawn


@styled
def parts_figure(scalings: Sequence[Sequence[PartScaling]], title: str) -> Figure:
    """Cross-entropy and its three parts ([EE]) against S on log-log axes: a panel per family, a colour per part.

    scalings: of one data set, one sequence of parts per family. A refused part shows its points, where they have a
    logarithm, and no line.
    """
    if not scalings:
        raise LabError("there is nothing to draw: no run")
    figure = new_figure(4.6 * len(scalings), 3.6)
    axes = figure.subplots(1, len(scalings), squeeze=False, sharey=True).ravel()
    colors = dict(zip(PART_SIZES, PALETTE, strict=False))
    markers = family_styles(PART_SIZES)
    for ax, parts in zip(axes, scalings, strict=True):
        for part in parts:
            points, color = part.law.points, colors[part.part]
            value = np.abs(points.value)
            r2 = f", R² {number(part.law.r2, 3)}" if part.law.ok else ", no fit"
            (dots,) = ax.plot(
                points.x[value > 0], value[value > 0], markers[part.part].marker, ms=5, color=color, mec="white",
                mew=0.5, label=PART_SIZES[part.part] + r2,
            )  # fmt: skip
            describe_points(dots, [
                f"{m}, S = {si(s)}\n{PART_SIZES[part.part]} = {number(v)} nats"
                for m, s, v in zip(points.names, points.x, value, strict=True) if v > 0
            ])  # fmt: skip
            if part.law.ok:
                span = np.geomspace(points.x.min(), points.x.max(), 50)
                ax.plot(span, predict(part.law, span), color=color)
        ax.set_title(f"{literal(parts[0].law.label.family)}: nats")
        ax.set_xlabel("S")
        size_ticks(ax, np.concatenate([part.law.points.x for part in parts]))
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)
    log_ticks(axes[0], "y")
    axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    headline(figure, title)
    return figure


@styled
def error_curves_figure(curves: Sequence[tuple[str, float, pd.DataFrame]], title: str) -> Figure:
    """p_e (dots) and q_e (lines) against the rank-based error on log-log axes, darker for larger models.

    curves: (model, S, rows of ``error_curves``) of one family on one data set. e is shown as e + 1, the rank, and
    averaged in bins that grow by a quarter of an octave. Where the line runs above the dots the model gives these
    errors more probability than they deserve.
    """
    if not curves:
        raise LabError("there is nothing to draw: no run")
    figure = new_figure(7.2, 3.9)
    ax = figure.subplots()
    ordered = sorted(curves, key=lambda curve: curve[1])
    for (model, size, table), color in zip(ordered, shades(len(ordered)), strict=True):
        rank = table["e"].to_numpy() + 1
        edge = np.unique(np.round(2 ** np.arange(0, np.log2(rank.max() + 1) + 0.5, 0.25)).astype(int))
        place = np.digitize(rank, edge) - 1
        used = np.unique(place)
        width = np.diff(edge, append=edge[-1] * 2)[used]
        centre = np.sqrt(edge[used] * np.append(edge, edge[-1] * 2)[used + 1] * 1.0)
        centre[width == 1] = edge[used][width == 1]
        p, q = (np.bincount(place, table[c])[used] / width for c in ("p", "q"))
        (dots,) = ax.plot(centre, p, "o", ms=3.5, color=color, mew=0, label=f"S = {si(size)}")
        describe_points(dots, [
            f"{model}, rank {significant(c, 3)}\np_e {significant(a, 3)}, q_e {significant(b, 3)}"
            for c, a, b in zip(centre, p, q, strict=True)
        ])  # fmt: skip
        ax.plot(centre, q, color=color, lw=1)
    log_ticks(ax, "x")
    log_ticks(ax, "y")
    ax.set_xlabel("e + 1 = optimistic rank")
    ax.set_title("$p_e$, share of tokens (dots), and $q_e$, the model's (lines), per rank")
    ax.legend(loc="upper right", ncols=2, fontsize=8)
    headline(figure, title)
    return figure


@styled
def shares_figure(table: pd.DataFrame, title: str, styles: dict[str, FamilyStyle] | None = None) -> Figure:
    """The share of error entropy in cross-entropy against S, in both conventions, families by colour.

    table: rows of ``decomposition_table`` of one data set. Left EE/CE, above 1 where the model is calibrated or
    under-confident; right EE over the sum of the absolute parts, always below 1.
    """
    if table.empty:
        raise LabError("there is nothing to draw: no run")
    families = sorted(table["family"].unique())
    styles = styles or family_styles(families)
    figure = new_figure(8.2, 3.4)
    axes = figure.subplots(1, 2)
    for ax, column, name in zip(
        axes, ("share_of_ce", "share_of_parts"), ("EE / CE", "EE / (|EE| + |SA| + |Conf|)"), strict=True
    ):
        for family, rows in table.groupby("family"):
            rows, style = rows.sort_values("size"), styles[family]
            (line,) = ax.plot(
                rows["size"], rows[column], color=style.color, marker=style.marker, ms=5, mec="white", mew=0.5, lw=0.9
            )
            describe_points(line, [
                f"{m}, S = {si(s)}\n{name} = {number(v)}"
                for m, s, v in zip(rows["model"], rows["size"], rows[column], strict=True)
            ])  # fmt: skip
        size_ticks(ax, table["size"])
        ax.set_xlabel("S")
        ax.set_title(name)
    axes[0].axhline(1, color=GREY, lw=1)
    family_legend(figure, styles, families)
    headline(figure, title)
    return figure


@styled
def checkpoints_figure(table: pd.DataFrame, title: str) -> Figure:
    """Cross-entropy and its parts along training: a panel per part, a line per size, darker for larger models.

    table: rows of ``checkpoints`` of one family on one data set, with at least two training lengths of one size.
    """
    if table.empty or table.groupby("size")["training_tokens"].nunique().max() < 2:
        raise LabError("there is nothing to draw: no size was measured at two points of its training")
    figure = new_figure(*grid_size(4, 4.0, 2.7, 2))
    sizes = sorted(table["size"].unique())
    for ax, (part, name) in zip(grid(figure, 4, 2), PART_NAMES.items(), strict=True):
        for size, color in zip(sizes, shades(len(sizes)), strict=True):
            rows = table[table["size"] == size].sort_values("training_tokens")
            x = rows["training_tokens"].to_numpy(float)
            (line,) = ax.plot(x, rows[part], "o-", ms=4, lw=0.9, color=color, mec="white", mew=0.4, label=si(size))
            describe_points(line, [
                f"{m}, {si(d)} tokens\n{name} {number(v)}" for m, d, v in zip(rows["model"], x, rows[part], strict=True)
            ])  # fmt: skip
        log_ticks(ax, "x", si)
        ax.set_xlabel("training tokens")
        ax.set_title(f"{name} (nats)")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=6, title="S")
    headline(figure, title)
    return figure
