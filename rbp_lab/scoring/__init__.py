"""Per-token scores from hidden states and the output layer, behind one function."""

from __future__ import annotations

import torch

from rbp_lab.errors import LabError
from rbp_lab.scoring.reference import score_reference
from rbp_lab.scoring.tiled import score_tiled
from rbp_lab.scoring.types import LMHead, NonFiniteLogits, TokenScores

__all__ = ["IMPLEMENTATIONS", "LOGITS", "LMHead", "NonFiniteLogits", "TokenScores", "score_tokens", "tile_shape"]

IMPLEMENTATIONS = ("auto", "tiled", "reference")
LOGITS = ("float32", "model")
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


def score_tokens(
    hidden: torch.Tensor,
    head: LMHead,
    targets: torch.Tensor,
    impl: str = "auto",
    budget: int | None = None,
    logits: str = "float32",
) -> TokenScores:
    """Negative log-likelihood, rank counts and entropy of ``targets`` (any shape) given ``hidden`` (that shape + D).

    impl: "tiled" (the default of "auto") or "reference" (float64, materialises all logits). budget: bytes that
    logits and their temporaries may take, None for the device's default. logits: "float32" or "model", the
    precision of the head's product. Raises NonFiniteLogits (with the flattened position) on NaN or infinite logits,
    LabError on unknown options, ValueError when a target is not a candidate.
    """
    if impl not in IMPLEMENTATIONS:
        raise LabError(f"impl must be one of {', '.join(IMPLEMENTATIONS)}; got {impl!r}")
    if logits not in LOGITS:
        raise LabError(f"logits must be one of {', '.join(LOGITS)}; got {logits!r}")
    flat_hidden, flat = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    if not flat.numel():
        nothing = torch.zeros(targets.shape, device=hidden.device)
        return TokenScores(nothing, nothing.int(), nothing.int(), nothing)
    if not 0 <= int(flat.min()) <= int(flat.max()) < head.candidates:
        raise ValueError(f"targets must lie in 0…{head.candidates - 1}; got {int(flat.min())}…{int(flat.max())}")
    with torch.inference_mode():
        if impl == "reference":
            scores = score_reference(flat_hidden, head, flat)
        else:
            tokens, rows = tile_shape(hidden.device.type, head.candidates, budget)
            scores = score_tiled(flat_hidden, head, flat, tokens, rows, logits)
    if targets.ndim == 1:
        return scores
    return TokenScores(*(getattr(scores, f).reshape(targets.shape) for f in TokenScores.__dataclass_fields__))
