"""The law over k ([RBP] figure 6): R² and exponent against k, a band for all k at once, and exponents from counts."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from rbp_lab.figures.over_k import over_k_figure
from rbp_lab.fits.cloglog import counts_from_records, fit_cloglog
from rbp_lab.fits.paired import simultaneous_band
from rbp_lab.fits.result import FitResult, Label, fits_to_frame
from rbp_lab.laws.base import Inputs, LawResult, by_dataset, by_family, draw, families, join
from rbp_lab.quantities import CE, RBP
from rbp_lab.report.sections import Drawing, ReportTable, Section, switched
from rbp_lab.text import interval

name = "over_k"
needs_runs = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class OverK(LawResult):
    """counts: the law of −log RBP_k in S fitted to hits and misses, per data set, family and k."""

    counts: tuple[FitResult, ...] = ()


def compute(inputs: Inputs) -> OverK:
    """Bands of exponents over k, and exponents from counts where there are runs."""
    lacks = {} if inputs.records else {
        "exponents from counts": "they need hits and misses per model and the design effect of documents"
    }  # fmt: skip
    if not inputs.everything:
        return OverK(inputs=inputs, lacks=lacks)
    rbp = by_family(f for f in inputs.fits if f.label.metric == RBP.name)
    bands = [simultaneous_band(f).assign(dataset=d, family=name) for (d, name), f in rbp.items()]
    counts = tuple(
        fit_cloglog(
            counts_from_records(runs, k, size=inputs.size), Label(family, dataset, RBP.name, k), inputs.confidence
        )
        for dataset, family, runs in (families(inputs.runs) if inputs.records else ())
        for k in inputs.ks
    )
    tables = {"bands": join(bands)} | ({"counts": join([fits_to_frame([f]) for f in counts])} if inputs.records else {})
    return OverK(inputs=inputs, tables=tables, lacks=lacks, over_documents=bool(counts), counts=counts)


def section(result: OverK) -> Section | None:
    """R² and exponent over k, and exponents from counts; None with fewer than two fitted k."""
    inputs = result.inputs
    figures: dict[str, Drawing] = {}
    bands = result.tables.get("bands", pd.DataFrame())
    for dataset, mine in by_dataset(f for f in inputs.fits if f.label.metric in (CE.name, RBP.name)).items():
        if len({f.label.k for f in mine if f.ok and f.label.k is not None}) < 2:
            continue
        joint = bands[bands["dataset"] == dataset] if len(bands) else None
        draw(figures, dataset, lambda m=mine, d=dataset, j=joint: over_k_figure(
            m, f"The law against k on {d}", inputs.styles, j
        ))  # fmt: skip
    if not figures:
        return None
    caption = (
        "Left: R² of the power law. Right: its exponent; bands hold for each k by itself, thin dashed lines bound the "
        "band that holds for all k at once. Dotted: cross-entropy. A gap is a refused fit."
    )
    lead = (
        "The law holds for k far below the vocabulary and breaks down as k approaches it ([RBP] figure 6). Where "
        "misses are few, the exponent is fitted to counts instead, and refused when fewer than three models have five "
        "effective events on both sides of the threshold."
    )
    tables = (_counts_table(result.counts),) if result.counts else ()
    return Section("over-k", "The law over k", lead, switched("against_k", figures, caption), tables)


def _counts_table(counts: tuple[FitResult, ...]) -> ReportTable:
    rows = [
        {"data set": f.label.dataset, "family": f.label.family, "k": f.label.k, "n": f.n,
         "α from counts": interval(f.params.get("alpha"), *f.intervals.get("alpha", (None, None))),
         "warnings": " ".join(f.warnings), "result": "fitted" if f.ok else f.message}
        for f in counts
    ]  # fmt: skip
    title = "Exponents from counts: binomial likelihood with scatter between models"
    return ReportTable(title, pd.DataFrame(rows), folded=True)
