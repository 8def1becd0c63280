"""Losses of a classifier as functions of its log-probabilities: one value for each class the label could have.

Legend: K classes, p the predicted probabilities, j the label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from rbp_lab.errors import LabError, no_such, shown


@dataclass(frozen=True)
class Loss:
    """A loss. proper: its risk is least at the true posteriors. bounded: no prediction costs more than a constant.

    With weights from the model that is being trained, an improper loss sharpens the weights that sharpen the model.
    """

    name: str
    function: Callable[[torch.Tensor], torch.Tensor]
    proper: bool = False
    bounded: bool = False

    def __call__(self, logp: torch.Tensor) -> torch.Tensor:
        """ℓ(p, j) for every j, [..., K], from log-probabilities [..., K] whose rows sum to 1."""
        values = self.function(logp)
        if values.shape != logp.shape:
            raise LabError(
                f"objective.loss: {self.name} must return one value for each class, shape {list(logp.shape)}; "
                f"got {list(values.shape)}"
            )
        return values


def cross_entropy(logp: torch.Tensor) -> torch.Tensor:
    """−log p_j."""
    return -logp


def mae(logp: torch.Tensor) -> torch.Tensor:
    """Σ_k |p_k − [k = j]| = 2 (1 − p_j) (arXiv 1712.09482)."""
    return -2 * torch.expm1(logp)


def mse(logp: torch.Tensor) -> torch.Tensor:
    """Σ_k (p_k − [k = j])² = (1 − p_j)² + Σ_{k≠j} p_k², Brier's score."""
    p = logp.exp()
    return 1 - 2 * p + (p**2).sum(-1, keepdim=True)


def gce(logp: torch.Tensor, q: float = 0.7) -> torch.Tensor:
    """(1 − p_j^q)/q, between cross-entropy (q → 0) and mean absolute error (q = 1) (arXiv 1805.07836)."""
    return -torch.expm1(q * logp) / q


def focal(logp: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    """−(1 − p_j)^γ log p_j (arXiv 1708.02002)."""
    return -((-torch.expm1(logp)).clamp(min=0) ** gamma) * logp


LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("cross_entropy", cross_entropy, proper=True),
        Loss("mae", mae, bounded=True),
        Loss("mse", mse, proper=True, bounded=True),
        Loss("gce", gce, bounded=True),
        Loss("focal", focal),
    )
}


@dataclass(frozen=True)
class CustomLoss:
    """A loss of the user's: ``function`` is what ``module.name`` of the configuration imports."""

    function: str
    proper: bool = False
    bounded: bool = False
    name: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.function)

    def resolved(self) -> Loss:
        """The loss; LabError when the function cannot be imported."""
        from rbp_lab.config.build import locate

        return Loss(self.function, locate(self.function, "objective.loss"), self.proper, self.bounded)


def find_loss(given: str | CustomLoss) -> Loss:
    """The loss that ``objective.loss`` means: one of ``LOSSES`` by name, or the user's function.

    Raises LabError, naming the choices, when there is none.
    """
    if isinstance(given, CustomLoss):
        return given.resolved()
    if given in LOSSES:
        return LOSSES[given]
    if not isinstance(given, str):
        raise LabError(f"objective.loss must be one of {', '.join(LOSSES)}, or a function; got {shown(given)}")
    raise LabError(
        no_such("objective.loss", "loss", given, list(LOSSES)) + ", or a function of yours: "
        "objective.loss={function: module.name}"
    )
