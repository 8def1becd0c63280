"""Questions that the papers leave open, each answered by one sentence with an interval, or not told by these points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from rbp_lab import metrics
from rbp_lab.fits.points import FitPoints
from rbp_lab.fits.power import why_not
from rbp_lab.fits.questions import Answer, answer, families_differ, forecast_errors, paired_errors
from rbp_lab.fits.result import FitResult
from rbp_lab.laws import emergence, paired
from rbp_lab.laws.base import Inputs, LawResult, by_dataset, families
from rbp_lab.quantities import RBP
from rbp_lab.records import SIZES, RunRecord
from rbp_lab.report.sections import ReportTable, Section
from rbp_lab.text import bracket, number, percent, significant

name = "questions"
needs_runs = ""

ENTROPY = "Does error entropy forecast itself better than cross-entropy?"
EXPONENTS = "Do cross-entropy and −log RBP_1 have one exponent?"
INDEPENDENT = "Are tokens in a row right independently (p_{N,1} = RBP_1^N)?"
AXIS = "Is S or the total number of parameters the better axis?"
SHARED = "Do two families share an exponent?"


@dataclass(frozen=True)
class Answered:
    """A question asked of some models. about: which they are. sentence: the answer in words."""

    question: str
    dataset: str
    about: str
    answer: Answer
    sentence: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Questions(LawResult):
    """answered: question by question, each family and data set that it was asked of."""

    answered: tuple[Answered, ...]

    def lines(self) -> list[str]:
        """A line for each answer, for a terminal."""
        return [f"{a.question} {a.about} on {a.dataset}: {a.sentence}" for a in self.answered]


def compute(inputs: Inputs) -> Questions:
    """Every question of every family and data set that can be asked of it."""
    found = [*_entropy(inputs), *_exponents(inputs), *_independent(inputs), *_axis(inputs), *_shared(inputs)]
    rows = [
        {"question": a.question, "dataset": a.dataset, "about": a.about, "difference": a.answer.difference,
         "low": a.answer.low, "high": a.answer.high, "told": a.answer.told, "units": a.answer.units,
         "unit": a.answer.unit, "needed": a.answer.needed, "needed_unit": a.answer.needed_unit, "answer": a.sentence}
        for a in found
    ]  # fmt: skip
    why = "it needs runs, and these points have none"
    lacks = {} if inputs.records else {ENTROPY: why, AXIS: why}
    table = pd.DataFrame(rows)
    if len(table):
        table = table.astype({"needed": "Int64", "told": "boolean"})
    return Questions(
        inputs=inputs, tables={"questions": table} if rows else {}, lacks=lacks, answered=tuple(found),
        over_documents=True,
    )  # fmt: skip


def _entropy(inputs: Inputs) -> Iterator[Answered]:
    """|error of the forecast| of cross-entropy minus that of error entropy, over models forecast from smaller ones."""
    for dataset, family, mine in families(inputs.runs if inputs.records else ()):
        splits = [metrics.decomposition(r.stats) for r in mine]
        both = [[s.cross_entropy for s in splits], [s.error_entropy for s in splits]]
        found = _forecasts([_points(inputs.size, mine, values) for values in both], inputs.confidence)
        yield Answered(ENTROPY, dataset, family, found, _sentence(
            found, "cross-entropy's miss less error entropy's",
            "Yes: its forecast of the next larger model misses by {} less",
            "No: its forecast of the next larger model misses by {} more", share=True,
        ))  # fmt: skip


def _exponents(inputs: Inputs) -> Iterator[Answered]:
    """α of cross-entropy minus α of −log RBP_1."""
    for ce, law, found in inputs.of(paired).pairs:
        if law.label.k != 1:
            continue
        given = (
            Answer(units=found.models, message=found.message) if found.error is None
            else answer(found.difference, found.error, (1, 0), found.confidence, found.models, _documents(ce))
        )  # fmt: skip
        yield Answered(EXPONENTS, law.label.dataset, law.label.family, given, _sentence(
            given, "α of cross-entropy less that of −log RBP_1",
            "No: cross-entropy's is larger by {}", "No: cross-entropy's is smaller by {}",
        ))  # fmt: skip


def _independent(inputs: Inputs) -> Iterator[Answered]:
    """Exponent of N in −log p_{N,1} minus 1, which it is under independence."""
    for fit in inputs.of(emergence).fits:
        if fit.k != 1:
            continue
        given = (
            Answer(units=fit.models, message=fit.message) if fit.beta_error is None
            else answer(
                fit.beta - 1, fit.beta_error, (1,), fit.confidence, fit.models, _documents(*fit.by_window.values())
            )
        )  # fmt: skip
        yield Answered(INDEPENDENT, fit.dataset, fit.family, given, _sentence(
            given, "the exponent of N less 1", "No: −log p grows faster than N; its exponent is above 1 by {}",
            "No: −log p grows more slowly than N; its exponent is below 1 by {}",
        ))  # fmt: skip


def _axis(inputs: Inputs) -> Iterator[Answered]:
    """|error of the forecast| with S minus that with the total, of cross-entropy, from the smaller models."""
    for dataset, family, mine in families(inputs.runs if inputs.records else ()):
        values = [metrics.cross_entropy(r.stats) for r in mine]
        given = _forecasts([_points(axis, mine, values) for axis in SIZES], inputs.confidence)
        yield Answered(AXIS, dataset, family, given, _sentence(
            given, "the miss by S less that by the total", "The total: the next larger model is missed by {} less",
            "S: the next larger model is missed by {} less", share=True,
        ))  # fmt: skip


def _shared(inputs: Inputs) -> Iterator[Answered]:
    """α of −log RBP_1 of one family minus that of another on the same data set."""
    asked = [f for f in inputs.fits if f.label.metric == RBP.name and f.label.k == 1 and f.label.family is not None]
    for dataset, mine in by_dataset(asked).items():
        for a, b in combinations(mine, 2):
            if inputs.told_apart(a.label) != inputs.told_apart(b.label):
                continue  # the same models at another precision, perhaps: laws.dimensions compares those
            given = families_differ(a.points, b.points, inputs.confidence)
            yield Answered(SHARED, dataset, f"{a.label.family} and {b.label.family}", given, _sentence(
                given, "α of the first less that of the second",
                "No: that of the first is larger by {}", "No: that of the first is smaller by {}",
            ))  # fmt: skip


def _forecasts(both: Sequence[FitPoints], confidence: float) -> Answer:
    """By how much more the first are missed by forecasts of them than the second; why not where one has no law."""
    if why := next((why for why in map(why_not, both) if why), None):
        return Answer(units=len(both[0]), message=why)
    return paired_errors(*map(forecast_errors, both), confidence, "forecasts")


def _points(size: str, records: list[RunRecord], values: list[float]) -> FitPoints:
    sizes = [r.model.params.size(size) for r in records]
    return FitPoints(np.array(sizes), np.array(values), tuple(r.model.name for r in records))


def _documents(*fits: FitResult) -> int:
    """How many documents stand behind fits, 0 when unknown."""
    known = [f.points.errors for f in fits if f.points.errors is not None]
    return len(known[0].ids) if known else 0


def _sentence(found: Answer, difference: str, above: str, below: str, share: bool = False) -> str:
    """The answer in words. difference: what less what. above, below: where the interval lies; {} is its size."""
    if found.difference is None:
        return f"It cannot be asked: {found.message}."
    scale, digits, unit = (100, 2, " %") if share else (1, 4, "")
    ends = bracket(scale * found.low, scale * found.high, digits) + unit
    if found.told:
        size = number(scale * abs(found.difference), digits) + unit
        what = (above if found.difference > 0 else below).format(size)
        return f"{what}; the difference lies in {ends}, from {found.units} {found.unit}."
    needed = (
        "more than 10,000 would be needed" if found.needed is None
        else f"about {significant(found.needed, 2)} {found.needed_unit} would be needed"
    )  # fmt: skip
    return (
        f"It cannot be told from {found.units} {found.unit}: {difference} is "
        f"{number(scale * found.difference, digits)}{unit} {ends}; to tell one of that size, {needed}."
    )


def section(result: Questions) -> Section | None:
    """Every question with its answers; None without any."""
    if not result.answered:
        return None
    frame = pd.DataFrame([
        {"question": a.question, "data set": a.dataset, "family": a.about, "answer": a.sentence}
        for a in result.answered
    ])  # fmt: skip
    level = percent(result.inputs.confidence)
    lead = (
        f"What the papers leave open, as these models answer it. The answer is yes or no where the {level} interval of "
        "the difference excludes 0; otherwise it says how many would show a difference as large as the one seen, in "
        "four of five such studies. Forecasts are of every model from all smaller ones, at least three. Of the "
        f"{len(result.answered)} answers about one in {round(1 / (1 - result.inputs.confidence))} is yes or no by "
        "chance where there is no difference."
    )
    return Section("questions", "Open questions of the papers", lead, tables=(ReportTable("Answers", frame),))
