"""Fit the laws of finished runs, or of a CSV of published values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from rbp_lab.analysis.run import analyze
from rbp_lab.analysis.sources import Selection, gather
from rbp_lab.config.build import read
from rbp_lab.config.schemas import FitChoices
from rbp_lab.errors import LabError
from rbp_lab.jobs.own_places import analysis_name
from rbp_lab.jobs.slurm import wait_for
from rbp_lab.report.terminal import print_line, terminal
from rbp_lab.store.atomic import may_be_written
from rbp_lab.store.layout import Store
from rbp_lab.tracking.wandb.analysis import mirror_analysis

MADE_BY = ("study", "models", "dataset")  # of an experiment: what makes the runs is no part of their analysis


@dataclass(frozen=True)
class AnalysisRequest(Selection):
    """What ``conf/analyze.yaml`` composes: the points, how they are fitted, and where results go.

    name: results go to <store>/analysis/<name>; null: to default, or of laws in tokens to what their axis is called.
    out: a directory for them instead. wait: jobs of Slurm that are waited for first.
    """

    name: str | None = None
    out: str | None = None
    fit: FitChoices = field(default_factory=FitChoices)
    papers: bool = False
    wait: int | list[int] | None = None


def run(config: Mapping[str, Any], console: Console | None = None) -> None:
    """``rbp-lab analyze``, printed to ``console`` (a new one by default) and mirrored as ``tracking`` says."""
    config = {name: node for name, node in config.items() if name not in MADE_BY}
    request, console = read(AnalysisRequest, config), console or terminal()
    default = Store(request.store).analysis(analysis_name(config)).directory
    out = default if request.out is None else Path(os.path.expanduser(request.out))
    if not may_be_written(out):
        raise LabError(f"cannot write the results to {out}; choose another directory with out=DIR")
    wait_for([request.wait] if isinstance(request.wait, int) else request.wait or ())
    inputs = gather(request)
    for line in inputs.notes:
        print_line(console, f"note: {line}")
    analyze(
        inputs.points, out, request.fit, size=request.size, records=inputs.records, papers=request.papers,
        source=inputs.source, axis=request.axis, console=console, compared=inputs.compared, beside=True,
    )  # fmt: skip
    mirror_analysis(request.tracking, request.store, out, config)
