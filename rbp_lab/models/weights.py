"""What a loaded model's weights are like, and what its products make of them."""

from __future__ import annotations

import torch
from torch import nn

_FP32_EPS = torch.finfo(torch.float32).eps
_PRODUCT_EPS = {"tf32": 2.0**-10, "bf16": torch.finfo(torch.bfloat16).eps}  # TF32 keeps 10 bits after the point


def coarsest_eps(model: nn.Module) -> float:
    """The machine epsilon of the coarsest numbers in a forward pass: its weights, or what products round float32 to."""
    kinds = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    convolves = any(isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for module in model.modules())
    return max(product_eps(convolves) if torch.float32 in kinds else 0.0, *(torch.finfo(kind).eps for kind in kinds))


def product_eps(convolves: bool = False) -> float:
    """The machine epsilon to which torch may round the factors of a float32 product under its present settings.

    The matmul precision "high", or allow_tf32, allows TF32; "medium" allows bfloat16. convolves: whether there are
    convolutions, for which cuDNN has a setting of its own that allows TF32 unless it is changed.
    """
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    backends += [torch.backends.cudnn.conv] if convolves and torch.cuda.is_available() else []
    return max(_PRODUCT_EPS.get(backend.fp32_precision, _FP32_EPS) for backend in backends)


def not_finite(model: nn.Module) -> str | None:
    """Which weight is NaN or infinite and what to do, as the rest of a sentence; None when all are finite."""
    for name, weight in model.named_parameters():
        if weight.is_meta or not weight.is_floating_point() or bool(torch.isfinite(weight).all()):
            continue
        if bool(torch.isnan(weight).any()):
            return f"its weight {name} holds NaN, so the checkpoint is damaged; download or save it again"
        kind = str(weight.dtype).removeprefix("torch.")
        return f"its weight {name} is infinite in {kind}: beyond that format's range, or so in the checkpoint" + (
            "; try precision=bf16 or fp32" if weight.dtype is torch.float16 else "; download or save it again"
        )
    return None


def why_not_finite(model: nn.Module) -> str:
    """Why the model's logits are NaN or infinite and what to do, as the rest of a sentence."""
    if (weights := not_finite(model)) is not None:
        return weights
    kinds = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    if kinds <= {torch.float32, torch.float64}:
        return "its weights are finite and float32, so the forward pass itself overflows; check the model's config"
    return "its weights are finite, so the forward pass overflows in this precision; try precision=fp32 or bf16"
