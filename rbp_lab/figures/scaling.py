"""Values against model size with their power laws: a function of fits alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rbp_lab.errors import LabError
from rbp_lab.figures.style import (
    GREY,
    FamilyStyle,
    describe_points,
    exponent_text,
    family_legend,
    family_styles,
    grid,
    headline,
    literal,
    log_ticks,
    new_figure,
    size_ticks,
    styled,
)
from rbp_lab.fits.forms import predict
from rbp_lab.fits.points import POOLED
from rbp_lab.fits.result import FitResult
from rbp_lab.text import number, si

POOLED_STYLE = FamilyStyle(GREY, "")


@styled
def scaling_figure(
    fits: Sequence[FitResult], title: str, styles: dict[str, FamilyStyle] | None = None, size_name: str = ""
) -> Figure:
    """Points and fitted lines against S on log-log axes, one panel per quantity, one colour and marker per family.

    fits: of one data set, or of several, which then have panels of their own; families may share a panel; a refused fit
    shows its points, where they are positive, and no line. Error bars are 95 % intervals of the value over documents
    (``FitPoints.half_log``), where they are known.
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
    sizes = np.concatenate([f.points.x for f in fits])
    datasets = {key[0] for key in panels}
    for ax, group in zip(grid(figure, len(panels), columns), panels.values(), strict=True):
        _scaling_panel(ax, group, styles, sizes, f"{literal(group[0].label.dataset)}: " if len(datasets) > 1 else "")
        ax.set_xlabel(f"S{f', {size_name}' if size_name else ''}")

    family_legend(figure, styles, families, pooled=any(f.label.family is POOLED and f.ok for f in fits))
    headline(figure, title, families)
    return figure


def drawable(fit: FitResult) -> np.ndarray:
    """Which of a fit's points have a place on a logarithmic axis: neither 0 (RBP_k = 1) nor infinite (RBP_k = 0)."""
    return np.isfinite(fit.points.value) & (fit.points.value > 0)


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
            value, half = fit.points.value[seen], fit.points.half_log[seen]
            known = np.isfinite(half)
            factor = np.exp(np.where(known, half, 0.0))
            error = np.stack([value - value / factor, value * factor - value])
            bars |= bool(known.any())
            drawn = ax.errorbar(
                fit.points.x[seen], value, yerr=error if known.any() else None, fmt=style.marker, ms=5, capsize=2,
                color=style.color, mec="white", mew=0.5, elinewidth=1, zorder=3,
            )  # fmt: skip
            names = [name for name, there in zip(fit.points.names, seen, strict=True) if there]
            describe_points(drawn[0], [
                f"{name}, S = {si(s)}\n{fit.label.quantity} = {number(v)}"
                for name, s, v in zip(names, fit.points.x[seen], value, strict=True)
            ])  # fmt: skip
        if fit.ok:
            span = np.geomspace(fit.points.x.min(), fit.points.x.max(), 100)
            ax.plot(span, predict(fit, span), color=style.color, ls="--" if pooled else "-", zorder=2, label="_")
            notes.append((exponent_text(fit), style.color))
        else:
            notes.append(("no fit", style.color))
    size_ticks(ax, sizes)
    log_ticks(ax, "y")
    ax.set_title(f"{where}${group[0].label.tex}$  (nats{'; bars: 95 %, documents' if bars else ''})")
    for i, (text, color) in enumerate(reversed(notes)):
        # laws fall with S, so the lower left corner is the free one
        ax.text(
            0.03, 0.04 + 0.075 * i, text, color=color, transform=ax.transAxes, fontsize=8, va="bottom", zorder=4,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1},
        )  # fmt: skip
