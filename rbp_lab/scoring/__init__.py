"""Per-token scores from hidden states and the output layer, behind one function with several implementations.

All implementations agree to rounding. Which one "auto" takes follows from what is installed, never from a measurement.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

import torch

from rbp_lab.config.schemas import LOGITS
from rbp_lab.errors import LabError, first_line, note_once, out_of_memory
from rbp_lab.scoring.error_bounds import rounding_bound
from rbp_lab.scoring.linear import product_for
from rbp_lab.scoring.tiling import operand_dtype
from rbp_lab.scoring.types import LMHead, NonFiniteLogits, TokenScores, check_finite

__all__ = [
    "IMPLEMENTATIONS", "LOGITS", "LMHead", "NonFiniteLogits", "TokenScores", "check_finite", "choose", "missing",
    "product_of", "score_tokens",
]  # fmt: skip

# Name → the module, imported at first use, and the function of it that scores.
IMPLEMENTATIONS = {
    "reference": ("reference", "score_reference"),
    "torch": ("torch_tiles", "score_torch"),
    "numba": ("cpu_numba", "score_numba"),
    "triton-chunked": ("triton_chunked", "score_triton_chunked"),
    "triton-fused": ("triton_fused", "score_triton_fused"),
}
# Up to this hidden width a fused product and reduction should beat the library's product followed by a reading kernel:
# expected from the traffic that is saved, not yet measured.
FUSED_WIDTH = 1024


@cache
def missing(impl: str, device: str) -> str:
    """Why an implementation cannot run on a device type ("cpu", "cuda"), as the rest of a sentence; "" when it can."""
    if impl == "numba":
        if device != "cpu":
            return "runs on the CPU only"
        return "" if _imports("numba") else "needs the package numba: pip install 'rbp-lab[fast]'"
    if impl.startswith("triton"):
        if not _imports("triton"):
            return "needs the package triton, which comes with CUDA builds of torch"
        if device != "cuda" and not import_module("rbp_lab.scoring.triton_kernels").INTERPRETED:
            return "runs on a GPU only"
    return ""


def _imports(package: str) -> bool:
    """Whether an optional package is there and works: numba, for one, refuses versions of numpy it does not know.

    One that is there and does not work is noted.
    """
    try:
        import_module(package)
    except Exception as error:
        if not (isinstance(error, ModuleNotFoundError) and error.name == package):
            why = "memory is not enough" if out_of_memory(error) else "it is installed and does not work"
            note_once(f"{package} cannot be used, {why} ({first_line(error)}); without it torch scores, more slowly")
        return False
    return True


def choose(device: str, width: int, bits: int = 32) -> str:
    """What "auto" means for a device type, a hidden width and the bits of its states: what should be fastest.

    Float32 products in IEEE arithmetic run outside the tensor cores, where the library's are hard to match.
    """
    if device == "cpu":
        return "torch" if missing("numba", device) else "numba"
    if missing("triton-chunked", device):
        return "torch"
    return "triton-fused" if width <= FUSED_WIDTH and bits == 16 else "triton-chunked"


def product_of(impl: str, device: str, dtype: torch.dtype, logits: str = "float32") -> str:
    """Whose product computes the logits of an implementation: "onednn", "torch" or "triton".

    dtype: of the hidden states. device: its type. logits: as in score_tokens.
    """
    if impl in ("torch", "numba"):
        return product_for(device, operand_dtype(dtype, logits))
    return "triton" if impl == "triton-fused" else "torch"


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

    impl: a name of IMPLEMENTATIONS, or "auto" for what should be fastest here: "reference" (float64, holds all logits),
    "torch" (any device), "numba" (CPU), "triton-chunked" and "triton-fused" (GPU). budget: bytes that logits and their
    temporaries may take, None for the device's default. logits: "float32" computes the head's product in float32
    whatever the dtype of hidden states and weights; "model" rounds as the model's own forward does. bracket: also the
    certified bracket of num_greater (float32 logits only). check: False leaves it to the caller to know that the
    targets are candidates, and to call check_finite on the scores, so that a GPU need not be waited for here.

    Raises NonFiniteLogits (with the flattened position) on NaN or infinite logits, LabError on unknown or unavailable
    options, ValueError when a target is not a candidate.
    """
    if impl != "auto" and impl not in IMPLEMENTATIONS:
        raise LabError(f"impl must be one of auto, {', '.join(IMPLEMENTATIONS)}; got {impl!r}")
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
        module, function = IMPLEMENTATIONS[impl]
        score = getattr(import_module(f"rbp_lab.scoring.{module}"), function)
        scores = score(flat_hidden, head, flat, budget=budget, logits=logits, delta=delta)
    if check:
        check_finite(scores)
    return scores if targets.ndim == 1 else scores.map(lambda values: values.reshape(targets.shape))
