"""Implementation "torch": scores by tiles of the logits in plain torch, on any device, no row of logits ever whole.

Each tile is reduced to five numbers a token while it is in cache. The log-sum-exp and entropy of tiles are merged by
rescaling to the larger maximum.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F

from rbp_lab.scoring.linear import Linear, ieee_products, linear_for
from rbp_lab.scoring.threads import by_positions
from rbp_lab.scoring.tiling import each_tile, operand_dtype, target_logits, tile_for
from rbp_lab.scoring.types import LMHead, TokenScores

LOG2_E = 1 / math.log(2)
EMPTY = -1e4  # stands for −inf where it is multiplied by a mass of 0; exp of it is 0


def score_torch(
    hidden: torch.Tensor,
    head: LMHead,
    targets: torch.Tensor,
    *,
    budget: int | None = None,
    logits: str = "float32",
    delta: torch.Tensor | None = None,
    tile: tuple[int, int] | None = None,
) -> TokenScores:
    """Scores of ``targets`` [n] from ``hidden`` [n,D]; holds three float32 tiles, on a CPU for each thread.

    tile: (tokens, vocabulary rows), by default what ``budget`` allows. delta: δ [n] of the bracket. The other arguments
    are those of score_tokens.
    """
    operands = operand_dtype(hidden.dtype, logits)
    tile = tile or tile_for(hidden, head, operands, budget)
    linear = linear_for(hidden.device.type, operands)
    score = partial(_score, head=head, tile=tile, operands=operands, linear=linear)
    with ieee_products():
        if hidden.device.type == "cpu":
            return by_positions(score, hidden, targets, delta, tile[0])
        return score(hidden, targets, delta)


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
    count, device = len(targets), hidden.device
    n = -(-count // tile[0]) * tile[0]  # whole tiles: no operation's shape tells how many positions there are
    targets, delta = (None if values is None else F.pad(values, (0, n - count)) for values in (targets, delta))
    top = torch.full((n,), -torch.inf, device=device)
    mass = torch.zeros(n, device=device)  # Σ exp(z − top)
    moment = torch.zeros(n, device=device)  # Σ (z − top) exp(z − top)
    counts = torch.zeros(2 if delta is None else 4, n, dtype=torch.int32, device=device)
    buffer = torch.empty(tile[0] * min(tile[1], head.candidates), device=device)
    t_all = F.pad(target_logits(hidden, head, targets[:count], operands, linear), (0, n - count))

    def reduce(at: slice, first: int, z: torch.Tensor) -> None:
        rows, t = z.shape[1], t_all[at, None]
        own = targets[at, None] - first
        # The target leaves the counts by its index: where it is, its logit is put, which may differ from the tile's by
        # a rounding, so that it is never greater than itself and always equal once. The last line takes that away.
        column = own.clamp(0, rows - 1)
        z.scatter_(1, column, torch.where(own == column, t, z.gather(1, column)))
        scratch = buffer[: z.numel()].view_as(z)
        # Ones in a float buffer sum four times faster than booleans, and exactly: a tile has fewer than 2^24 rows.
        counts[0, at] += torch.gt(z, t, out=scratch).sum(-1).int()
        counts[1, at] += torch.eq(z, t, out=scratch).sum(-1).int()
        if delta is not None:
            counts[2, at] += torch.gt(z, t + delta[at, None], out=scratch).sum(-1).int()
            counts[3, at] += torch.ge(z, t - delta[at, None], out=scratch).sum(-1).int()
        new_top = torch.maximum(top[at], z.amax(-1))
        z -= new_top[:, None]
        # a power of two: torch's exp is several times slower where it is MKL's
        e = torch.mul(z, LOG2_E, out=scratch).exp2_()
        # the empty state (top = −inf) contributes nothing; exp(−inf) = 0 but 0 · −inf would be NaN
        shift = (top[at] - new_top).clamp_(min=EMPTY)
        scale = shift.exp()
        moment[at] = scale * (moment[at] + shift * mass[at]) + z.mul_(e).sum(-1)  # of the old mass, so first
        mass[at] = scale * mass[at] + e.sum(-1)
        top[at] = new_top

    each_tile(hidden, head, tile, operands, linear, reduce)
    counts[1::2] -= 1
    log_mass = mass.log()
    nll, entropy = top - t_all + log_mass, log_mass - moment / mass
    return TokenScores.of(nll[:count], entropy[:count], counts[:, :count].unbind())
