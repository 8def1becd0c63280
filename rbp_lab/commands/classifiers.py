"""``rbp-lab train`` with an objective: classifiers of one configuration, trained and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from rbp_lab.config.build import MADE, read
from rbp_lab.config.schemas import KSpec
from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.configuration import Configuration
from rbp_lab.ladder.aggregate.networks import Architecture
from rbp_lab.ladder.aggregate.objective import Objective
from rbp_lab.ladder.aggregate.observations import Observation
from rbp_lab.ladder.aggregate.progress import StepProgress
from rbp_lab.ladder.aggregate.recipe import Recipe
from rbp_lab.ladder.aggregate.run import Outcome, run_configuration
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
    seed: int = 0
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise LabError(f"seeds must be at least 1; got {self.seeds}")
        if self.seed < 0:
            raise LabError(f"seed must be 0 or more; got {self.seed}")

    @property
    def configuration(self) -> Configuration:
        return Configuration(
            self.task, self.classifier, self.objective, self.observation, self.training,
            tuple(range(self.seed, self.seed + self.seeds)),
        )  # fmt: skip


def train_classifiers(config: Mapping[str, Any]) -> list[Outcome]:
    """Find or make the classifiers that ``config`` describes, and their records; prints a line for each.

    Raises LabError, after the others are measured, when some could not be.
    """
    names = {f.name for f in fields(ClassifierRequest)}
    request = read(ClassifierRequest, {name: node for name, node in config.items() if name in names})
    configuration = request.configuration
    outcomes = []
    with StepProgress(f"train {request.classifier.name} {configuration.family}") as progress:
        for outcome in run_configuration(
            configuration, request.k, Store(request.store), request.force, on_step=progress
        ):
            progress.close()
            print(outcome.line(), flush=True)
            outcomes.append(outcome)
    refused = [outcome.member.name for outcome in outcomes if outcome.measured is None]
    if refused:
        raise LabError(f"{len(refused)} of {len(outcomes)} classifiers could not be measured: {', '.join(refused)}")
    return outcomes
