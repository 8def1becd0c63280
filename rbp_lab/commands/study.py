"""``rbp-lab demo`` with a study: train and measure its classifiers, then analyse what they scored."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rbp_lab.analysis.run import analyze
from rbp_lab.config.build import read_part
from rbp_lab.config.schemas import FitChoices, KSpec
from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.study import Study, run_study
from rbp_lab.points import points_from_records
from rbp_lab.report.terminal import print_line, terminal
from rbp_lab.store.layout import Store
from rbp_lab.text import number
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


def run_and_analyze(config: Mapping[str, Any]) -> None:
    """Find or make everything the study in ``config`` names, and its analysis.

    Raises LabError as the parts do, or when no classifier could be measured.
    """
    request, console, begin = read_part(StudyRequest, config), terminal(), time.monotonic()
    store, records = Store(request.store), []
    for outcome in run_study(request.study, store, request.force, lambda line: print_line(console, line)):
        if outcome.measured is None:
            print_line(console, f"note: {outcome.refused}")
        else:
            records.append(outcome.measured.record)
    if not records:
        raise LabError("no classifier of the study could be measured")
    records.sort(key=lambda record: record.header.order)  # as analyze has them
    out, points = store.analysis(request.name).directory, points_from_records(records, request.k.thresholds)
    analyze(points, out, request.fit, records=records, console=console)
    mirror_analysis(request.tracking, request.store, out, config)
    print_line(console, f"study finished in {number(time.monotonic() - begin, 0)} s")
