"""Train one model of the ladder, or with an objective classifiers: find the finished ones or make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rbp_lab.config.build import MADE, read
from rbp_lab.data.corpus import Corpus, TextSource
from rbp_lab.errors import LabError
from rbp_lab.ladder.model import LadderModel
from rbp_lab.ladder.run import CHECKPOINT_SECONDS, Source, TrainedModel, train_or_find
from rbp_lab.models.source import ModelSource
from rbp_lab.store.layout import Store
from rbp_lab.tracking.settings import NO_TRACKING, Tracking
from rbp_lab.tracking.wandb.training import TrainingTracker

if TYPE_CHECKING:
    from rbp_lab.ladder.training import StepHook


@dataclass(frozen=True)
class TrainRequest:
    """What ``conf/train.yaml`` composes. checkpoint_seconds: between two checkpoints of a training, at least."""

    model: Annotated[ModelSource, MADE]
    dataset: Annotated[TextSource, MADE]
    store: str
    force: bool = False
    tracking: Tracking = NO_TRACKING
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    def __post_init__(self) -> None:
        if not self.checkpoint_seconds >= 0:
            raise LabError(f"checkpoint_seconds must be 0 or more; got {self.checkpoint_seconds}")


def run(config: Mapping[str, Any]) -> str:
    """``rbp-lab train``; "trained", or "found" when the model was finished before."""
    if config.get("objective") is not None:
        from rbp_lab.commands.classifiers import train_classifiers  # torch: not for a model that is found

        train_classifiers(config)
        return "trained or found"
    for name in ("observation", "classifier", "task"):
        if config.get(name) is not None:
            raise LabError(f"{name} is of classifiers; choose objective=supervised, aggregate or likelihood as well")
    names = {f.name for f in fields(TrainRequest)}
    r = read(TrainRequest, {name: node for name, node in config.items() if name in names})
    trained = train(r.model, r.dataset, r.store, r.force, (), r.tracking, config, r.checkpoint_seconds)
    print(trained, flush=True)
    return "trained" if trained.trained else "found"


def train(
    model: Any,
    source: Source,
    store: str | Path,
    force: bool = False,
    hooks: Sequence[StepHook] = (),
    tracking: Tracking = NO_TRACKING,
    config: Mapping[str, Any] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> TrainedModel:
    """``train_or_find``, mirrored as ``tracking`` says, with ``config`` as the run's configuration."""

    def tracker(model: LadderModel, corpus: Corpus) -> TrainingTracker:
        return TrainingTracker(tracking, store, model, corpus, config or {})

    return train_or_find(model, source, Store(store), tracker, hooks, force, checkpoint_seconds)
