"""How far the right token's probability moves: percentiles of Δp = p_b − p_a over tokens, with intervals.

A percentile's interval is Woodruff's (1952, Journal of the American Statistical Association 47, 635–646): an interval
for the share of tokens below it, and the values at both ends of that. The share is a ratio over documents, whose
tokens are correlated, so that N of them tell of a share q as much as n = q (1 − q) / se² independent ones, se the
jackknife's of ``differences``; n is no more than N, and is lowered for the degrees of freedom, by (z / t)². The
share's interval is the exact one of n tokens, beta quantiles, which holds near 0 and 1 as well (Korn and Graubard 1998,
Survey Methodology 24, 193–201). Documents keep Δp in bins of whole octaves: n is computed where these end, and is
interpolated in between, its logarithm over the logit of the share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from rbp_lab.comparison.differences import degrees_of_freedom, jackknifed, standard_error
from rbp_lab.comparison.findings import WHOLE, cell_name
from rbp_lab.comparison.sums import PairSums, Tally, ends_of_bin

PERCENTILES = (0.1, 1, 5, 25, 50, 75, 95, 99, 99.9)


@dataclass(frozen=True)
class Percentile:
    """``percent`` of the tokens of a cell have a Δp of no more than ``value``.

    cell: tokens of which confidence of a, WHOLE for all. low, high: the interval over documents, None with fewer than
    two. From the histogram of ``sums.move_bin``, evenly filled within its bins: within 6 % of their size, most much
    nearer, and 0 below 2**-24.
    """

    cell: str
    percent: float
    value: float
    low: float | None
    high: float | None
    tokens: int
    documents: int


def all_percentiles(sums: PairSums, level: float = 0.95) -> list[Percentile]:
    """Percentiles over all tokens, then over those of each confidence of a that occurs."""
    cells = np.unique(sums.moves.keys[:, 0]).tolist()
    return [one for cell in (None, *cells) for one in percentiles(sums, cell, level)]


def percentiles(
    sums: PairSums, cell: int | None = None, level: float = 0.95, wanted: Sequence[float] = PERCENTILES
) -> list[Percentile]:
    """Percentiles of Δp of the right token over the tokens of one confidence cell of a, or over all; rising."""
    bins = _of_cell(sums.moves, 0, cell, keep=[2])
    shares, number = np.array(wanted) / 100, bins.sums[:, 0].sum()
    counts = _by_document(_of_cell(sums.spread, 1, cell, keep=[0, 3]))
    ends = [(None, None)] * len(shares)
    if len(counts) > 1:
        low, high = (_values(bins, side) for side in shares_between(shares, counts, level))
        ends = list(zip(low, high, strict=True))
    name = WHOLE if cell is None else cell_name(cell)
    return [
        Percentile(name, percent, value, *end, int(number), len(counts))
        for percent, value, end in zip(wanted, _values(bins, shares), ends, strict=True)
    ]


def _values(bins: Tally, shares: np.ndarray) -> list[float]:
    """The Δp below which shares of the tokens lie, tokens spread evenly within their bin."""
    up_to = np.cumsum(bins.sums[:, 0])
    place = np.searchsorted(up_to, shares * up_to[-1], side="left")
    low, high = ends_of_bin(bins.keys[place, 0])
    within = 1 - (up_to[place] - shares * up_to[-1]) / bins.sums[place, 0]
    return (low + within * (high - low)).tolist()


def _of_cell(tally: Tally, column: int, cell: int | None, keep: Sequence[int]) -> Tally:
    """The sums of a cell of a, by the columns ``keep`` of the keys."""
    mask = np.ones(len(tally.keys), bool) if cell is None else tally.keys[:, column] == cell
    return Tally.of(tally.keys[mask][:, keep].T, tally.sums[mask].T)


def _by_document(spread: Tally) -> np.ndarray:
    """Tokens of each document (rows) in each octave that occurs, in rising order of Δp, float64 [M,B]."""
    document, octave = spread.keys.T
    rows, columns = (np.unique(one, return_inverse=True) for one in (document, octave))
    counts = np.zeros((len(rows[0]), len(columns[0])))
    counts[rows[1], columns[1]] = spread.sums[:, 0]
    return counts


def shares_between(shares: np.ndarray, counts: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The interval of each share of tokens below its own percentile. counts: of documents by bin [M,B], M > 1."""
    told = independent_tokens(shares, counts, level)
    x, rest = shares * told, (1 - shares) * told
    return special.betaincinv(x, rest + 1, 0.5 - level / 2), special.betaincinv(x + 1, rest, 0.5 + level / 2)


def independent_tokens(shares: np.ndarray, counts: np.ndarray, level: float) -> np.ndarray:
    """How many independent tokens would tell as much of the share of tokens below a percentile."""
    n, z = counts.sum(1), special.ndtri(0.5 + level / 2)
    at, told = [], []
    for below in np.cumsum(counts, 1)[:, :-1].T:  # each end between two bins
        moves, share = jackknifed(below, n), below.sum() / n.sum()
        variance = max(standard_error(moves, len(n)) ** 2, share * (1 - share) / n.sum())
        t = special.stdtrit(degrees_of_freedom(moves, n), 0.5 + level / 2)
        at.append(share)
        told.append(share * (1 - share) / variance * (z / t) ** 2)
    if not at:  # all tokens are in one bin: each document tells one thing
        return np.full(len(shares), float(len(n)))
    return np.exp(np.interp(special.logit(shares), special.logit(at), np.log(told)))
