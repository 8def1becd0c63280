"""Cross-entropy against −log RBP_k on the same models ([RBP] figure 8a): do both scale alike?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pandas as pd

from rbp_lab.figures.paired import differences_figure
from rbp_lab.fits.paired import ExponentDifference, exponent_difference
from rbp_lab.fits.result import FitResult
from rbp_lab.laws.base import Inputs, LawResult, by_family, join
from rbp_lab.quantities import CE, RBP
from rbp_lab.report.sections import Drawing, ReportTable, Section, switched
from rbp_lab.text import interval, number

name = "paired"
needs_runs = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Paired(LawResult):
    """pairs: the law of cross-entropy, the law of −log RBP_k, and the difference of their exponents."""

    pairs: tuple[tuple[FitResult, FitResult, ExponentDifference], ...]


def compute(inputs: Inputs) -> Paired:
    """α of cross-entropy minus α of −log RBP_k for every k of every family that has both."""
    pairs = tuple(
        (ce, law, exponent_difference(ce, law))
        for mine in by_family(inputs.fits).values()
        for ce in mine if ce.label.metric == CE.name
        for law in mine if law.label.metric == RBP.name
    )  # fmt: skip
    frames = [
        difference.to_frame().assign(dataset=law.label.dataset, family=law.label.family, k=law.label.k)
        for _, law, difference in pairs
    ]
    lacks = {} if (inputs.points["metric"] == CE.name).any() else {
        "cross-entropy against −log RBP": "the points hold no cross-entropy"
    }  # fmt: skip
    return Paired(inputs=inputs, tables={"differences": join(frames)}, lacks=lacks, pairs=pairs)


def section(result: Paired) -> Section | None:
    """The ratio of both over S and the differences of exponents over k; None without any."""
    table, inputs = result.tables["differences"], result.inputs
    if not len(table) or not table["difference"].notna().any():
        return None
    figures: dict[str, Drawing] = {}
    for dataset, rows in table.groupby("dataset"):
        k = min(inputs.shown) if inputs.shown else int(rows["k"].min())
        here = [(ce, law) for ce, law, _ in result.pairs if law.label.dataset == dataset and law.label.k == k]
        pairs = {law.label.family: (ce, law) for ce, law in here}
        figures[dataset] = partial(
            differences_figure, pairs, rows, f"Cross-entropy and −log RBP on {dataset}", inputs.styles
        )
    rows = [
        {"data set": law.label.dataset, "family": law.label.family, "k": law.label.k, "models": d.models,
         "α_CE − α_k": interval(d.difference, d.low, d.high),
         "narrower": None if d.gain is None else f"× {number(d.gain, 1)}",
         "result": d.message if d.difference is None else "differ" if d.differs else "equal within error"}
        for _, law, d in result.pairs
    ]  # fmt: skip
    lead = (
        "Do cross-entropy and −log RBP_k scale alike? The ratio of the two is fitted over the same models, so that "
        f"what both share, documents and the luck of each model, cancels. {_gain(result)} {_multiplicity(result)}"
    )
    caption = "Left: the ratio per model; a level line means equal exponents. Right: bars are paired intervals."
    return Section(
        "paired", "Cross-entropy against −log RBP", lead, switched("paired", figures, caption),
        (ReportTable("Differences of exponents", pd.DataFrame(rows), folded=len(rows) > 12),),
    )  # fmt: skip


def _multiplicity(result: Paired) -> str:
    tested = [d for _, _, d in result.pairs if d.differs is not None]
    if len(tested) < 2:
        return ""
    chance = number(len(tested) * (1 - result.inputs.confidence), 1)
    return (
        f"{len(tested)} differences are tested, {sum(d.differs for d in tested)} exclude 0; were all exponents equal, "
        f"about {chance} would by chance."
    )


def _gain(result: Paired) -> str:
    factors = [difference.gain for _, _, difference in result.pairs if difference.gain is not None]
    if not factors:
        return "No pair of laws could be compared."
    low, high = number(min(factors), 1), number(max(factors), 1)
    span = low if low == high else f"{low} to {high}"
    return f"Here the intervals are {span} times narrower than those of two separate exponents."
