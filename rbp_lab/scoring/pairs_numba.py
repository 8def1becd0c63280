"""The comparison of ``scoring.pairs`` on a CPU: held rows of both models reduced by code that numba compiles.

Every sum treats a and b alike and in the same order, so that swapping them mirrors the results, and two equal models
differ by exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numba import float32, njit

from rbp_lab.scoring.choices_numba import CHUNK, GROUPS, candidates, first_choices, overlaps, survey
from rbp_lab.scoring.cpu_numba import FAST, exp
from rbp_lab.scoring.pairs import PairScores, choices
from rbp_lab.scoring.threads import run_per_thread
from rbp_lab.scoring.types import TokenScores

COLUMNS = 2048  # whose sums are taken in float32
# Columns of what is counted and summed by position.
GREATER_A, GREATER_B, EQUAL_A, EQUAL_B, AGREE, OVERLAP = range(6)
MASS_A, MASS_B, MOMENT_A, MOMENT_B, CROSS_A, CROSS_B, VARIATION, SHIFT_A, SHIFT_B = range(9)


def compare_held(z_a: torch.Tensor, z_b: torch.Tensor, targets: torch.Tensor, ks: Sequence[int]) -> PairScores:
    """``compare_logits`` of float32 logits [n,V]."""
    n, number = len(targets), choices(z_a, ks)
    thresholds, place = np.unique(np.minimum([*ks, number], number), return_inverse=True)
    sums, counts = np.zeros((n, 9)), np.zeros((n, OVERLAP + len(thresholds) + 1), np.int32)
    arrays = [z_a.numpy(), z_b.numpy(), targets.numpy(), sums, counts]
    share = max(1, -(-n // torch.get_num_threads()))
    slices = [slice(first, first + share) for first in range(0, n, share)]
    run_per_thread([partial(compare_rows, *(one[at] for one in arrays), thresholds) for at in slices])
    with np.errstate(invalid="ignore", divide="ignore"):  # not finite: said by the caller
        values = [torch.from_numpy(value.astype(np.float32)) for value in _values(sums.T)]
    ints = [torch.from_numpy(np.ascontiguousarray(column)) for column in counts[:, :OVERLAP].T]
    a = TokenScores.of(values[0], values[2], (ints[GREATER_A], ints[EQUAL_A]))
    b = TokenScores.of(values[1], values[3], (ints[GREATER_B], ints[EQUAL_B]))
    return PairScores(a, b, *values[4:], ints[AGREE], torch.from_numpy(counts[:, OVERLAP + place[:-1]]))


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
def compare_rows(z_a, z_b, targets, sums, counts, ks):  # type: ignore[no-untyped-def]
    """Fill sums [m,9] and counts [m,6+K] of each position from its rows of logits z_a and z_b [m,V].

    With x = z_a − the largest of z_a, and y so of z_b: MASS Σ eˣ, MOMENT Σ x eˣ, CROSS Σ (x − y) eˣ and Σ (x − y) eʸ,
    VARIATION Σ |p_a − p_b|, SHIFT the largest logit − the target's. ks [K]: of the first choices, rising.
    """
    columns, thresholds = z_a.shape[1], ks.shape[0] + 1
    groups = max(GROUPS, 8 * ks[thresholds - 2])
    short = columns <= groups  # then the groups say nothing, and a few are enough for the largest of all
    groups = 4 * CHUNK if short else groups
    largest_a, largest_b = np.empty(groups, np.float32), np.empty(groups, np.float32)
    lanes, no_floor = np.empty(CHUNK, np.float32), float32(-np.inf)
    least_a, least_b = np.empty(thresholds, np.float32), np.empty(thresholds, np.float32)
    last_a, last_b = np.empty(thresholds, np.int32), np.empty(thresholds, np.int32)
    ids = np.arange(columns).astype(np.int32)
    e, f = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for i in range(z_a.shape[0]):
        a, b, target = z_a[i], z_b[i], targets[i]
        t_a, t_b = a[target], b[target]
        above, same, top_a = survey(a, t_a, largest_a, lanes)
        counts[i, GREATER_A], counts[i, EQUAL_A] = above, same - 1
        above, same, top_b = survey(b, t_b, largest_b, lanes)
        counts[i, GREATER_B], counts[i, EQUAL_B] = above, same - 1
        if short:
            some_a, some_b, some, floor = a, b, ids, no_floor
            tied_b = first_choices(b, ids, ks, no_floor, top_b, least_b, last_b)
        else:
            n, floor = candidates(b, largest_b, top_b, ks[thresholds - 2], ids)
            tied_b = first_choices(b[ids[:n]], ids[:n], ks, floor, top_b, least_b, last_b)
            n, floor = candidates(a, largest_a, top_a, ks[thresholds - 2], ids)
            some_a, some_b, some = a[ids[:n]], b[ids[:n]], ids[:n]
        tied_a = first_choices(some_a, some, ks, floor, top_a, least_a, last_a)
        found = counts[i, OVERLAP:]
        overlaps(some_a, some_b, some, least_a, last_a, least_b, last_b, found)
        tied = found[thresholds - 1]
        counts[i, AGREE] = int(tied == tied_a and tied == tied_b)
        mass_a, moment_a, mass_b, moment_b, cross_a, cross_b = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for first in range(0, columns, COLUMNS):
            last = min(first + COLUMNS, columns)
            s, q, u, v, c, d = _pair_sums(a[first:last], b[first:last], top_a, top_b, e[first:last], f[first:last])
            mass_a += s
            moment_a += q
            mass_b += u
            moment_b += v
            cross_a += c
            cross_b += d
        variation, scale_a, scale_b = 0.0, np.float32(1 / mass_a), np.float32(1 / mass_b)
        for first in range(0, columns, COLUMNS):
            last = min(first + COLUMNS, columns)
            variation += _variation(e[first:last], f[first:last], scale_a, scale_b)
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
def _pair_sums(a, b, top_a, top_b, out_a, out_b):  # type: ignore[no-untyped-def]
    """MASS, MOMENT and CROSS of a piece of a row; writes eˣ to out_a and eʸ to out_b."""
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
        out_a[j] = e
        out_b[j] = f
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
