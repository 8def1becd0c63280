"""Two models token by token: their distance by confidence, ranks under one and the other, and both calibrations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rbp_lab.comparison.findings import WHOLE, Calibration, Finding, bin_name
from rbp_lab.figures.style import GREY, PALETTE, describe_points, headline, new_figure, plain, styled
from rbp_lab.text import between, bracket, count, number, significant

SHOWN = ("KL(a‖b)", "total variation", "same first choice")


@styled
def confidence_figure(about: Sequence[Finding], title: str) -> Figure:
    """KL, total variation and agreement by the confidence of a, with intervals over documents."""
    figure = new_figure(8.6, 3.2)
    panels = figure.subplots(1, len(SHOWN))
    for panel, name in zip(panels, SHOWN, strict=True):
        mine = [f for f in about if f.name == name and f.cell != WHOLE]
        place = np.arange(len(mine))
        for i, f in enumerate(mine):
            if f.low is not None:
                panel.vlines(i, f.low, f.high, color=PALETTE[0], lw=1.6)
        (line,) = panel.plot(place, [f.value for f in mine], "o", color=PALETTE[0], ms=5, mec="white", mew=0.5)
        describe_points(line, [
            f"{name}, confidence of a {f.cell}\n{significant(f.value)} {between(f.low, f.high)}\n"
            f"{count(f.tokens)} tokens" for f in mine
        ])  # fmt: skip
        panel.set_xticks(place, [f.cell for f in mine], rotation=40, ha="right")
        panel.set_title(f"{name}{f', {mine[0].unit}' if mine and mine[0].unit else ''}", fontsize=9)
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
        if name != "same first choice":
            panel.set_ylim(bottom=0)
    panels[1].set_xlabel("largest probability of a")
    headline(figure, title)
    return figure


@styled
def transition_figure(tokens: np.ndarray, title: str) -> Figure:
    """Tokens by bin of their rank under a (down) and under b (across), coloured by their share of the row."""
    names = [bin_name(i) for i in range(len(tokens))]
    figure = new_figure(5.4, 4.6)
    panel = figure.subplots()
    panel.grid(False)
    share = tokens / np.maximum(1, tokens.sum(1, keepdims=True))
    edges = np.arange(len(names) + 1) - 0.5
    panel.pcolormesh(edges, edges, share, cmap="Blues", vmin=0, vmax=1.4, edgecolors="white", linewidth=1)
    for i, j in np.ndindex(share.shape):
        if tokens[i, j]:
            panel.text(j, i, f"{number(100 * share[i, j], 1)}%\n{count(tokens[i, j])}", ha="center", va="center",
                       fontsize=7, color="white" if share[i, j] > 0.7 else "#222222")  # fmt: skip
    panel.invert_yaxis()
    panel.set_xticks(range(len(names)), names)
    panel.set_yticks(range(len(names)), names)
    panel.set_xlabel("rank under b")
    panel.set_ylabel("rank under a")
    headline(figure, title)
    return figure


@styled
def calibration_figure(found: Sequence[Calibration], title: str) -> Figure:
    """How often each model's first choice is right, by how sure it is; the diagonal is perfect calibration."""
    figure = new_figure(4.8, 4.2)
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color=GREY, lw=0.9, zorder=0)
    for i, side in enumerate("ab"):
        mine = [c for c in found if c.side == side]
        for c in mine:
            if c.low is not None:
                panel.vlines(c.confidence, c.low, c.high, color=PALETTE[i], lw=1.4)
        (line,) = panel.plot([c.confidence for c in mine], [c.correct for c in mine], "o-", color=PALETTE[i], ms=5,
                             lw=0.8, mec="white", mew=0.5, label=side)  # fmt: skip
        describe_points(line, [
            f"{side}, confidence {c.cell}\nmean {number(c.confidence)}, right {number(c.correct)} "
            f"{bracket(c.low, c.high)}\n{count(c.tokens)} tokens" for c in mine
        ])  # fmt: skip
    panel.legend(frameon=False)
    panel.set_xlabel("mean largest probability")
    panel.set_ylabel("share of tokens at which it is the right one")
    headline(figure, title)
    return figure
