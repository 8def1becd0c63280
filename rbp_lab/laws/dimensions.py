"""Exponents beside each other: laws that differ in precision, protocol, data set or family, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import pandas as pd

from rbp_lab.dimensions import Dimension, without_dimension
from rbp_lab.fits.paired import ExponentDifference, exponent_difference
from rbp_lab.fits.points import POOLED
from rbp_lab.fits.questions import families_differ
from rbp_lab.fits.result import FitResult
from rbp_lab.laws.base import Inputs, LawResult, join
from rbp_lab.quantities import PER_TOKEN, QUANTITIES
from rbp_lab.report.sections import ReportTable, Section
from rbp_lab.text import interval, number, percent

name = "dimensions"
needs_runs = ""
KINDS = ("precision", "protocol", "data set", "family")


@dataclass(frozen=True, eq=False)
class Cell:
    """One law in S and where it stands. family, data set: without what the next two say."""

    law: FitResult
    family: str
    dataset: str
    precision: str
    protocol: str

    @property
    def place(self) -> dict[str, str]:
        """What the law is of in each kind of dimension."""
        return dict(zip(KINDS, (self.precision, self.protocol, self.dataset, self.family), strict=True))


@dataclass(frozen=True, eq=False, kw_only=True)
class Dimensions(LawResult):
    """pairs: (what differs, one law, the other, difference of their exponents)."""

    pairs: tuple[tuple[str, Cell, Cell, ExponentDifference], ...] = ()


def compute(inputs: Inputs) -> Dimensions:
    """The difference of exponents of every two laws of one quantity that differ in one dimension, at the k shown.

    Over the models that both have, where these are the same: of precisions and protocols on the same documents, of data
    sets on others. Families have no model in common; theirs is one fit with a line each.
    """
    cells = [_cell(fit, inputs.told_apart(fit.label)) for fit in inputs.fits if _is_shown(fit, inputs)]
    pairs = tuple(
        (kind, a, b, _difference(kind, a, b)) for a, b in combinations(cells, 2) for kind in _what_differs(a, b)
    )
    rows = join(
        d.to_frame().assign(differs_in=kind, quantity=a.law.label.quantity, family=a.family, dataset=a.dataset,
                            precision=a.precision, protocol=a.protocol, other=b.place[kind])
        for kind, a, b, d in pairs
    )  # fmt: skip
    return Dimensions(inputs=inputs, tables={"dimensions": rows} if pairs else {}, pairs=pairs)


def _is_shown(fit: FitResult, inputs: Inputs) -> bool:
    at = fit.label
    return at.family is not POOLED and QUANTITIES.get(at.metric) in PER_TOKEN and (at.k is None or at.k in inputs.shown)


def _cell(fit: FitResult, told: Dimension) -> Cell:
    family = without_dimension(fit.label.family, told.precision)
    dataset = without_dimension(fit.label.dataset, told.protocol)
    models = tuple(without_dimension(model, told.precision) for model in fit.points.names)
    law = replace(fit, points=replace(fit.points, names=models))
    return Cell(law, family, dataset, told.precision, told.protocol)


def _what_differs(a: Cell, b: Cell) -> Iterator[str]:
    """The one kind of dimension in which two laws of the same quantity differ; nothing when it is not one."""
    first, second = a.law.label, b.law.label
    if (first.metric, first.k) == (second.metric, second.k):
        kinds = [kind for kind in KINDS if a.place[kind] != b.place[kind]]
        if len(kinds) == 1:
            yield kinds[0]


def _difference(kind: str, a: Cell, b: Cell) -> ExponentDifference:
    if kind == "family":
        return _of_families(a.law, b.law)
    return exponent_difference(a.law, b.law, same_documents=kind != "data set")


def _of_families(a: FitResult, b: FitResult) -> ExponentDifference:
    """α of one family minus α of another that has no model of it, on the same documents."""
    found = families_differ(a.points, b.points, a.confidence)
    return ExponentDifference(
        str(a.label), str(b.label), found.difference, found.low, found.high, found.units, a.confidence,
        found.message or "fitted",
    )  # fmt: skip


def section(result: Dimensions) -> Section | None:
    """Every comparison in one table; None when no two laws differ in one dimension."""
    if not result.pairs:
        return None
    rows = [
        {"differs in": kind, "quantity": a.law.label.quantity, "of": _where(a, kind), "first": a.place[kind],
         "second": b.place[kind], "models": d.models, "α first": _alpha(a.law), "α second": _alpha(b.law),
         "first − second": interval(d.difference, d.low, d.high),
         "narrower": None if d.gain is None else f"× {number(d.gain, 1)}",
         "result": d.message if d.difference is None else "differ" if d.differs else "equal within error"}
        for kind, a, b, d in result.pairs
    ]  # fmt: skip
    known = [d for *_, d in result.pairs if d.differs is not None]
    level = result.inputs.confidence
    lead = (
        "Laws that differ in one thing, beside each other: the precision or the protocol of the same models on the "
        "same documents, the data set of the same models, the family on the same data set. Where models are the same, "
        "the ratio of the two values is fitted over them, so that what both share cancels; families have none in "
        f"common, and theirs are two lines with one scatter. Intervals at {percent(level)}. Of {len(known)} "
        f"comparisons about {number(len(known) * (1 - level), 1)} would exclude 0 by chance alone; "
        f"{sum(d.differs for d in known)} do."
    )
    table = ReportTable("Differences of exponents", pd.DataFrame(rows), folded=len(rows) > 40)
    return Section("dimensions", "Across precisions, protocols, data sets and families", lead, tables=(table,))


def _where(cell: Cell, kind: str) -> str:
    """What the two laws have in common, beside the quantity."""
    common = (value for name, value in cell.place.items() if name != kind and value)
    return ", ".join(common)


def _alpha(law: FitResult) -> str | None:
    return number(law.params["alpha"]) if law.ok else None
