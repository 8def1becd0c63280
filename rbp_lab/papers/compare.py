"""Ours against the papers: slopes, R² and differences of exponents beside the published ones, with a verdict.

[RBP] arXiv 2510.20387 (tables 1 and 2), [EE] arXiv 2510.04067. Pure functions of fits and of the published numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from rbp_lab.fits.against_k import TABLE1_KS
from rbp_lab.fits.decomposition import PARTS
from rbp_lab.fits.paired import ExponentDifference
from rbp_lab.fits.power import implied_interval
from rbp_lab.fits.result import FitResult
from rbp_lab.papers.comparison import EE, EXPONENT_DIFFERENCE, R2, SLOPE, TABLE1, TABLE2, Comparison
from rbp_lab.papers.published import DATASETS, FAMILIES, Papers, degenerate, published_name
from rbp_lab.quantities import CE, RBP

# One unit of the last printed digit: half of it for the printed number, half for points read off a printed figure.
ROUNDING = 0.001
# R² printed as 1.000 is at least this, and says no more: an implied interval of no width would be a lie.
R2_OF_ONE = 0.9995
SIZE_TOLERANCE = 0.005  # relative; the counts of two models of a family differ by far more


def compare_table2(
    fits: Iterable[FitResult], papers: Papers, reasons: Mapping[str, str] = {}
) -> tuple[Comparison, ...]:
    """Slopes of CE and −log RBP_k against S beside [RBP] table 2, for every (data set, family, k) that is in it.

    fits: power laws in S. reasons: why the runs on a data set (our name) are not the paper's, when they are not.
    """
    found = []
    for fit in fits:
        label = fit.label
        key = _key(label.dataset, label.family, label.k)
        if label.metric not in (CE.name, RBP.name) or key not in papers.table2:
            continue
        slope, r2 = papers.table2[key]
        models = papers.models[key[1]]
        why = reasons.get(label.dataset, "") or _other_models(fit.points.x, models)
        names = (TABLE2, label.dataset, label.family, "", label.quantity, label.k)
        found.append(_compare_slope(fit, slope, r2, len(models), why, names))
    return tuple(found)


def compare_table1(
    laws: Iterable[FitResult], families: Mapping[str, str], papers: Papers, reasons: Mapping[str, str] = {}
) -> tuple[Comparison, ...]:
    """Slopes of −log RBP_k against k beside [RBP] table 1, for every (data set, model) that is in it.

    laws: of ``fit_against_k``, labelled by model. families: of our models by name.
    """
    found = []
    for law in laws:
        model, dataset = law.label.family, law.label.dataset
        family = families[model]
        key = _key(dataset, family, model.rpartition("/")[2].casefold())
        if key not in papers.table1:
            continue
        slope, r2 = papers.table1[key]
        why = reasons.get(dataset, "")
        if not why and law.n != len(TABLE1_KS):
            why = f"{law.n} of the {len(TABLE1_KS)} k of appendix B"
        names = (TABLE1, dataset, family, model, "−log RBP against k", None)
        found.append(_compare_slope(law, slope, r2, len(TABLE1_KS), why, names))
    return tuple(found)


def compare_differences(
    pairs: Iterable[tuple[FitResult, ExponentDifference]], papers: Papers, reasons: Mapping[str, str] = {}
) -> tuple[Comparison, ...]:
    """α_CE − α_k over the same models beside what the two slopes of [RBP] table 2 make of it.

    pairs: the law of −log RBP_k, and its paired difference from that of cross-entropy. The published pair implies no
    interval, since what its two slopes share is not published. "in_our_interval": the published
    difference, give or take its rounding, lies in it.
    """
    found = []
    for fit, ours in pairs:
        label = fit.label
        key, of_ce = _key(label.dataset, label.family, label.k), _key(label.dataset, label.family, None)
        if key not in papers.table2 or of_ce not in papers.table2:
            continue
        published = papers.table2[key][0] - papers.table2[of_ce][0]
        models = papers.models[key[1]]
        why = reasons.get(label.dataset, "") or _other_models(fit.points.x, models)
        rounding = 2 * ROUNDING  # two printed slopes
        if ours.difference is None:
            verdict, why = "not_fitted", ours.message
        elif why:
            verdict = "not_comparable"
        elif _near(ours.difference, published, rounding):
            verdict = "agrees"
        else:
            verdict = "in_our_interval" if ours.low - rounding <= published <= ours.high + rounding else "outside"
        found.append(Comparison(
            TABLE2, label.dataset, label.family, "", f"CE minus {label.quantity}", label.k, EXPONENT_DIFFERENCE,
            published, verdict, ours.difference, ours.low, ours.high, ours_n=ours.models, published_n=len(models),
            reason=why, confidence=fit.confidence,
        ))  # fmt: skip
    return tuple(found)


def compare_parts(laws: Iterable[FitResult], papers: Papers, reasons: Mapping[str, str] = {}) -> tuple[Comparison, ...]:
    """R² of the parts of cross-entropy against S beside those of [EE]; which models are behind those is not recorded.

    laws: of ``part_scalings``. A published R² alone implies no interval, so the verdict is "agrees" or "differs".
    """
    found = []
    for law in laws:
        part, dataset, family = law.label.metric, law.label.dataset, law.label.family
        key = _key(dataset, family, part)
        if part not in PARTS or key not in papers.parts:
            continue
        published, why = papers.parts[key], reasons.get(dataset, "")
        if not law.ok:
            verdict, why = "not_fitted", law.message
        elif why:
            verdict = "not_comparable"
        else:
            verdict = "agrees" if _near(law.r2, published, ROUNDING) else "differs"
            why = "" if verdict == "agrees" else "an R² alone implies no interval, and its models are not listed here"
        found.append(Comparison(
            EE, dataset, family, "", part.replace("_", " "), None, R2, published, verdict, law.r2, ours_r2=law.r2,
            ours_n=law.n, published_r2=published, reason=why,
        ))  # fmt: skip
    return tuple(found)


def _compare_slope(
    fit: FitResult, slope: float, r2: float, n: int, why: str, names: tuple[str, str, str, str, str, int | None]
) -> Comparison:
    """A power law of ours beside a published slope; names: the first six fields of the Comparison."""
    implied = None if degenerate(slope, r2) else implied_interval(slope, min(r2, R2_OF_ONE), n, fit.confidence)
    low, high = (-implied[1], -implied[0]) if implied else (None, None)  # of the slope, as published, not of α
    published = {
        "published_low": low, "published_high": high, "published_r2": r2, "published_n": n,
        "confidence": fit.confidence,
    }  # fmt: skip
    if not fit.ok:
        verdict = "degenerate" if degenerate(slope, r2) else "not_fitted"
        return Comparison(*names, SLOPE, slope, verdict, ours_n=fit.n, reason=fit.message, **published)
    ours = -fit.params["alpha"]
    if degenerate(slope, r2):
        verdict = "degenerate"
    elif why:
        verdict = "not_comparable"
    elif _near(ours, slope, ROUNDING):
        verdict = "agrees"
    else:
        verdict = "within_interval" if implied and low <= ours <= high else "outside"
    alpha_low, alpha_high = fit.intervals["alpha"]
    return Comparison(
        *names, SLOPE, slope, verdict, ours, -alpha_high, -alpha_low, fit.r2, fit.n, reason=why, **published
    )


def _other_models(sizes: np.ndarray, models: Mapping[str, float]) -> str:
    """Why models of these sizes are not the published ones; "" when they are."""
    theirs = np.array(sorted(models.values()))
    same = [bool(np.isclose(theirs, s, rtol=SIZE_TOLERANCE).any()) for s in sizes]
    if not all(same):
        return f"{len(same) - sum(same)} of our {len(same)} models have sizes that the paper's do not have"
    if len(sizes) != len(theirs):
        return f"{len(sizes)} models, the paper has {len(theirs)}"
    return ""


def _key(dataset: str, family: str | None, last: object) -> tuple:
    return published_name(dataset, DATASETS), published_name(family, FAMILIES), last


def _near(ours: float, published: float, tolerance: float) -> bool:
    return abs(ours - published) <= tolerance * (1 + 1e-9)
