"""The distribution of ranks with its lognormal, and the parts of cross-entropy, over models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rbp_lab.errors import LabError
from rbp_lab.figures.style import (
    GREY,
    PALETTE,
    describe_points,
    family_styles,
    headline,
    k_ticks,
    log_ticks,
    new_figure,
    plain,
    shades,
    si,
    size_ticks,
    styled,
)
from rbp_lab.fits.decomposition import PartScaling
from rbp_lab.fits.forms import predict
from rbp_lab.fits.lognormal import LognormalFit, rank_shares
from rbp_lab.stats import RankStats

PART_NAMES = {"cross_entropy": "CE", "error_entropy": "error entropy", "self_alignment": "self-alignment",
              "confidence": "|confidence|"}  # fmt: skip


@styled
def rank_figure(runs: Sequence[tuple[str, float, RankStats, LognormalFit]], title: str) -> Figure:
    """Share of each rank on log-log axes with the fitted lognormal, and the residual below; a shade per model.

    runs: (model, S, statistics, fit) of one family. Ranks are averaged in bins that grow by a quarter of an octave, so
    that single counts far out do not hide the law. Residual: ln(measured/fitted) of the bins with 10 tokens or more.
    """
    if not runs:
        raise LabError("there is nothing to draw: no run")
    figure = new_figure(7.2, 5.6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    ordered = sorted(runs, key=lambda run: run[1])
    last = max(stats.vocab_rows for _, _, stats, _ in ordered)
    for (model, size, stats, fit), color in zip(ordered, shades(len(ordered)), strict=True):
        edge = np.unique(np.round(2 ** np.arange(0, np.log2(stats.vocab_rows + 1) + 0.25, 0.25)).astype(int))
        edge = np.append(edge[edge <= stats.vocab_rows], stats.vocab_rows + 1)
        count = np.add.reduceat(stats.counts, edge[:-1] - 1)
        width, centre = np.diff(edge), np.sqrt(edge[:-1] * (edge[1:] - 1))
        seen = count > 0
        share = count / width / stats.num_tokens
        (dots,) = top.plot(centre[seen], share[seen], "o", ms=3, color=color, label=f"S = {si(size)}", mew=0)
        describe_points(dots, [
            f"{model}, rank {c:.3g}\nshare {v:.2e}" for c, v in zip(centre[seen], share[seen], strict=True)
        ])  # fmt: skip
        if fit.mu is None:
            continue
        # the law is about ranks from xmin on, so it stands for their share of all tokens
        law = np.add.reduceat(rank_shares(fit, stats.vocab_rows), edge[:-1] - 1) / width * fit.n / stats.num_tokens
        drawn = centre >= fit.xmin
        top.plot(centre[drawn], law[drawn], color=color, lw=1)
        solid = drawn & (count >= 10)
        bottom.plot(centre[solid], np.log(share[solid] / law[solid]), color=color, marker="o", ms=2, lw=0.8)
    k_ticks(top, [1, last])
    log_ticks(top, "y")
    top.tick_params(labelbottom=False)
    bottom.axhline(0, color=GREY, lw=0.8)
    bottom.set_xlabel("rank")
    bottom.set_ylabel("ln(measured/law)")
    top.set_title("share of tokens per rank (dots) and lognormal (lines)")
    top.legend(loc="upper right", ncols=2, fontsize=8)
    headline(figure, title)
    return figure


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
    colors = dict(zip(PART_NAMES, PALETTE, strict=False))
    markers = family_styles(PART_NAMES)
    for ax, parts in zip(axes, scalings, strict=True):
        for part in parts:
            points, color = part.law.points, colors[part.part]
            value = np.abs(points.value)
            r2 = f", R² {part.law.r2:.3f}" if part.law.ok else ", no fit"
            (dots,) = ax.plot(
                points.size[value > 0], value[value > 0], markers[part.part].marker, ms=5, color=color, mec="white",
                mew=0.5, label=PART_NAMES[part.part] + r2,
            )  # fmt: skip
            describe_points(dots, [
                f"{m}, S = {si(s)}\n{PART_NAMES[part.part]} = {v:.4f} nats"
                for m, s, v in zip(points.names, points.size, value, strict=True) if v > 0
            ])  # fmt: skip
            if part.law.ok:
                span = np.geomspace(points.size.min(), points.size.max(), 50)
                ax.plot(span, predict(part.law, span), color=color)
        ax.set_title(f"{parts[0].law.label.family}: nats")
        ax.set_xlabel("S")
        size_ticks(ax, np.concatenate([part.law.points.size for part in parts]))
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)
    log_ticks(axes[0], "y")
    axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    headline(figure, title)
    return figure
