"""The power laws in S of a table of points."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from rbp_lab.fits.documents import effects_by_dataset
from rbp_lab.fits.influence import few_documents, sensitivity_warnings
from rbp_lab.fits.points import POOLED, Label
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import FitResult
from rbp_lab.points import longest_trained, may_be_pooled, series
from rbp_lab.records import RunRecord


def fit_all(
    points: pd.DataFrame,
    confidence: float = 0.95,
    records: Sequence[RunRecord] = (),
    size: str = "non_embedding_params",
) -> tuple[FitResult, ...]:
    """A power law of every quantity against S, per (family, dataset), and pooled over families of one precision.

    Ordered by data set, quantity (cross-entropy first, then k), family. Refused fits are among them. records: the runs
    behind the points, when there are: intervals then count the errors of documents, and fits are marked where ties or a
    single document decide. Of the checkpoints of one size the longest trained takes part, and the fit says so.
    """
    last = set(longest_trained(points)["model"])
    runs: dict[tuple[str, str], list[RunRecord]] = {}
    on: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.model.name in last:
            runs.setdefault((record.dataset.name, record.model.family), []).append(record)
            on[record.dataset.name].append(record)
    effects = effects_by_dataset(record for mine in on.values() for record in mine)
    fits = []
    for dataset in sorted(points["dataset"].unique()):
        here = points[points["dataset"] == dataset]
        families = sorted(here["family"].unique())
        pooled = [POOLED] if may_be_pooled(here) else []
        for (metric, window, k), at in here.groupby(["metric", "window", "k"], dropna=False):
            for family in [*families, *pooled]:
                label = Label(family, dataset, metric, None if pd.isna(k) else int(k), int(window))
                data = series(at, label)
                if len(data):
                    data = effects[dataset].with_errors(data, label) if dataset in effects else data
                    fit = fit_power(data, label, confidence)
                    if family is POOLED:
                        marks = ("few_documents",) if fit.ok and few_documents(on[dataset]) else ()
                    else:
                        marks = sensitivity_warnings(fit, runs.get((dataset, family), ()), size)
                    mine = here if family is POOLED else here[here["family"] == family]
                    earlier = ("earlier_checkpoints",) if not last.issuperset(mine["model"]) else ()
                    fits.append(replace(fit, warnings=fit.warnings + marks + earlier))
    return tuple(fits)
