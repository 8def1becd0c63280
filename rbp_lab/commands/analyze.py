"""Fit the laws of finished runs, or of a CSV of published values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from rbp_lab.analysis.run import Analysis, analyze
from rbp_lab.analysis.sources import as_list, gather
from rbp_lab.config.build import call
from rbp_lab.points import select
from rbp_lab.report.terminal import terminal
from rbp_lab.store.layout import Store
from rbp_lab.tracking.settings import Tracking
from rbp_lab.tracking.wandb.analysis import mirror_analysis


def analyze_sources(config: Mapping[str, Any], console: Console | None = None) -> Analysis:
    """The analysis that a composed configuration of ``analyze`` asks for; prints to ``console`` (a new one by default).

    Where the points come from is ``sources.gather``'s to say; filters and k choose among them. The analysis is mirrored
    to W&B as ``tracking`` says. Raises LabError on an unknown source, a missing file, or when nothing is left.
    """
    filters, fit, console = config["filters"], config["fit"], console or terminal()
    gathered = gather(config)
    for note in gathered.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    points = select(gathered.points, *(as_list(filters[name]) for name in ("model", "family", "dataset")))
    out = Store(config["store"]).analysis(config["name"]).directory
    analysis = analyze(
        points,
        out,
        figure_ks=fit["figure_ks"],
        confidence=fit["confidence"],
        size=config["size"],
        records=gathered.records,
        laws=fit["laws"],
        papers=config.get("papers", False),
        source=Path(config["csv"]).name if config["source"] == "csv" else str(config["source"]),
        console=console,
    )
    tracking = call(Tracking, config.get("tracking") or {"mode": "none"}, "tracking")
    mirror_analysis(tracking, config["store"], out, config)
    return analysis
