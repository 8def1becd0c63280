"""Values against model size, and exponents and R² against k: functions of fits alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rbp_lab.errors import LabError
from rbp_lab.figures.style import (
    GREY,
    FamilyStyle,
    describe_points,
    family_styles,
    k_ticks,
    log_ticks,
    new_figure,
    si,
    size_ticks,
    styled,
)
from rbp_lab.fits.forms import predict
from rbp_lab.fits.result import ALL_FAMILIES, POOLED, FitResult

POOLED_STYLE = FamilyStyle(GREY, "")


@styled
def scaling_figure(
    fits: Sequence[FitResult], title: str, styles: dict[str, FamilyStyle] | None = None, size_name: str = ""
) -> Figure:
    """Points and fitted lines against S on log-log axes, one panel per quantity, one colour and marker per family.

    fits: of one data set, or of several, which then have panels of their own; families may share a panel; a refused fit
    shows its points, where they are positive, and no line. Error bars are 95 % normal intervals of the value over
    documents, where documents are known.
    """
    panels: dict[tuple, list[FitResult]] = {}
    for fit in fits:
        panels.setdefault((fit.label.dataset, fit.label.metric, fit.label.k, fit.label.window), []).append(fit)
    panels = {key: group for key, group in panels.items() if any(drawable(f).any() for f in group)}
    if not panels:
        raise LabError("there is nothing to draw: no value is positive")
    families = sorted({f.label.family for f in fits} - {POOLED})
    styles = styles or family_styles(families)
    columns = {1: 1, 3: 3, 5: 3, 6: 3}.get(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = new_figure(4.1 * columns + (1.4 if columns == 1 else 0), 3.0 * rows + 0.7)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    sizes = np.concatenate([f.points.size for f in fits])
    datasets = {key[0] for key in panels}
    for ax, group in zip(axes, panels.values(), strict=False):
        _scaling_panel(ax, group, styles, sizes, f"{group[0].label.dataset}: " if len(datasets) > 1 else "")
        ax.set_xlabel(f"S{f', {size_name}' if size_name else ''}")
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    _family_legend(figure, families, styles, pooled=any(f.label.family is POOLED and f.ok for f in fits))
    _title(figure, title, families)
    return figure


def drawable(fit: FitResult) -> np.ndarray:
    """Which of a fit's points have a place on a logarithmic axis: neither 0 (RBP_k = 1) nor infinite (RBP_k = 0)."""
    return np.isfinite(fit.points.value) & (fit.points.value > 0)


def _title(figure: Figure, title: str, families: Sequence[str]) -> None:
    """The headline; a single family is named here, several have a legend."""
    text = f"{title}: {families[0]}" if len(families) == 1 else title
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold")


def _scaling_panel(
    ax: Axes, group: Sequence[FitResult], styles: dict[str, FamilyStyle], sizes: np.ndarray, where: str
) -> None:
    notes = []
    bars = False
    for fit in group:
        pooled = fit.label.family is POOLED
        style = POOLED_STYLE if pooled else styles[fit.label.family]
        if not pooled:
            seen = drawable(fit)
            value, se = fit.points.value[seen], fit.points.se_log[seen]
            known = np.isfinite(se)
            factor = np.exp(1.96 * np.where(known, se, 0.0))
            error = np.stack([value - value / factor, value * factor - value])
            bars |= bool(known.any())
            drawn = ax.errorbar(
                fit.points.size[seen], value, yerr=error if known.any() else None, fmt=style.marker, ms=5, capsize=2,
                color=style.color, mec="white", mew=0.5, elinewidth=1, zorder=3,
            )  # fmt: skip
            names = [name for name, there in zip(fit.points.names, seen, strict=True) if there]
            describe_points(drawn[0], [
                f"{name}, S = {si(s)}\n{fit.label.quantity} = {v:.4f}"
                for name, s, v in zip(names, fit.points.size[seen], value, strict=True)
            ])  # fmt: skip
        if fit.ok:
            span = np.geomspace(fit.points.size.min(), fit.points.size.max(), 100)
            ax.plot(span, predict(fit, span), color=style.color, ls="--" if pooled else "-", zorder=2, label="_")
            notes.append((exponent_text(fit), style.color))
        else:
            notes.append(("no fit", style.color))
    size_ticks(ax, sizes)
    log_ticks(ax, "y")
    ax.set_title(f"{where}${_tex(group[0])}$  (nats{'; bars: 95 %, documents' if bars else ''})")
    for i, (text, color) in enumerate(reversed(notes)):
        # laws fall with S, so the lower left corner is the free one
        ax.text(
            0.03, 0.04 + 0.075 * i, text, color=color, transform=ax.transAxes, fontsize=8, va="bottom", zorder=4,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1},
        )  # fmt: skip


def exponent_text(fit: FitResult) -> str:
    """The exponent with its half width and R², short enough for a panel."""
    low, high = fit.intervals["alpha"]
    return f"α = {fit.params['alpha']:.3f} ± {(high - low) / 2:.3f},  R² {fit.r2:.3f}".replace("-", "−")


def _tex(fit: FitResult) -> str:
    label = fit.label
    if label.metric == "ce":
        return r"\mathrm{CE}"
    if label.metric == "neg_log_rbp":
        return rf"-\log\,\mathrm{{RBP}}_{{{label.k}}}"
    return rf"-\log\,p_{{{label.window},{label.k}}}"


def _family_legend(figure: Figure, families: Sequence[str], styles: dict[str, FamilyStyle], pooled: bool) -> None:
    if len(families) < 2 and not pooled:
        return
    handles = [
        Line2D([], [], color=styles[f].color, marker=styles[f].marker, mec="white", mew=0.5, label=f) for f in families
    ]
    if pooled:
        handles.append(Line2D([], [], color=GREY, ls="--", label=ALL_FAMILIES))
    columns = min(len(handles), int(figure.get_figwidth() / 1.3))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


@styled
def against_k_figure(
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
    usable = [f for f in fits if f.ok and f.label.metric == "neg_log_rbp"]
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
        ce = next((f for f in fits if f.ok and f.label.metric == "ce" and f.label.family == family), None)
        if ce is not None:
            alpha_axes.axhline(ce.params["alpha"], color=style.color, ls=":", lw=1)
            r2_axes.axhline(ce.r2, color=style.color, ls=":", lw=1)
    for ax in (r2_axes, alpha_axes):
        k_ticks(ax, ks)
        ax.set_xlabel("k")
    worst = min(f.r2 for f in fits if f.ok and f.label.metric in ("ce", "neg_log_rbp"))
    r2_axes.set_ylim(max(0.0, worst - 0.05 * (1 - worst) - 0.002), 1 + 0.03 * (1 - max(0.0, worst)))
    r2_axes.set_title("R² of the power law (log10-log10)")
    level = usable[0].confidence
    alone, joint = f"bands: {level:.0%} for each k", f"{level:.0%}, bands: each k, lines: all k"
    alpha_axes.set_title(f"exponent α ({alone if bands is None else joint})")
    if any(f.ok and f.label.metric == "ce" for f in fits):
        alpha_axes.plot([], [], color=GREY, ls=":", lw=1, label="cross-entropy")
        alpha_axes.legend(loc="best")
    _family_legend(figure, families, styles, pooled=False)
    _title(figure, title, families)
    return figure
