"""What the sums of a comparison in one pass say: every quantity with its interval over documents, by confidence too."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from rbp_lab.comparison.differences import PairedSums, degrees_of_freedom, jackknifed, standard_error
from rbp_lab.comparison.sums import CONFIDENCE, RANKS, PairSums, Tally, columns, unit_of

WHOLE = "all"


@dataclass(frozen=True)
class Finding:
    """One number about how two models differ.

    name, unit: of the quantity. cell: tokens of which confidence of a, WHOLE for all. value; low, high: Student's
    interval over documents for a ratio of sums, None with fewer than two. tokens, documents: that it is of.
    """

    name: str
    unit: str
    cell: str
    value: float
    low: float | None
    high: float | None
    tokens: int
    documents: int


@dataclass(frozen=True, eq=False)
class ByDocument:
    """The sums of some cells, by document; float64 arrays [M], whole units."""

    document: np.ndarray
    tally: Tally
    sums: PairSums

    @classmethod
    def of(cls, sums: PairSums, cells: np.ndarray | slice = np.s_[:]) -> ByDocument:
        """cells: a mask of the rows of ``sums.cells``."""
        tally = Tally.of([sums.cells.keys[cells, 0]], sums.cells.sums[cells].T)
        return cls(tally.keys[:, 0], tally, sums)

    def __getitem__(self, name: str) -> np.ndarray:
        """A sum of ``sums.columns``."""
        return self.tally.sums[:, columns(self.sums.ks).index(name)] * unit_of(name)


def ratio(x: np.ndarray, n: np.ndarray, level: float) -> tuple[float, float | None, float | None]:
    """Σx/Σn over documents, and its interval as ``differences`` makes them. NaN for no token."""
    there = n > 0
    x, n = x[there].astype(np.float64), n[there].astype(np.float64)
    if not len(n):
        return math.nan, None, None
    value = float(x.sum() / n.sum())
    if len(n) < 2:
        return value, None, None
    moves = jackknifed(x, n)
    half = float(stdtrit(degrees_of_freedom(moves, n), 0.5 + level / 2)) * standard_error(moves, len(n))
    return value, value - half, value + half


def paired(sums: PairSums) -> list[PairedSums]:
    """What a comparison of records compares as well: cross-entropy, RBP_k and predictive entropy by document."""
    by, ks = ByDocument.of(sums), sums.ks
    n = by["tokens"]
    found = [PairedSums("cross-entropy", "nats per token", by["nll_a"], n, by["nll_b"], n)]
    found += [PairedSums(f"RBP_{k}", "", by[f"hit_a_{k}"], n, by[f"hit_b_{k}"], n) for k in ks]
    return [*found, PairedSums("predictive entropy", "nats per token", by["entropy_a"], n, by["entropy_b"], n)]


def findings(sums: PairSums, level: float = 0.95) -> list[Finding]:
    """Every quantity over all tokens, then over those of each confidence of a that occurs."""
    cell = sums.cells.keys[:, 1]
    parts = [(WHOLE, np.ones(len(cell), bool))]
    parts += [(cell_name(i), cell == i) for i in range(len(CONFIDENCE) - 1) if (cell == i).any()]
    return [one for name, mask in parts for one in _of_cell(name, ByDocument.of(sums, mask), level)]


def _of_cell(cell: str, by: ByDocument, level: float) -> list[Finding]:
    n = by["tokens"]
    about = {"cell": cell, "tokens": int(n.sum()), "documents": int((n > 0).sum())}

    def one(name: str, unit: str, x: np.ndarray, of: np.ndarray) -> Finding:
        value, low, high = ratio(x, of, level)
        return Finding(name, unit, value=value, low=low, high=high, **about)

    found = [
        one("KL(a‖b)", "nats per token", by["kl_a"], n),
        one("KL(b‖a)", "nats per token", by["kl_b"], n),
        one("total variation", "", by["variation"], n),
        one("same first choice", "share", by["agree"], n),
        *(one(f"first {k} in common", "share", by[f"overlap_{k}"], k * n) for k in by.sums.ks if k > 1),
        one("rank moved", "share", by["moved"], n),
        one("rank better under b", "share", by["moved_up"], n),
        one("size of a rank's move", "|Δ ln rank|", by["rank_move"], n),
        one("mean Δp", "", by["delta_p"], n),
    ]
    square = one("RMS Δp", "", by["delta_p_square"], n)
    roots = [None if v is None else math.sqrt(max(0.0, v)) for v in (square.value, square.low, square.high)]
    return [*found, Finding("RMS Δp", "", cell, *roots, square.tokens, square.documents)]


def cell_name(i: int) -> str:
    """A cell of confidence in words: "0.25 to 0.5"."""
    return f"{CONFIDENCE[i]:g} to {CONFIDENCE[i + 1]:g}"


def bin_name(i: int) -> str:
    """A bin of ranks in words: "1", "2–5", "1001–"."""
    first = RANKS[i]
    last = "" if i + 1 == len(RANKS) else RANKS[i + 1] - 1
    return str(first) if first == last else f"{first}–{last}"


def transitions(sums: PairSums) -> np.ndarray:
    """Tokens by bin of their rank under a (rows) and under b, int64 [R,R]."""
    tokens = np.zeros((len(RANKS), len(RANKS)), np.int64)
    np.add.at(tokens, tuple(sums.transitions.keys[:, 1:].T), sums.transitions.sums[:, 0])
    return tokens


@dataclass(frozen=True)
class Calibration:
    """Tokens of one confidence cell of one model: how sure it is on average, and how often it is right."""

    side: str
    cell: str
    tokens: int
    confidence: float
    correct: float
    low: float | None
    high: float | None


def calibration(sums: PairSums, level: float = 0.95) -> list[Calibration]:
    """The calibration of a by the confidence of a, then that of b by its own; cells without tokens are left out."""
    found = []
    for column, side in ((1, "a"), (2, "b")):
        for i in range(len(CONFIDENCE) - 1):
            by = ByDocument.of(sums, sums.cells.keys[:, column] == i)
            n = by["tokens"]
            if len(n):
                sure = float(by[f"confidence_{side}"].sum() / n.sum())
                found.append(Calibration(side, cell_name(i), int(n.sum()), sure,
                                         *ratio(by[f"correct_{side}"], n, level)))  # fmt: skip
    return found
