"""Scoring by chunks of tokens: the library's product into one buffer, then one kernel that reads each logit once.

For hidden widths above about a thousand, where the product costs so much that the library's speed decides. Chunks have
one shape whatever the batch (the last is padded): the library picks its kernel by shape, and with it the rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from rbp_lab.errors import LabError
from rbp_lab.scoring.linear import ieee_products
from rbp_lab.scoring.triton_kernels import on_device, outputs, row_kernel
from rbp_lab.scoring.triton_tiles import ROW_BLOCK, ROW_WARPS
from rbp_lab.scoring.types import LMHead, TokenScores

DEFAULT_BUDGET = 512 << 20
# Enough for the product's full speed; more would only pad more when a batch is small.
MOST_TOKENS = 2048
# Rows of the buffer start on 128 bytes, also where the number of candidates is odd: the kernel loads four at a time.
ALIGN = 32


def score_triton_chunked(
    hidden: torch.Tensor,
    head: LMHead,
    targets: torch.Tensor,
    *,
    budget: int | None = None,
    logits: str = "float32",
    delta: torch.Tensor | None = None,
) -> TokenScores:
    """Scores of ``targets`` [n] from ``hidden`` [n,D], holding the logits of at most 2048 tokens at a time.

    logits: "float32" takes the product in float32 (16-bit operands as they are stored, float32 ones without TF32);
    "model" takes product, scale and soft-cap as the model's own forward does, in its dtype. delta: δ [n] of the
    bracket. budget: bytes of a chunk's logits, 512 MB by default. Where hidden and weight differ in dtype, or torch
    is older than 2.8, a float32 copy of the weights comes on top. LabError when the budget does not hold one token.
    Never waits for the device.
    """
    n, candidates = len(targets), head.candidates
    own_steps = logits == "float32"  # whether the kernel, not torch, applies what follows the product
    product = _float32_product if own_steps else _model_logits
    chunk = chunk_tokens(candidates, 4 if own_steps else hidden.element_size(), budget)
    targets, bias = targets.contiguous(), None if head.bias is None else head.bias.contiguous()
    values, counts = outputs(hidden, (n,), 2), outputs(targets, (n,), 2 if delta is None else 4)
    with on_device(hidden), ieee_products():
        for i, z in product(hidden, head, chunk):
            rows = slice(i, min(i + chunk, n))
            row_kernel[(rows.stop - i,)](
                z,
                bias if own_steps else None,
                targets[rows],
                None if delta is None else delta[rows],
                *(value[rows] for value in values),
                *[*(count[rows] for count in counts), None, None][:4],
                candidates,
                z.stride(0),
                float(head.scale) if own_steps and head.scale != 1.0 else None,
                float(head.softcap) if own_steps and head.softcap is not None else None,
                BLOCK=ROW_BLOCK,
                num_warps=ROW_WARPS,
                enable_fp_fusion=False,
            )
    return TokenScores.of(*values, counts)


def chunk_tokens(candidates: int, itemsize: int, budget: int | None = None) -> int:
    """Tokens of a chunk whose logits of ``itemsize`` bytes stay under ``budget`` bytes; independent of the batch."""
    row = -(-candidates // ALIGN) * ALIGN * itemsize
    tokens = min(MOST_TOKENS, (DEFAULT_BUDGET if budget is None else budget) // row)
    if tokens < 1:
        raise LabError(f"the byte budget of the chunked scores must be at least {row} bytes, one token; got {budget}")
    return tokens if tokens < 64 else tokens // 64 * 64


def _chunks(hidden: torch.Tensor, chunk: int) -> Iterator[tuple[int, torch.Tensor]]:
    """(first position, hidden states [chunk,D]) one after the other, the last padded with zeros."""
    for i in range(0, len(hidden), chunk):
        some = hidden[i : i + chunk]
        yield i, some if len(some) == chunk else F.pad(some, (0, 0, 0, chunk - len(some)))


def _float32_product(hidden: torch.Tensor, head: LMHead, chunk: int) -> Iterator[tuple[int, torch.Tensor]]:
    """(first position, hidden · weightᵀ [chunk, candidates] in float32), each in the buffer of the one before."""
    weight, candidates = head.weight[: head.candidates], head.candidates
    wide = {}
    if (
        weight.dtype == hidden.dtype != torch.float32
        and hidden.is_cuda
        and "dtype_out" in torch.ops.aten.mm.overloads()
    ):
        wide = {"out_dtype": torch.float32}
    else:
        weight = weight.float()
    padded = -(-candidates // ALIGN) * ALIGN
    z = hidden.new_empty((chunk, padded), dtype=torch.float32)[:, :candidates]
    for i, some in _chunks(hidden, chunk):
        yield i, torch.mm(some if wide else some.float(), weight.t(), **wide, out=z)


def _model_logits(hidden: torch.Tensor, head: LMHead, chunk: int) -> Iterator[tuple[int, torch.Tensor]]:
    """(first position, logits [chunk, candidates]) by the operations, and in the dtype, of a model's own forward."""
    weight = head.weight[: head.candidates].to(hidden.dtype)
    bias = None if head.bias is None else head.bias[: head.candidates].to(hidden.dtype)
    for i, some in _chunks(hidden, chunk):
        yield i, head.transform(F.linear(some, weight, bias))
