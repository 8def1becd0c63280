"""Where the weights of a group come from: the model as it is, an earlier state of it, or both."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rbp_lab.ladder.aggregate.objective import Objective
from rbp_lab.ladder.aggregate.observations import Observation, weights


class WeightSource:
    """Weights for the groups of a batch. Stored posteriors are log-posteriors of instances [E, n, K]."""

    def __init__(self, observation: Observation, objective: Objective, warm_up_steps: int, epoch_steps: int):
        self._observation, self._objective = observation, objective
        self._warm_up = warm_up_steps
        self._every = {"epoch": epoch_steps}.get(str(objective.refreshed), objective.refreshed)
        self._stored: torch.Tensor | None = None
        self.impossible = 0

    def before(self, step: int, everything: Callable[[], torch.Tensor]) -> None:
        """Call before each step (from 0); everything: log-posteriors of all instances under the model as it is."""
        since = step - self._warm_up
        if since < 0 or self._objective.source == "current":
            return
        if since == 0 or (isinstance(self._every, int) and since % self._every == 0):
            self._stored = everything()

    def weights(self, logp: torch.Tensor, groups: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """w [E, G, m, K], constants. logp: of the batch [E, G, m, K]; groups: its instances [E, G, m]."""
        logp = logp.detach()
        if self._stored is None:
            return self._of(logp, z)
        old = self._of(_taken(self._stored, groups), z)
        if self._objective.source == "stored":
            return old
        return self._objective.share * old + (1 - self._objective.share) * self._of(logp, z)

    def after(self, logp: torch.Tensor, groups: torch.Tensor) -> None:
        """Call after each step, with the batch's log-posteriors from before it."""
        if self._stored is not None and self._objective.refreshed == "batch":
            member = torch.arange(len(groups))[:, None, None]
            self._stored[member, groups] = logp.detach()

    def _of(self, logp: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        found, impossible = weights(self._observation, logp.flatten(0, 1), z.flatten(0, 1))
        self.impossible += int(impossible.sum())
        return found.view_as(logp)


def _taken(values: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """values [E, n, …] of the instances groups [E, G, m] of each member: [E, G, m, …]."""
    return values[torch.arange(len(groups))[:, None, None], groups]
