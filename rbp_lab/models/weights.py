"""What a loaded model's weights are like."""

from __future__ import annotations

import torch
from torch import nn


def coarsest_eps(model: nn.Module) -> float:
    """The machine epsilon of the coarsest floating-point weights."""
    return max(torch.finfo(weight.dtype).eps for weight in model.parameters() if weight.is_floating_point())


def why_not_finite(model: nn.Module) -> str:
    """Why the model's logits are NaN or infinite and what to do, as the rest of a sentence."""
    for name, weight in model.named_parameters():
        if weight.is_meta or not weight.is_floating_point() or bool(torch.isfinite(weight).all()):
            continue
        if bool(torch.isnan(weight).any()):
            return f"its weight {name} holds NaN, so the checkpoint is damaged; download or save it again"
        kind = str(weight.dtype).removeprefix("torch.")
        return f"its weight {name} is infinite in {kind}: beyond that format's range, or so in the checkpoint" + (
            "; try precision=bf16 or fp32" if weight.dtype is torch.float16 else "; download or save it again"
        )
    kinds = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    if kinds <= {torch.float32, torch.float64}:
        return "its weights are finite and float32, so the forward pass itself overflows; check the model's config"
    return "its weights are finite, so the forward pass overflows in this precision; try precision=fp32 or bf16"
