"""Scoring by one kernel that multiplies and reduces: no logit is ever written to memory.

For hidden widths up to about a thousand, where writing and reading the logits would cost more than their product. The
vocabulary is cut into a fixed number of splits, which work at the same time and are merged in order; how it is cut
does not depend on the batch, nor do a token's bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rbp_lab.errors import LabError
from rbp_lab.scoring.triton_kernels import fused_kernel, merge_kernel, on_device, outputs
from rbp_lab.scoring.triton_tiles import MERGE_BLOCK, MERGE_WARPS, Tile, fused_tile
from rbp_lab.scoring.types import LMHead, TokenScores

DEFAULT_BUDGET = 64 << 20
# Enough programs for a large GPU from 2,000 tokens on; each split costs one more tile, that of the targets.
SPLITS = 8
DTYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


def score_triton_fused(
    hidden: torch.Tensor,
    head: LMHead,
    targets: torch.Tensor,
    *,
    budget: int | None = None,
    logits: str = "float32",
    delta: torch.Tensor | None = None,
    tile: Tile | None = None,
    splits: int = SPLITS,
) -> TokenScores:
    """Scores of ``targets`` [n] from ``hidden`` [n,D], without logits in memory.

    logits: "float32" multiplies the operands as they are stored (float32 ones without TF32) and keeps float32; "model"
    rounds to the dtype of hidden after the product with its bias, after the scale and after each step of the soft-cap.
    delta: δ [n] of the bracket. budget: bytes of the partial states, 64 MB by default. tile and splits: for tests and
    tuning. LabError when the budget is too small or the dtype of hidden is not float32, bfloat16 or float16. Never
    waits for the device.
    """
    if hidden.dtype not in DTYPES:
        raise LabError(
            f"the implementation 'fused' takes float32, bfloat16 or float16 hidden states; got {hidden.dtype}"
        )
    operand, rounding = _dtypes(hidden, head, logits)
    n, candidates = len(targets), head.candidates
    tile = tile or fused_tile(32 if operand == torch.float32 else 16, hidden.shape[1], candidates)
    per_split = triton.cdiv(triton.cdiv(candidates, tile.rows), splits)
    splits = triton.cdiv(triton.cdiv(candidates, tile.rows), per_split)
    step = _tokens(splits, tile.tokens, DEFAULT_BUDGET if budget is None else budget)
    targets, bias = targets.contiguous(), None if head.bias is None else head.bias.contiguous()
    values, counts = outputs(hidden, (n,), 2), outputs(targets, (n,), 2 if delta is None else 4)
    with on_device(hidden):
        for i in range(0, n, step):
            at = slice(i, min(i + step, n))
            some, size = hidden[at], at.stop - i
            own, *state = outputs(hidden, (size,), 1) + outputs(hidden, (splits, size), 3)
            parts = [*outputs(targets, (splits, size), len(counts)), None, None][:4]
            fused_kernel[(triton.cdiv(size, tile.tokens), splits)](
                some,
                head.weight,
                bias,
                targets[at],
                None if delta is None else delta[at],
                own,
                *state,
                *parts,
                size,
                candidates,
                hidden.shape[1],
                None if head.scale == 1.0 else float(head.scale),
                None if head.softcap is None else float(head.softcap),
                per_split,
                *some.stride(),
                *head.weight.stride(),
                TOKENS=tile.tokens,
                ROWS=tile.rows,
                DEPTH=tile.depth,
                OPERAND=DTYPES[operand],
                ROUND=DTYPES[rounding],
                num_warps=tile.warps,
                num_stages=tile.stages,
                enable_fp_fusion=False,
            )
            merge_kernel[(triton.cdiv(size, MERGE_BLOCK),)](
                own,
                *state,
                *parts,
                *(value[at] for value in values),
                *[*(count[at] for count in counts), None, None][:4],
                size,
                splits,
                TOKENS=MERGE_BLOCK,
                num_warps=MERGE_WARPS,
                enable_fp_fusion=False,
            )
    return TokenScores.of(*values, counts)


def _dtypes(hidden: torch.Tensor, head: LMHead, logits: str) -> tuple[torch.dtype, torch.dtype]:
    """(dtype of the product's operands, dtype that the logits are rounded to)."""
    if logits == "model":
        return hidden.dtype, hidden.dtype
    return hidden.dtype if hidden.dtype == head.weight.dtype else torch.float32, torch.float32


def _tokens(splits: int, block: int, budget: int) -> int:
    """Tokens of a launch whose partial states stay under ``budget`` bytes, a multiple of ``block``."""
    each = (splits * 7 + 1) * 4
    if budget < each * block:
        raise LabError(f"the byte budget of the fused scores must be at least {each * block} bytes; got {budget}")
    return budget // each // block * block
