"""Per-token scores from hidden states and the output layer, behind one function."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch

from rbp_lab.config.schemas import IMPLEMENTATIONS, LOGITS
from rbp_lab.errors import LabError
from rbp_lab.scoring.rounding import rounding_bound
from rbp_lab.scoring.types import LMHead, NonFiniteLogits, TokenScores, check_finite

__all__ = [
    "IMPLEMENTATIONS", "LOGITS", "LMHead", "NonFiniteLogits", "TokenScores", "check_finite", "choose", "missing",
    "score_tokens",
]  # fmt: skip

# Up to this hidden width a fused product and reduction should beat the library's product followed by a reading kernel:
# expected from the traffic that is saved, not yet measured.
FUSED_WIDTH = 1024


@cache
def missing(impl: str, device: str) -> str:
    """Why an implementation cannot run on a device type ("cpu", "cuda"), as the rest of a sentence; "" when it can."""
    if impl == "native":
        if device != "cpu":
            return "runs on the CPU only"
        return "" if find_spec("numba") else "needs the package numba: pip install 'rbp-lab[fast]'"
    if impl in ("chunked", "fused"):
        if not find_spec("triton"):
            return "needs the package triton, which comes with CUDA builds of torch"
        if device != "cuda" and not import_module("rbp_lab.scoring.kernels").INTERPRETED:
            return "runs on a GPU only"
    return ""


def choose(device: str, width: int, bits: int = 32) -> str:
    """What "auto" means for a device type, a hidden width and the bits of its states: what should be fastest.

    Float32 products in IEEE arithmetic run outside the tensor cores, where the library's are hard to match.
    """
    if device == "cpu":
        return "tiled" if missing("native", device) else "native"
    if missing("chunked", device):
        return "tiled"
    return "fused" if width <= FUSED_WIDTH and bits == 16 else "chunked"


def score_tokens(
    hidden: torch.Tensor,
    head: LMHead,
    targets: torch.Tensor,
    impl: str = "auto",
    budget: int | None = None,
    logits: str = "float32",
    bracket: bool = False,
    check: bool = True,
) -> TokenScores:
    """Negative log-likelihood, rank counts and entropy of ``targets`` (any shape) given ``hidden`` (that shape + D).

    impl: "reference" (float64, materialises all logits), "tiled" (torch, any device), "native" (CPU, numba),
    "chunked" and "fused" (GPU, Triton), or "auto" for the fastest of them here. budget: bytes that logits and their
    temporaries may take, None for the device's default. logits: "float32" takes the head's product in float32
    whatever the dtype of hidden states and weights; "model" rounds as the model's own forward does. bracket: also the
    certified bracket of num_greater (float32 logits only). check: False leaves it to the caller to know that the
    targets are candidates, and to call check_finite on the scores, so that a GPU need not be waited for here. Raises
    NonFiniteLogits (with the flattened position) on NaN or infinite logits, LabError on unknown or unavailable
    options, ValueError when a target is not a candidate.
    """
    if impl not in IMPLEMENTATIONS:
        raise LabError(f"impl must be one of {', '.join(IMPLEMENTATIONS)}; got {impl!r}")
    if logits not in LOGITS:
        raise LabError(f"logits must be one of {', '.join(LOGITS)}; got {logits!r}")
    if bracket and logits != "float32":
        raise LabError("a certified bracket is of float32 logits; logits='model' rounds more than it bounds")
    device = hidden.device.type
    impl = choose(device, hidden.shape[-1], hidden.element_size() * 8) if impl == "auto" else impl
    if why := missing(impl, device):
        raise LabError(f"the implementation {impl!r} of the scores {why}")
    flat_hidden, flat = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    if not flat.numel():
        nothing = torch.zeros(targets.shape, device=hidden.device)
        counts = nothing.int()
        return TokenScores(nothing, counts, counts, nothing, *((counts, counts) if bracket else ()))
    if check and not 0 <= int(flat.min()) <= int(flat.max()) < head.candidates:
        raise ValueError(f"targets must lie in 0…{head.candidates - 1}; got {int(flat.min())}…{int(flat.max())}")
    with torch.inference_mode():
        delta = rounding_bound(flat_hidden, head) if bracket else None
        # each lives in the module of its name and is imported when it is first used
        score = getattr(import_module(f"rbp_lab.scoring.{impl}"), f"score_{impl}")
        scores = score(flat_hidden, head, flat, budget=budget, logits=logits, delta=delta)
    if check:
        check_finite(scores)
    return scores if targets.ndim == 1 else scores.map(lambda values: values.reshape(targets.shape))
