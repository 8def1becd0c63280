"""A study: many configurations on a few tasks, trained and measured one after another; finished ones are found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated

from rbp_lab.config.build import MADE
from rbp_lab.config.schemas import KSpec
from rbp_lab.errors import LabError, no_such
from rbp_lab.ladder.aggregate.configuration import Configuration
from rbp_lab.ladder.aggregate.networks import Architecture
from rbp_lab.ladder.aggregate.objective import Objective
from rbp_lab.ladder.aggregate.observations import Observation
from rbp_lab.ladder.aggregate.recipe import Recipe
from rbp_lab.ladder.aggregate.run import Outcome, Splits, run_configuration
from rbp_lab.ladder.aggregate.tasks import Task
from rbp_lab.metrics import rbp
from rbp_lab.store.layout import Store
from rbp_lab.text import number


@dataclass(frozen=True)
class StudyRun:
    """Configurations that differ in task and classifier alone. tasks, classifiers: names in the study."""

    tasks: list[str]
    classifiers: list[str]
    objective: Objective
    observation: Annotated[Observation, MADE] | None = None
    training: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True)
class Study:
    """What is compared (node ``study``). seeds: of every configuration, from 0 on. k: thresholds of the records."""

    tasks: dict[str, Annotated[Task, MADE]]
    classifiers: dict[str, Annotated[Architecture, MADE]]
    runs: list[StudyRun]
    k: KSpec = field(default_factory=lambda: KSpec([1, 2, 3, 5, 7]))
    seeds: int = 5

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise LabError(f"study.seeds must be at least 1; got {self.seeds}")
        for i, run in enumerate(self.runs):
            used = (("task", run.tasks, self.tasks), ("classifier", run.classifiers, self.classifiers))
            for kind, given, there in used:
                for name in given:
                    if name not in there:
                        raise LabError(no_such(f"study.runs.{i}.{kind}s", f"{kind} {name!r}", name, there))

    def configurations(self) -> list[Configuration]:
        """Every configuration, task by task in the order of ``tasks``. LabError when one does not go together."""
        seeds = tuple(range(self.seeds))
        return [
            Configuration(task, self.classifiers[name], run.objective, run.observation, run.training, seeds)
            for task_name, task in self.tasks.items()
            for run in self.runs if task_name in run.tasks
            for name in run.classifiers
        ]  # fmt: skip


def run_study(study: Study, store: Store, force: bool, show: Callable[[str], None]) -> Iterator[Outcome]:
    """The outcomes of every configuration and seed; one line a configuration goes to ``show``.

    Each configuration is complete or absent on disk, so an interrupted study goes on where it was. Raises LabError on
    what concerns a whole configuration.
    """
    splits, begin, done = Splits(), time.monotonic(), 0
    configurations = study.configurations()
    for i, configuration in enumerate(configurations):
        outcomes = list(run_configuration(configuration, study.k, store, force, splits))
        measured = [o.measured.record for o in outcomes if o.measured is not None]
        made = sum(o.member.trained for o in outcomes)
        done += bool(made)
        accuracy = [rbp(record.stats, 1) for record in measured]
        what = f"RBP_1 {number(100 * sum(accuracy) / len(accuracy), 2)} %" if accuracy else "nothing measured"
        how = f"{made} of {len(outcomes)} trained" if made else "found"
        refused = len(outcomes) - len(measured)
        more = f", {refused} with merged classes" if refused else ""
        left = (time.monotonic() - begin) / done * (len(configurations) - i - 1) if done else 0.0
        name = f"{configuration.task.name} {configuration.classifier.name} {configuration.family}"
        show(f"[{i + 1}/{len(configurations)}] {name}: {what}{more} ({how}; about {number(left, 0)} s left)")
        yield from outcomes
