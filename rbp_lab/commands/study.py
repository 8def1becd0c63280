"""``rbp-lab demo`` with a study: train and measure its classifiers, then analyse what they scored."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rich.console import Console

from rbp_lab.analysis.run import Analysis, analyze
from rbp_lab.config.build import read
from rbp_lab.config.schemas import FitChoices, KSpec
from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.study import Study, run_study
from rbp_lab.points import points_from_records, with_sizes
from rbp_lab.report.terminal import print_line, terminal
from rbp_lab.store.layout import Store
from rbp_lab.tracking.settings import NO_TRACKING, Tracking
from rbp_lab.tracking.wandb.analysis import mirror_analysis


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """What ``conf/demo.yaml`` composes with a study. name: results go to <store>/analysis/<name>."""

    study: Study
    k: KSpec
    store: str
    name: str = "aggregate"
    fit: FitChoices = field(default_factory=FitChoices)
    force: bool = False
    tracking: Tracking = NO_TRACKING


def run_and_analyze(config: Mapping[str, Any], console: Console | None = None) -> Analysis:
    """Find or make everything the study in ``config`` names, and its analysis.

    Raises LabError as the parts do, or when no classifier could be measured.
    """
    names = {f.name for f in fields(StudyRequest)}
    request = read(StudyRequest, {name: node for name, node in config.items() if name in names})
    console, begin, store = console or terminal(), time.monotonic(), Store(request.store)
    outcomes = list(run_study(request.study, store, request.force, lambda line: print_line(console, line)))
    for outcome in outcomes:
        if outcome.measured is None:
            print_line(console, f"note: {outcome.refused}")
    found = [outcome.measured.record for outcome in outcomes if outcome.measured is not None]
    if not found:
        raise LabError("no classifier of the study could be measured")
    records = sorted(
        found, key=lambda r: (r.dataset.name, r.model.family, r.model.params.non_embedding, r.key)
    )  # as analyze has them
    out = store.analysis(request.name).directory
    analysis = analyze(
        with_sizes(points_from_records(records, request.k.thresholds), request.fit.least_sizes),
        out,
        figure_ks=request.fit.figure_ks,
        confidence=request.fit.confidence,
        records=records,
        laws=request.fit.laws,
        formats=("png", "svg"),
        console=console,
    )
    mirror_analysis(request.tracking, request.store, out, config)
    print_line(console, f"study finished in {time.monotonic() - begin:.0f} s")
    return analysis
