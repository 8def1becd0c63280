"""First choices of rows of logits on a CPU, by code that numba compiles: found without sorting, and compared.

Which candidates are among the first k of a row follows from two numbers: a logit that they reach, and among those that
are equal to it the last id. Both are found by counting. Of a row with NaN all that is said here is open.
"""

from __future__ import annotations

import numpy as np
from numba import float32, int32, njit

GROUPS = 2048  # of the entries of a longer row, of each of which the largest is found first
CHUNK = 64  # entries, which are looked through one by one where any of them is wanted
LAST_ID = 2**31 - 1


@njit(inline="always")
def survey(row, t, largest, lanes):  # type: ignore[no-untyped-def]
    """How many entries of a row are greater than t, how many equal to it, and the largest one.

    Writes the largest of every group to largest [G]: group j holds the entries j, j + G, j + 2G, …; NaN is never the
    largest. lanes [CHUNK]: overwritten.
    """
    above, same = int32(0), int32(0)
    largest[:] = -np.inf
    for first in range(0, row.shape[0], largest.shape[0]):
        part = row[first : min(first + largest.shape[0], row.shape[0])]
        for j in range(part.shape[0]):
            largest[j] = part[j] if part[j] > largest[j] else largest[j]
            above += int32(part[j] > t)
            same += int32(part[j] == t)
    lanes[:] = -np.inf
    for first in range(0, largest.shape[0], CHUNK):  # in steps of a vector, which one after another would not be
        part = largest[first : min(first + CHUNK, largest.shape[0])]
        for j in range(part.shape[0]):
            lanes[j] = part[j] if part[j] > lanes[j] else lanes[j]
    return above, same, lanes.max()


@njit(nogil=True, cache=True)
def candidates(row, largest, top, most, ids):  # type: ignore[no-untyped-def]
    """Write to ids [V] the entries of a row that reach a bound, rising; how many they are, and the bound.

    The first ``most`` are among them, and hardly more, for so many groups hold such an entry. largest, top: of the
    groups and of the row, by ``survey``.
    """
    bound, n = _bound(largest, float32(-np.inf), top, _reaching(largest, top), most, most + most // 8)[0], 0
    for first in range(0, row.shape[0], CHUNK):
        part = row[first : min(first + CHUNK, row.shape[0])]
        reached = int32(0)
        for j in range(part.shape[0]):
            reached += int32(part[j] >= bound)
        if reached > 0:
            for j in range(part.shape[0]):
                ids[n] = first + j
                n += int(part[j] >= bound)
    return max(n, 1), bound  # of a row of NaN none reaches it


@njit(nogil=True, cache=True)
def first_choices(values, ids, ks, floor, top, least, last):  # type: ignore[no-untyped-def]
    """Find the first k of a row for each k of the rising ks [K] among entries that reach the floor: values [n], rising
    ids [n].

    An entry is among the first ks[i] when its value is above least[i], or equal to it and its id at most last[i]. As
    least[K] and last[K] the same is said of those that have the highest value, top, and are among the first ks[K − 1];
    returns how many they are.
    """
    number, tied = ks.shape[0], _reaching(values, top)
    high, above = top, tied
    for i in range(number):
        least[i], reached, over = _bound(values, floor, high, above, ks[i], ks[i])
        last[i] = LAST_ID if reached <= ks[i] else _nth_id(values, ids, least[i], ks[i] - over)
        if reached == ks[i]:
            high, above = least[i], reached
    least[number], last[number] = top, last[number - 1] if top == least[number - 1] else LAST_ID
    return min(tied, ks[number - 1])


@njit(nogil=True, cache=True)
def _bound(values, floor, high, above, number, most):  # type: ignore[no-untyped-def]
    """A number that ``number`` of some values reach, or all, and no more than ``most`` if that can be.

    Also how many reach it, and, where they are more than ``most``, how many values are above it: then it is the value
    of that rank itself. floor: what it is not below. above: how many reach ``high``, which is the largest value unless
    they are fewer than ``number``. The distance from it is doubled until enough are reached, then halved.
    """
    if above >= number:
        return high, above, int32(0)
    low, reached, step = high, above, float32(1)
    while reached < number and low > floor:
        high, above = low, reached
        low = max(floor, high - step)
        reached = _reaching(values, low)
        step *= float32(2)
    while reached > most:
        middle = float32(0.5) * low + float32(0.5) * high
        if not low < middle < high:
            break
        here = _reaching(values, middle)
        if here < number:
            high, above = middle, here
        else:
            low, reached = middle, here
    return low, reached, above


@njit(inline="always")
def _reaching(values, bound):  # type: ignore[no-untyped-def]
    """How many values are at least ``bound``."""
    reached = int32(0)
    for j in range(values.shape[0]):
        reached += int32(values[j] >= bound)
    return reached


@njit(nogil=True, cache=True)
def _nth_id(values, ids, value, n):  # type: ignore[no-untyped-def]
    """The n-th of the rising ids whose value is this one."""
    for j in range(values.shape[0]):
        n -= int(values[j] == value)
        if n == 0:
            return ids[j]
    return LAST_ID


@njit(nogil=True, cache=True)
def overlaps(a, b, ids, least_a, last_a, least_b, last_b, out):  # type: ignore[no-untyped-def]
    """Write to out [K] how many entries are among the first of both rows, by least and last [K] of ``first_choices``.

    a, b [n]: values of the same entries, those among the first of a at least.
    """
    for i in range(out.shape[0]):
        x, y, p, q = least_a[i], least_b[i], last_a[i], last_b[i]
        both = int32(0)
        if p == LAST_ID and q == LAST_ID:
            for j in range(a.shape[0]):
                both += int32((a[j] >= x) & (b[j] >= y))
        else:
            for j in range(a.shape[0]):
                inside = (a[j] > x) | ((a[j] == x) & (ids[j] <= p))
                both += int32(inside & ((b[j] > y) | ((b[j] == y) & (ids[j] <= q))))
        out[i] = both
