"""Values against training tokens: power laws along trainings, and the joint law in size and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rbp_lab.errors import LabError
from rbp_lab.figures.style import (
    describe_points,
    grid,
    grid_size,
    headline,
    literal,
    log_ticks,
    new_figure,
    shades,
    size_ticks,
    styled,
)
from rbp_lab.fits.compute import optimum
from rbp_lab.fits.forms import predict
from rbp_lab.fits.points import Label
from rbp_lab.fits.result import FitResult
from rbp_lab.fits.tokens import Surface
from rbp_lab.text import number, si

WIDTH, HEIGHT = 4.1, 3.0
LEVELS = 9  # contours


@styled
def tokens_figure(fits: Sequence[FitResult], sizes: Mapping[str, float], left_out: pd.DataFrame, title: str) -> Figure:
    """Points and power laws against D, a panel per quantity and a colour per training, darker for larger models.

    fits: laws along trainings on one data set. sizes: S by training. left_out: rows of points that take no part, with
    the column "training".
    """
    panels: dict[tuple, list[FitResult]] = {}
    for fit in fits:
        if (np.isfinite(fit.points.value) & (fit.points.value > 0)).any():
            panels.setdefault((fit.label.metric, fit.label.k), []).append(fit)
    if not panels:
        raise LabError("there is nothing to draw: no value is positive")
    figure = new_figure(*grid_size(len(panels), WIDTH, HEIGHT, 2))
    trainings = sorted({fit.label.training for fit in fits}, key=lambda t: (sizes[t], t))
    colors = dict(zip(trainings, shades(len(trainings)), strict=True))
    for ax, ((metric, k), group) in zip(grid(figure, len(panels), 2), panels.items(), strict=True):
        out = left_out[(left_out["metric"] == metric) & (left_out["window"] == 1) & (left_out["training_tokens"] > 0)]
        out = out[out["k"].isna() if k is None else (out["k"] == k).fillna(False)]
        for fit in group:
            _training(ax, fit, colors[fit.label.training])
            rest = out[out["training"] == fit.label.training]
            ax.plot(
                rest["training_tokens"].to_numpy(float), rest["value"], "o", ms=4, mfc="none",
                mec=colors[fit.label.training], mew=0.9,
            )  # fmt: skip
        _axis_of_tokens(ax, group[0].label)
        log_ticks(ax, "y")
    _legend(figure, [f"{literal(t, 24)}, S = {si(sizes[t])}" for t in trainings], list(colors.values()))
    headline(figure, title)
    return figure


def _training(ax: Axes, fit: FitResult, color: np.ndarray) -> None:
    points = fit.points
    half = np.where(np.isfinite(points.half_log), points.half_log, 0.0)
    error = np.stack([points.value * -np.expm1(-half), points.value * np.expm1(half)])
    bars = ax.errorbar(
        points.x, points.value, yerr=error, fmt="o", ms=4, color=color, mec="white", mew=0.4, elinewidth=0.9, zorder=3
    )
    describe_points(bars[0], [
        f"{m}, {si(d)} tokens\n{fit.label.quantity} = {number(v)}"
        for m, d, v in zip(points.names, points.x, points.value, strict=True)
    ])  # fmt: skip
    if fit.ok:
        span = np.geomspace(points.x.min(), points.x.max(), 60)
        ax.plot(span, predict(fit, span), color=color, lw=1.1)


@styled
def curves_figure(surfaces: Mapping[Label, Surface], title: str) -> Figure:
    """The joint law against D: a panel per quantity, a curve per training, darker for larger models."""
    figure = new_figure(*grid_size(len(surfaces), WIDTH, HEIGHT, 2))
    names: dict[object, float] = {}
    for ax, (label, surface) in zip(grid(figure, len(surfaces), 2), surfaces.items(), strict=True):
        points, runs = surface.points, surface.points.runs
        for run, color in zip(runs, shades(len(runs)), strict=True):
            mine = points.where(points.run == run)
            names[run] = float(mine.size[0])
            ax.plot(mine.tokens, mine.value, "o", ms=4, color=color, mec="white", mew=0.4)
            span = np.geomspace(mine.tokens.min(), mine.tokens.max(), 60)
            ax.plot(span, surface.at(mine.size[0], span), color=color, lw=1.1)
        _axis_of_tokens(ax, label)
        log_ticks(ax, "y")
    _legend(figure, [f"{literal(r, 24)}, S = {si(s)}" for r, s in names.items()], list(shades(len(names))))
    headline(figure, title)
    return figure


@styled
def surface_figure(surfaces: Mapping[Label, Surface], title: str) -> Figure:
    """Contours of the joint law over S and D, the checkpoints as dots, dashed where compute is least for each value."""
    figure = new_figure(*grid_size(len(surfaces), WIDTH, HEIGHT, 2))
    for ax, (label, surface) in zip(grid(figure, len(surfaces), 2), surfaces.items(), strict=True):
        points = surface.points
        size = np.geomspace(points.size.min() / 1.5, points.size.max() * 1.5, 60)
        tokens = np.geomspace(points.tokens.min() / 1.5, points.tokens.max() * 1.5, 60)
        value = surface.at(size[None, :], tokens[:, None])
        levels = np.geomspace(value.min(), value.max(), LEVELS + 2)[1:-1]
        lines = ax.contour(size, tokens, value, levels=levels, cmap="viridis", linewidths=1.1)
        (dots,) = ax.plot(points.size, points.tokens, "o", ms=3, color="#222222", mec="white", mew=0.3)
        describe_points(dots, [
            f"{run}, {si(d)} tokens\n{label.quantity} = {number(v)}, law {number(float(surface.at(s, d)))}"
            for run, s, d, v in zip(points.run, points.size, points.tokens, points.value, strict=True)
        ])  # fmt: skip
        path = [optimum(surface.params, v) for v in np.geomspace(value.min(), value.max(), 60)]
        ax.plot([p.size for p in path], [p.tokens for p in path], "--", color="#222222", lw=1)
        size_ticks(ax, [size[0], size[-1]])
        log_ticks(ax, "y", si)
        ax.set_xlim(size[0], size[-1])
        ax.set_ylim(tokens[0], tokens[-1])
        ax.clabel(lines, fmt=lambda level: number(level, 2), fontsize=7)
        ax.set_xlabel("S")
        ax.set_ylabel("training tokens D")
        ax.set_title(f"${label.tex}$ (nats)")
    headline(figure, title)
    return figure


def _axis_of_tokens(ax: Axes, label: Label) -> None:
    log_ticks(ax, "x", si)
    ax.set_xlabel("training tokens D")
    ax.set_title(f"${label.tex}$ (nats)")


def _legend(figure: Figure, names: Sequence[str], colors: Sequence[np.ndarray]) -> None:
    handles = [Line2D([], [], color=color, marker="o", mec="white", mew=0.4) for color in colors]
    columns = max(1, int(figure.get_figwidth() * 10 / (max(map(len, names)) + 6)))
    legend = figure.legend(handles, ["training"] * len(handles), loc="outside lower center", ncols=columns)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
