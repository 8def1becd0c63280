"""The product hidden · weightᵀ in tiles: which kernel computes it, in what shapes, and the target's logit by the same.

How torch's products round depends on their shape. A tile's never depends on the batch (the last one is padded), so a
token's logits do not depend on which tokens it was batched with. Legend: n positions, V candidate rows, D hidden width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from threading import Lock

import torch
import torch.nn.functional as F

from rbp_lab.errors import LabError
from rbp_lab.scoring.threads import apart
from rbp_lab.scoring.types import LMHead

Linear = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]

# Rows of hidden states multiplied by the rows of their own targets at a time; the diagonal holds the target's logits.
DIAGONAL = 64
# Buffers of a tile's size that live at once (logits, exponentials, comparison), in bytes per logit.
BYTES_PER_LOGIT = 10
DEFAULT_BUDGET = {"cpu": 8 << 20, "cuda": 512 << 20}
# Of a tile's buffers and its weights in another format than they are stored in, on a CPU, where each thread holds its
# own; 256 rows of weights wider than 4,992 take more.
CONVERTED_BYTES = 11 << 19
# A product must be faster than one before it in ``linear_for``'s order by this factor to be chosen: where they are
# close, noise would choose, and with it how logits round. Beside three busy processes on two cores the least of 11
# times of equals differed by up to a fifth at D = 32 and by 8 % at D = 128; of 5 times by up to 1.65.
CLEARLY, TIMES = 1.3, 11


def tile_shape(device: str, vocab_rows: int, budget: int | None = None) -> tuple[int, int]:
    """(tokens, vocabulary rows) of a tile whose buffers stay under ``budget`` bytes.

    Independent of the batch. On a CPU a tile is small enough to stay in cache; on a GPU it takes the whole
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


def tile_for(hidden: torch.Tensor, head: LMHead, operands: torch.dtype, budget: int | None) -> tuple[int, int]:
    """``tile_shape`` for these hidden states and weights: with fewer rows where a CPU must convert wide ones."""
    device = hidden.device.type
    tokens, rows = tile_shape(device, head.candidates, budget)
    if device == "cpu" and head.weight.dtype != operands:
        most = CONVERTED_BYTES // (tokens * BYTES_PER_LOGIT + hidden.shape[-1] * operands.itemsize) // 256 * 256
        rows = min(rows, max(256, most))
    return tokens, rows


def operand_dtype(hidden: torch.Tensor, logits: str) -> torch.dtype:
    """The dtype of the operands of torch's product hidden · weightᵀ for ``logits``, as in score_tokens."""
    return torch.float32 if logits == "float32" else hidden.dtype


def each_tile(
    hidden: torch.Tensor,
    head: LMHead,
    tile: tuple[int, int],
    operands: torch.dtype,
    linear: Linear,
    reduce: Callable[[slice, int, torch.Tensor], None],
    padded: bool = True,
) -> None:
    """Call ``reduce`` with positions, first vocabulary row and logits [positions, rows] float32 of every tile.

    The vocabulary is outermost. hidden: [n,D]. tile: as from ``tile_for``. operands: the dtype that hidden states and
    weights are multiplied in by ``linear``. ``reduce`` may overwrite the logits and must not keep them: the next tile
    takes their place, in the cache too. padded: whether ``linear`` needs whole tiles to round alike. Held at a time:
    one tile, and the rows of the weight it is made of where they must be converted.
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
            inside = len(x)
            if padded and inside < tokens:
                x = F.pad(x, (0, 0, 0, tokens - inside))
            reduce(slice(i, i + inside), first, head.transform(linear(x, weight, bias)).float()[:inside])


def target_logits(
    hidden: torch.Tensor,
    head: LMHead,
    targets: torch.Tensor,
    operands: torch.dtype,
    linear: Linear,
) -> torch.Tensor:
    """The logit of each target [n] float32, as the diagonal of small products: rounded as tiles round, not as a dot.

    The rest as in ``each_tile``.
    """
    parts = []
    for i in range(0, len(targets), DIAGONAL):
        mine = targets[i : i + DIAGONAL]
        short = DIAGONAL - len(mine)
        x = F.pad(hidden[i : i + DIAGONAL].to(operands), (0, 0, 0, short))
        mine = F.pad(mine, (0, short))
        bias = None if head.bias is None else head.bias[mine].to(operands)
        parts.append(linear(x, head.weight[mine].to(operands), bias).diagonal()[: DIAGONAL - short])
    return head.transform(torch.cat(parts)).float()


@contextmanager
def ieee_products() -> Iterator[None]:
    """While open, float32 products on a GPU are not shortened to TF32, whatever the model's body may do."""
    matmul = torch.backends.cuda.matmul
    # torch refuses to read the old switch once the new one has been set
    name, exact = ("fp32_precision", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", False)
    before = getattr(matmul, name)
    setattr(matmul, name, exact)
    try:
        yield
    finally:
        setattr(matmul, name, before)


def onednn_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x · weightᵀ + bias by oneDNN, which torch reaches through a private operator only."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def linear_for(device: str, operands: torch.dtype, width: int, own: Linear | None = None) -> Linear:
    """What multiplies tiles of this width D on one thread: ``own`` if given, oneDNN's product or torch's default.

    The first of them, in this order, that no other is clearly faster than, measured once for a width. On an AMD EPYC
    (Zen 4) a tile takes oneDNN 0.87 to 0.96 of the default's time, at D = 128, 768 and 896 alike. Only a CPU has a
    choice, and only in float32: other devices have one product, and in 16 bits the default is oneDNN's already.
    """
    if device != "cpu" or operands is not torch.float32:
        return F.linear
    return apart([partial(_one_at_a_time, width, own)])[0]


_measuring = Lock()


def _one_at_a_time(width: int, own: Linear | None) -> Linear:
    with _measuring:  # threads that measured side by side might choose differently
        return _first_of_the_fast(width, own)


@cache
def _first_of_the_fast(width: int, own: Linear | None) -> Linear:
    candidates = [own] if own else []
    candidates += [onednn_linear] if _has_onednn() else []
    candidates.append(F.linear)
    x, weight = (torch.ones(side, width) for side in (256, 2048))
    best = dict.fromkeys(candidates, float("inf"))
    for repetition in range(1 + TIMES):
        for linear in best:
            # Of this thread, as torch's operations are here: by the wall clock a busy machine chose otherwise one time
            # in ten at D = 128, and then rounded otherwise.
            began = time.thread_time()
            linear(x, weight, None)
            if repetition:  # the first prepares kernels
                best[linear] = min(best[linear], time.thread_time() - began)
    return next(linear for linear, took in best.items() if took <= CLEARLY * min(best.values()))


def _has_onednn() -> bool:
    try:
        if not torch.backends.mkldnn.is_available():
            return False
        return onednn_linear(torch.ones(2, 3), torch.ones(4, 3), torch.ones(4)).tolist() == [[4.0] * 4] * 2
    except (RuntimeError, AttributeError, TypeError):  # a torch that names or calls it otherwise
        return False
