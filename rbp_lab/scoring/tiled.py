"""Scoring by tiles of the logits in plain torch, on any device, without ever holding a row of logits.

Each tile is reduced to five numbers a token while it is in cache and then forgotten. Running log-sum-exp and entropy
are merged by the usual rescaling to the larger maximum.
"""

from __future__ import annotations

import math

import torch

from rbp_lab.scoring.product import ieee_products, target_logits, tile_shape, tiles
from rbp_lab.scoring.threads import by_positions
from rbp_lab.scoring.types import LMHead, TokenScores

LOG2_E = 1 / math.log(2)


def score_tiled(
    hidden: torch.Tensor,
    head: LMHead,
    targets: torch.Tensor,
    *,
    budget: int | None = None,
    logits: str = "float32",
    delta: torch.Tensor | None = None,
    tile: tuple[int, int] | None = None,
) -> TokenScores:
    """Scores of ``targets`` [n] from ``hidden`` [n,D]; extra memory is three tiles of float32, for each
    thread on a CPU.

    tile: (tokens, vocabulary rows), by default what ``budget`` allows. delta: δ [n] of the bracket. The rest as in
    score_tokens.
    """
    tile = tile or tile_shape(hidden.device.type, head.candidates, budget)

    def work(rows: slice) -> TokenScores:
        return _score(hidden[rows], head, targets[rows], None if delta is None else delta[rows], tile, logits)

    with ieee_products():
        if hidden.device.type == "cpu":
            return by_positions(len(targets), tile[0], work)
        return work(slice(None))


def _score(
    hidden: torch.Tensor,
    head: LMHead,
    targets: torch.Tensor,
    delta: torch.Tensor | None,
    tile: tuple[int, int],
    logits: str,
) -> TokenScores:
    n, device = len(targets), hidden.device
    top = torch.full((n,), -torch.inf, device=device)
    mass = torch.zeros(n, device=device)  # Σ exp(z − top)
    moment = torch.zeros(n, device=device)  # Σ (z − top) exp(z − top)
    counts = torch.zeros(2 if delta is None else 4, n, dtype=torch.int32, device=device)
    buffer = torch.empty(tile[0] * min(tile[1], head.candidates), device=device)
    t_all = target_logits(hidden, head, targets, logits)
    for at, first, z in tiles(hidden, head, tile, logits):
        t = t_all[at, None]
        own = targets[at, None] - first
        scratch = buffer[: z.numel()].view_as(z)
        counts[0, at] += _count(torch.gt, z, t, own, scratch)
        counts[1, at] += _count(torch.eq, z, t, own, scratch)
        if delta is not None:
            counts[2, at] += _count(torch.gt, z, t + delta[at, None], own, scratch)
            counts[3, at] += _count(torch.ge, z, t - delta[at, None], own, scratch)
        new_top = torch.maximum(top[at], z.amax(-1))
        z -= new_top[:, None]
        # a power of two: torch's exp is several times slower where it is MKL's
        e = torch.mul(z, LOG2_E, out=scratch).exp2_()
        # the empty state (top = −inf) contributes nothing; exp(−inf) = 0 but 0 · −inf would be NaN
        empty = top[at] == -torch.inf
        shift = torch.where(empty, 0.0, top[at] - new_top)
        scale = torch.where(empty, 0.0, shift.exp())
        moment[at] = scale * (moment[at] + shift * mass[at]) + z.mul_(e).sum(-1)  # of the old mass, so first
        mass[at] = scale * mass[at] + e.sum(-1)
        top[at] = new_top
    log_mass = mass.log()
    nll = top - t_all + log_mass
    entropy = log_mass - moment / mass
    return TokenScores.of(nll, entropy, counts.unbind())


def _count(compare, z: torch.Tensor, t: torch.Tensor, own: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """How many logits of each row of z [m,R] compare with t [m,1], the column ``own`` [m,1] left out (when inside).

    The target's own column leaves by its index: its value in the tile may differ from t by a rounding, and must be
    counted neither as greater nor as equal.
    """
    # Ones in a float buffer sum four times faster than booleans, and exactly: a tile has fewer than 2^24 rows.
    ones = compare(z, t, out=scratch)
    mine = ones.gather(1, own.clamp(0, z.shape[1] - 1)) * ((own >= 0) & (own < z.shape[1]))
    return (ones.sum(-1) - mine[:, 0]).int()
