"""The trackers of a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbp_lab.measurement.observers import Callback
from rbp_lab.tracking.settings import Tracking
from rbp_lab.tracking.wandb.measurement import MeasurementTracker


def trackers(tracking: Tracking, store: str, config: Mapping[str, Any]) -> tuple[Callback, ...]:
    """The callbacks that mirror a measurement, as the group ``tracking`` chooses them. config: as composed."""
    wandb = () if tracking.mode == "none" else (MeasurementTracker(tracking, store, config),)
    return (*wandb, *tracking.trackers.values())
