"""Train and measure the seeds of one configuration: find what is finished, make the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rbp_lab.config.schemas import KSpec
from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.configuration import Configuration
from rbp_lab.ladder.aggregate.measuring import Measured, measure_member
from rbp_lab.ladder.aggregate.members import Member, train_or_find
from rbp_lab.ladder.aggregate.tasks import Split, Task
from rbp_lab.ladder.aggregate.training import StepHook
from rbp_lab.metrics import cross_entropy, rbp
from rbp_lab.store.layout import Store
from rbp_lab.text import count, number


class Splits:
    """The splits of tasks by seed, each made once; the last task's are kept."""

    def __init__(self) -> None:
        self._task: Task | None = None
        self._splits: dict[int, Split] = {}

    def of(self, task: Task, seeds: tuple[int, ...]) -> dict[int, Split]:
        """The splits of a task. Raises LabError when they do not go together, or the task cannot be had."""
        if task != self._task:
            self._task, self._splits = task, {}
        for seed in seeds:
            if seed not in self._splits:
                self._splits[seed] = task.split(seed)
        sizes = {self._splits[seed].units for seed in seeds}
        if len(sizes) > 1:
            raise LabError(f"the seeds of task {task.name} have splits of different sizes: {sorted(sizes)}")
        return {seed: self._splits[seed] for seed in seeds}


@dataclass(frozen=True, eq=False)
class Outcome:
    """A seed's classifier and its record. refused: why there is no record, "" when there is one."""

    member: Member
    measured: Measured | None
    refused: str = ""

    def line(self) -> str:
        """The outcome as one line for a terminal."""
        about = self.member.record
        trained = f"trained in {number(about['seconds'], 0)} s" if self.member.trained else "found trained"
        start = (
            f"{self.member.name}: {trained}, S = {count(about['non_embedding_parameters'])}, "
            f"{count(about['training_instances'])} instances"
        )
        if about["impossible_observations_in_stack"]:
            start += f", {count(about['impossible_observations_in_stack'])} impossible observations"
        if self.measured is None:
            return f"{start}; not measured: {self.refused}"
        stats = self.measured.record.stats
        return (
            f"{start}; RBP_1 {number(rbp(stats, 1))}  RBP_2 {number(rbp(stats, 2))}  "
            f"CE {number(cross_entropy(stats))}, "
            f"{self.measured.path}"
        )


def run_configuration(
    configuration: Configuration,
    k: KSpec,
    store: Store,
    force: bool = False,
    splits: Splits | None = None,
    on_step: StepHook = lambda step, steps, risk: None,
) -> Iterator[Outcome]:
    """One outcome per seed, in order, once all are trained.

    A classifier whose classes are merged is refused alone; the others are measured. Raises LabError on what concerns
    the whole configuration.
    """
    of_seed = (splits or Splits()).of(configuration.task, configuration.seeds)
    members = train_or_find(configuration, of_seed, store, force, on_step)
    for seed, member in zip(configuration.seeds, members, strict=True):
        try:
            measured = measure_member(member, configuration, of_seed[seed], k, store, force)
        except LabError as error:
            yield Outcome(member, None, str(error))
            continue
        yield Outcome(member, measured)
