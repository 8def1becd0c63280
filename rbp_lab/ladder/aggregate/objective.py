"""What a classifier minimises: the loss, where its weights come from, and how long the likelihood goes first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from rbp_lab.errors import WrongUsage, one_of, shown
from rbp_lab.ladder.aggregate.losses import CustomLoss, Loss, find_loss
from rbp_lab.ladder.aggregate.observations import PERMUTATION, Bag, Observation

KINDS = ("supervised", "aggregate", "likelihood")
SOURCES = ("current", "stored", "mixture")
REFRESHES = ("batch", "epoch", "never")


@dataclass(frozen=True)
class Objective:
    """What is minimised (group ``objective``).

    kind: "supervised" sees every label; "aggregate" minimises the aggregate risk of ``loss``; "likelihood" minimises
    −log p(z | x), whose gradient is that of cross-entropy with current weights. loss: a name in ``LOSSES`` or a
    function of the user's. weights: posteriors behind the weights: "current" of the model itself, "stored" from an
    earlier state of it, or a "mixture" of both; None chooses current for a proper loss and stored for another. refresh:
    of stored posteriors: "batch" replaces those of a batch after its step (so that they are as old as the last visit),
    "epoch" all of them after each epoch, a number all of them every so many steps, "never" keeps those of the end of
    the warm-up; None means never for an improper loss, epoch otherwise. share: of the stored weights in a mixture.
    warm_up: epochs of likelihood before the loss; None: by rule.
    """

    kind: Literal["supervised", "aggregate", "likelihood"] = "aggregate"
    loss: str | CustomLoss = "cross_entropy"
    weights: str | None = None
    refresh: str | int | None = None
    share: float = 0.5
    warm_up: int | None = None

    def __post_init__(self) -> None:
        one_of("objective.kind", self.kind, KINDS)
        loss = self.found_loss
        if self.weights is not None:
            one_of("objective.weights", self.weights, SOURCES)
        if isinstance(self.refresh, int):
            if self.refresh < 1:
                raise WrongUsage(f"objective.refresh must be at least 1 step; got {self.refresh}")
        elif self.refresh is not None:
            one_of("objective.refresh", self.refresh, (*REFRESHES, "a number of steps"))
        if not 0 < self.share < 1:
            raise WrongUsage(f"objective.share must lie between 0 and 1; got {shown(self.share)}")
        if self.warm_up is not None and self.warm_up < 0:
            raise WrongUsage(f"objective.warm_up must be 0 or more epochs; got {self.warm_up}")
        if self.kind == "likelihood" and (loss.name != "cross_entropy" or self.source != "current"):
            raise WrongUsage(
                "objective=likelihood is cross-entropy with current weights; for another loss or other weights choose "
                f"objective=aggregate (got loss={loss.name}, weights={self.source})"
            )
        if self.kind == "aggregate" and not loss.proper and self.source != "stored":
            raise WrongUsage(
                f"objective.weights={self.source} with objective.loss={loss.name}: the loss is not proper, so a model "
                "that supplies its own weights sharpens them without end; choose objective.weights=stored"
            )

    @cached_property
    def found_loss(self) -> Loss:
        """The loss as a function of log-probabilities."""
        return find_loss(self.loss)

    @property
    def source(self) -> str:
        """Where weights come from: one of ``SOURCES``."""
        if self.weights is not None:
            return self.weights
        return "current" if self.found_loss.proper or self.kind == "supervised" else "stored"

    @property
    def refreshed(self) -> str | int | None:
        """When stored posteriors are replaced; None where none are stored."""
        if self.source == "current":
            return None
        if self.refresh is None:
            return "epoch" if self.found_loss.proper else "never"
        return self.refresh

    def warm_up_of(self, observation: Observation, epochs: int) -> int:
        """Epochs of likelihood before the loss, at most all.

        By rule none for cross-entropy with current weights, which is the likelihood. A bounded loss is flat where
        nothing is told apart yet: a quarter of the epochs, also with labels. Where an observation names no class there
        is nothing to weigh before the likelihood has told classes apart: three quarters. A bag takes half. Label
        proportions take a quarter when weights are stored for good, and one epoch when they are stored for a while.
        """
        if self.warm_up is not None:
            return min(self.warm_up, epochs)
        loss = self.found_loss
        if self.source == "current" and loss.name == "cross_entropy":
            return 0
        if self.kind == "supervised":
            return epochs // 4 if loss.bounded else 0
        if observation.identifies == PERMUTATION:
            return epochs * 3 // 4
        if isinstance(observation, Bag):
            return epochs // 2
        if loss.bounded or self.refreshed == "never":
            return epochs // 4
        return 0 if self.source == "current" else min(1, epochs - 1)

    def check(self, observation: Observation) -> None:
        """LabError when the objective and the observation do not go together."""
        if self.kind == "supervised" and observation.m != 1:
            raise WrongUsage(
                f"objective=supervised sees every label; leave observation out (got m={observation.m}), or choose "
                "objective=aggregate or objective=likelihood"
            )
        if (
            self.kind == "aggregate" and observation.identifies == PERMUTATION
            and not self.found_loss.proper and self.refreshed != "never"
        ):  # fmt: skip
            raise WrongUsage(
                f"objective.refresh={self.refreshed} with objective.loss={self.found_loss.name}: an observation that "
                "names no class holds an improper loss back only through weights that stay; choose "
                "objective.refresh=never"
            )
