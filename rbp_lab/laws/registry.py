"""The laws, in the order of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import pandas as pd

from rbp_lab.laws import (
    against_k,
    aggregate,
    calibration,
    decomposition,
    dimensions,
    emergence,
    forecast,
    influence,
    lognormal,
    over_k,
    overview,
    paired,
    precision,
    questions,
    scaling,
    surface,
    texts,
    tokens,
    vocabularies,
)
from rbp_lab.laws.base import Inputs, Law, LawResult
from rbp_lab.report.sections import ReportTable, Section, warning_note

LAWS: tuple[Law, ...] = (
    overview, aggregate, vocabularies, scaling, over_k, precision, dimensions, against_k, paired, emergence, lognormal,
    decomposition, calibration, forecast, influence, texts, questions,
)  # fmt: skip
# What the power laws in S alone give, what precision costs, and what classifiers of one size give.
POWER_LAWS: tuple[Law, ...] = (overview, aggregate, vocabularies, scaling, over_k, precision, dimensions)
# What checkpoints give, by the axis that is asked for.
TOKEN_LAWS: dict[str, tuple[Law, ...]] = {"tokens": (tokens,), "size+tokens": (tokens, surface)}
AXES = ("size", *TOKEN_LAWS)

Results = dict[str, LawResult]


def compute(laws: Sequence[Law], inputs: Inputs) -> Results:
    """The results of these laws by name, in their order; laws that need runs are left out without them."""
    return {law.name: inputs.of(law) for law in laws if inputs.records or not law.needs_runs}


def tables(results: Mapping[str, LawResult]) -> dict[str, pd.DataFrame]:
    """Every table of the results by name."""
    return {name: table for result in results.values() for name, table in result.tables.items()}


def sections(
    laws: Sequence[Law], results: Mapping[str, LawResult], made: Mapping[str, Section | None] = MappingProxyType({})
) -> list[Section]:
    """The sections of these laws, and last what the inputs cannot give, when there is such.

    made: sections that are there already, by the name of the law.
    """
    there = [law for law in laws if law.name in results]
    shown = [made[law.name] if law.name in made else section_of(law, results[law.name]) for law in there]
    return [section for section in [*shown, ruled_out(laws, results)] if section is not None]


def section_of(law: Law, result: LawResult) -> Section | None:
    """The section of a law, with a warning when its intervals are over too few documents."""
    section, datasets = law.section(result), result.inputs.few_documents
    if section is None or not (datasets and result.over_documents):
        return section
    return replace(section, notes=(*section.notes, warning_note("few_documents", datasets)))


def ruled_out(laws: Sequence[Law], results: Mapping[str, LawResult]) -> Section | None:
    """What these inputs cannot give, and why; None when they give all."""
    rows = []
    for law in laws:
        if law.name in results:
            rows += [{"law": what, "why not": why} for what, why in results[law.name].lacks.items()]
        else:
            rows.append({"law": law.name.replace("_", " "), "why not": law.needs_runs})
    if not rows:
        return None
    lead = "Some laws cannot be had from these points. Measure the models with rbp-lab measure to get those laws."
    table = ReportTable("Laws ruled out", pd.DataFrame(rows))
    return Section("ruled-out", "What these points cannot tell", lead, tables=(table,))
