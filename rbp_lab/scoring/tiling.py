"""Tiles of logits: in what shapes hidden · weightᵀ is computed, and the target's logit by the same product.

How torch's products round depends on their shape, and so does what its functions of single numbers give: the last few
of an array that do not fill a vector take another way. A tile's shape never depends on the batch (the last tile is
padded), so a token's logits do not depend on which tokens it was batched with. Legend: n positions, V candidate rows,
D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from rbp_lab.errors import LabError
from rbp_lab.scoring.linear import Linear
from rbp_lab.scoring.types import LMHead

# Rows of hidden states multiplied by the rows of their own targets at a time; the diagonal holds the target's logits.
DIAGONAL = 64
# Buffers of a tile's size that live at once (logits, exponentials, comparison), in bytes per logit.
BYTES_PER_LOGIT = 10
DEFAULT_BUDGET = {"cpu": 8 << 20, "cuda": 512 << 20}
# Bytes of a tile's buffers and of its weights converted to another dtype, on a CPU, where each thread holds its own.
# 256 rows of very wide weights may take more.
CONVERTED_BYTES = 11 << 19


def tile_shape(device: str, vocab_rows: int, budget: int | None = None) -> tuple[int, int]:
    """(tokens, vocabulary rows) of a tile whose buffers stay under ``budget`` bytes; independent of the batch.

    On a CPU a tile is small enough to stay in cache; on a GPU it takes the whole vocabulary when it can. LabError when
    the budget does not hold 32 tokens by 256 rows.
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


def tile_for(hidden: torch.Tensor, head: LMHead, operands: torch.dtype, budget: int | None) -> tuple[int, int]:
    """``tile_shape`` for these hidden states and weights; with fewer rows where a CPU must convert the weights."""
    device = hidden.device.type
    tokens, rows = tile_shape(device, head.candidates, budget)
    if device == "cpu" and head.weight.dtype != operands:
        most = CONVERTED_BYTES // (tokens * BYTES_PER_LOGIT + hidden.shape[-1] * operands.itemsize) // 256 * 256
        rows = min(rows, max(256, most))
    return tokens, rows


def operand_dtype(hidden: torch.dtype, logits: str) -> torch.dtype:
    """The dtype in which hidden states of a dtype and weights are multiplied; logits: as in score_tokens."""
    return torch.float32 if logits == "float32" else hidden


def each_tile(
    hidden: torch.Tensor,
    head: LMHead,
    tile: tuple[int, int],
    operands: torch.dtype,
    linear: Linear,
    reduce: Callable[[slice, int, torch.Tensor], None],
) -> None:
    """Call ``reduce`` with the positions, first vocabulary row and logits [tokens, rows] float32 of every tile.

    The last positions may go beyond n: a tile is always whole. The vocabulary is the outer loop. hidden: [n,D]. tile:
    as from ``tile_for``. operands: the dtype in which ``linear`` multiplies. ``reduce`` may overwrite the logits but
    must not keep them: the next tile takes their place. Holds one tile, and its rows of the weight where they must be
    converted.
    """
    tokens, rows = tile
    converted = None
    if head.weight.dtype != operands:
        converted = head.weight.new_empty((min(rows, head.candidates), hidden.shape[-1]), dtype=operands)
    for first in range(0, head.candidates, rows):
        last = min(first + rows, head.candidates)
        weight = head.weight[first:last]
        if converted is not None:
            weight = converted[: last - first].copy_(weight)
        bias = None if head.bias is None else head.bias[first:last].to(operands)
        for i in range(0, len(hidden), tokens):
            x = hidden[i : i + tokens].to(operands)
            if len(x) < tokens:
                x = F.pad(x, (0, 0, 0, tokens - len(x)))
            reduce(slice(i, i + tokens), first, head.transform(linear(x, weight, bias)).float())


def target_logits(
    hidden: torch.Tensor,
    head: LMHead,
    targets: torch.Tensor,
    operands: torch.dtype,
    linear: Linear,
) -> torch.Tensor:
    """The logit of each target [n] float32, by the product that ``each_tile`` uses: the diagonal of small products.

    A dot product of its own would round otherwise than the tile, and the target would seem above or below its ties.
    """
    parts = []
    for i in range(0, len(targets), DIAGONAL):
        mine = targets[i : i + DIAGONAL]
        short = DIAGONAL - len(mine)
        x = F.pad(hidden[i : i + DIAGONAL].to(operands), (0, 0, 0, short))
        mine = F.pad(mine, (0, short))
        bias = None if head.bias is None else head.bias[mine].to(operands)
        parts.append(linear(x, head.weight[mine].to(operands), bias).diagonal())
    return head.transform(torch.cat(parts)).float()[: len(targets)]  # cut last, as the tiles are
