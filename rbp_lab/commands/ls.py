"""What there is: models and datasets to choose from, finished runs of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import Console
from rich.markup import escape

from rbp_lab.config.build import read
from rbp_lab.report.terminal import print_line, runs_table, terminal, unfinished_table
from rbp_lab.store.clean import unfinished
from rbp_lab.store.layout import Store
from rbp_lab.store.records import list_headers


@dataclass(frozen=True)
class ListRequest:
    """What ``conf/ls.yaml`` composes."""

    store: str
    models: list[str]
    datasets: list[str]


def run(config: Mapping[str, Any]) -> None:
    """``rbp-lab ls``."""
    request = read(ListRequest, config)
    listing(request.models, request.datasets, request.store)


def listing(models: Sequence[str], datasets: Sequence[str], store: str | Path, console: Console | None = None) -> None:
    """Print the names of models and datasets, and one line per finished and per unfinished run of ``store``."""
    console = console or terminal()
    for title, names in (("model=", models), ("dataset=", datasets)):
        console.print(f"[bold]{title}[/bold]")
        console.print(Columns(sorted(names), padding=(0, 2)))
    console.print(f"[bold]finished runs in {escape(str(store))}[/bold]")
    headers, damaged = list_headers(store)
    for error in damaged:
        print_line(console, f"damaged: {error}")
    if work := unfinished(Store(store)):
        console.print(unfinished_table(work))
    if not headers:
        if not damaged and not work:
            console.print("none yet; rbp-lab demo makes some, rbp-lab measure one", style="dim")
        return
    console.print(runs_table(headers))
