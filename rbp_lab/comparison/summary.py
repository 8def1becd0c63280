"""Everything that a comparison in one pass says, computed once for the terminal, the tables and the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rbp_lab.comparison.accepted import Accepted, accepted
from rbp_lab.comparison.differences import Difference, PairedSums, compare, influence
from rbp_lab.comparison.findings import WHOLE, ByDocument, Calibration, Finding, calibration, findings, paired
from rbp_lab.comparison.percentiles import Percentile, all_percentiles
from rbp_lab.comparison.record import PairRecord
from rbp_lab.comparison.sums import PairSums


@dataclass(frozen=True)
class Floor:
    """How much a model differs from itself under a perturbation; less between two models means nothing.

    differences: by quantity, the end of its interval that is farther from 0, its size where it has none. distances: by
    quantity of ``findings``, over all tokens.
    """

    differences: Mapping[str, float]
    distances: Mapping[str, float]


NATS = "nats per token"
NO_FLOOR: Mapping[str, Floor] = {}


@dataclass(frozen=True, eq=False)
class Summary:
    """What a comparison found. documents: as of ``documents_table``. floor: by perturbation. level: of the intervals.
    The others: what the functions of these names give."""

    level: float
    differences: tuple[Difference, ...]
    findings: tuple[Finding, ...]
    percentiles: tuple[Percentile, ...]
    calibration: tuple[Calibration, ...]
    accepted: tuple[Accepted, ...]
    documents: pd.DataFrame
    floor: Mapping[str, Floor]

    @property
    def whole(self) -> dict[str, Finding]:
        """The findings over all tokens, by name."""
        return {f.name: f for f in self.findings if f.cell == WHOLE}


@dataclass(frozen=True)
class TokenText:
    """A document under two models. pieces: the text of every token; of each its rank under a and b, 0 where it is not
    scored, and its probability under a and b."""

    name: str
    pieces: Sequence[str]
    rank_a: Sequence[int]
    rank_b: Sequence[int]
    p_a: Sequence[float]
    p_b: Sequence[float]


def summary(record: PairRecord, floor: Mapping[str, PairRecord], level: float) -> Summary:
    """What the sums of a comparison say. floor: comparisons of a with itself, by perturbation."""
    sums, chosen = record.sums, paired(record.sums)
    return Summary(
        level,
        tuple(compare(chosen, level)),
        tuple(findings(sums, level)),
        tuple(all_percentiles(sums, level)),
        tuple(calibration(sums, level)),
        tuple(accepted(sums, level=level)),
        documents_table(record, chosen[0]),
        {name: floor_of(one.sums, level) for name, one in floor.items()},
    )


def floor_of(sums: PairSums, level: float) -> Floor:
    """The floor that a comparison of a model with itself gives."""
    apart = {d.name: abs(d.difference) if d.low is None else max(abs(d.low), abs(d.high))
             for d in compare(paired(sums), level)}  # fmt: skip
    return Floor(apart, distances_of(sums))


def distances_of(sums: PairSums) -> dict[str, float]:
    """The values of ``findings`` over all tokens, by name."""
    return {f.name: f.value for f in findings(sums) if f.cell == WHOLE}


def documents_table(record: PairRecord, first: PairedSums) -> pd.DataFrame:
    """One row a document, those that carry the first difference before the others; columns as of
    ``report.comparison.show.documents_table``, and ``kl``: Σ KL(a‖b) in nats."""
    by = ByDocument.of(record.sums)
    carries = influence(first)
    table = pd.DataFrame(
        {
            "document": [record.names[int(i)] for i in by.document],
            "tokens_a": by["tokens"].astype(np.int64),
            "tokens_b": by["tokens"].astype(np.int64),
            "nll_a": by["nll_a"],
            "nll_b": by["nll_b"],
            "carries": carries,
            "kl": by["kl_a"],
        }
    )
    return table.iloc[np.argsort(-np.abs(carries), kind="stable")].reset_index(drop=True)


def per_document(documents: pd.DataFrame) -> tuple[str, pd.Series, pd.Series]:
    """The unit of documents' values, and those of a and of b; NaN where there is no token, or byte.

    documents: as of ``report.comparison.show.documents_table``; with bytes, as tokens differ, bits per byte, otherwise
    nats per token.
    """
    what, unit, nats = ("bytes", "bits per byte", math.log(2)) if "bytes_a" in documents else ("tokens", NATS, 1.0)
    sizes = (documents[f"{what}_{side}"] for side in "ab")
    a, b = (documents[f"nll_{side}"] / nats / n.where(n > 0) for side, n in zip("ab", sizes, strict=True))
    return unit, a, b
