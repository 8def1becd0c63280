"""Laws in tokens: every quantity against training tokens, for the checkpoints of each training by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import pandas as pd

from rbp_lab.figures.tokens import tokens_figure
from rbp_lab.fits.fit import Comparison, compare
from rbp_lab.fits.points import Label
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import FitResult
from rbp_lab.laws.base import Inputs, LawResult, by_dataset, join
from rbp_lab.laws.trajectories import checkpoints, shown_of
from rbp_lab.report.sections import Drawing, ReportTable, Section, refusal_notes, switched, warning_notes
from rbp_lab.text import interval, number, percent, si

name = "tokens"
needs_runs = ""
LEAST_FOR_HALVES, LEAST_FOR_A_BEND = 6, 5  # checkpoints of a training


@dataclass(frozen=True, eq=False, kw_only=True)
class Tokens(LawResult):
    """left_out: of ``trajectories.checkpoints``. forms, late: of the fits that are shown, by label.

    late: the power law of the later half of the checkpoints.
    """

    left_out: pd.DataFrame
    forms: dict[Label, Comparison]
    late: dict[Label, FitResult]


def compute(inputs: Inputs) -> Tokens:
    """Beside the power laws in D of ``inputs.fits``: other forms, and the later half of every training."""
    shown = shown_of(inputs.fits, inputs.shown)
    forms = {fit.label: compare(fit, ("power_constant",)) for fit in shown}
    late = {
        fit.label: fit_power(fit.points.of(fit.points.names[fit.n // 2 :]), fit.label, inputs.confidence)
        for fit in shown if fit.n >= LEAST_FOR_HALVES
    }  # fmt: skip
    left_out = checkpoints(inputs.points, inputs.choices.least_tokens)
    tables = {
        "tokens_checkpoints": left_out,
        "tokens_forms": join(
            found.to_frame().assign(
                dataset=at.dataset, training=at.training, metric=at.metric, k=at.k, verdict=found.verdict
            )
            for at, found in forms.items()
        ),
    }
    return Tokens(
        inputs=inputs, tables=tables, over_documents=bool(inputs.records), left_out=left_out, forms=forms, late=late
    )


def section(result: Tokens) -> Section:
    """Values against tokens, one colour a size; the exponents; which checkpoints were left out."""
    inputs = result.inputs
    shown = shown_of(inputs.fits, inputs.shown)
    figures: dict[str, Drawing] = {}
    for dataset, mine in by_dataset(shown).items():
        out = result.left_out[(result.left_out["left_out"] != "") & (result.left_out["dataset"] == dataset)]
        rows = inputs.points.merge(out[["dataset", "model", "training"]], on=["dataset", "model"])
        size = dict(zip(result.left_out["training"], result.left_out["size"], strict=True))
        figures[dataset] = partial(tokens_figure, mine, size, rows, f"Tokens on {dataset}")
    lead = (
        "Cross-entropy and −log RBP_k of the checkpoints of each training against the tokens they had seen, with power "
        "laws value = a·D^−β. A single size keeps an error that no further tokens take away, so the line must bend in "
        "the end: beside β stand that of the later half alone and what the points say of a floor. Checkpoints of one "
        "training are not independent runs: they share weights, data and one learning-rate schedule, which has fallen "
        "less far at an earlier checkpoint than in a run that ends there."
    )
    caption = (
        "Values against training tokens D, one colour a training, darker for larger models, with the fitted power "
        "laws. Hollow: left out of the fit. Bars: 95 % intervals over documents."
    )
    return Section(
        "tokens", "RBP_k and cross-entropy against training tokens", lead, switched("tokens", figures, caption),
        (_exponents(result, shown), _checkpoints(result)),
        (*_answers(result, shown), *warning_notes(shown), *refusal_notes(shown)),
    )  # fmt: skip


def _exponents(result: Tokens, shown: list[FitResult]) -> ReportTable:
    rows = []
    for f in shown:
        late, form = result.late.get(f.label), result.forms[f.label]
        size = result.left_out.loc[result.left_out["training"] == f.label.training, "size"].iloc[0]
        rows.append({
            "data set": f.label.dataset, "model": f.label.training, "S": size, "quantity": f.label.quantity, "n": f.n,
            "β": interval(f.params["alpha"], *f.intervals["alpha"]) if f.ok else None,
            "β, later half": interval(late.params["alpha"], *late.intervals["alpha"]) if late and late.ok else None,
            "R²": f.r2,
            "RMSE %": f.rmse_percent, "last left out %": f.leave_largest_out,
            "floor E ≤, % of smallest": 100 * form.floor.share if form.floor and form.floor.share < math.inf else None,
            "form": form.verdict, "warnings": ", ".join(f.warnings), "fit": "ok" if f.ok else f.status,
        })  # fmt: skip
    formats = {"S": si, "R²": 4, "RMSE %": 2, "last left out %": 1, "floor E ≤, % of smallest": 0}
    return ReportTable("Exponents in tokens: value = a·D^−β", pd.DataFrame(rows), formats)


def _checkpoints(result: Tokens) -> ReportTable:
    table = result.left_out.rename(columns={"dataset": "data set", "size": "S", "training_tokens": "tokens"})
    table = table.assign(**{"takes part": table["left_out"].map(lambda why: "yes" if why == "" else f"no: {why}")})
    return ReportTable(
        "Checkpoints", table[["data set", "family", "model", "S", "tokens", "takes part"]], {"S": si, "tokens": si},
        folded=True,
    )  # fmt: skip


def _answers(result: Tokens, shown: list[FitResult]) -> list[str]:
    """For every data set and quantity, in a sentence: between which exponents, how straight, how the end differs."""
    out = result.left_out[result.left_out["left_out"] != ""]
    notes = []
    for (dataset, _, _, quantity), fits in _by_quantity(shown).items():
        fitted = [f for f in fits if f.ok]
        if not fitted:
            continue
        size = dict(zip(result.left_out["training"], result.left_out["size"], strict=True))
        fitted.sort(key=lambda f: size[f.label.training])
        betas = [f.params["alpha"] for f in fitted]
        bends = ["curvature" in f.warnings for f in fitted if f.n >= LEAST_FOR_A_BEND]
        late = [(f, m) for f in fitted if (m := result.late.get(f.label)) is not None and m.ok]
        slower = sum(m.params["alpha"] < f.params["alpha"] for f, m in late)
        if len(fitted) == 1:
            notes.append(f"{quantity} on {dataset}: β = {number(betas[0], 3)}.")
            continue
        notes.append(
            f"{quantity} on {dataset} falls as a power of tokens, without a bend at the 5 % level, in "
            f"{bends.count(False)} of {len(bends)} trainings that have {LEAST_FOR_A_BEND} checkpoints: "
            f"β = {number(betas[0], 3)} for the smallest and {number(betas[-1], 3)} for the "
            f"largest, from {number(min(betas), 3)} to {number(max(betas), 3)} in all; RMSE at most "
            f"{number(max(f.rmse_percent for f in fitted), 1)} %; the later half alone is less steep in {slower} of "
            f"{len(late)} that can be halved."
        )
    if len(out):
        reasons = out["left_out"].str.partition(":")[0].value_counts()
        listed = "; ".join(f"{number(n, 0)}: {reason}" for reason, n in reasons.items())
        notes.append(f"Checkpoints left out ({percent(len(out) / len(result.left_out))}): {listed}.")
    return notes


def _by_quantity(fits: list[FitResult]) -> dict[tuple, list[FitResult]]:
    groups: dict[tuple, list[FitResult]] = {}
    for fit in fits:
        label = fit.label
        groups.setdefault((label.dataset, label.window, label.k or 0, label.quantity), []).append(fit)
    return groups
