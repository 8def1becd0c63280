"""Terminal tables with rich: what was measured, and the exponents. A missing number prints as a dash, never as NaN."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from rbp_lab.fits.against_papers import EE, EXPONENT_DIFFERENCE, QUIET, TABLE1, VERDICTS, Comparison
from rbp_lab.fits.result import WARNINGS, FitResult

DASH = "–"


def terminal() -> Console:
    """A console on stdout: as wide as the terminal, and wide enough for every table when written to a file or pipe."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def number(value: object, digits: int = 4) -> str:
    """A number with so many decimals, or a dash when there is none."""
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return DASH
    return f"{value:,.{digits}f}".replace("-", "−")


def models_table(points: pd.DataFrame, dataset: str, ks: Sequence[int] = (1, 10, 100)) -> Table:
    """One row per model on a data set: name, S, CE (nats), RBP_k of the wanted k that were measured, scored tokens."""
    rows = points[(points["dataset"] == dataset) & points["metric"].isin(["ce", "neg_log_rbp"])]
    rbp = rows[rows["metric"] == "neg_log_rbp"]
    measured = [k for k in ks if (rbp["k"] == k).any()]
    with_ce = bool((rows["metric"] == "ce").any())
    table = Table(title=f"Models on {dataset}", title_justify="left")
    table.add_column("model", no_wrap=True)
    for name in ["S", *(["CE"] if with_ce else []), *(f"RBP_{k}" for k in measured), "tokens"]:
        table.add_column(name, justify="right", no_wrap=True)
    for _, model in rows.sort_values(["family", "size"], kind="stable").drop_duplicates("model").iterrows():
        mine = rows[rows["model"] == model["model"]]
        ce = mine.loc[mine["metric"] == "ce", "value"]
        value = {k: mine.loc[(mine["metric"] == "neg_log_rbp") & (mine["k"] == k), "value"] for k in measured}
        cells = [number(math.exp(-v.iloc[0])) if len(v) else DASH for v in value.values()]
        tokens = mine["n"].dropna()
        table.add_row(
            model["model"], f"{int(model['size']):,}", *([number(ce.iloc[0]) if len(ce) else DASH] if with_ce else []),
            *cells, f"{int(tokens.max()):,}" if len(tokens) else DASH,
        )  # fmt: skip
    return table


def exponents_table(fits: Sequence[FitResult], dataset: str) -> Table:
    """One row per fit of a data set: quantity, family, α with its interval, R², RMSE, and the warning codes."""
    mine = [f for f in fits if f.label.dataset == dataset and f.ok]
    level = f"{mine[0].confidence:.0%}" if mine else "95%"
    table = Table(title=f"Exponents on {dataset}: value ∝ S^−α, R² in log10-log10", title_justify="left")
    table.add_column("quantity", no_wrap=True)
    table.add_column("family", no_wrap=True)
    for name in ("α", f"{level} interval", "R²", "RMSE %", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("warnings")
    for f in mine:
        low, high = f.intervals["alpha"]
        table.add_row(
            f.label.quantity, f.label.family, number(f.params["alpha"], 4), f"[{number(low, 4)}, {number(high, 4)}]",
            number(f.r2, 4), number(f.rmse_percent, 2), str(f.n), " ".join(f.warnings),
        )  # fmt: skip
    return table


def notes(fits: Sequence[FitResult], dataset: str) -> list[str]:
    """Sentences to print below the exponents: each refusal with all it concerns, each warning code in words."""
    mine = [f for f in fits if f.label.dataset == dataset]
    reasons: dict[tuple[str, str], list[str]] = {}
    for f in mine:
        if not f.ok:
            reasons.setdefault((f.label.family, f.message), []).append(f.label.quantity)
    lines = [f"no fit for {family} {', '.join(names)}: {why}" for (family, why), names in reasons.items()]
    codes = sorted({code for f in mine for code in f.warnings})
    return lines + [f"{code}: {WARNINGS[code]}" for code in codes]


def show(console: Console, points: pd.DataFrame, fits: Sequence[FitResult], ks: Sequence[int] = (1, 10, 100)) -> None:
    """Print, for every data set, the models, the exponents and what has to be said about them."""
    for dataset in sorted(points["dataset"].unique()):
        console.print(models_table(points, dataset, ks))
        if any(f.ok and f.label.dataset == dataset for f in fits):
            console.print(exponents_table(fits, dataset))
        for line in notes(fits, dataset):
            console.print(line, style="dim", markup=False, highlight=False)


def papers_table(comparisons: Sequence[Comparison], title: str, dense: bool = False) -> Table:
    """One row per comparison: ours beside the published number and the interval it implies, R², n and the verdict.

    dense: one space between columns, to fit into 80.
    """
    first = ("model",) if comparisons[0].model else ("law", "family")
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0 if dense else 1, 0, 0)
    )
    for name in first:
        table.add_column(name, no_wrap=True)
    difference = comparisons[0].what == EXPONENT_DIFFERENCE
    interval = "our interval" if difference else "implied interval"
    for name in ("ours", "paper", *(() if comparisons[0].source == EE else (interval,))):
        table.add_column(name, justify="right", no_wrap=True)
    with_r2 = any(c.published_r2 is not None for c in comparisons) and comparisons[0].source != EE
    for name in ("R²", "paper") if with_r2 else ():
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for c in comparisons:
        low, high = (c.ours_low, c.ours_high) if difference else (c.published_low, c.published_high)
        span = f"[{number(low, 3)}, {number(high, 3)}]" if low is not None else DASH
        what = c.quantity if c.source == EE else "CE" if c.k is None else f"k={c.k}"
        table.add_row(
            *([c.model.rpartition("/")[2]] if c.model else [what, c.family]),
            number(c.ours), number(c.published, 3), *(() if c.source == EE else (span,)),
            *([number(c.ours_r2, 3), number(c.published_r2, 3)] if with_r2 else []),
            str(c.ours_n), VERDICTS[c.verdict], style="" if c.verdict in QUIET else "bold",
        )  # fmt: skip
    return table


def show_papers(console: Console, comparisons: Sequence[Comparison], lines: Sequence[str]) -> None:
    """Print ours beside the papers, a table for each data set and published table, then the lines."""
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for c in comparisons:
        groups.setdefault((c.source, c.what, c.dataset), []).append(c)
    for (source, what, dataset), mine in groups.items():
        against, level = "k" if source == TABLE1 else "S", f"{mine[0].confidence:.0%}"
        title = f"{source} on {dataset}: {what} in {against}"
        title = title if source == EE else f"{title}, {level} intervals"
        console.print(papers_table(mine, title, dense=console.width < 100), "")
    for line in lines:
        console.print(line, style="dim", markup=False, highlight=False)
