"""Two models on several data sets: every difference with its interval, data sets and k below each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rbp_lab.comparison.differences import Difference
from rbp_lab.comparison.findings import Finding
from rbp_lab.comparison.overview import OnDataSet
from rbp_lab.errors import LabError
from rbp_lab.figures.style import GREY, LIGHT, PALETTE, describe_points, headline, literal, new_figure, styled
from rbp_lab.text import between, bracket, decimals, number, significant

RBP, KL = "RBP_", "KL(a‖b)"
PER_DATA_SET = {"cross-entropy": "b − a of cross-entropy, nats", "bits per byte": "b − a of bits per byte"}


@styled
def forest_figure(sets: Sequence[OnDataSet], title: str) -> Figure:
    """b − a of RBP_k by data set and k in points of a percent, and of each data set that of cross-entropy and KL(a‖b);
    where tokens differ that of bits per byte. Bars are intervals over documents. LabError when none has one."""
    ks = list(dict.fromkeys(d.name for one in sets for d in one.differences if d.name.startswith(RBP)))
    names = [name for name in PER_DATA_SET if any(_of(one, name) for one in sets)]
    names = [name for name in names if name != "bits per byte" or not (ks or "cross-entropy" in names)]
    drawn: list[Callable[[Axes], None]] = [lambda ax: _rbp(ax, sets, ks)] if ks else []
    drawn += [lambda ax, n=name: _each(ax, sets, n, len(ks)) for name in names]
    drawn += [lambda ax: _each(ax, sets, KL, len(ks))] if any(KL in one.distances for one in sets) else []
    if not drawn:
        raise LabError("there is nothing to draw: no difference has an interval")
    rows = max(1, len(ks))
    figure = new_figure(2.3 + 2.7 * len(drawn), 1.5 + (0.2 * rows + 0.12) * len(sets))
    panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    for panel, draw in zip(panels, drawn, strict=True):
        draw(panel)
        panel.grid(axis="y", visible=False)
        for i in range(0, len(sets), 2):
            panel.axhspan(i * rows - 0.5, (i + 1) * rows - 0.5, color=LIGHT, alpha=0.45, lw=0, zorder=0)
    labels = [f"k = {name.removeprefix(RBP)}" for name in ks] or [""]
    panels[0].set_yticks(
        range(len(sets) * rows),
        [
            ", ".join(filter(None, (literal(one.name, 30) if i == 0 else "", k)))
            for one in sets
            for i, k in enumerate(labels)
        ],
    )
    panels[0].set_ylim(len(sets) * rows - 0.5, -0.5)
    headline(figure, title)
    return figure


def _of(one: OnDataSet, name: str) -> Difference | Finding | None:
    """What is known of a quantity on a data set, where it has an interval."""
    found = {**{d.name: d for d in one.differences}, **one.distances}.get(name)
    return None if found is None or found.low is None else found


def _rbp(ax: Axes, sets: Sequence[OnDataSet], ks: Sequence[str]) -> None:
    for j, name in enumerate(ks):
        known = [(i * len(ks) + j, one.name, _of(one, name)) for i, one in enumerate(sets)]
        _bars(ax, [(y, where, d) for y, where, d in known if d is not None], PALETTE[j % len(PALETTE)], 100)
    ax.axvline(0, color=GREY, lw=0.9)
    ax.set_title("b − a of RBP$_k$, points of a percent", fontsize=9)


def _each(ax: Axes, sets: Sequence[OnDataSet], name: str, ks: int) -> None:
    known = [((i + 0.5) * max(1, ks) - 0.5, one.name, _of(one, name)) for i, one in enumerate(sets)]
    _bars(ax, [(y, where, d) for y, where, d in known if d is not None], PALETTE[0], 1)
    if name == KL:
        ax.set_xlim(0, 1.05 * max((d.high for *_, d in known if d is not None), default=1.0) or 1.0)
        ax.set_title(f"{KL}, nats", fontsize=9)
    else:
        ax.axvline(0, color=GREY, lw=0.9)
        ax.set_title(PER_DATA_SET[name], fontsize=9)


def _bars(ax: Axes, known: Sequence[tuple[float, str, Difference | Finding]], colour: str, unit: float) -> None:
    """An interval and a described point in each row."""
    values = [d.difference if isinstance(d, Difference) else d.value for *_, d in known]
    places = [y for y, *_ in known]
    ax.hlines(places, [unit * d.low for *_, d in known], [unit * d.high for *_, d in known], color=colour, lw=1.6)
    (line,) = ax.plot([unit * v for v in values], places, "o", color=colour, ms=5, mec="white", mew=0.5)
    describe_points(line, [_text(where, d, value) for (_, where, d), value in zip(known, values, strict=True)])


def _text(where: str, d: Difference | Finding, value: float) -> str:
    if isinstance(d, Finding):
        return f"{where}: {d.name}\n{significant(value)} {between(d.low, d.high)}"
    digits = decimals(d.se)
    apart = f"b − a {number(value, digits)} {bracket(d.low, d.high, digits)}"
    return f"{where}: {d.name}\na {number(d.a)}, b {number(d.b)}\n{apart}"
