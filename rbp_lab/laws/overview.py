"""The exponents that matter: one row per data set and family, with every warning in words."""

from __future__ import annotations

import pandas as pd

from rbp_lab.fits.points import family_name
from rbp_lab.laws.base import Inputs, LawResult
from rbp_lab.quantities import PER_TOKEN
from rbp_lab.report.sections import ReportTable, Section, exponent, refusal_notes, warning_notes
from rbp_lab.text import percent

name = "overview"
needs_runs = ""


def compute(inputs: Inputs) -> LawResult:
    """Nothing of its own: the overview shows the power laws in S."""
    return LawResult(inputs=inputs)


def section(result: LawResult) -> Section:
    """The exponents of cross-entropy and of −log RBP_k at the k shown, one row per data set and family."""
    fits = result.inputs.fits
    by = {(f.label.dataset, f.label.family, f.label.metric, f.label.k): f for f in fits if f.label.window == 1}
    columns = [(q, k) for q in PER_TOKEN for k in (result.inputs.shown if q.of_k else [None])]
    rows, shown = [], []
    for dataset, family in dict.fromkeys((f.label.dataset, f.label.family) for f in fits):
        mine = {f"α of {q.printed(k)}": by.get((dataset, family, q.name, k)) for q, k in columns}
        there = [f for f in mine.values() if f is not None]
        shown += there
        row = {"data set": dataset, "family": family_name(family), "models": max((f.n for f in there), default=0)}
        row |= {column: exponent(f) if f else None for column, f in mine.items()}
        row["warnings"] = ", ".join(dict.fromkeys(code for f in there for code in f.warnings)) or "none"
        rows.append(row)
    sources = (
        "They count the scatter between models and the error of documents, which all models share"
        if any(f.points.errors is not None for f in shown) else "They are of the residuals between models, t(n−2)"
    )  # fmt: skip
    lead = (
        "Exponents α of value = a·S^−α, by least squares of log10 value on log10 S over the models of a family, with "
        f"intervals at {percent(result.inputs.confidence)} in brackets. {sources}. R² is taken in log10-log10 space "
        "and says little about the form of a law."
    )
    frame = pd.DataFrame(rows).dropna(axis=1, how="all")
    return Section(
        "overview", "Overview", lead, tables=(ReportTable("Exponents by data set and family", frame),),
        notes=(*warning_notes(shown), *refusal_notes(shown)),
    )  # fmt: skip
