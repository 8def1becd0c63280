"""The law over k ([RBP] figure 6): R² and exponent against k, a band for all k at once, and exponents from counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from rbp_lab.figures.over_k import over_k_figure
from rbp_lab.fits.band import simultaneous_band
from rbp_lab.fits.cloglog import counts_from_records, fit_cloglog
from rbp_lab.fits.points import Label
from rbp_lab.fits.result import FitResult, fits_to_frame
from rbp_lab.laws.base import Inputs, LawResult, by_dataset, by_family, families, join
from rbp_lab.quantities import CE, RBP
from rbp_lab.report.sections import Drawing, ReportTable, Section, switched
from rbp_lab.text import interval, number

name = "over_k"
needs_runs = ""
SAME = 0.2  # of half an interval: exponents from counts and from logarithms closer than that are one answer


@dataclass(frozen=True, eq=False, kw_only=True)
class OverK(LawResult):
    """counts: the law of −log RBP_k in S fitted to hits and misses, per data set, family and k."""

    counts: tuple[FitResult, ...] = ()


def compute(inputs: Inputs) -> OverK:
    """Bands of exponents over k, and exponents from counts where there are runs."""
    lacks = {} if inputs.records else {
        "exponents from counts": "they need hits and misses per model and the design effect of documents"
    }  # fmt: skip
    if not inputs.choices.laws:
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
        figures[dataset] = partial(over_k_figure, mine, f"The law against k on {dataset}", inputs.styles, joint)
    if not figures:
        return None
    caption = (
        "Left: R² of the power law. Right: its exponent; bands hold for each k by itself, thin dashed lines bound the "
        "band that holds for all k at once. Dotted: cross-entropy. A gap is a refused fit."
    )
    lead = (
        "The law holds for k far below the vocabulary and breaks down as k approaches it ([RBP] figure 6). Where "
        "misses are few, the exponent is fitted to counts instead, and refused when fewer than three models have five "
        "effective events on both sides of the threshold. "
        f"{_multiplicity(inputs)}"
    )
    tables = (_counts_table(result.counts, inputs.fits),) if result.counts else ()
    return Section("over-k", "The law over k", lead, switched("against_k", figures, caption), tables)


def _multiplicity(inputs: Inputs) -> str:
    """How many exponents are looked at, and what that means for their intervals."""
    laws = sum(f.ok and f.label.metric == RBP.name for f in inputs.fits)
    missed = number(laws * (1 - inputs.confidence), 1)
    return (
        f"{laws} exponents of −log RBP_k are shown: about {missed} of intervals that hold for each by itself miss "
        "their exponent by chance, and mostly together, since all k share models and documents. The band for all k at "
        "once holds that risk for a whole family."
    )


def _counts_table(counts: tuple[FitResult, ...], laws: Sequence[FitResult]) -> ReportTable:
    logs = {f.label: f for f in laws}
    rows = [
        {"data set": f.label.dataset, "family": f.label.family, "k": f.label.k, "n": f.n,
         "α from counts": interval(f.params.get("alpha"), *f.intervals.get("alpha", (None, None))),
         "α from logs": _from_logs(f, logs), "warnings": " ".join(f.warnings),
         "result": "fitted" if f.ok else f.message}
        for f in counts
    ]  # fmt: skip
    title = "Exponents from counts: binomial likelihood with scatter between models"
    return ReportTable(title, pd.DataFrame(rows), folded=True)


def _from_logs(count: FitResult, logs: Mapping[Label, FitResult]) -> str:
    """The exponent from logarithms, and why it is another answer than that from counts where it is."""
    law = logs.get(count.label)
    if law is None or not law.ok:
        return "refused" if law is None else f"refused\n{law.message}"
    shown = interval(law.params["alpha"], *law.intervals["alpha"])
    if not count.ok:
        return shown
    low, high = law.intervals["alpha"]
    if abs(count.params["alpha"] - law.params["alpha"]) <= SAME * (high - low) / 2:
        return f"{shown}\nthe same"
    return f"{shown}\nanother: logarithms weigh all models alike, counts weigh those with few misses or hits less"
