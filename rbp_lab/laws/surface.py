"""The law in size and tokens together, value = E + A·S^−a + B·D^−b, and the least compute that reaches a value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from rbp_lab.figures.tokens import curves_figure, surface_figure
from rbp_lab.fits.compute import Optimum, best_for, optimum
from rbp_lab.fits.documents import effects_by_dataset
from rbp_lab.fits.points import Label
from rbp_lab.fits.tokens import FORMS, FULL, Surface, SurfacePoints, fit_surface
from rbp_lab.laws.base import Inputs, LawResult
from rbp_lab.laws.trajectories import checkpoints, order, quantities
from rbp_lab.quantities import CE
from rbp_lab.report.sections import Drawing, ReportTable, Section, some, switched
from rbp_lab.text import interval, is_missing, number, si, significant

name = "surface"
needs_runs = ""
LOSSES = {"log": "least squares", "huber": "the Huber loss with δ = 0.001 of that paper"}


@dataclass(frozen=True, eq=False, kw_only=True)
class SurfaceLaw(LawResult):
    """surfaces: by label, one of each form that was fitted. refused: by label, why the points admit none."""

    surfaces: dict[Label, dict[str, Surface]]
    refused: dict[Label, str]


def compute(inputs: Inputs) -> SurfaceLaw:
    """Fit the joint law to every quantity of every family; at the k shown its special cases too."""
    left_out, choices = checkpoints(inputs.points, inputs.choices.least_tokens), inputs.choices
    surfaces, refused, effects = {}, {}, effects_by_dataset(inputs.records)
    for dataset, _, label, rows in sorted(quantities(inputs.points, left_out), key=lambda found: order(found[2])):
        if label.window > 1 and label.k not in inputs.shown:
            continue
        never = rows[~np.isfinite(rows["value"]) | (rows["value"] <= 0)]
        if len(never):
            refused[label] = f"the value has no logarithm for {some(sorted(never['model']))}"
            continue
        points = SurfacePoints(
            rows["size"].to_numpy(), rows["training_tokens"].to_numpy(np.float64), rows["value"].to_numpy(),
            rows["training"].to_numpy(object),
            effects[dataset].of(label, tuple(rows["model"])) if dataset in effects else None,
        )  # fmt: skip
        pinned = choices.E if label.metric == CE.name else None
        forms = FORMS if _is_shown(label, inputs) else (FULL,)
        found = {
            form: fit_surface(points, form, loss=choices.loss, E=pinned, confidence=inputs.confidence) for form in forms
        }
        if found[FULL].ok:
            surfaces[label] = found
        else:
            refused[label] = found[FULL].message
    frame = pd.DataFrame([_row(label, form, fit) for label, found in surfaces.items() for form, fit in found.items()])
    tables = {"surface": frame, "surface_compute": _optima(surfaces)} if surfaces else {}
    known = any(found[FULL].moves is not None for found in surfaces.values())
    return SurfaceLaw(inputs=inputs, tables=tables, over_documents=known, surfaces=surfaces, refused=refused)


def _is_shown(label: Label, inputs: Inputs) -> bool:
    return label.window == 1 and (label.k is None or label.k in inputs.shown)


def _row(label: Label, form: str, fit: Surface) -> dict[str, object]:
    row = label.columns | {
        "form": form, "status": fit.message or "ok", "n": len(fit.points), "trainings": len(fit.points.runs),
    }  # fmt: skip
    for name in ("E", "A", "a", "B", "b"):
        low, high = fit.intervals.get(name, (None, None))
        row |= {name: fit.params.get(name), f"{name}_low": low, f"{name}_high": high}
    return row | {
        "pinned": fit.pinned, "loss": fit.loss, "rmse_percent": fit.rmse_percent,
        "left_out_percent": fit.left_out_percent, "largest_out_percent": fit.largest_out_percent,
    }  # fmt: skip


def _optima(surfaces: dict[Label, dict[str, Surface]]) -> pd.DataFrame:
    """The least compute for the least value measured, and how size grows with compute, with intervals.

    inside: whether its size and tokens lie among those of the points. best_here: S of the least value for the compute
    ``used`` by the model that has the least value measured.
    """
    rows = []
    for label, found in surfaces.items():
        fit = found[FULL]
        at = int(np.argmin(fit.points.value))
        target = float(fit.points.value[at])
        used = Optimum(float(fit.points.size[at]), float(fit.points.tokens[at])).operations
        best = optimum(fit.params, target)
        row = label.columns | {
            "target": target, "used": used, "size": best.size, "tokens": best.tokens, "operations": best.operations,
            "share": fit.params["b"] / (fit.params["a"] + fit.params["b"]),
        }  # fmt: skip
        for name in ("size", "tokens", "operations"):
            low, high = fit.interval(lambda p, n=name, t=target: getattr(optimum(p, t), n))
            row |= {f"{name}_low": low, f"{name}_high": high}
        low, high = fit.interval(lambda p: p["b"] / (p["a"] + p["b"]))
        inside = all(
            points.min() <= value <= points.max()
            for points, value in ((fit.points.size, best.size), (fit.points.tokens, best.tokens))
        )
        row |= {"share_low": low, "share_high": min(high, 1.0), "inside": inside}
        rows.append(row | {"best_here": best_for(fit.params, used).size})
    return pd.DataFrame(rows)


def section(result: SurfaceLaw) -> Section | None:
    """The joint law of what is shown, its forms, the surface as contours and curves, and compute-optimal sizes."""
    inputs, shown = result.inputs, {at: f for at, f in result.surfaces.items() if _is_shown(at, result.inputs)}
    contours: dict[str, Drawing] = {}
    curves: dict[str, Drawing] = {}
    for place in dict.fromkeys((at.dataset, at.family) for at in shown):
        mine = {at: found[FULL] for at, found in shown.items() if (at.dataset, at.family) == place}
        title = f"Size and tokens on {place[0]}: {place[1]}"
        contours[", ".join(place)] = partial(surface_figure, mine, title)
        curves[", ".join(place)] = partial(curves_figure, mine, title)
    if not result.surfaces and not result.refused:
        return None
    pinned = inputs.choices.E
    documents = (
        "What documents do to all trainings alike is added"
        if result.over_documents
        else "Errors of the documents, which are common to all trainings, are not known and not in these intervals"
    )
    lead = (
        "One law for all checkpoints of all sizes, value = E + A·S^−a + B·D^−b (arXiv 2203.15556, section 3.3), beside "
        f"its special cases, fitted to ln value by {LOSSES[inputs.choices.loss]}. The unit of the intervals is a "
        "training, not a checkpoint: the law is fitted again without each training in turn (jackknife, t). The same "
        f"refits show by how much the law misses a training that it has not seen. {documents}. Where E lies at its "
        "bound 0 the intervals of E and a are by profile likelihood."
    )
    if pinned is not None:
        lead += f" E of cross-entropy is pinned at {significant(pinned)} nats ({inputs.choices.E_source})."
    contour = (
        "Contours of the fitted law over size and tokens. Dots: the checkpoints. Dashed: the least compute C = 6·S·D "
        "for each value."
    )
    return Section(
        "surface", "Size and tokens together", lead,
        (*switched("surface", contours, contour),
         *switched("curves", curves, "The same law against tokens, a curve for each size, darker for larger models.")),
        (_forms(shown), _every(result), _compute(result)) if result.surfaces else (), tuple(_notes(result, shown)),
    )  # fmt: skip


def _forms(shown: dict[Label, dict[str, Surface]]) -> ReportTable:
    rows = [
        {"data set": at.dataset, "family": at.family, "quantity": at.quantity, "form": form}
        | {name: _printed(fit, name) for name in ("a", "b", "E")}
        | {"RMSE %": fit.rmse_percent, "unseen training %": fit.left_out_percent,
           "largest unseen %": fit.largest_out_percent, "fit": fit.message or "ok"}
        for at, found in shown.items()
        for form, fit in found.items()
    ]  # fmt: skip
    formats = dict.fromkeys(("RMSE %", "unseen training %", "largest unseen %"), 1)
    return ReportTable("The joint law and its special cases", pd.DataFrame(rows), formats)


def _printed(fit: Surface, name: str) -> str | None:
    if name not in fit.params:
        return None
    low, high = fit.intervals.get(name, (None, None))
    if name == "E" and fit.pinned:
        return f"{number(fit.params[name], 3)}\npinned"
    return interval(fit.params[name], low, high, 3)


def _every(result: SurfaceLaw) -> ReportTable:
    rows = [
        {"data set": at.dataset, "family": at.family, "quantity": at.quantity}
        | {name: _printed(found[FULL], name) for name in ("a", "b", "E")}
        | {"RMSE %": found[FULL].rmse_percent, "unseen training %": found[FULL].left_out_percent}
        for at, found in result.surfaces.items()
    ]
    formats = {"RMSE %": 1, "unseen training %": 1}
    return ReportTable("The joint law of every quantity", pd.DataFrame(rows), formats, folded=True)


def _compute(result: SurfaceLaw) -> ReportTable:
    rows = []
    for at, r in zip(result.surfaces, result.tables["surface_compute"].itertuples(), strict=True):
        if not _is_shown(at, result.inputs):
            continue
        target = f"{number(r.target)}\nRBP_{at.k} {number(math.exp(-r.target))}" if at.k else number(r.target)
        rows.append({
            "data set": at.dataset, "family": at.family, "quantity": at.quantity, "value": target,
            **{what: _range(getattr(r, name), getattr(r, f"{name}_low"), getattr(r, f"{name}_high"))
               for what, name in (("S", "size"), ("D", "tokens"), ("C", "operations"))},
            "C of the model that has it": si(r.used),
            "exponent of S in C": interval(r.share, r.share_low, r.share_high, 3),
            "among the points": "yes" if r.inside else "no, extrapolated",
        })  # fmt: skip
    return ReportTable("Least compute, C = 6·S·D, for the best value measured", pd.DataFrame(rows))


def _range(value: float, low: float, high: float) -> str | None:
    if is_missing(value):
        return None
    return si(value) if is_missing(low) else f"{si(value)}\n[{si(low)}, {si(high)}]"


def _notes(result: SurfaceLaw, shown: dict[Label, dict[str, Surface]]) -> list[str]:
    notes = []
    for at, found in shown.items():
        fit = found[FULL]
        if fit.params["E"] == 0:
            most = f", and at most {number(fit.intervals['E'][1], 2)}" if "E" in fit.intervals else ""
            floor = f"E is at its bound 0{most}"
        elif "E" in fit.intervals and fit.intervals["E"][0] <= 0:
            floor = "E cannot be told from 0"
        else:
            floor = f"E = {number(fit.params['E'], 3)}"
        missed, largest = (f"{number(value, 1)} %" for value in (fit.left_out_percent, fit.largest_out_percent))
        a, b = (_inline(fit, name) for name in "ab")
        notes.append(
            f"{at.quantity} on {at.dataset} ({at.family}): b = {b} in tokens and a = {a} in size; {floor}; a training "
            f"that the law has not seen is missed by {missed}, the largest by {largest}."
            f"{_against_ce(at, fit, shown)}"
        )
    by_reason: dict[str, list[str]] = {}
    for at, why in result.refused.items():
        by_reason.setdefault(why, []).append(str(at))
    notes += [f"No joint law for {some(names)}: {why}." for why, names in by_reason.items()]
    return notes


def _inline(fit: Surface, name: str) -> str:
    low, high = fit.intervals.get(name, (None, None))
    return interval(fit.params[name], low, high, 3).replace("\n", " ")


def _against_ce(at: Label, fit: Surface, shown: dict[Label, dict[str, Surface]]) -> str:
    """How b differs from that of cross-entropy, paired over the refits without each training."""
    of_ce = shown.get(Label(at.family, at.dataset, CE.name), {}).get(FULL)
    if at.metric == CE.name or of_ce is None or len(of_ce.without) != len(fit.without):
        return ""
    difference = interval(*fit.difference(of_ce, "b"), 3).replace("\n", " ")
    return f" b differs from that of cross-entropy by {difference}."
