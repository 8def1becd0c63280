"""Ours against the papers: slopes, R² and differences of exponents beside the published ones, with a verdict.

[RBP] arXiv 2510.20387 (tables 1 and 2), [EE] arXiv 2510.04067. Pure functions of fits and of the published numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from rbp_lab.fits.against_k import TABLE1_KS
from rbp_lab.fits.decomposition import PARTS
from rbp_lab.fits.paired import ExponentDifference
from rbp_lab.fits.power import implied_interval
from rbp_lab.fits.result import FitResult, family_name
from rbp_lab.papers.published import DATASETS, FAMILIES, Papers, degenerate, published_name
from rbp_lab.quantities import CE, RBP
from rbp_lab.text import bracket, number

# One unit of the last printed digit: half of it for the printed number, half for points read off a printed figure.
ROUNDING = 0.001
# R² printed as 1.000 is at least this, and says no more: an implied interval of no width would be a lie.
R2_OF_ONE = 0.9995
SIZE_TOLERANCE = 0.005  # relative; the counts of two models of a family differ by far more

# What each verdict says in a table.
VERDICTS = {
    "agrees": "agrees",
    "within_interval": "within interval",
    "in_our_interval": "in our interval",
    "outside": "outside",
    "differs": "differs",
    "not_comparable": "not comparable",
    "not_fitted": "not fitted",
    "degenerate": "degenerate",
}
QUIET = ("agrees", "within_interval", "in_our_interval")  # their row of the table says it all
SLOPE, EXPONENT_DIFFERENCE, R2 = "slope", "α_CE − α_k", "R²"
TABLE2, TABLE1, EE = "[RBP] table 2", "[RBP] table 1", "[EE]"


@dataclass(frozen=True)
class Comparison:
    """One of our numbers beside the published one.

    dataset, family, model: our names; model only where the law is of one model. quantity: what was fitted; k None but
    for −log RBP_k. what: "slope" (of log10 value on log10 S, or log10 k in table 1), "α_CE − α_k" or "R²". ours_low,
    ours_high: interval of ours; published_low, published_high: the interval that the published slope, R² and n imply.
    ours_n, published_n: points of the fit. verdict: a key of VERDICTS. reason: why it cannot be compared, or is not
    fitted. confidence: of every interval.
    """

    source: str
    dataset: str
    family: str | None
    model: str
    quantity: str
    k: int | None
    what: str
    published: float
    verdict: str
    ours: float | None = None
    ours_low: float | None = None
    ours_high: float | None = None
    ours_r2: float | None = None
    ours_n: int | None = None
    published_low: float | None = None
    published_high: float | None = None
    published_r2: float | None = None
    published_n: int | None = None
    reason: str = ""
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict must be one of {', '.join(VERDICTS)}, not {self.verdict!r}")

    @property
    def difference(self) -> float | None:
        """Ours minus published; None when there is none of ours."""
        return None if self.ours is None else self.ours - self.published

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        where = f"{self.quantity} ({self.model or family_name(self.family)}, {self.dataset})"
        printed = number(self.published, 3)
        if self.verdict == "degenerate":
            also = f"; ours: {self.reason}" if self.reason else ""
            return f"{where}: published slope 0.000 with R² 1.000 is no fit (all values alike, or 0){also}"
        if self.ours is None:
            return f"{where}: no {self.what} of ours to set beside the published {printed}: {self.reason}"
        start = f"{where}: our {self.what} {number(self.ours, 4)}"
        ours = bracket(self.ours_low, self.ours_high, 3)
        implied = f"interval {bracket(self.published_low, self.published_high, 3)} implied by the published {printed}"
        return (
            start
            + {
                "agrees": f" is the published {printed} within rounding",
                "within_interval": f" lies within the {implied}, R² and n = {self.published_n}",
                "in_our_interval": f" {ours} takes in the published {printed}",
                "outside": (
                    f" lies outside the {implied}, R² and n = {self.published_n}"
                    if self.published_low is not None
                    else f" {ours} does not take in the published {printed}"
                ),
                "differs": f" is not the published {printed}: {self.reason}",
                "not_comparable": f" cannot be compared with the published {printed}: {self.reason}",
                "not_fitted": f" was not fitted: {self.reason}",
            }[self.verdict]
        )

    def row(self) -> dict[str, object]:
        """Every field, the difference and the sentence."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"difference": self.difference, "sentence": self.sentence}


def comparisons_to_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row per comparison; the columns are there without one too."""
    columns = [*(f.name for f in fields(Comparison)), "difference", "sentence"]
    whole = {name: "Int64" for name in ("k", "ours_n", "published_n")}
    return pd.DataFrame([c.row() for c in comparisons], columns=columns).astype(whole)


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


def remarks(comparisons: Sequence[Comparison]) -> list[str]:
    """What to say below the tables: how many of each verdict, and every one that needs a sentence.

    Comparisons that fail for one reason share a sentence.
    """
    if not comparisons:
        return []
    gaps = [abs(c.difference) for c in comparisons if c.verdict == "agrees"]
    largest = f" (within {number(max(gaps), 4)})" if gaps else ""
    counts = {v: sum(c.verdict == v for c in comparisons) for v in VERDICTS}
    found = ", ".join(f"{VERDICTS[v]} {n}{largest if v == 'agrees' else ''}" for v, n in counts.items() if n)
    lines = [f"{len(comparisons)} comparisons with the papers: {found}"]
    shared: dict[tuple[str, ...], list[Comparison]] = {}
    for c in comparisons:
        if c.verdict in ("differs", "not_comparable", "not_fitted"):
            place = (c.source, c.dataset, *(() if c.model else (family_name(c.family),)))
            shared.setdefault((VERDICTS[c.verdict], c.reason, *place), []).append(c)
        elif c.verdict not in QUIET:
            lines.append(c.sentence)
    for (verdict, reason, *place), mine in shared.items():
        about = ", ".join(c.model.rpartition("/")[2] or c.quantity for c in mine)
        lines.append(f"{verdict} ({', '.join(place)}: {about}): {reason}")
    return lines


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
