"""The float64 reference: materialises all logits and says what every faster path must reproduce."""

from __future__ import annotations

import torch

from rbp_lab.scoring.types import LMHead, NonFiniteLogits, TokenScores


def score_reference(hidden: torch.Tensor, head: LMHead, targets: torch.Tensor) -> TokenScores:
    """Scores of ``targets`` [n] from ``hidden`` [n,D], computed in float64 from start to end.

    Raises NonFiniteLogits. Holds n·V logits of 8 bytes: for tests and small checks only.
    """
    return score_logits(reference_logits(hidden, head), targets)


def reference_logits(hidden: torch.Tensor, head: LMHead) -> torch.Tensor:
    """Logits [n, candidates] in float64."""
    z = hidden.double() @ head.weight[: head.candidates].double().T
    if head.bias is not None:
        z = z + head.bias[: head.candidates].double()
    return head.transform(z)


def score_logits(logits: torch.Tensor, targets: torch.Tensor) -> TokenScores:
    """Scores of ``targets`` [n] given their logits [n,V], in the precision of the logits (float32 or float64)."""
    bad = ~torch.isfinite(logits).all(-1)
    if bad.any():
        raise NonFiniteLogits(int(bad.nonzero()[0]))
    t = logits.gather(-1, targets[:, None])
    log_p = logits.log_softmax(-1)
    return TokenScores(
        nll=-log_p.gather(-1, targets[:, None])[:, 0].float(),
        num_greater=(logits > t).sum(-1).int(),
        # the target equals itself; every other equal candidate is a tie
        num_equal=((logits == t).sum(-1) - 1).int(),
        entropy=-(log_p.exp() * log_p).sum(-1).float(),
    )
