"""Sums over every way to hand out the labels of a group: two lattices, each walked once forwards and once backwards.

A group of m instances has the multiset of its labels, of which an instance gets one each. Legend: G groups, m
instances and as many slots (places of the multiset), K classes. For m up to 10 the lattice of subsets of the slots is
shared by all groups; above, each group has its own lattice of partial counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
import torch

from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.logspace import IMPOSSIBLE, log_sum
from rbp_lab.text import count

MOST_STATES = 20_000_000  # of the lattices of counts of one batch: some gigabytes


@dataclass(frozen=True)
class _Level:
    """Transitions from subsets of i slots to subsets of i + 1, as indices into the two lists of subsets.

    into [C(m,i+1), i+1] and into_slot: for each larger subset its predecessors and the slot each adds. out
    [C(m,i), m−i] and out_slot: for each smaller subset its successors. before, after [m, C(m−1,i)]: for each slot the
    pairs (subset without it, the same with it).
    """

    into: torch.Tensor
    into_slot: torch.Tensor
    out: torch.Tensor
    out_slot: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor


@cache
def _levels(m: int) -> tuple[_Level, ...]:
    subsets = [list(combinations(range(m), i)) for i in range(m + 1)]
    place = [{subset: j for j, subset in enumerate(level)} for level in subsets]
    levels = []
    for i in range(m):
        into = [[place[i][tuple(s for s in large if s != t)] for t in large] for large in subsets[i + 1]]
        rest = [[t for t in range(m) if t not in small] for small in subsets[i]]
        out = [
            [place[i + 1][tuple(sorted((*small, t)))] for t in free]
            for small, free in zip(subsets[i], rest, strict=True)
        ]
        pairs = [[(a, out[a][free.index(t)]) for a, free in enumerate(rest) if t in free] for t in range(m)]
        tensors = [into, [list(s) for s in subsets[i + 1]], out, rest,
                   [[a for a, _ in p] for p in pairs], [[b for _, b in p] for p in pairs]]  # fmt: skip
        levels.append(_Level(*(torch.tensor(t, dtype=torch.int64) for t in tensors)))
    return tuple(levels)


def slot_sums(logs: torch.Tensor) -> torch.Tensor:
    """Sums over the m! ways to match m instances with m slots.

    logs: [G, m, m], log-weight of instance i in slot t. Returns the logarithm of the sum of those products in which
    instance i has slot t, [G, m, m].
    """
    m = logs.shape[1]
    # The largest entry of each row is taken out: rounding then follows differences, not the size of the logarithms.
    top = logs.detach().amax(-1, keepdim=True)
    top = torch.where(torch.isfinite(top), top, 0.0)
    scaled = logs - top
    levels = _levels(m)
    forward = [torch.zeros_like(scaled[:, 0, :1])]
    for i, level in enumerate(levels[:-1]):
        forward.append(log_sum(forward[i][:, level.into] + scaled[:, i][:, level.into_slot]))
    backward = [torch.zeros_like(scaled[:, 0, :1])]
    for i in range(m - 1, -1, -1):
        level = levels[i]
        backward.insert(0, log_sum(backward[0][:, level.out] + scaled[:, i][:, level.out_slot]))
    joint = [
        scaled[:, i] + log_sum(forward[i][:, level.before] + backward[i + 1][:, level.after])
        for i, level in enumerate(levels)
    ]
    return torch.stack(joint, 1) + top.sum((1, 2))[:, None, None]


@dataclass(frozen=True)
class _Steps:
    """Transitions of the lattices of counts of a batch from level i, the counts of i labels, to level i + 1.

    states: of level i + 1. source, target: states, numbered within their levels. group, label: of each transition.
    """

    states: int
    source: torch.Tensor
    target: torch.Tensor
    group: torch.Tensor
    label: torch.Tensor


def _count_lattice(slots: np.ndarray) -> list[_Steps]:
    """slots: labels of each group in rising order, int64 [G, m]. Levels 0 and m have one state a group, in order."""
    m = slots.shape[1]
    parts: list[list[np.ndarray]] = []
    levels: list[np.ndarray] = []
    begin = 0
    for g, labels in enumerate(slots):
        distinct, counts = np.unique(labels, return_counts=True)
        shape = counts + 1
        size = int(np.prod(shape.astype(float)))
        if begin + size > MOST_STATES:
            raise LabError(
                f"observation.m={m} takes a lattice of more than {count(MOST_STATES)} states a batch; choose smaller "
                "groups or a smaller training.batch"
            )
        digits = np.stack(np.unravel_index(np.arange(size), shape))  # [d, S]
        strides = np.concatenate([np.cumprod(shape[::-1])[::-1][1:], [1]])
        which, state = np.nonzero(digits < counts[:, None])
        level = digits.sum(0).astype(np.uint16)  # 16 bits: sorted by radix
        parts.append([level[state], begin + state, begin + state + strides[which], np.full(len(state), g),
                      distinct[which]])  # fmt: skip
        levels.append(level)
        begin += size
    level_of_state = np.concatenate(levels)
    states = np.bincount(level_of_state, minlength=m + 1)
    number = np.empty(begin, np.int64)
    order = np.argsort(level_of_state, kind="stable")
    number[order] = np.arange(begin) - np.repeat(np.cumsum(states) - states, states)
    level, source, target, group, label = (np.concatenate(c) for c in zip(*parts, strict=True))
    order = np.argsort(level, kind="stable")
    ends = np.cumsum(np.bincount(level, minlength=m))[:-1]
    columns = [np.split(c[order], ends) for c in (number[source], number[target], group, label)]
    return [_Steps(int(states[i + 1]), *(torch.from_numpy(column[i]) for column in columns)) for i in range(m)]


def count_sums(logp: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Sums over the distinct ways to label m instances with a multiset, by partial counts; any m.

    logp: [G, m, K]. slots: labels of the multiset in rising order, int64 [G, m]. Returns the logarithm of the sum of
    those products in which instance i has label j, [G, m, K]. Works in float64 and returns the dtype of ``logp``.
    """
    lattice = _count_lattice(slots.cpu().numpy())
    groups, m, classes = logp.shape
    top = logp.detach().double().gather(2, slots[:, None, :].expand(-1, m, -1)).amax(-1, keepdim=True)
    top = torch.where(torch.isfinite(top), top, 0.0)
    scaled = logp.double() - top
    logs = [scaled[steps.group, i, steps.label] for i, steps in enumerate(lattice)]
    forward = [scaled.new_zeros(groups)]
    for steps, log in zip(lattice, logs, strict=True):
        forward.append(_scatter_log_sum(steps.states, steps.target, forward[-1][steps.source] + log))
    backward = [scaled.new_zeros(groups)]
    for i in range(m - 1, -1, -1):
        steps = lattice[i]
        backward.insert(0, _scatter_log_sum(len(forward[i]), steps.source, backward[0][steps.target] + logs[i]))
    joint = [
        _scatter_log_sum(
            groups * classes, steps.group * classes + steps.label,
            forward[i][steps.source] + logs[i] + backward[i + 1][steps.target],
        ).view(groups, classes)
        for i, steps in enumerate(lattice)
    ]  # fmt: skip
    return (torch.stack(joint, 1) + top.sum((1, 2))[:, None, None]).to(logp.dtype)


def _scatter_log_sum(size: int, index: torch.Tensor, logs: torch.Tensor) -> torch.Tensor:
    """The log-sum [size] of all ``logs`` sent to each index; −∞ where none is."""
    top = logs.new_full((size,), IMPOSSIBLE).scatter_reduce(0, index, logs.detach(), "amax")
    top = torch.where(torch.isfinite(top), top, 0.0)
    total = logs.new_zeros(size).index_add(0, index, (logs - top[index]).exp())
    nothing = total == 0
    return torch.where(nothing, IMPOSSIBLE, torch.where(nothing, 1.0, total).log() + top)
