"""``rbp-lab train`` with an objective: classifiers of one configuration, trained and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from rbp_lab.config.build import MADE, at_least, read_part
from rbp_lab.config.schemas import KSpec
from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.configuration import Configuration
from rbp_lab.ladder.aggregate.networks import Architecture
from rbp_lab.ladder.aggregate.objective import Objective
from rbp_lab.ladder.aggregate.observations import Observation
from rbp_lab.ladder.aggregate.progress import StepProgress
from rbp_lab.ladder.aggregate.recipe import Recipe
from rbp_lab.ladder.aggregate.run import run_configuration
from rbp_lab.ladder.aggregate.tasks import Task
from rbp_lab.store.layout import Store


@dataclass(frozen=True, kw_only=True)
class ClassifierRequest:
    """What ``conf/train.yaml`` composes with an objective. seed: the first of ``seeds`` seeds."""

    task: Annotated[Task, MADE]
    classifier: Annotated[Architecture, MADE]
    objective: Objective
    observation: Annotated[Observation, MADE] | None = None
    k: KSpec
    training: Recipe = field(default_factory=Recipe)
    store: str
    force: bool = False
    seed: Annotated[int, at_least(0)] = 0
    seeds: Annotated[int, at_least(1)] = 1

    @property
    def configuration(self) -> Configuration:
        seeds = tuple(range(self.seed, self.seed + self.seeds))
        return Configuration(self.task, self.classifier, self.objective, self.observation, self.training, seeds)


def train_classifiers(config: Mapping[str, Any]) -> str:
    """Find or make the classifiers that ``config`` describes, and their records; prints a line for each.

    Raises LabError, after the others are measured, when some could not be.
    """
    request = read_part(ClassifierRequest, config)
    chosen, store = request.configuration, Store(request.store)
    refused = []
    with StepProgress(f"train {request.classifier.name} {chosen.family}") as progress:
        for outcome in run_configuration(chosen, request.k, store, request.force, on_step=progress):
            progress.close()
            print(outcome.line(), flush=True)
            if outcome.measured is None:
                refused.append(outcome.member.name)
    if refused:
        raise LabError(f"{len(refused)} of {request.seeds} classifiers could not be measured: {', '.join(refused)}")
    return "trained or found"
