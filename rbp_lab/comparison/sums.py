"""What a comparison of two models in one pass adds up: integers, by document and by how sure both models were.

Everything is a sum over tokens, in int64, so that parts of a corpus add up to the same bits in any order. Numbers are
in fixed point: multiples of 2**-24, squares of 2**-40.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rbp_lab.counting import runs_of_hits, to_units
from rbp_lab.stats import UNIT

SQUARE_UNIT = 2.0**-40
# A token's confidence is the largest probability of a model; cell i holds CONFIDENCE[i] ≤ p < CONFIDENCE[i + 1], the
# last one 1 as well. A token's rank bin i holds RANKS[i] ≤ pessimistic rank < RANKS[i + 1], the last all beyond.
CONFIDENCE = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
RANKS = (1, 2, 6, 11, 101, 1001)
# Bins of Δp of the right token: 0 for |Δp| < 2**-24, else its sign times 1 + STEPS · octave + step, in linear steps.
STEPS, OCTAVES = 16, 24
# Sums of these names are tables of their own in a record and in its shards, in this order.
PARTS = ("cells", "transitions", "moves", "spread", "runs")
# Names of the sums that have a side; those of a and b change places when the models do.
SIDED = ("nll", "entropy", "confidence", "correct")
PLAIN = ("tokens", "variation", "agree", "moved", "rank_move", "delta_p_square")


@dataclass(frozen=True, eq=False)
class Tally:
    """Sums by keys: keys int64 [R,C], distinct rows in rising order, and sums int64 [R,S]. A commutative monoid."""

    keys: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, keys: Sequence[np.ndarray], sums: Sequence[np.ndarray]) -> Tally:
        """The sums over the entries [n] of every column, by the keys of these entries."""
        keys, sums = (np.stack([np.asarray(c, np.int64) for c in columns], 1) for columns in (keys, sums))
        order = np.lexsort(keys.T[::-1])
        keys, sums = keys[order], sums[order]
        first = np.flatnonzero(np.concatenate([[True], (keys[1:] != keys[:-1]).any(1)])[: len(keys)])
        return cls(keys[first], np.add.reduceat(sums, first, 0) if len(first) else sums)

    @classmethod
    def zeros(cls, keys: int, sums: int) -> Tally:
        return cls(np.zeros((0, keys), np.int64), np.zeros((0, sums), np.int64))

    def __add__(self, other: Tally) -> Tally:
        keys, sums = (np.concatenate([getattr(self, n), getattr(other, n)]) for n in ("keys", "sums"))
        return Tally.of(keys.T, sums.T)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tally):
            return NotImplemented
        return np.array_equal(self.keys, other.keys) and np.array_equal(self.sums, other.sums)

    __hash__ = None


@dataclass(frozen=True)
class PairSums:
    """How two models differ on some documents; its parts add up.

    ks: thresholds of hits and overlaps. cells: by document, confidence cell of a and of b, the sums ``columns(ks)``.
    transitions: by document, rank bin under a and under b, tokens. moves: by confidence cell of a and of b and bin of
    Δp = p_b − p_a of the right token, tokens. spread: the same by document as well, in bins of whole octaves, from
    which documents' errors are told. runs: by document and length, maximal runs of tokens in a row at which the first
    choices are the same; ``agreements`` counts them over whole documents, ``pair_sums`` none.
    """

    ks: tuple[int, ...]
    cells: Tally
    transitions: Tally
    moves: Tally
    spread: Tally
    runs: Tally

    @classmethod
    def zeros(cls, ks: Sequence[int]) -> PairSums:
        tokens = (Tally.zeros(keys, 1) for keys in (3, 3, 4, 2))
        return cls(tuple(ks), Tally.zeros(3, len(columns(ks))), *tokens)

    def __add__(self, other: PairSums) -> PairSums:
        if self.ks != other.ks:
            raise ValueError(f"cannot add sums of thresholds {self.ks} and {other.ks}")
        return PairSums(self.ks, *(getattr(self, part) + getattr(other, part) for part in PARTS))

    def column(self, name: str) -> np.ndarray:
        """One of ``columns(ks)`` by cell, int64 [R]."""
        return self.cells.sums[:, columns(self.ks).index(name)]

    def mirrored(self) -> PairSums:
        """The same comparison of b with a."""
        names = columns(self.ks)
        turned = self.cells.sums[:, [names.index(_turned(name)) for name in names]].copy()
        turned[:, names.index("delta_p")] *= -1
        turned[:, names.index("moved_up")] = self.column("moved") - self.column("moved_up")
        document, a, b = self.cells.keys.T
        cells = Tally.of((document, b, a), turned.T)
        document, a, b = self.transitions.keys.T
        transitions = Tally.of((document, b, a), self.transitions.sums.T)
        a, b, step = self.moves.keys.T
        moves = Tally.of((b, a, -step), self.moves.sums.T)
        document, a, b, octave = self.spread.keys.T
        spread = Tally.of((document, b, a, -octave), self.spread.sums.T)
        return replace(self, cells=cells, transitions=transitions, moves=moves, spread=spread)


def columns(ks: Sequence[int]) -> tuple[str, ...]:
    """The sums over the tokens of a cell, by name.

    tokens; nll, entropy and confidence of a and b; correct: tokens whose right token is the one first choice; kl of a
    and b: KL(a‖b) and KL(b‖a); variation: total variation; agree: tokens whose first choices are the same; moved:
    tokens whose rank is another under b, moved_up: those whose rank is better; rank_move: |ln rank_b − ln rank_a|;
    delta_p and delta_p_square: of p_b − p_a of the right token; and for each k hit of a and b: tokens of rank ≤ k,
    overlap: candidates among the first k of both.
    """
    sided = [f"{name}_{side}" for name in (*SIDED, "kl") for side in "ab"]
    by_k = [f"{name}_{k}" for k in ks for name in ("hit_a", "hit_b", "overlap")]
    return (*PLAIN, "moved_up", "delta_p", *sided, *by_k)


def _turned(name: str) -> str:
    """The sum that takes the place of another when a and b change places."""
    first, _, rest = name.partition("_")
    if first in (*SIDED, "kl"):
        return f"{first}_{'b' if rest == 'a' else 'a'}"
    return name.replace("hit_a", "hit_b") if "hit_a" in name else name.replace("hit_b", "hit_a")


@dataclass(frozen=True, eq=False)
class TokenPairs:
    """What is known of scored tokens [n] under both models, float32 and int32; a pair of arrays is of a and of b.

    rank: pessimistic, from 1. overlap [n,K]: for the thresholds. The others: as in ``scoring.pairs.PairScores``.
    """

    document: np.ndarray
    nll: tuple[np.ndarray, np.ndarray]
    entropy: tuple[np.ndarray, np.ndarray]
    rank: tuple[np.ndarray, np.ndarray]
    confidence: tuple[np.ndarray, np.ndarray]
    kl: tuple[np.ndarray, np.ndarray]
    variation: np.ndarray
    agree: np.ndarray
    overlap: np.ndarray


def pair_sums(tokens: TokenPairs, ks: Sequence[int]) -> PairSums:
    """The sums of some tokens. Raises ValueError on numbers that are not finite."""
    p_a, p_b = (np.exp(-nll.astype(np.float64)) for nll in tokens.nll)
    rank_a, rank_b = (rank.astype(np.int64) for rank in tokens.rank)
    delta = p_b - p_a
    found = {
        "tokens": np.ones(len(delta), np.int64),
        "variation": to_units(tokens.variation),
        "agree": tokens.agree,
        "moved": rank_a != rank_b,
        "moved_up": rank_b < rank_a,
        "rank_move": to_units(np.abs(np.log(rank_b) - np.log(rank_a))),
        "delta_p": to_units(delta),
        "delta_p_square": np.rint(delta**2 / SQUARE_UNIT).astype(np.int64),
    }
    for i, side in enumerate("ab"):
        rank = (rank_a, rank_b)[i]
        found |= {f"{name}_{side}": to_units(getattr(tokens, name)[i]) for name in ("nll", "entropy", "confidence",
                                                                                  "kl")}  # fmt: skip
        found |= {f"correct_{side}": rank == 1} | {f"hit_{side}_{k}": rank <= k for k in ks}
    found |= {f"overlap_{k}": tokens.overlap[:, i] for i, k in enumerate(ks)}
    sure_a, sure_b = (confidence_cell(p) for p in tokens.confidence)
    one, step = [found["tokens"]], move_bin(delta)
    return PairSums(
        tuple(ks),
        Tally.of((tokens.document, sure_a, sure_b), [found[name] for name in columns(ks)]),
        Tally.of((tokens.document, rank_bin(rank_a), rank_bin(rank_b)), one),
        Tally.of((sure_a, sure_b, step), one),
        Tally.of((tokens.document, sure_a, sure_b, octave_of(step)), one),
        Tally.zeros(2, 1),
    )


def agreements(document: np.ndarray, agree: np.ndarray) -> Tally:
    """``PairSums.runs`` of whole documents. document, agree: of tokens [n], those of a document in their order."""
    order = np.argsort(document, kind="stable")
    document, length, count = runs_of_hits(agree[order] != 0, document[order])
    return Tally.of((document, length), (count,))


def confidence_cell(confidence: np.ndarray) -> np.ndarray:
    """The cell of each confidence, from 0."""
    return np.minimum(np.searchsorted(CONFIDENCE, confidence, side="right"), len(CONFIDENCE) - 1) - 1


def rank_bin(rank: np.ndarray) -> np.ndarray:
    """The bin of each rank, from 0."""
    return np.searchsorted(RANKS, rank, side="right") - 1


def move_bin(delta: np.ndarray) -> np.ndarray:
    """The bin of each Δp, of the sign of Δp; computed without a logarithm, so the same everywhere."""
    mantissa, exponent = np.frexp(np.abs(delta))  # |Δp| = mantissa · 2**exponent, 1/2 ≤ mantissa < 1
    step = np.floor((mantissa - 0.5) * (2 * STEPS)).astype(np.int64)
    place = (exponent.astype(np.int64) - 1 + OCTAVES) * STEPS + step
    return np.where(place < 0, 0, np.sign(delta).astype(np.int64) * (1 + place))


def ends_of_bin(place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between which values each bin of Δp lies, rising; bin 0 counts as 0. The ends of others are up to 1/STEPS apart,
    relative to them."""
    octave, step = np.divmod(np.abs(place) - 1, STEPS)
    near, far = (np.minimum(1.0, np.ldexp(1.0 + (step + i) / STEPS, octave - OCTAVES)) for i in (0, 1))
    near, far = (np.where(place == 0, 0.0, value) for value in (near, far))
    return np.where(place < 0, -far, near), np.where(place < 0, -near, far)


def octave_of(place: np.ndarray) -> np.ndarray:
    """The bin of ``PairSums.spread`` that holds a bin of Δp: 0, or its sign times 1 + octave."""
    return np.sign(place) * ((np.abs(place) - 1) // STEPS + 1)


def unit_of(name: str) -> float:
    """What one unit of a sum is worth."""
    if name == "delta_p_square":
        return SQUARE_UNIT
    fixed = name.partition("_")[0] in ("nll", "entropy", "confidence", "kl", "variation") or name in (
        "rank_move", "delta_p",
    )  # fmt: skip
    return UNIT if fixed else 1.0
