"""The benchmark's tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from rbp_lab.text import DASH, number
from tests.benchmarks.settings import Bench

TITLES = {
    "end_to_end": "End to end: token ids to scores",
    "head": "Head alone: hidden states to scores",
    "loop": "Whole loop: rows in, record's numbers out",
}
STYLES = {"ours": "bold", "floor": "dim"}


def show_table(console: Console, name: str, table: Mapping[str, Any], settings: Bench) -> None:
    """Print one table of a record and, below it, under which conditions it was made."""
    if name == "loop":
        console.print(loop_table(table))
        return
    console.print(contenders_table(name, table))
    found = table["conditions"]
    others = found["others_share"]
    line = f"{found['rounds']} rounds in alternating order after {settings.warmup} warm-up calls each"
    if others is not None:
        line += f"; others used {others['median']:.0%} of the processors (worst quarter ≥ {others['high']:.0%})"
    if found["repeated"]:
        line += f"; {found['repeated']} rounds repeated"
    console.print(line, style="dim", markup=False, highlight=False)
    if found["dirty"]:
        console.print(
            f"DIRTY: in {found['dirty']} of these rounds others used more than {found['dirty_above']:.0%}; "
            "run again on a quiet machine", style="bold red", markup=False, highlight=False,
        )  # fmt: skip
    for row in table["contenders"]:
        if row["status"] != "timed":
            console.print(f"{row['name']} {row['status']}: {row['reason']}", style="bold red", markup=False)
        elif row.get("memory_error"):
            console.print(f"{row['name']}: memory not measured: {row['memory_error']}", style="dim", markup=False)


def contenders_table(name: str, table: Mapping[str, Any]) -> Table:
    """One row per contender: µs a token (least, median, quartiles), × the baseline (the same), extra megabytes."""
    made = Table(title=f"{TITLES[name]} (× {table['baseline']})", title_justify="left")
    made.add_column("", no_wrap=True)
    for column in ("µs/token", "least", "quartiles", f"× {table['baseline']}", "quartiles", "extra MB"):
        made.add_column(column, justify="right", no_wrap=True)
    made.add_column("what it gives")
    for row in table["contenders"]:
        style = STYLES.get(row["group"], "")
        if row["status"] != "timed":
            made.add_row(row["name"], *[DASH] * 6, f"{row['status'].upper()}", style="bold red")
            continue
        time, ratio = row["us_per_token"], row["ratio"]
        made.add_row(
            row["name"], figures(time["median"]), figures(time["least"]),
            f"{figures(time['low'])}…{figures(time['high'])}", number(ratio["median"], 2),
            f"{number(ratio['low'], 2)}…{number(ratio['high'], 2)}",
            number(row.get("memory_mb"), 0), row["what"], style=style,
        )  # fmt: skip
    return made


def loop_table(table: Mapping[str, Any]) -> Table:
    """Tokens a second of the whole measurement, and the share of it outside scoring."""
    made = Table(title=TITLES["loop"], title_justify="left")
    for column in ("tokens", "tokens/s", "least", "µs/token", "outside scoring", "worst"):
        made.add_column(column, justify="right", no_wrap=True)
    rate, outside = table["tokens_per_second"], [r["outside"] / r["seconds"] for r in table["runs"]]
    made.add_row(
        f"{table['tokens']:,}", number(rate["median"], 0), number(rate["least"], 0),
        figures(table["us_per_token"]["median"]), f"{table['outside_scoring']['median']:.2%}", f"{max(outside):.2%}",
    )  # fmt: skip
    return made


def figures(value: float) -> str:
    """Three significant figures, or all before the point."""
    return number(value, 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3)
