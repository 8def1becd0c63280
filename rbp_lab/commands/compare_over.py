"""The end of a sweep of comparisons in one pass: those that it asked for, over their data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rbp_lab.commands.compare_models import job_from_config
from rbp_lab.comparison.record import PairRecord
from rbp_lab.comparison.run import found_pair
from rbp_lab.errors import LabError
from rbp_lab.report.comparison.show_over import show_pairs
from rbp_lab.report.terminal import terminal


def show_sweep(configs: Sequence[Mapping[str, Any]]) -> None:
    """Print and keep, for each two models of a sweep, what was found on all of its data sets together.

    Jobs that have failed are left out, as they said why; so is what else the store has of these models.
    """
    found: dict[tuple[str, float, str | None], list[PairRecord]] = {}
    for config in configs:
        try:
            job = job_from_config(config)
            if (record := found_pair(job)) is not None:
                found.setdefault((job.store, config["confidence"], config["name"]), []).append(record)
        except LabError:
            continue
    for (store, level, name), records in found.items():
        show_pairs(terminal(), store, records, level, name)
