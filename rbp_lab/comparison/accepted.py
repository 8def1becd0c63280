"""Speculative decoding: how many tokens of one model's draft the other accepts, from runs of equal first choices.

Both decode greedily: the target accepts a draft's tokens up to the first that is not its own first choice (Leviathan et
al. 2023, arXiv 2211.17192, section 2). The n-th of a draft is accepted with p_n, the chance that the first choices are
the same n times in a row, so a draft of N tokens has Σ_{n≤N} p_n accepted on average. The text before them is the
corpus's. If agreement were independent from token to token, p_n would be p_1^n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from rbp_lab.comparison.differences import degrees_of_freedom, jackknifed, standard_error
from rbp_lab.comparison.findings import ByDocument
from rbp_lab.comparison.sums import PairSums

DRAFTS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Accepted:
    """Mean number of accepted tokens of a draft of so many, with its interval over documents as of ``differences``.

    low, high: None with fewer than two documents that are long enough. independent: Σ p_1^n. ratio: accepted over that,
    None where it is 0. documents: that have a window of ``draft`` tokens.
    """

    draft: int
    accepted: float
    low: float | None
    high: float | None
    independent: float
    ratio: float | None
    documents: int


def accepted(sums: PairSums, drafts: Sequence[int] = DRAFTS, level: float = 0.95) -> list[Accepted]:
    """One answer for each length of a draft; those longer than every document are left out."""
    by = ByDocument.of(sums)
    tokens = by["tokens"].astype(np.int64)
    found = []
    for draft in drafts:
        if not (tokens >= draft).any():
            continue
        value, moves = 0.0, np.zeros(len(tokens))
        for n in range(1, draft + 1):
            windows = np.maximum(tokens - n + 1, 0).astype(np.float64)
            hits = _in_a_row(sums, by.document, n)
            value += float(hits.sum() / windows.sum())
            moves += jackknifed(hits, windows)
        first = float(by["agree"].sum() / tokens.sum())
        alone = sum(first**n for n in range(1, draft + 1))
        there = int((tokens >= draft).sum())
        low = high = None
        if there > 1:
            freedom = degrees_of_freedom(moves, np.maximum(tokens - draft + 1, 0))
            half = float(special.stdtrit(freedom, 0.5 + level / 2)) * standard_error(moves, len(tokens))
            low, high = max(0.0, value - half), min(float(draft), value + half)
        found.append(Accepted(draft, value, low, high, alone, value / alone if alone > 0 else None, there))
    return found


def _in_a_row(sums: PairSums, documents: np.ndarray, n: int) -> np.ndarray:
    """Windows of n tokens in which the first choices are always the same, by document, float64 [M]."""
    document, length = sums.runs.keys.T
    row = np.searchsorted(documents, document)
    return np.bincount(row, sums.runs.sums[:, 0] * np.maximum(length - n + 1, 0), len(documents))


def accepted_frame(found: Sequence[Accepted]) -> pd.DataFrame:
    """One row for each length of a draft."""
    return pd.DataFrame([vars(one) for one in found], columns=list(Accepted.__dataclass_fields__))
