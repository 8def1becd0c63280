"""One of our numbers beside the published one: the record, its verdict in words, and what to say of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import pandas as pd

from rbp_lab.fits.points import family_name
from rbp_lab.text import bracket, number, several

VERDICTS = (
    "agrees", "within_interval", "in_our_interval", "outside", "differs", "not_comparable", "not_fitted", "degenerate",
)  # fmt: skip
QUIET = ("agrees", "within_interval", "in_our_interval")  # their row of the table says it all
SLOPE, EXPONENT_DIFFERENCE, R2 = "slope", "α_CE − α_k", "R²"
TABLE2, TABLE1, EE = "[RBP] table 2", "[RBP] table 1", "[EE]"


@dataclass(frozen=True)
class Comparison:
    """One of our numbers beside the published one.

    dataset, family, model: our names; model only where the law is of one model. quantity: what was fitted; k None but
    for −log RBP_k. what: "slope" (of log10 value on log10 S, or log10 k in table 1), "α_CE − α_k" or "R²". ours_low,
    ours_high: interval of ours; published_low, published_high: the interval that the published slope, R² and n imply.
    ours_n, published_n: points of the fit. verdict: one of VERDICTS. reason: why it cannot be compared, or is not
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
    def verdict_in_print(self) -> str:
        """The verdict as tables have it."""
        return self.verdict.replace("_", " ")

    @property
    def sentence(self) -> str:
        """The verdict as a sentence."""
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


def remarks(comparisons: Sequence[Comparison]) -> list[str]:
    """What to say below the tables: how many of each verdict, and every one that needs a sentence.

    Comparisons that fail for one reason share a sentence.
    """
    if not comparisons:
        return []
    gaps = [abs(c.difference) for c in comparisons if c.verdict == "agrees"]
    largest = f" (within {number(max(gaps), 4)})" if gaps else ""
    counts = {v: sum(c.verdict == v for c in comparisons) for v in VERDICTS}
    found = ", ".join(f"{v.replace('_', ' ')} {n}{largest if v == 'agrees' else ''}" for v, n in counts.items() if n)
    lines = [f"{several(len(comparisons), 'comparison')} with the papers: {found}"]
    shared: dict[tuple[str, ...], list[Comparison]] = {}
    for c in comparisons:
        if c.verdict in ("differs", "not_comparable", "not_fitted"):
            place = (c.source, c.dataset, *(() if c.model else (family_name(c.family),)))
            shared.setdefault((c.verdict_in_print, c.reason, *place), []).append(c)
        elif c.verdict not in QUIET:
            lines.append(c.sentence)
    for (verdict, reason, *place), mine in shared.items():
        about = ", ".join(c.model.rpartition("/")[2] or c.quantity for c in mine)
        lines.append(f"{verdict} ({', '.join(place)}: {about}): {reason}")
    return lines
