"""The look of every figure: colour-blind-safe, families by colour and marker, no pyplot and no global state."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from rbp_lab.fits.points import ALL_FAMILIES
from rbp_lab.fits.result import FitResult
from rbp_lab.store.atomic import atomic_path
from rbp_lab.text import number, shortened, si, visible

# Okabe & Ito (2008), without the yellow that vanishes on white; distinguishable under the common colour deficiencies.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, GREY, LIGHT = "#222222", "#6b6b6b", "#dddddd"

RC = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.labelcolor": INK,
    "axes.titlelocation": "left", "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK,
    "ytick.labelcolor": INK, "axes.grid": True, "grid.color": LIGHT, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "legend.frameon": False, "figure.facecolor": "white", "savefig.facecolor": "white", "lines.linewidth": 1.4,
    "svg.hashsalt": "rbp_lab", "svg.fonttype": "path", "pdf.fonttype": 42, "figure.autolayout": False,
    "figure.constrained_layout.use": False,
}  # fmt: skip


@dataclass(frozen=True)
class FamilyStyle:
    """How a family is drawn everywhere."""

    color: str
    marker: str


def family_styles(families: Iterable[str]) -> dict[str, FamilyStyle]:
    """Colour and marker by family, in sorted order, so that a family looks the same in all figures of an analysis."""
    names = sorted(set(families))
    return {
        name: FamilyStyle(PALETTE[i % len(PALETTE)], MARKERS[(i + i // len(PALETTE)) % len(MARKERS)])
        for i, name in enumerate(names)
    }


@contextmanager
def style(**settings: object) -> Iterator[None]:
    """Matplotlib under the style of this package; letters that the font lacks are drawn as boxes without a warning."""
    with matplotlib.rc_context(RC | settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function under the style; matplotlib's settings are as before when it returns.

    The layout is found once here, not again for every format the figure is saved in; with a layout engine, even one
    that does nothing, each saving would also draw the figure twice.
    """

    @functools.wraps(draw)
    def wrapper(*args: object, **kwargs: object) -> Figure:
        with style():
            figure = draw(*args, **kwargs)
            figure.get_layout_engine().execute(figure)
            figure.set_layout_engine(None)
            return figure

    return wrapper


def new_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches on the Agg canvas, laid out so that labels do not collide."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, stem: str | Path, formats: Iterable[str] = ("png", "svg")) -> list[Path]:
    """Write ``stem``.png, ``stem``.svg … atomically; the same figure gives the same bytes. Returns the paths."""
    paths = []
    with style():
        for extension in formats:
            path = Path(f"{stem}.{extension}")
            # dates would make every file of a repeated analysis differ
            undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(extension)
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=extension, dpi=150, metadata=undated)
            paths.append(path)
    return paths


def shades(count: int) -> np.ndarray:
    """So many colours from light to dark, for an order such as size, all visible on white: [count, 4]."""
    return colormaps["viridis_r"](np.linspace(0.28, 1.0, count))


def literal(name: object, most: int = 48) -> str:
    """A name as matplotlib draws it letter by letter: no mathematics between dollars, long names shortened."""
    return shortened(name, most).replace("$", r"\$")


def headline(figure: Figure, title: str, families: Sequence[str] = ()) -> None:
    """The title of a whole figure, cut to its width; a single family is named here, several have a legend."""
    text = f"{title}: {families[0]}" if len(families) == 1 else title
    room = int(11.5 * figure.get_figwidth())  # letters of this size in an inch
    figure.suptitle(literal(text, room), x=0.01, ha="left", fontsize=11, fontweight="bold")


def exponent_text(fit: FitResult) -> str:
    """The exponent with its half width and R², short enough for a panel."""
    low, high = fit.intervals["alpha"]
    return f"α = {number(fit.params['alpha'], 3)} ± {number((high - low) / 2, 3)},  R² {number(fit.r2, 3)}"


def grid(figure: Figure, panels: int, columns: int = 3, **kwargs: object) -> np.ndarray:
    """The axes of so many panels, at most ``columns`` beside each other; places without a panel are hidden."""
    columns = min(columns, panels)
    axes = figure.subplots(-(-panels // columns), columns, squeeze=False, **kwargs).ravel()
    for ax in axes[panels:]:
        ax.set_visible(False)
    return axes[:panels]


def grid_size(panels: int, width: float, height: float, columns: int = 3) -> tuple[float, float]:
    """Inches (width, height) of a figure of so many panels of that size, at most ``columns`` beside each other."""
    columns = min(columns, panels)
    return width * columns + (1.4 if columns == 1 else 0), height * -(-panels // columns) + 0.4


def family_legend(
    figure: Figure, styles: dict[str, FamilyStyle], families: Iterable[str], pooled: bool = False
) -> None:
    """The families below the figure, when there are several, and the law of all of them when ``pooled``."""
    families = sorted(families)
    if len(families) < 2 and not pooled:
        return
    handles = [Line2D([], [], color=styles[f].color, marker=styles[f].marker, mec="white", mew=0.5) for f in families]
    names = [literal(f, 32) for f in families]
    if pooled:
        handles.append(Line2D([], [], color=GREY, ls="--"))
        names.append(ALL_FAMILIES)
    columns = max(1, min(len(handles), int(figure.get_figwidth() * 10 / (max(map(len, names)) + 6))))
    legend = figure.legend(handles, ["family"] * len(handles), loc="outside lower center", ncols=columns)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)  # given as a label, a name that begins with an underscore would be left out


def describe_points(line: Line2D, texts: Sequence[str]) -> None:
    """Give each marker of a line a text, which the report shows when the reader points at it.

    One text per point of the line, in its order; those of points that are not drawn (not finite) are dropped.
    """
    x, y = (np.asarray(data, dtype=np.float64) for data in line.get_data())
    if len(texts) != len(x):
        raise ValueError(f"{len(texts)} texts for {len(x)} points")
    texts = [text for text, drawn in zip(texts, np.isfinite(x) & np.isfinite(y), strict=True) if drawn]
    described = _described(line.get_figure(root=True))
    line.set_gid(f"points-{len(described)}")  # finds the line in an SVG
    described[line.get_gid()] = tuple("\n".join(visible(part) for part in text.split("\n")) for text in texts)


def point_titles(figure: Figure) -> dict[str, tuple[str, ...]]:
    """The texts of described points by the gid of their line."""
    return dict(_described(figure))


def _described(figure: Figure) -> dict[str, tuple[str, ...]]:
    # Matplotlib has no slot for such data, and looking for lines in a whole figure takes as long as it has parts.
    return figure.__dict__.setdefault("_rbp_lab_point_titles", {})


def plain(value: float) -> str:
    """A number for an axis: as few digits as it needs; powers of ten from 10^−4 down."""
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e6):
        exponent = math.floor(math.log10(abs(value)) + 1e-9)
        mantissa = value / 10**exponent
        return f"{mantissa:g}·$10^{{{exponent}}}$" if abs(mantissa - 1) > 1e-9 else f"$10^{{{exponent}}}$"
    return f"{value:.10g}".replace("-", "−")


def log_ticks(ax: Axes, which: str, formatter: Callable[[float], str] = plain) -> None:
    """A logarithmic axis whose ticks read as numbers, also when it spans less than a decade. which: "x" or "y"."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    if decades < 0.9:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    elif decades < 2.2:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        axis.set_major_locator(LogLocator(numticks=7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: formatter(value)))
    axis.set_minor_formatter(NullFormatter())


def size_ticks(ax: Axes, sizes: Iterable[float]) -> None:
    """A logarithmic S axis with margins and ticks such as 1M, 10M, 100M (and 2, 5 when the range is short)."""
    low, high = min(sizes), max(sizes)
    ax.set_xscale("log")
    margin = (high / low) ** 0.06 if high > low else 2.0
    ax.set_xlim(low / margin, high * margin)
    log_ticks(ax, "x", si)


def k_ticks(ax: Axes, ks: Iterable[int]) -> None:
    """A logarithmic k axis that labels the powers of ten and ends."""
    ks = sorted(ks)
    ax.set_xscale("log")
    ax.set_xlim(ks[0] / 1.3, ks[-1] * 1.3)
    decades = [10**i for i in range(0, 10) if ks[0] <= 10**i <= ks[-1]]
    ax.xaxis.set_major_locator(FixedLocator(decades or ks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
