"""Made-up tasks for classifiers, and configurations that train in a moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rbp_lab.ladder.aggregate.configuration import Configuration
from rbp_lab.ladder.aggregate.networks import MLP
from rbp_lab.ladder.aggregate.objective import Objective
from rbp_lab.ladder.aggregate.recipe import Recipe
from rbp_lab.ladder.aggregate.tasks import Split, array_split


@dataclass(frozen=True)
class Blobs:
    """Normal points around K corners of a simplex, easy to tell apart."""

    name: str = "blobs"
    classes: int = 3
    each: int = 60
    spread: float = 0.25
    positive: int | None = None
    label_noise: float = 0.0

    def split(self, seed: int) -> Split:
        generator = np.random.default_rng(12)
        labels = np.repeat(np.arange(self.classes), self.each)
        noise = self.spread * generator.standard_normal((len(labels), self.classes))
        inputs = (np.eye(self.classes)[labels] + noise).astype(np.float32)
        names = tuple(f"corner {c}" for c in range(self.classes))
        info = {"source": "made up"}
        return array_split(self.name, inputs, labels, names, seed, self.positive, self.label_noise, info)


def configuration(kind="likelihood", observation=None, seeds=(0,), task=None, objective=None, **training):
    """A small network on ``Blobs``."""
    recipe = Recipe(**{"epochs": 8, "batch": 32, "lr": 0.02, "warm_up_steps": 5, **training})
    objective = objective or Objective(kind)
    return Configuration(task or Blobs(), MLP("tiny", 12), objective, observation, recipe, tuple(seeds))
