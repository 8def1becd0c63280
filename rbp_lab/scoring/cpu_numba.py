"""Implementation "numba": scores by tiles on a CPU, each tile reduced in one reading by code that numba compiles.

The tiles and their logits are those of the implementation "torch"; only the reduction differs.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numba import float32, int32, njit

from rbp_lab.scoring.linear import Linear, linear_for
from rbp_lab.scoring.threads import by_positions
from rbp_lab.scoring.tiling import each_tile, operand_dtype, target_logits, tile_for
from rbp_lab.scoring.types import LMHead, TokenScores

# Sums may be taken in any order, as vectors need; NaN and infinity keep their meaning.
FAST = {"nsz", "contract", "reassoc"}
LOG2_E = np.float32(1.4426950408889634)
# ln 2 as a number of few bits, whose multiples are exact, and the rest.
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(0.6931471805599453 - 0.693359375)
LOWEST, HIGHEST = np.float32(-87.0), np.float32(88.0)  # exp of anything beyond counts as exp of these
TOO_LARGE = np.float32(1e26)  # a sum this large: the reference is so far below the largest logit that it must move


def score_numba(
    hidden: torch.Tensor,
    head: LMHead,
    targets: torch.Tensor,
    *,
    budget: int | None = None,
    logits: str = "float32",
    delta: torch.Tensor | None = None,
    tile: tuple[int, int] | None = None,
) -> TokenScores:
    """Scores of ``targets`` [n] from ``hidden`` [n,D] on the CPU; holds one float32 tile for each thread.

    The arguments are those of score_torch.
    """
    operands = operand_dtype(hidden.dtype, logits)
    tile = tile or tile_for(hidden, head, operands, budget)
    score = partial(_score, head=head, tile=tile, operands=operands, linear=linear_for("cpu", operands))
    return by_positions(score, hidden, targets, delta, tile[0])


def _score(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    delta: torch.Tensor | None,
    *,
    head: LMHead,
    tile: tuple[int, int],
    operands: torch.dtype,
    linear: Linear,
) -> TokenScores:
    n = len(targets)
    top = np.full(n, -np.inf, np.float32)
    mass, moment = np.zeros(n), np.zeros(n)  # Σ exp(z − top) and Σ (z − top) exp(z − top), float64
    counts = np.zeros((2 if delta is None else 4, n), np.int32)
    t, own = target_logits(hidden, head, targets, operands, linear).numpy(), targets.numpy()

    def reduce(at: slice, first: int, logits_of_tile: torch.Tensor) -> None:
        z = logits_of_tile.numpy()[: len(t[at])]
        place_targets(z, t[at], own[at] - first)
        reduce_tile(z, t[at], top[at], mass[at], moment[at], counts[0, at], counts[1, at])
        if delta is not None:
            count_bracket(z, t[at], delta[at].numpy(), counts[2, at], counts[3, at])

    each_tile(hidden, head, tile, operands, linear, reduce)
    counts[1::2] -= 1  # the targets themselves
    with np.errstate(invalid="ignore", divide="ignore"):  # not finite: said by the caller
        log_mass = np.log(mass)
        nll = top.astype(np.float64) - t + log_mass
        entropy = log_mass - moment / mass
    nll, entropy = (torch.from_numpy(values.astype(np.float32)) for values in (nll, entropy))
    return TokenScores.of(nll, entropy, [torch.from_numpy(count) for count in counts])


# Not FAST: another order of operations would lose the last bits.
@njit(nogil=True, cache=True, fastmath={"contract"})
def exp(d):  # type: ignore[no-untyped-def]
    """exp(d) in float32 to two units of the last place, d held between LOWEST and HIGHEST."""
    x = min(max(d, LOWEST), HIGHEST)
    k = np.floor(x * LOG2_E + float32(0.5))
    f = ((x - k * LN2_HIGH) - k * LN2_LOW) * LOG2_E
    # 2^f on [−1/2, 1/2]: the polynomial of degree 6 with the least relative error, 2e-9 before rounding
    p = float32(1.535336184e-4)
    p = p * f + float32(1.339887444e-3)
    p = p * f + float32(9.618437358e-3)
    p = p * f + float32(5.550332471e-2)
    p = p * f + float32(2.402264791e-1)
    p = p * f + float32(6.931472029e-1)
    p = p * f + float32(1.0)
    return p * np.int32((int32(k) + int32(127)) << int32(23)).view(np.float32)


# Inlined: as a function of its own it would exist twice, alone and within its caller, with sums in different orders,
# and which of the two ran would depend on whether the caller was compiled or came from numba's cache.
@njit(nogil=True, cache=True, fastmath=FAST, inline="always")
def _power_sums(row, reference):  # type: ignore[no-untyped-def]
    """(Σ exp(d), Σ d·exp(d)) over d = row − reference, in one reading; NaN and infinity survive in the second sum."""
    s, q = float32(0), float32(0)
    for j in range(row.shape[0]):
        d = row[j] - reference
        e = exp(d)
        s += e
        q += d * e
    return s, q


@njit(nogil=True, cache=True, fastmath=FAST)
def reduce_tile(z, t, top, mass, moment, greater, equal):  # type: ignore[no-untyped-def]
    """Merge a tile of logits z [m,R] into the state of its rows.

    top float32 [m]: the reference of the sums, set by the first tile and moved only by logits far above it. mass and
    moment float64 [m]: Σ exp(z − top) and Σ (z − top) exp(z − top). greater and equal int32 [m]: how many logits are
    greater than t [m] and equal to it.
    """
    m, rows = z.shape
    for i in range(m):
        row, ti = z[i], t[i]
        above, same = int32(0), int32(0)
        for j in range(rows):
            above += int32(row[j] > ti)
            same += int32(row[j] == ti)
        greater[i] += above
        equal[i] += same
        reference = top[i]
        s, q = np.float32(np.inf), np.float32(0)
        if reference != -np.inf:
            s, q = _power_sums(row, reference)
        if not s < TOO_LARGE:
            new = reference
            for j in range(rows):
                new = row[j] if row[j] > new else new
            if reference != -np.inf:
                shift = np.float64(reference) - np.float64(new)
                scale = np.exp(shift)
                moment[i] = scale * (moment[i] + shift * mass[i])
                mass[i] = scale * mass[i]
            top[i] = new
            s, q = _power_sums(row, new)
        mass[i] += s
        moment[i] += q


@njit(nogil=True, cache=True, fastmath=FAST)
def count_bracket(z, t, delta, surely, maybe):  # type: ignore[no-untyped-def]
    """Add to surely and maybe [m] how many logits of z [m,R] are > t + δ and ≥ t − δ."""
    m, rows = z.shape
    for i in range(m):
        row, high, low = z[i], t[i] + delta[i], t[i] - delta[i]
        above, not_below = int32(0), int32(0)
        for j in range(rows):
            above += int32(row[j] > high)
            not_below += int32(row[j] >= low)
        surely[i] += above
        maybe[i] += not_below


@njit(nogil=True, cache=True)
def place_targets(z, t, own):  # type: ignore[no-untyped-def]
    """Write the target's logit t [m] to column own [m] of z [m,R]; a column outside 0…R−1 is in another tile.

    The target's logit may differ from the tile's by a rounding. Written there, it is never greater than itself and
    equal to itself exactly once over all tiles.
    """
    m, rows = z.shape
    for i in range(m):
        if 0 <= own[i] < rows:
            z[i, own[i]] = t[i]
