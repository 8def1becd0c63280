"""The float64 reference: materialises all logits and says what every faster path must reproduce."""

from __future__ import annotations

import torch

from rbp_lab.scoring.types import LMHead, TokenScores


def score_reference(
    hidden: torch.Tensor,
    head: LMHead,
    targets: torch.Tensor,
    *,
    budget: int | None = None,
    logits: str = "float32",
    delta: torch.Tensor | None = None,
) -> TokenScores:
    """Scores of ``targets`` [n] from ``hidden`` [n,D], computed in float64 from start to end.

    delta: δ [n] of the bracket. budget and logits are accepted as by all implementations and mean nothing here. Holds
    n·V logits of 8 bytes: for tests and small checks only.
    """
    return score_logits(reference_logits(hidden, head), targets, delta)


def reference_logits(hidden: torch.Tensor, head: LMHead) -> torch.Tensor:
    """Logits [n, candidates] in float64."""
    z = hidden.double() @ head.weight[: head.candidates].double().T
    if head.bias is not None:
        z = z + head.bias[: head.candidates].double()
    return head.transform(z)


def score_logits(logits: torch.Tensor, targets: torch.Tensor, delta: torch.Tensor | None = None) -> TokenScores:
    """Scores of ``targets`` [n] given their logits [n,V], in the precision of the logits (float32 or float64)."""
    t = logits.gather(-1, targets[:, None])
    log_p = logits.log_softmax(-1)
    bracket = () if delta is None else _bracket(logits, t, targets, delta[:, None])
    counts = (
        (logits > t).sum(-1).int(),
        # the target equals itself; every other equal candidate is a tie
        ((logits == t).sum(-1) - 1).int(),
        *bracket,
    )
    finite = torch.isfinite(logits).all(-1)
    entropy = torch.where(finite, -(log_p.exp() * log_p).sum(-1), torch.nan)
    return TokenScores.of(-log_p.gather(-1, targets[:, None])[:, 0].float(), entropy.float(), counts)


def _bracket(
    logits: torch.Tensor, t: torch.Tensor, targets: torch.Tensor, delta: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(surely_greater, maybe_greater) [n]; the target's own column is left out by its index."""
    own = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, targets[:, None], True)
    surely, maybe = (logits > t + delta) & ~own, (logits >= t - delta) & ~own
    return surely.sum(-1).int(), maybe.sum(-1).int()
