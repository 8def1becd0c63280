"""Measure one model on one corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from rbp_lab.config.build import MADE, OPEN, read
from rbp_lab.config.schemas import Precision
from rbp_lab.config.trajectory import checkpoint_configs
from rbp_lab.measurement.job import Choices, Job, Outcome
from rbp_lab.measurement.observers import Callback
from rbp_lab.measurement.run import run_each, run_job
from rbp_lab.models.source import ModelSource
from rbp_lab.tracking.settings import NO_TRACKING, Tracking
from rbp_lab.tracking.trackers import trackers


@dataclass(frozen=True, kw_only=True)
class MeasureSettings(Choices):
    """All of a measurement but its model, and who is notified of it."""

    precision: Precision = field(default_factory=Precision)
    callbacks: dict[str, Annotated[Callback, OPEN]] = field(default_factory=dict)
    tracking: Tracking = NO_TRACKING

    def job(self, model: ModelSource, config: Mapping[str, Any]) -> Job:
        """The measurement of ``model``. config: as composed, for worker processes."""
        chosen = {f.name: getattr(self, f.name) for f in fields(Choices)}
        notified = (*self.callbacks.values(), *trackers(self.tracking, self.store, config))
        return Job(model=model, precision=self.precision, callbacks=notified, config=config, **chosen)


@dataclass(frozen=True, kw_only=True)
class MeasureRequest(MeasureSettings):
    """What ``conf/measure.yaml`` composes."""

    model: Annotated[ModelSource, MADE]


def run(config: Mapping[str, Any]) -> str:
    """``rbp-lab measure``: print the outcome's line; "measured", or "found" when it was finished before.

    A model that names checkpoints is measured once for each of them.
    """
    outcomes = run_each(checkpoint_configs(config), job_from_config, lambda line: print(line, flush=True))
    return "measured" if any(outcome.measured for outcome in outcomes) else "found"


def measure(config: Mapping[str, Any]) -> Outcome:
    """Find or make the record that ``config`` describes; see ``run_job``."""
    return run_job(job_from_config(config))


def job_from_config(config: Mapping[str, Any]) -> Job:
    """The job that a composed configuration describes; LabError when it does not."""
    request = read(MeasureRequest, config)
    return request.job(request.model, config)
