"""Terminal tables of ours beside the papers' numbers."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rbp_lab.fits.points import family_name
from rbp_lab.papers.comparison import EE, EXPONENT_DIFFERENCE, QUIET, TABLE1, Comparison
from rbp_lab.report.terminal import print_note
from rbp_lab.text import bracket, number, percent, visible


def papers_table(comparisons: Sequence[Comparison], title: str, dense: bool) -> Table:
    """One row per comparison: ours beside the published number and the interval it implies, R², n and the verdict.

    dense: one space between columns, to fit into 80.
    """
    first = ("model",) if comparisons[0].model else ("law", "family")
    table = Table(
        title=_literal(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 0 if dense else 1, 0, 0),
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
        span = Text(bracket(low, high, 3))
        what = c.quantity if c.source == EE else "CE" if c.k is None else f"k={c.k}"
        table.add_row(
            *map(_literal, [c.model.rpartition("/")[2]] if c.model else [what, family_name(c.family)]),
            number(c.ours), number(c.published, 3), *(() if c.source == EE else (span,)),
            *([number(c.ours_r2, 3), number(c.published_r2, 3)] if with_r2 else []),
            str(c.ours_n), c.verdict_in_print, style="" if c.verdict in QUIET else "bold",
        )  # fmt: skip
    return table


def show_papers(console: Console, comparisons: Sequence[Comparison], lines: Sequence[str]) -> None:
    """Print ours beside the papers, a table for each data set and published table, then the lines."""
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for c in comparisons:
        groups.setdefault((c.source, c.what, c.dataset), []).append(c)
    for (source, what, dataset), mine in groups.items():
        against, level = "k" if source == TABLE1 else "S", percent(mine[0].confidence)
        title = f"{source} on {dataset}: {what} in {against}"
        title = title if source == EE else f"{title}, {level} intervals"
        console.print(papers_table(mine, title, dense=console.width < 100), "")
    for line in lines:
        print_note(console, line)


def _literal(name: str) -> Text:
    """A name that rich prints as it is, without its own markup."""
    return Text(visible(name))
