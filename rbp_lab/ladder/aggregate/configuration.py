"""One configuration of task, classifier, objective and observation, and the values that describe it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

from rbp_lab.errors import LabError, WrongUsage
from rbp_lab.ladder.aggregate.networks import Architecture, InputShape
from rbp_lab.ladder.aggregate.objective import Objective
from rbp_lab.ladder.aggregate.observations import Observation, Proportions
from rbp_lab.ladder.aggregate.recipe import Recipe
from rbp_lab.ladder.aggregate.sampler import GroupSampler
from rbp_lab.ladder.aggregate.tasks import Split, Task

# Raised whenever the same settings would give another model, so that an old one is trained anew.
RECIPE_VERSION = 1


@dataclass(frozen=True)
class Configuration:
    """What is trained. observation: None for supervised training. seeds: of members, rising, trained side by side."""

    task: Task
    classifier: Architecture
    objective: Objective
    observation: Observation | None = None
    training: Recipe = field(default_factory=Recipe)
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise WrongUsage(f"seeds must be different numbers of at least 0; got {list(self.seeds)}")
        if self.observation is None and self.objective.kind != "supervised":
            raise WrongUsage(
                f"objective={self.objective.kind} needs an observation, such as observation=proportions observation.m=4"
            )
        self.objective.check(self.observed)
        if self.observed.m is not None:
            self.sampler.groups(self.observed.m, 0)  # refuses a draw that is not blind before any work

    @property
    def observed(self) -> Observation:
        """The observation; each instance's own label for supervised training."""
        return Proportions(1) if self.observation is None else self.observation

    @property
    def sampler(self) -> GroupSampler:
        return GroupSampler(self.observed.m, self.training.reuse, self.training.draw)

    @property
    def family(self) -> str:
        """Everything but the size and the seed, in short: models that share one law."""
        observation, objective, training = self.observed, self.objective, self.training
        if objective.kind == "supervised":
            words = ["supervised"]
        else:
            words = [type(observation).__name__.lower(), *([] if observation.m is None else [f"m={observation.m}"])]
        if training.reuse > 1:
            words.append(f"r={training.reuse}")
        loss = objective.found_loss.name
        if objective.kind != "supervised":
            source = objective.source if objective.kind == "aggregate" else ""
            words.append("likelihood" if objective.kind == "likelihood" else loss)
            if objective.refreshed is not None:
                source += f" {objective.refreshed}"
            words.append(source)
        elif loss != "cross_entropy":
            words.append(loss)
        words += [f"{name}={value:g}" for name, value in (("noise", getattr(self.task, "label_noise", 0.0)),) if value]
        return " ".join(re.sub(r"[^\w.@+=-]", "-", word) for word in " ".join(words).split())

    def settings(self, shape: InputShape, seed: int) -> dict[str, Any]:
        """What, with the training instances, determines the member of a seed; JSON-ready. Names do not enter."""
        training = self.training.resolved(self.observed, shape)
        return {
            "version": RECIPE_VERSION,
            "task": described(self.task, "name"),
            "classifier": described(self.classifier, "name"),
            "objective": {**described(self.objective), "weights": self.objective.source,
                          "refresh": self.objective.refreshed,
                          "warm_up": self.objective.warm_up_of(self.observed, training.epochs)},
            "observation": described(self.observed),
            "training": asdict(training),
            "seed": seed,
        }  # fmt: skip

    def name(self, shape: InputShape, seed: int) -> str:
        """Names the member of a seed, and its directory: other settings have another name."""
        settings = {k: v for k, v in self.settings(shape, seed).items() if k != "seed"}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:6]
        return f"{self.classifier.name}-{self.family.replace(' ', '-').replace('=', '')}-{digest}-s{seed}"

    def only(self, seeds: tuple[int, ...]) -> Configuration:
        """The same for some of its seeds."""
        return replace(self, seeds=seeds)

    def check(self, split: Split) -> None:
        """LabError when the observation, the prior or the classifier does not fit the task."""
        classes = len(split.classes)
        if (split.bags is not None) != (self.observed.m is None):
            raise LabError(
                f"the data of task {self.task.name} come in bags with a label each, and no instance has one; choose "
                "objective=likelihood or aggregate with observation=bags" if split.bags is not None else
                f"observation.m must be given: the instances of task {self.task.name} come in no bags of their own"
            )  # fmt: skip
        self.observed.check(classes)
        self.training.prior_of(classes)


def described(value: Any, *without: str) -> Any:
    """A dataclass as its kind and fields, in depth, JSON-ready; anything else as JSON or as it prints."""
    if is_dataclass(value) and not isinstance(value, type):
        named = {f.name: described(getattr(value, f.name)) for f in fields(value) if f.name not in without}
        return {"kind": type(value).__name__, **named} if "kind" not in named else named
    if isinstance(value, Mapping):
        return {str(k): described(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [described(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else repr(value)
