"""Logarithms of sums without subtraction: log(1 − p) and sums with one term left out.

A difference such as 1 − p loses every digit when p is close to 1, so it is never formed: the terms that remain are
added instead. Entries may be −∞ (a probability of 0); gradients then stay finite.
"""

from __future__ import annotations

import math

import torch

IMPOSSIBLE = -math.inf


def log_sum(logs: torch.Tensor) -> torch.Tensor:
    """log Σ exp along the last axis; −∞ with a gradient of 0 where every term is −∞."""
    if logs.shape[-1] == 0:
        return logs.sum(-1) + IMPOSSIBLE
    top = logs.detach().amax(-1, keepdim=True)
    top = torch.where(torch.isfinite(top), top, 0.0)
    total = (logs - top).exp().sum(-1)
    nothing = total == 0
    return torch.where(nothing, IMPOSSIBLE, torch.where(nothing, 1.0, total).log() + top.squeeze(-1))


def log_others(logs: torch.Tensor) -> torch.Tensor:
    """Entry j of the result [..., K] is log Σ_{l≠j} exp(logs_l), at a cost of O(K).

    At most one term can hold more than half of the sum. For that one the others are added up; for every other term
    the share that is left over is at least a half, so log1p of it is exact to rounding.
    """
    total = log_sum(logs).unsqueeze(-1)
    top = torch.zeros_like(logs, dtype=torch.bool).scatter(-1, logs.detach().argmax(-1, keepdim=True), True)
    without_top = logs.masked_fill(top, IMPOSSIBLE)
    possible = torch.isfinite(total)
    share = (without_top - torch.where(possible, total, 0.0)).exp()
    rest = torch.where(possible, total + torch.log1p(-share), IMPOSSIBLE)
    return torch.where(top, log_sum(without_top).unsqueeze(-1), rest)
