"""What ``rbp-lab ls`` prints: names of models and datasets, runs of a store, models with their sizes or as checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rbp_lab.report.fitting import print_table
from rbp_lab.report.terminal import print_line, runs_table, terminal, unfinished_table
from rbp_lab.store.clean import unfinished
from rbp_lab.store.layout import Store
from rbp_lab.store.records import list_headers
from rbp_lab.text import DASH, alike, byte_size, si, significant, visible


def print_names(title: str, names: Sequence[str]) -> None:
    """Print names in columns below a title."""
    console = terminal()
    console.print(f"[bold]{title}[/bold]")
    console.print(Columns(sorted(names), padding=(0, 2)))


def print_runs(store: str | Path, console: Console | None = None) -> None:
    """Print one line per finished and per unfinished run of ``store``."""
    console = console or terminal()
    console.print(f"[bold]runs in {escape(str(store))}[/bold]")
    headers, damaged = list_headers(store)
    for error in damaged:
        print_line(console, f"damaged: {error}")
    if work := unfinished(Store(store)):
        console.print(unfinished_table(work))
    if not headers:
        if not damaged and not work:
            console.print("none yet; rbp-lab demo makes some, rbp-lab measure one", style="dim")
        return
    print_table(console, runs_table(headers), names=2)


def print_models(sources: Mapping[str, Any]) -> None:
    """Print one row per model source: name, family, number of parameters, licence, where it is from."""
    table = Table()
    for name in ("model=", "family", "parameters", "licence", "path"):
        justify = "right" if name == "parameters" else "left"
        table.add_column(name, justify=justify, no_wrap=name == "model=", overflow="fold")
    for name, source in sources.items():
        about = [getattr(source, what, "") for what in ("display_size", "licence", "path")]
        table.add_row(name, source.family, *(visible(one) or DASH for one in about))
    terminal().print(table)


def print_checks(checks: Sequence[Any], console: Console | None = None) -> int:
    """Print the table of checks, and a line for each problem with its models; returns how many models have one."""
    console = console or terminal()
    print_table(console, checks_table(checks))
    for line in problems(checks):
        print_line(console, line)
    return sum(bool(one.problem) for one in checks)


def problems(checks: Sequence[Any]) -> list[str]:
    """What hinders which models, a sentence for each problem: "pythia-14m, pythia-70m, pythia-160m: …"."""
    return [
        f"{', '.join(names)}: {sentence}"
        for names, sentence in alike((one.name, one.problem) for one in checks if one.problem)
    ]


def checks_table(checks: Sequence[Any]) -> Table:
    """One row per ``preflight.Check``: parameters, bytes of memory and downloads, seconds at least, verdict."""
    table = Table()
    table.add_column("model")
    for name in ("parameters", "memory", "download", "s / 100k tokens", "can be measured"):
        table.add_column(name, justify="right")
    for one in checks:
        table.add_row(
            Text(visible(one.name)), si(one.parameters), byte_size(one.memory), byte_size(one.download),
            DASH if one.seconds is None else f"≥ {significant(one.seconds, 2)}", "no" if one.problem else "yes",
        )  # fmt: skip
    return table
