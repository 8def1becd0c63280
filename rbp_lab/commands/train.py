"""Train one model of the ladder, or with an objective classifiers: find the finished ones or make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from rbp_lab.commands.positions import of_positions
from rbp_lab.config.build import MADE, at_least, read_part
from rbp_lab.data.corpus import TextSource
from rbp_lab.ladder.hooks import StepHook
from rbp_lab.ladder.run import CHECKPOINT_SECONDS, Source, TrainedModel, train_or_find
from rbp_lab.models.source import ModelSource
from rbp_lab.store.layout import Store
from rbp_lab.tracking.settings import NO_TRACKING, Tracking
from rbp_lab.tracking.wandb.training import TrainingTracker


@dataclass(frozen=True)
class TrainRequest:
    """What ``conf/train.yaml`` composes. checkpoint_seconds: between two checkpoints of a training, at least."""

    model: Annotated[ModelSource, MADE]
    dataset: Annotated[TextSource, MADE]
    store: str
    force: bool = False
    tracking: Tracking = NO_TRACKING
    checkpoint_seconds: Annotated[float, at_least(0)] = CHECKPOINT_SECONDS


def run(config: Mapping[str, Any]) -> str:
    """``rbp-lab train``; "trained", or "found" when the model was finished before."""
    if config.get("objective") is not None and config.get("task"):
        from rbp_lab.commands.classifiers import train_classifiers  # torch: not for a model that is found

        return train_classifiers(config)
    config = of_positions(config)
    r = read_part(TrainRequest, config)
    trained = train(r.model, r.dataset, r.store, r.force, (), r.tracking, config, r.checkpoint_seconds)
    print(trained, flush=True)
    return "trained" if trained.trained else "found"


def train(
    model: ModelSource,
    source: Source,
    store: str | Path,
    force: bool = False,
    hooks: Sequence[StepHook] = (),
    tracking: Tracking = NO_TRACKING,
    config: Mapping[str, Any] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> TrainedModel:
    """``train_or_find``, mirrored as ``tracking`` says, with ``config`` as the run's configuration."""
    tracker = partial(TrainingTracker, tracking, store, config or {})
    return train_or_find(model, source, Store(store), tracker, hooks, force, checkpoint_seconds)
