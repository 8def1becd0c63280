"""The comparison of ``scoring.pairs`` on a CPU: held rows of both models reduced by code that numba compiles.

Every sum treats a and b alike and in the same order, so that swapping them mirrors the results, and two equal models
differ by exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numba import float32, int32, njit

from rbp_lab.scoring.cpu_numba import FAST, exp
from rbp_lab.scoring.pairs import PairScores, choices
from rbp_lab.scoring.threads import run_per_thread
from rbp_lab.scoring.types import TokenScores

COLUMNS = 2048  # whose sums are taken in float32
LAST_ID = 2**31 - 1
# Columns of what is counted and summed by position.
GREATER_A, GREATER_B, EQUAL_A, EQUAL_B, AGREE, OVERLAP = range(6)
MASS_A, MASS_B, MOMENT_A, MOMENT_B, CROSS_A, CROSS_B, VARIATION, SHIFT_A, SHIFT_B = range(9)


def compare_held(z_a: torch.Tensor, z_b: torch.Tensor, targets: torch.Tensor, ks: Sequence[int]) -> PairScores:
    """``compare_logits`` of float32 logits [n,V], which are overwritten; positions are divided among threads."""
    n, number = len(targets), choices(z_a, ks)
    sums, counts = np.zeros((n, 9)), np.zeros((n, OVERLAP + len(ks)), np.int32)
    arrays = [z_a.numpy(), z_b.numpy(), targets.numpy(), sums, counts]
    share = max(1, -(-n // torch.get_num_threads()))
    slices = [slice(first, first + share) for first in range(0, n, share)]
    thresholds = np.array(ks, np.int64)
    run_per_thread([partial(compare_rows, *(one[at] for one in arrays), thresholds, number) for at in slices])
    with np.errstate(invalid="ignore", divide="ignore"):  # not finite: said by the caller
        values = [torch.from_numpy(value.astype(np.float32)) for value in _values(sums.T)]
    ints = [torch.from_numpy(np.ascontiguousarray(column)) for column in counts[:, :OVERLAP].T]
    a = TokenScores.of(values[0], values[2], (ints[GREATER_A], ints[EQUAL_A]))
    b = TokenScores.of(values[1], values[3], (ints[GREATER_B], ints[EQUAL_B]))
    return PairScores(a, b, *values[4:], ints[AGREE], torch.from_numpy(counts[:, OVERLAP:].copy()))


def _values(sums: np.ndarray) -> list[np.ndarray]:
    """nll and entropy of a and b, in pairs, then the numbers of PairScores in their order, from the sums [9,n]."""
    mass_a, mass_b, moment_a, moment_b, cross_a, cross_b, variation, shift_a, shift_b = sums
    log_a, log_b = np.log(mass_a), np.log(mass_b)
    return [
        shift_a + log_a,
        shift_b + log_b,
        log_a - moment_a / mass_a,
        log_b - moment_b / mass_b,
        np.maximum(0, cross_a / mass_a - (log_a - log_b)),
        np.maximum(0, -cross_b / mass_b - (log_b - log_a)),
        np.minimum(1, variation / 2),
        1 / mass_a,
        1 / mass_b,
    ]


@njit(nogil=True, cache=True, fastmath=FAST)
def compare_rows(z_a, z_b, targets, sums, counts, ks, number):  # type: ignore[no-untyped-def]
    """Fill sums [m,9] and counts [m,5+K] of each position from its rows of logits z_a and z_b [m,V], overwritten.

    With x = z_a − the largest of z_a, and y so of z_b: MASS Σ eˣ, MOMENT Σ x eˣ, CROSS Σ (x − y) eˣ and Σ (x − y) eʸ,
    VARIATION Σ |p_a − p_b|, SHIFT the largest logit − the target's. number: first choices that are looked at.
    """
    best_a, best_b = np.empty(number, np.int64), np.empty(number, np.int64)
    room, places = np.empty(z_a.shape[1], np.int64), np.full(z_a.shape[1], -1)
    for i in range(z_a.shape[0]):
        a, b, target = z_a[i], z_b[i], targets[i]
        t_a, t_b = a[target], b[target]
        above, same = _counts(a, t_a)
        counts[i, GREATER_A], counts[i, EQUAL_A] = above, same - 1
        above, same = _counts(b, t_b)
        counts[i, GREATER_B], counts[i, EQUAL_B] = above, same - 1
        tied_a, tied_b = _first_choices(a, room, best_a), _first_choices(b, room, best_b)
        top_a, top_b = a[best_a[0]], b[best_b[0]]
        counts[i, AGREE] = int(tied_a == tied_b and np.array_equal(best_a[:tied_a], best_b[:tied_b]))
        _overlaps(best_a, best_b, places, ks, counts[i, OVERLAP:])
        mass_a, moment_a, mass_b, moment_b, cross_a, cross_b = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for first in range(0, a.shape[0], COLUMNS):
            last = min(first + COLUMNS, a.shape[0])
            s, q, u, v, c, d = _pair_sums(a[first:last], b[first:last], top_a, top_b)
            mass_a += s
            moment_a += q
            mass_b += u
            moment_b += v
            cross_a += c
            cross_b += d
        variation, scale_a, scale_b = 0.0, np.float32(1 / mass_a), np.float32(1 / mass_b)
        for first in range(0, a.shape[0], COLUMNS):
            last = min(first + COLUMNS, a.shape[0])
            variation += _variation(a[first:last], b[first:last], scale_a, scale_b)
        sums[i, MASS_A], sums[i, MASS_B], sums[i, MOMENT_A], sums[i, MOMENT_B] = mass_a, mass_b, moment_a, moment_b
        sums[i, CROSS_A], sums[i, CROSS_B], sums[i, VARIATION] = cross_a, cross_b, variation
        sums[i, SHIFT_A] = np.float64(top_a) - np.float64(t_a)
        sums[i, SHIFT_B] = np.float64(top_b) - np.float64(t_b)


# Without leave to reorder or fuse: equal operands must give exactly 0, also within a sum that may be reordered.
@njit(nogil=True, cache=True)
def _minus(x, y):  # type: ignore[no-untyped-def]
    return x - y


# Inlined by numba, so that the loops are compiled once, with the leave of ``compare_rows`` to take sums in any order.
@njit(inline="always")
def _pair_sums(a, b, top_a, top_b):  # type: ignore[no-untyped-def]
    """MASS, MOMENT and CROSS of a piece of a row; leaves eˣ in a and eʸ in b."""
    mass_a, mass_b = float32(0), float32(0)
    moment_a, moment_b = float32(0), float32(0)
    cross_a, cross_b = float32(0), float32(0)
    for j in range(a.shape[0]):
        x, y = _minus(a[j], top_a), _minus(b[j], top_b)
        d = _minus(x, y)
        e, f = exp(x), exp(y)
        mass_a += e
        mass_b += f
        moment_a += x * e
        moment_b += y * f
        cross_a += d * e
        cross_b += d * f
        a[j] = e
        b[j] = f
    return mass_a, moment_a, mass_b, moment_b, cross_a, cross_b


@njit(inline="always")
def _variation(e, f, scale_a, scale_b):  # type: ignore[no-untyped-def]
    """Σ |e · scale_a − f · scale_b|. The products are written to e and f: a fused one would round on one side only."""
    for j in range(e.shape[0]):
        e[j] *= scale_a
        f[j] *= scale_b
    total = float32(0)
    for j in range(e.shape[0]):
        total += abs(e[j] - f[j])
    return total


@njit(inline="always")
def _counts(row, t):  # type: ignore[no-untyped-def]
    """How many entries of a row are greater than t, and equal to it."""
    above, same = int32(0), int32(0)
    for j in range(row.shape[0]):
        above += int32(row[j] > t)
        same += int32(row[j] == t)
    return above, same


@njit(nogil=True, cache=True)
def _order(value):  # type: ignore[no-untyped-def]
    """An int32 that is ordered as float32 numbers are; 0 and −0 are equal."""
    bits = np.float32(value + np.float32(0)).view(np.int32)
    return int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@njit(nogil=True, cache=True)
def _largest_of_blocks(row, block, out):  # type: ignore[no-untyped-def]
    """The largest ``_order`` of each ``block`` entries of a row."""
    for i in range(out.shape[0]):
        part, largest = row[i * block : (i + 1) * block], int32(-(2**31))
        for j in range(part.shape[0]):
            order = _order(part[j])
            largest = order if order > largest else largest
        out[i] = largest


@njit(nogil=True, cache=True)
def _bound(orders, number):  # type: ignore[no-untyped-def]
    """An int32 that at least ``number`` of some orders reach, and hardly more of them; by halving their range."""
    low, high = np.int64(orders.min()), np.int64(orders.max()) + 1
    while high - low > 1:
        middle = int32((low + high) // 2)
        reached = int32(0)
        for j in range(orders.shape[0]):
            reached += int32(orders[j] >= middle)
        if reached < number:
            high = middle
        else:
            low = middle
            if 8 * reached <= 9 * number:
                break
    return int32(low)


@njit(nogil=True, cache=True)
def _first_choices(row, room, best):  # type: ignore[no-untyped-def]
    """Write the ids of the largest of a row to best, falling, equal ones by their id; how many tie with the first.

    At least as many blocks as best has room for hold an entry that reaches the bound, so every one of the largest does,
    and only those blocks must be looked through. room: int64 [V].
    """
    number, columns = len(best), row.shape[0]
    block = max(1, columns // (8 * number))
    blocks = np.empty(-(-columns // block), np.int32)
    _largest_of_blocks(row, block, blocks)
    least = _bound(blocks, number)
    n = 0
    for i in range(len(blocks)):
        if blocks[i] >= least:
            for j in range(i * block, min((i + 1) * block, columns)):
                order = _order(row[j])
                if order >= least:
                    room[n] = (np.int64(order) << 32) | (LAST_ID - j)
                    n += 1
    room[:n].sort()
    tied = 0
    for i in range(number):
        best[i] = LAST_ID - (room[n - 1 - i] & 0xFFFFFFFF)
        tied += int(room[n - 1 - i] >> 32 == room[n - 1] >> 32)
    return tied


@njit(nogil=True, cache=True)
def _overlaps(best_a, best_b, places, ks, out):  # type: ignore[no-untyped-def]
    """Add to out [K] how many ids are among the first k of both. places: int64 [V] of −1, left so."""
    for j in range(best_b.shape[0]):
        places[best_b[j]] = j
    for i in range(best_a.shape[0]):
        j = places[best_a[i]]
        if j >= 0:
            for k in range(ks.shape[0]):
                out[k] += int32(max(i, j) < ks[k])
    for j in range(best_b.shape[0]):
        places[best_b[j]] = -1
