"""The power laws in S ([RBP] section 4) beside other forms, at the k shown and at every k."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import pandas as pd

from rbp_lab.figures.scaling import scaling_figure
from rbp_lab.fits.fit import Comparison
from rbp_lab.fits.floor import Floor
from rbp_lab.fits.points import Label, family_name
from rbp_lab.fits.result import FitResult
from rbp_lab.laws.base import Inputs, LawResult, by_dataset, join
from rbp_lab.quantities import PER_TOKEN, QUANTITIES
from rbp_lab.report.sections import Drawing, ReportFigure, ReportTable, Section, refusal_notes, switched
from rbp_lab.text import bracket, interval, number

name = "scaling"
needs_runs = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scaling(LawResult):
    """forms: by label, what other forms make of the points of a law in S; empty when only power laws were asked for."""

    forms: dict[Label, Comparison]


def compute(inputs: Inputs) -> Scaling:
    """Fit other forms to the points of every power law in S of a family."""
    forms = inputs.forms
    frames = (found.to_frame().assign(**at.columns, verdict=found.verdict) for at, found in forms.items())
    tables = {"forms": join(frames)} if inputs.choices.laws else {}
    lacks = {} if inputs.records else {
        "error of documents in exponents": "documents are common to all models, so their error may run along S and "
        "leave no residual; only runs show it, and intervals here are of the residuals alone, t(n−2)",
        "ties and single documents": "whether they decide an exponent is only visible in runs",
    }  # fmt: skip
    over_documents = bool(inputs.records)  # the bars of its figures
    return Scaling(inputs=inputs, tables=tables, lacks=lacks, over_documents=over_documents, forms=forms)


def section(result: Scaling) -> Section:
    """Values against S at the k shown and, by switch, at every k; every fit beside other forms."""
    inputs = result.inputs
    figures: dict[str, Drawing] = {}
    every: dict[str, Drawing] = {}
    for dataset, mine in by_dataset(_per_token(inputs.fits)).items():
        chosen = [f for f in mine if f.label.k is None or f.label.k in inputs.shown]
        title = f"Scaling laws on {dataset}"
        figures[dataset] = partial(scaling_figure, chosen, title, inputs.styles, inputs.size_name)
    for k in sorted({f.label.k for f in _per_token(inputs.fits)} - {None}) if inputs.choices.every_figure else ():
        at = [f for f in _per_token(inputs.fits) if f.label.k == k]
        title = "One k at a time"
        every[str(k)] = partial(scaling_figure, at, title, inputs.styles, inputs.size_name)
    each = "−log RBP_k against S at one k at a time; lines, bars and numbers as above."
    one = (ReportFigure("each_k", None, each, every, files=False),) if len(every) > 1 else ()
    caption = (
        "Values against model size S with the fitted power laws. Bars: 95 % intervals over documents, where documents "
        "are known; the numbers give α with half of its interval, and R² in log10-log10."
    )
    lead = (
        "Cross-entropy and −log RBP_k fall as powers of model size ([RBP] arXiv 2510.20387, section 4). α is the "
        "paper's least squares; where runs are known its interval counts the error of documents, which are common to "
        "all models and may move α without a residual, and the interval of least squares stands beside it. Beside R² "
        "stand the root mean square error, the error at the largest model when it is left out of the fit, the "
        "interval of a floor E in E + a·S^−α by profile likelihood, and ΔAICc of a straight line in ln S against the "
        "power law: above 4 the power law is preferred, below −4 the line."
    )
    return Section(
        "scaling", "RBP_k and cross-entropy against model size", lead,
        (*switched("scaling", figures, caption), *one), (_every_fit(result),), tuple(refusal_notes(inputs.fits)),
    )  # fmt: skip


def _per_token(fits: list[FitResult]) -> list[FitResult]:
    return [f for f in fits if QUANTITIES.get(f.label.metric) in PER_TOKEN]


def _every_fit(result: Scaling) -> ReportTable:
    rows = []
    for f in result.inputs.fits:
        row = {
            "data set": f.label.dataset, "family": family_name(f.label.family), "quantity": f.label.quantity, "n": f.n,
            "α": interval(f.params["alpha"], *f.intervals["alpha"]) if f.ok else None,
            "interval of least squares": bracket(*f.least_squares["alpha"]) if f.document_share is not None else None,
            "R²": f.r2,
            "RMSE %": f.rmse_percent, "largest left out %": f.leave_largest_out,
        }  # fmt: skip
        if result.forms:
            other = result.forms.get(f.label)
            floor = other.floor if other else None
            row |= {
                "ΔAICc log-linear": other.delta_aicc.get("log_linear") if other else None,
                "floor E, % of smallest": _floor(floor) if floor else None,
                "form": other.verdict if other else None,
            }  # fmt: skip
        rows.append(row | {"warnings": ", ".join(f.warnings), "fit": "ok" if f.ok else f.status})
    formats = {"R²": 4, "RMSE %": 2, "largest left out %": 1, "ΔAICc log-linear": 1}
    return ReportTable("Every fit", pd.DataFrame(rows), formats, folded=len(rows) > 12)


def _floor(floor: Floor) -> str:
    """The interval of a floor in percent of the smallest value."""
    high = "∞" if math.isinf(floor.high) else number(100 * floor.share, 0)
    return f"{number(100 * floor.low / floor.smallest, 0)} … {high}"
