"""Cross-entropy against −log RBP_k on the same models ([RBP] figure 8a): the ratio over S, and α_CE − α_k over k."""

from __future__ import annotations

import numpy as np
import pandas as pd
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
    size_ticks,
    styled,
)
from rbp_lab.fits.result import FitResult
from rbp_lab.text import bracket, number, percent, si


@styled
def differences_figure(
    pairs: dict[str, tuple[FitResult, FitResult]],
    differences: pd.DataFrame,
    title: str,
    styles: dict[str, FamilyStyle] | None = None,
) -> Figure:
    """Left: CE/(−log RBP_k) of every model against S, level if the exponents agree. Right: α_CE − α_k against k.

    pairs: per family, the laws of cross-entropy and of −log RBP_k at the k of the left panel. differences: rows of
    ``ExponentDifference`` with columns family and k, of one data set; bars are their intervals. LabError when no
    difference is known.
    """
    known = differences[differences["difference"].notna()].astype({"difference": float, "low": float, "high": float})
    if known.empty:
        raise LabError("there is nothing to draw: no difference of exponents is known")
    families = sorted(known["family"].unique())
    styles = styles or family_styles(families)
    figure = new_figure(8.2, 3.7)
    left, right = figure.subplots(1, 2)
    sizes: list[float] = []
    for family, (ce, rbp) in pairs.items():
        value = dict(zip(rbp.points.names, rbp.points.value, strict=True))
        names = [n for n in ce.points.names if np.isfinite(value.get(n, np.inf)) and value[n] > 0]
        of_ce = dict(zip(ce.points.names, zip(ce.points.x, ce.points.value, strict=True), strict=True))
        s = [of_ce[n][0] for n in names]
        ratio = [of_ce[n][1] / value[n] for n in names]
        sizes += s
        style = styles[family]
        (line,) = left.plot(s, ratio, color=style.color, marker=style.marker, ms=5, mec="white", mew=0.5, lw=0.9)
        describe_points(line, [f"{n}, S = {si(x)}\nratio {number(r)}" for n, x, r in zip(names, s, ratio, strict=True)])
    if sizes:
        size_ticks(left, sizes)
        log_ticks(left, "y")
        left.set_xlabel("S")
        k = next(iter(pairs.values()))[1].label.k
        left.set_title(f"CE / $-\\log\\,\\mathrm{{RBP}}_{{{k}}}$ (level: same exponent)")
    else:
        left.set_visible(False)
    step = 1.06  # families side by side, so that bars do not hide each other
    for i, family in enumerate(families):
        rows, style = known[known["family"] == family].sort_values("k"), styles[family]
        x = rows["k"].to_numpy(float) * step ** (i - (len(families) - 1) / 2)
        y = rows["difference"].to_numpy()
        error = np.stack([y - rows["low"], rows["high"] - y])
        bars = right.errorbar(
            x, y, yerr=error, fmt=style.marker, ms=4.5, color=style.color, mec="white", mew=0.4, elinewidth=1, capsize=2
        )
        describe_points(bars[0], [
            f"{family}, k = {r.k}\nα_CE − α_k = {number(r.difference)} {bracket(r.low, r.high)}"
            for r in rows.itertuples()
        ])  # fmt: skip
    right.axhline(0, color=GREY, lw=1)
    k_ticks(right, [int(k) for k in known["k"]])
    right.set_xlabel("k")
    level = float(known["confidence"].iloc[0])
    right.set_title(f"$\\alpha_{{CE}} - \\alpha_k$ (bars: {percent(level)}, paired)")
    family_legend(figure, styles, families)
    headline(figure, title, families)
    return figure
