"""Fit the laws of finished runs, or of a CSV of published values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from rbp_lab.analysis.run import Analysis, analyze
from rbp_lab.analysis.sources import Selection, gather
from rbp_lab.config.build import read
from rbp_lab.config.schemas import FitChoices
from rbp_lab.errors import LabError
from rbp_lab.points import select, with_sizes
from rbp_lab.report.terminal import print_line, terminal
from rbp_lab.slurm import wait_for
from rbp_lab.store.atomic import may_be_written
from rbp_lab.store.layout import Store
from rbp_lab.tracking.wandb.analysis import mirror_analysis


@dataclass(frozen=True)
class AnalysisRequest(Selection):
    """What ``conf/analyze.yaml`` composes: the points, how they are fitted, and where results go.

    name: results go to <store>/analysis/<name>. out: a directory for them instead. wait: jobs of Slurm that are waited
    for first.
    """

    name: str = "default"
    out: str | None = None

    fit: FitChoices = field(default_factory=FitChoices)
    papers: bool = False
    wait: int | list[int] | None = None

    @property
    def directory(self) -> Path:
        """Where results go; LabError, with the way out, when nothing can be written there."""
        out = (
            Store(self.store).analysis(self.name).directory if self.out is None else Path(os.path.expanduser(self.out))
        )
        if not may_be_written(out):
            raise LabError(f"cannot write the results to {out}; choose another directory with out=DIR")
        return out


def run(config: Mapping[str, Any]) -> None:
    """``rbp-lab analyze``."""
    analyze_sources(config)


def analyze_sources(config: Mapping[str, Any], console: Console | None = None) -> Analysis:
    """The analysis that a composed configuration asks for; prints to ``console`` (a new one by default).

    The analysis is mirrored to W&B as ``tracking`` says. Raises LabError on an unknown source, a missing file, or when
    nothing is left.
    """
    config = {name: node for name, node in config.items() if name != "study"}  # what made the runs is no part of it
    request, console = read(AnalysisRequest, config), console or terminal()
    out = request.directory
    wait_for([request.wait] if isinstance(request.wait, int) else request.wait or ())
    gathered = gather(request)
    for line in gathered.notes:
        print_line(console, f"note: {line}")
    points = select(gathered.points, *(request.filters.as_list(name) for name in ("model", "family", "dataset")))
    points = with_sizes(points, request.fit.least_sizes)
    analysis = analyze(
        points,
        out,
        figure_ks=request.fit.figure_ks,
        confidence=request.fit.confidence,
        size=request.size,
        records=gathered.records,
        laws=request.fit.laws,
        papers=request.papers,
        source=Path(request.csv).name if request.source == "csv" and request.csv else request.source,
        console=console,
    )
    mirror_analysis(request.tracking, request.store, out, config)
    return analysis
