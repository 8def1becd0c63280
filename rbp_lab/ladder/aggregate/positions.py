"""Next-token prediction when the tokens of m positions are known only as a multiset: proportions over positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.lattice import slot_sums
from rbp_lab.ladder.aggregate.objective import Objective
from rbp_lab.ladder.aggregate.observations import Observation, Proportions


@dataclass(frozen=True)
class GroupedPositions:
    """A loss of the ladder's training loop: the likelihood of the multisets of m positions' next tokens.

    m: at most 10. seed: of the groups, which are drawn anew at each step, without a look at the tokens, among all
    positions of the batch; fewer than m that are left over do not count.
    """

    m: int
    seed: int

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor, step: int) -> torch.Tensor:
        """Nats per token: Σ w_ij (−log p_ij) / n with current weights, whose gradient is that of −log p(z | x) / n.

        logits: [n, V]. targets: [n]. Only the m tokens of a group can carry weight, so the cost follows m, not V.
        """
        generator = np.random.default_rng((self.seed, 4, step))
        whole = len(targets) // self.m * self.m
        groups = torch.from_numpy(generator.permutation(len(targets))[:whole]).view(-1, self.m)
        slots = targets[groups].sort(1).values  # the multiset: which position had which token is gone
        logs = logits.log_softmax(-1)[groups].gather(2, slots[:, None, :].expand(-1, self.m, -1))
        weights = torch.softmax(slot_sums(logs.detach()), -1)
        return -(weights * logs).sum(-1).mean()


def group_size(objective: Objective, observation: Observation | None) -> int:
    """m of a language model that learns from groups of its positions: ``model.groups``. LabError for what it cannot."""
    if objective.kind != "supervised" and not isinstance(observation, Proportions):
        raise LabError(
            "with task=next-token a language model learns from how often each token occurs among m positions; choose "
            f"observation=proportions; got {'null' if observation is None else type(observation).__name__.lower()}"
        )
    if objective.source != "current" or objective.found_loss.name != "cross_entropy":
        raise LabError(
            "with task=next-token a model learns by objective.loss=cross_entropy and objective.weights=current; "
            f"got {objective.found_loss.name} with {objective.source}"
        )
    objective.check(observation or Proportions(1))
    return 1 if observation is None else observation.m
