"""The lognormal of ranks ([RBP] figures 8b–d): the law beside the ranks, its parameters over S, what it implies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rbp_lab.errors import LabError
from rbp_lab.figures.style import (
    GREY,
    FamilyStyle,
    describe_points,
    family_legend,
    family_styles,
    headline,
    k_ticks,
    log_ticks,
    new_figure,
    shades,
    size_ticks,
    styled,
)
from rbp_lab.text import number, percent, si, significant

PARAMETERS = (("mu", "μ"), ("sigma", "σ"), ("ratio", "μ/σ"))


@styled
def rank_figure(runs: Sequence[tuple[str, float, int, pd.DataFrame]], title: str) -> Figure:
    """Share of each rank on log-log axes with the fitted lognormal, and the residual below; a shade per model.

    runs: (model, S, V, rows of ``rank_bins``) of one family. Residual: ln(measured/fitted) of the bins with 10 tokens
    or more.
    """
    if not runs:
        raise LabError("there is nothing to draw: no run")
    figure = new_figure(7.2, 5.6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    ordered = sorted(runs, key=lambda run: run[1])
    last = max(vocab for _, _, vocab, _ in ordered)
    for (model, size, _, bins), color in zip(ordered, shades(len(ordered)), strict=True):
        seen, law = bins[bins["tokens"] > 0], bins[bins["law"].notna()]
        (dots,) = top.plot(seen["rank"], seen["share"], "o", ms=3, color=color, label=f"S = {si(size)}", mew=0)
        describe_points(dots, [
            f"{model}, rank {significant(r, 3)}\nshare {significant(v, 3)}"
            for r, v in zip(seen["rank"], seen["share"], strict=True)
        ])  # fmt: skip
        if law.empty:
            continue
        top.plot(law["rank"], law["law"], color=color, lw=1)
        solid = law[law["tokens"] >= 10]
        bottom.plot(solid["rank"], np.log(solid["share"] / solid["law"]), color=color, marker="o", ms=2, lw=0.8)
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
def parameters_figure(table: pd.DataFrame, title: str, styles: dict[str, FamilyStyle] | None = None) -> Figure:
    """μ, σ and μ/σ against S, one row of panels per model of the law ("rounded", "pmf"), families by colour.

    table: one row per run and model of the law (``LognormalFit`` with name, family, size), of one data set. Only fits
    that converged are drawn. Bars are the fits' intervals over blocks of documents, cut where they leave the panel.
    LabError without any.
    """
    drawn = table[table["status"] == "ok"]
    if drawn.empty:
        raise LabError("there is nothing to draw: no lognormal of ranks converged")
    models = [m for m in ("rounded", "pmf") if (drawn["model"] == m).any()]
    families = sorted(drawn["family"].unique())
    styles = styles or family_styles(families)
    figure = new_figure(9.0, 2.7 * len(models) + 0.5)
    axes = figure.subplots(len(models), 3, squeeze=False)
    for row, model in zip(axes, models, strict=True):
        mine = drawn[drawn["model"] == model]
        for ax, (column, name) in zip(row, PARAMETERS, strict=True):
            for family, rows in mine.groupby("family"):
                _points(ax, rows.sort_values("size"), column, name, styles[family])
            size_ticks(ax, drawn["size"].astype(float))
            value = mine[column].to_numpy(float)
            room = 0.4 * np.ptp(value) + 0.1  # a single fit without information must not flatten the others
            ax.set_ylim(max(ax.get_ylim()[0], value.min() - room), min(ax.get_ylim()[1], value.max() + room))
            ax.set_title(f"{name}  ({model}, ranks ≥ {mine['xmin'].iloc[0]})")
    for ax in axes[-1]:
        ax.set_xlabel("S")
    family_legend(figure, styles, families)
    headline(figure, f"{title} (bars: {percent(drawn['confidence'].iloc[0])}, documents)")
    return figure


def _points(ax: Axes, rows: pd.DataFrame, column: str, name: str, style: FamilyStyle) -> None:
    y = rows[column].to_numpy(float)
    half = rows[f"{column}_high"].to_numpy(float, na_value=np.nan) - y
    bars = ax.errorbar(
        rows["size"].to_numpy(float), y, yerr=np.nan_to_num(half), fmt=style.marker, ms=5, color=style.color,
        mec="white", mew=0.5, elinewidth=1, capsize=2,
    )  # fmt: skip
    ax.plot(rows["size"].to_numpy(float), y, color=style.color, lw=0.7, alpha=0.6)
    describe_points(bars[0], [
        f"{model}, S = {si(s)}\n{name} = {number(v, 3)}" + (f" ± {number(h, 3)}" if np.isfinite(h) else "")
        for model, s, v, h in zip(rows["name"], rows["size"], y, half, strict=True)
    ])  # fmt: skip


@styled
def implied_figure(table: pd.DataFrame, title: str, styles: dict[str, FamilyStyle] | None = None) -> Figure:
    """What the lognormal implies (open, dashed) beside what was measured (filled): −log p_1, and entropies, against S.

    table: as for ``parameters_figure``; rows of the pmf carry the implied values ([RBP] appendix D). The second panel
    sets the law's rank entropy, which the appendix calls cross-entropy, beside the measured cross-entropy.
    """
    drawn = table[table["implied_neg_log_p1"].notna()]
    if drawn.empty:
        raise LabError("there is nothing to draw: no lognormal (pmf) of ranks was fitted")
    families = sorted(drawn["family"].unique())
    styles = styles or family_styles(families)
    figure = new_figure(8.2, 3.7)
    axes = figure.subplots(1, 2)
    drawn = drawn.assign(measured_neg_log_p1=-np.log(drawn["measured_rbp_1"].astype(float).clip(lower=1e-12)))
    panels = (
        ("implied_neg_log_p1", "measured_neg_log_p1", "$-\\log p_1$: law, and measured"),
        ("implied_rank_entropy", "measured_cross_entropy", "rank entropy of the law; measured CE"),
    )
    for ax, (implied, measured, name) in zip(axes, panels, strict=True):
        for family, rows in drawn.groupby("family"):
            rows, style = rows.sort_values("size"), styles[family]
            s = rows["size"].to_numpy(float)
            for column, face, ls, word in ((measured, style.color, "-", "measured"), (implied, "white", "--", "law")):
                y = rows[column].to_numpy(float)
                (line,) = ax.plot(s, y, ls=ls, lw=0.9, color=style.color, marker=style.marker, ms=5, mfc=face)
                describe_points(
                    line, [f"{m}, S = {si(x)}\n{word}: {number(v)}" for m, x, v in zip(rows["name"], s, y, strict=True)]
                )
        ax.plot([], [], color=GREY, marker="o", ms=5, lw=0.9, label="measured")
        ax.plot([], [], color=GREY, marker="o", ms=5, lw=0.9, ls="--", mfc="white", label="implied by the law")
        size_ticks(ax, drawn["size"].astype(float))
        log_ticks(ax, "y")
        ax.set_xlabel("S")
        ax.set_title(f"{name} (nats)")
    axes[0].legend(loc="best")
    family_legend(figure, styles, families)
    headline(figure, title)
    return figure
