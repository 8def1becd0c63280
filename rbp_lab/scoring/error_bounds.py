"""How far a computed logit can lie from the exact one: the bound behind the certified bracket of a rank."""

from __future__ import annotations

import torch

from rbp_lab.scoring.types import LMHead

# Rounding of one operation. Products on a GPU may truncate where IEEE arithmetic rounds, so a bit is given away there.
UNIT = {"cpu": 2.0**-24, "cuda": 2.0**-23}
# Operations beside the product and its sum: bias, scale, a tanh that may be off by a few units, and t ± δ.
OTHERS = 16


def rounding_bound(hidden: torch.Tensor, head: LMHead) -> torch.Tensor:
    """δ [n] such that computed z_v − z_t and the exact one differ by at most δ, for all candidates v of a position.

    For logits in float32 of hidden [n,D] as stored, whatever the order of summation: |fl(x·w) − x·w| ≤ γ ‖x‖ ‖w‖ with
    γ = m u / (1 − m u), m = D + 16, u the rounding unit (Higham 2002, Accuracy and Stability of Numerical Algorithms,
    eq. 3.5 with Cauchy-Schwarz); a bias adds its own magnitude, a scale multiplies, a soft-cap only contracts. Two
    logits, so twice that, with the largest ‖w‖ of the candidates. Generous: real errors grow like √D.
    """
    m = hidden.shape[-1] + OTHERS
    unit = UNIT.get(hidden.device.type, UNIT["cuda"])
    gamma = m * unit / (1 - m * unit)
    rows = head.candidates
    size = hidden.double().norm(dim=-1) * _largest_row(head.weight[:rows])
    if head.bias is not None:
        size = size + head.bias[:rows].double().abs().max()
    # float32 rounds δ itself; a relative 2^-20 more than covers that
    return (2 * gamma * abs(head.scale) * size * (1 + 2.0**-20)).float()


def _largest_row(weight: torch.Tensor, rows: int = 8192) -> torch.Tensor:
    """The largest norm of a row, a few rows at a time: a float64 copy of the whole head would be the largest tensor."""
    parts = [weight[i : i + rows].double().norm(dim=-1).max() for i in range(0, len(weight), rows)]
    return torch.stack(parts).max()
