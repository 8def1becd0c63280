"""Measure one model on one corpus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbp_lab.config.build import build, call
from rbp_lab.config.schemas import KSpec, Launch, Precision, Scoring
from rbp_lab.measurement.observers import Callback
from rbp_lab.measurement.run import Job, Outcome, run_job
from rbp_lab.tracking.settings import Tracking
from rbp_lab.tracking.wandb.measurement import MeasurementTracker


def measure(config: Mapping[str, Any]) -> Outcome:
    """Find or make the record that ``config`` describes; see ``run_job``."""
    return run_job(job_from_config(config))


def job_from_config(config: Mapping[str, Any]) -> Job:
    """The job that a plain configuration (nested mappings, as JSON holds them) describes; LabError when it does not."""
    tracking = call(Tracking, config.get("tracking") or {"mode": "none"}, "tracking")
    own = tuple(build(node, f"callbacks.{name}") for name, node in (config["callbacks"] or {}).items())
    return Job(
        model=build(config["model"], "model"),
        dataset=build(config["dataset"], "dataset"),
        k=call(KSpec, config["k"], "k"),
        precision=call(Precision, config["precision"], "precision"),
        scoring=call(Scoring, config["scoring"], "scoring"),
        launch=call(Launch, config["launch"], "launch"),
        store=config["store"],
        callbacks=(*own, *trackers(tracking, config)),
        force=config["force"],
        config=config,
    )


def trackers(tracking: Tracking, config: Mapping[str, Any]) -> tuple[Callback, ...]:
    """The callbacks that mirror a measurement, as the group ``tracking`` chooses them."""
    wandb = () if tracking.mode == "none" else (MeasurementTracker(tracking, config["store"], config),)
    return (*wandb, *(build(node, f"tracking.trackers.{name}") for name, node in tracking.trackers.items()))
