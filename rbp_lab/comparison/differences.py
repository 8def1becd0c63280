"""How two models differ on the same documents, from what their records keep of each document.

The document is the unit: tokens of one document are correlated, and a document that is hard for one model is hard for
the other, so that errors of paired documents cancel in a difference. For a quantity R = Σx/Σn of each model the
difference R_b − R_a is linearised by document,

    r_m = (x_bm − R_b n_bm) / Σn_b − (x_am − R_a n_am) / Σn_a,

and its standard error is the jackknife's: without document m a ratio would move by its part of r_m over 1 − n_m/Σn, so
se² = (M−1)/M Σ (that)². The interval is Student's. Its degrees of freedom are the fewer of M' − 1, M' = (Σn)²/Σn² the
number of equally long documents that would weigh as these do (Kish 1965, Survey Sampling, section 11.2), and 2E − 1,
E = (Σj²)²/Σj⁴ the number of documents that carry the variance as evenly, j a document's move above; no fewer than one.
Where a few long documents hold most tokens, or one document most of the variance, M − 1 and the plain Σ r² promise more
than resampling such documents holds. (Of normal j Satterthwaite's would be 3E − 2, which holds less where few carry
much: tests/coverage/RESULTS.md.) Differences are b minus a: of cross-entropy, positive means that b is worse, of RBP_k
that it is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr, poch, stdtr, stdtrit

from rbp_lab.metrics import effective_documents
from rbp_lab.stats import UNIT, DocumentTable

POWER = 0.8
RESAMPLINGS = 2000
_AT_ONCE = 100  # resamplings in memory at a time


@dataclass(frozen=True, eq=False)
class PairedSums:
    """A ratio of sums over paired documents of models a and b; one entry a document. unit: of the ratio."""

    name: str
    unit: str
    x_a: np.ndarray
    n_a: np.ndarray
    x_b: np.ndarray
    n_b: np.ndarray


@dataclass(frozen=True)
class Difference:
    """b − a of one quantity.

    a, b: its value for each model. low, high: the Student interval at ``level``; resampled_low, resampled_high: that of
    resampled documents, which must agree; None with fewer than two documents. p: two-sided, of no difference, for this
    quantity alone. p_adjusted: the same for all of those compared together (Holm). detectable: the smallest difference
    that these documents would have shown at this level with a power of 80 %, (t + t_0.8) · se (Bloom 1995, Evaluation
    Review 19, 547–556), se divided by ``mean_of_errors``. documents: how many are paired.
    """

    name: str
    unit: str
    a: float
    b: float
    difference: float
    documents: int
    level: float
    se: float | None = None
    low: float | None = None
    high: float | None = None
    resampled_low: float | None = None
    resampled_high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    detectable: float | None = None

    def documents_to_show(self, difference: float) -> int | None:
        """About how many documents of this kind would show a difference of that size with a power of 80 %.

        The standard error falls as one over the root of their number. None without an interval; at least 2.
        """
        if self.detectable is None or difference == 0:
            return None
        return max(2, math.ceil(self.documents * (self.detectable / difference) ** 2))


def paired_sums(
    a: DocumentTable, b: DocumentTable, ks: Sequence[int], windows: Sequence[int], same_tokens: bool
) -> list[PairedSums]:
    """What can be compared of two tables with the same documents in the same order.

    ks: of RBP_k, any; of p_{N,k}, those that both tables keep runs for. windows: the N > 1. same_tokens: whether both
    models were scored on the same tokens; otherwise only bits per byte of text can be compared.
    """
    found = []
    if same_tokens:
        found.append(PairedSums("cross-entropy", "nats per token", _nll(a), a.num_scored, _nll(b), b.num_scored))
        found += [PairedSums(f"RBP_{k}", "", a.hits(k), a.num_scored, b.hits(k), b.num_scored) for k in ks]
        kept = [k for k in ks if k in a.thresholds and k in b.thresholds]
        found += [
            PairedSums(f"p_{{{n},{k}}}", "", a.window_hits(n, k), a.windows(n), b.window_hits(n, k), b.windows(n))
            for n in windows if n > 1 for k in kept
        ]  # fmt: skip
        surprise = [_surprise(table) for table in (a, b)]
        found.append(
            PairedSums("error entropy", "nats per token", surprise[0], a.num_scored, surprise[1], b.num_scored)
        )
    if a.num_bytes.sum() and b.num_bytes.sum():
        bits = [_nll(table) / math.log(2) for table in (a, b)]
        found.append(PairedSums("bits per byte", "bits", bits[0], a.num_bytes, bits[1], b.num_bytes))
    return [q for q in found if q.n_a.sum() and q.n_b.sum()]


def _nll(table: DocumentTable) -> np.ndarray:
    return table.nll_units * UNIT


def _surprise(table: DocumentTable) -> np.ndarray:
    """Σ −log p_e over each document's tokens, p_e the share of rank e in all of them; over Σn it is the error entropy.

    By the pessimistic rank, which is kept by document; the optimistic one of the definition differs from it at ties
    only. The derivative of the entropy by a document's weight is that of this ratio with p_e held.
    """
    total = np.bincount(table.rank, weights=table.count)
    surprise = np.zeros(len(total))
    seen = total > 0
    surprise[seen] = -np.log(total[seen] / total.sum())
    row = np.repeat(np.arange(len(table)), np.diff(table.indptr))
    return np.bincount(row, weights=table.count * surprise[table.rank], minlength=len(table))


def influence(quantity: PairedSums) -> np.ndarray:
    """What each document adds to the difference b − a beyond its share, float64 [M]; the r_m of this module's text."""
    return _residuals(quantity.x_b, quantity.n_b) - _residuals(quantity.x_a, quantity.n_a)


def _residuals(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    """What each document adds to Σx/Σn beyond its share."""
    total = n.sum()
    return (x - x.sum() / total * n) / total


def jackknifed(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    """How much more Σx/Σn is than it would be without each document, [M]; 0 for a document that is alone."""
    share = n / n.sum()
    return np.divide(_residuals(x, n), 1 - share, out=np.zeros(len(n)), where=share < 1)


def degrees_of_freedom(moves: np.ndarray, *tokens: np.ndarray) -> float:
    """Of the interval of ratios over documents: as of this module's text, for the ratio with fewest.

    moves: of documents, ``jackknifed`` or differences of them. tokens: of documents, for each ratio.
    """
    squares = moves**2
    carried = squares.sum() ** 2 / (squares**2).sum() if squares.any() else math.inf
    return max(1.0, min(2 * carried - 1, *(effective_documents(n) - 1 for n in tokens)))


def standard_error(moves: np.ndarray, documents: int) -> float:
    """The jackknife's, from ``jackknifed`` values or differences of them. documents: that have tokens."""
    return math.sqrt((documents - 1) / documents * float((moves**2).sum()))


def compare(chosen: Sequence[PairedSums], level: float = 0.95, seed: int = 0) -> list[Difference]:
    """The difference of every quantity; p values are adjusted for their number."""
    found = [_difference(quantity, level, seed) for quantity in chosen]
    adjusted = iter(holm([d.p for d in found if d.p is not None]))
    return [d if d.p is None else replace(d, p_adjusted=next(adjusted)) for d in found]


def error(quantity: PairedSums) -> tuple[float, float] | None:
    """The standard error of b − a and its degrees of freedom; None when all tokens of one side are in one document."""
    if min((quantity.n_a > 0).sum(), (quantity.n_b > 0).sum()) < 2:
        return None
    moves = jackknifed(quantity.x_b, quantity.n_b) - jackknifed(quantity.x_a, quantity.n_a)
    return standard_error(moves, documents_of(quantity)), degrees_of_freedom(moves, quantity.n_a, quantity.n_b)


def documents_of(quantity: PairedSums) -> int:
    """How many documents have tokens."""
    return int(((quantity.n_a > 0) | (quantity.n_b > 0)).sum())


def _difference(quantity: PairedSums, level: float, seed: int) -> Difference:
    a, b = (float(x.sum() / n.sum()) for x, n in ((quantity.x_a, quantity.n_a), (quantity.x_b, quantity.n_b)))
    plain = Difference(quantity.name, quantity.unit, a, b, b - a, documents_of(quantity), level)
    known = error(quantity)
    if known is None:
        return plain
    se, freedom = known
    t = float(stdtrit(freedom, 0.5 + level / 2))
    size = se / mean_of_errors(freedom)
    low, high = resampled(quantity, level, freedom, seed)
    p = 1.0 if b == a else 0.0 if se == 0 else 2 * float(stdtr(freedom, -abs(b - a) / se))
    return replace(
        plain, se=se, low=b - a - t * se, high=b - a + t * se, resampled_low=low, resampled_high=high, p=p,
        detectable=(t + float(stdtrit(freedom, POWER))) * size,
    )  # fmt: skip


def mean_of_errors(freedom: float) -> float:
    """The mean of estimated standard errors of normal values, over the true one: √(2/f) Γ((f+1)/2) / Γ(f/2).

    Their squares are right on average, so that they are too small themselves, by 6 % with four degrees of freedom f
    (Cureton 1968, The American Statistician 22, 22).
    """
    return math.sqrt(2 / freedom) * float(poch(freedom / 2, 0.5))


def resampled(quantity: PairedSums, level: float, freedom: float, seed: int) -> tuple[float, float]:
    """The interval of b − a from documents drawn with replacement; the same draws for every quantity.

    Percentiles of the draws, taken further out by as much as Student's interval is wider than they are: draws vary less
    than documents, by (M−1)/M, and are nearly normal (Hesterberg 2015, The American Statistician 69, 371–386, "expanded
    percentiles").
    """
    rng, number = np.random.default_rng(seed), len(quantity.n_a)
    table = np.stack([quantity.x_a, quantity.n_a, quantity.x_b, quantity.n_b], axis=1).astype(np.float64)
    found = []
    for _ in range(0, RESAMPLINGS, _AT_ONCE):
        times = rng.multinomial(number, np.full(number, 1 / number), size=_AT_ONCE)
        x_a, n_a, x_b, n_b = (times @ table).T
        possible = (n_a > 0) & (n_b > 0)
        found.append(x_b[possible] / n_b[possible] - x_a[possible] / n_a[possible])
    wider = math.sqrt((freedom + 1) / freedom) * float(stdtrit(freedom, 0.5 + level / 2))
    out = float(ndtr(-wider))
    low, high = np.quantile(np.concatenate(found), [out, 1 - out])
    return float(low), float(high)


def holm(p: Sequence[float]) -> list[float]:
    """The p values of several comparisons, adjusted so that any error among them has the stated level (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    adjusted, largest = [0.0] * len(p), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = largest
    return adjusted
