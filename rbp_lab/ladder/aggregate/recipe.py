"""How a classifier is trained: sizes, rates and what keeps classes apart, by rule where nothing is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rbp_lab.errors import LabError, shown
from rbp_lab.ladder.aggregate.networks import InputShape
from rbp_lab.ladder.aggregate.observations import PERMUTATION, Bag, Observation
from rbp_lab.ladder.aggregate.sampler import BLIND

UNIFORM = "uniform"


@dataclass(frozen=True)
class Recipe:
    """Settings of the training loop (node ``training``); None takes the rule of ``resolved``.

    epochs: passes over the groups. batch: instances of a step; bags, where the data come in bags. lr: peak learning
    rate of AdamW. weight_decay.
    warm_up_steps: of the learning rate, which then falls to 0 by a cosine. reuse: how often an instance occurs in
    groups. draw: how groups are drawn; "blind". restarts: beginnings, of which the one with the best likelihood on a
    tenth of the groups, held out, is kept. prior: of the classes where an observation names none, "uniform" or K
    shares; prior_weight: of its divergence from the mean prediction, in the first half. reseed_epochs: an empty output
    begins anew every so many epochs (0: never). labelled: training instances whose labels match outputs with classes.
    """

    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    weight_decay: float = 1e-4
    warm_up_steps: int = 50
    reuse: int = 1
    draw: str = BLIND
    restarts: int | None = None
    prior: str | list[float] = UNIFORM
    prior_weight: float | None = None
    reseed_epochs: int | None = None
    labelled: int = 100

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("restarts", 1), ("reseed_epochs", 0), ("labelled", 1),
                            ("warm_up_steps", 0), ("weight_decay", 0), ("prior_weight", 0)):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise LabError(f"training.{name} must be at least {least}; got {shown(value)}")
        if self.lr is not None and not 0 < self.lr < np.inf:
            raise LabError(f"training.lr must be above 0; got {shown(self.lr)}")

    def resolved(self, observation: Observation, shape: InputShape) -> Recipe:
        """The same with a value for everything.

        The values were settled on scikit-learn's digits and on the characters of Python source, by few runs each.
        """
        prior_weight, reseed, restarts = 0.0, 0, 1
        if shape.vocabulary is not None:
            epochs, batch, lr = 1, 512, 1e-2
        elif observation.identifies == PERMUTATION:
            epochs, batch, lr = 20 if self.reuse >= 8 else 40 if self.reuse >= 4 else 60, 256, 8e-3
        elif isinstance(observation, Bag):
            epochs, batch, lr = 60, 32 * (observation.m or 1), 3e-3
        else:
            epochs, batch, lr = 40, 128, 2e-3
        if observation.identifies == PERMUTATION:
            prior_weight, reseed, restarts = 0.1, 5, 1 if self.reuse >= 4 else 3
        rule = {
            "epochs": epochs, "batch": batch, "lr": lr, "prior_weight": prior_weight, "reseed_epochs": reseed,
            "restarts": restarts,
        }  # fmt: skip
        return replace(self, **{name: value for name, value in rule.items() if getattr(self, name) is None})

    def prior_of(self, classes: int) -> np.ndarray:
        """The prior of the classes, float64 [K]; LabError when it does not fit."""
        if self.prior == UNIFORM:
            return np.full(classes, 1 / classes)
        prior = np.array(self.prior if isinstance(self.prior, list) else [np.nan], dtype=np.float64)
        if len(prior) != classes or not (prior > 0).all() or abs(prior.sum() - 1) > 1e-6:
            raise LabError(
                f"training.prior must be {UNIFORM} or {classes} positive shares with the sum 1; got {shown(self.prior)}"
            )
        return prior
