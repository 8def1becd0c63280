"""Scoring by tiles of the logits: every metric of a token without ever holding its row of logits.

The product hidden · weightᵀ is taken in tiles of a fixed number of tokens and vocabulary rows; each tile is reduced
to five numbers a token while it is in cache and then forgotten. Running log-sum-exp and entropy are merged by the
usual rescaling to the larger maximum. A tile's shape never depends on the batch (the last one is padded), so a
token's logits do not depend on which tokens it was batched with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rbp_lab.errors import LabError
from rbp_lab.scoring.types import LMHead, NonFiniteLogits, TokenScores

# Rows of hidden states multiplied by the rows of their own targets at a time; the diagonal holds the target's logits.
DIAGONAL = 64
# Buffers of a tile's size that live at once (logits, exponentials, comparison), in bytes per logit.
BYTES_PER_LOGIT = 10
DEFAULT_BUDGET = {"cpu": 8 << 20, "cuda": 512 << 20}


def tile_shape(device: str, vocab_rows: int, budget: int | None = None) -> tuple[int, int]:
    """(tokens, vocabulary rows) of a tile whose buffers stay under ``budget`` bytes.

    Independent of the batch. On a CPU a tile should fit the second-level cache; on a GPU it takes the whole
    vocabulary when it can. LabError when the budget does not hold 32 tokens by 256 rows.
    """
    device = device if device in DEFAULT_BUDGET else "cuda"
    cells = (DEFAULT_BUDGET[device] if budget is None else budget) // BYTES_PER_LOGIT
    if cells < 32 * 256:
        need = 32 * 256 * BYTES_PER_LOGIT
        raise LabError(f"the byte budget for logits must be at least {need} bytes; got {budget}")
    if device == "cpu":
        tokens = 256
        while tokens > 32 and tokens * 1024 > cells:
            tokens //= 2
        return tokens, max(256, min(2048, cells // tokens))
    rows = min(vocab_rows, cells // 32)
    return max(32, min(4096, cells // rows) // 32 * 32), rows


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
    """Scores of ``targets`` [n] from ``hidden`` [n,D]; extra memory is a few tiles of tile_tokens × tile_rows floats.

    logits: "float32" takes the product in float32 whatever the dtype of hidden states and weights; "model" takes it
    in their dtype and keeps its rounding, as the model's own forward would. Raises NonFiniteLogits.
    """
    tile_tokens, tile_rows = tile or tile_shape(hidden.device.type, head.candidates, budget)
    n = len(targets)
    compute = torch.float32 if logits == "float32" else hidden.dtype
    padded = -n % tile_tokens
    hidden = F.pad(hidden, (0, 0, 0, padded)).to(compute)
    targets = F.pad(targets, (0, padded))
    target_logit = _target_logits(hidden, head, targets, compute)
    total = n + padded
    top = hidden.new_full((total,), -torch.inf, dtype=torch.float32)
    mass = torch.zeros_like(top)  # Σ exp(z − top)
    moment = torch.zeros_like(top)  # Σ (z − top) exp(z − top)
    greater = torch.zeros(total, dtype=torch.int32, device=hidden.device)
    equal = torch.zeros_like(greater)
    buffer = top.new_empty(tile_tokens * min(tile_rows, head.candidates))
    for first in range(0, head.candidates, tile_rows):
        last = min(first + tile_rows, head.candidates)
        weight = head.weight[first:last].to(compute)
        bias = None if head.bias is None else head.bias[first:last].to(compute)
        for i in range(0, total, tile_tokens):
            rows = slice(i, i + tile_tokens)
            z = head.transform(F.linear(hidden[rows], weight, bias)).float()
            t = target_logit[rows, None]
            # The target's own column leaves the counts by index: its value in the tile may differ from ``t`` by a
            # rounding, and must be counted neither as greater nor as equal.
            own = targets[rows] - first
            inside = (own >= 0) & (own < last - first)
            z_own = z.gather(1, own.clamp(0, last - first - 1)[:, None])[:, 0]
            # Ones in a float buffer sum four times faster than booleans, and exactly: a tile has fewer than 2^24 rows.
            ones = buffer[: z.numel()].view_as(z)
            greater[rows] += torch.gt(z, t, out=ones).sum(-1).int() - (inside & (z_own > t[:, 0])).int()
            equal[rows] += torch.eq(z, t, out=ones).sum(-1).int() - (inside & (z_own == t[:, 0])).int()
            new_top = torch.maximum(top[rows], z.amax(-1))
            z -= new_top[:, None]
            e = torch.exp(z, out=ones)
            # the empty state (top = −inf) contributes nothing; exp(−inf) = 0 but 0 · −inf would be NaN
            shift = torch.where(top[rows] == -torch.inf, 0.0, top[rows] - new_top)
            scale = torch.where(top[rows] == -torch.inf, 0.0, shift.exp())
            moment[rows] = scale * (moment[rows] + shift * mass[rows]) + z.mul_(e).sum(-1)
            mass[rows] = scale * mass[rows] + e.sum(-1)
            top[rows] = new_top
    log_mass = mass.log()
    nll = (top - target_logit + log_mass)[:n]
    entropy = (log_mass - moment / mass)[:n]
    bad = ~(torch.isfinite(nll) & torch.isfinite(entropy))
    if bad.any():
        raise NonFiniteLogits(int(bad.nonzero()[0]))
    return TokenScores(nll, greater[:n], equal[:n], entropy.clamp_min_(0.0))


def _target_logits(hidden: torch.Tensor, head: LMHead, targets: torch.Tensor, compute: torch.dtype) -> torch.Tensor:
    """The logit of each target [n], as the diagonal of small products: rounded as the tiles round, not as a dot."""
    parts = []
    for i in range(0, len(targets), DIAGONAL):
        mine = targets[i : i + DIAGONAL]
        bias = None if head.bias is None else head.bias[mine].to(compute)
        parts.append(F.linear(hidden[i : i + DIAGONAL], head.weight[mine].to(compute), bias).diagonal())
    return head.transform(torch.cat(parts)).float()
