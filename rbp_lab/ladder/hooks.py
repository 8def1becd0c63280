"""Who is notified of a training while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from rbp_lab.records import ModelInfo

# on_step(step, loss, lr, tokens_per_s): step counts from 1, loss in nats per token, lr the schedule's factor in [0, 1].
StepHook = Callable[[int, float, float, float], None]


class Tracker(AbstractContextManager["Tracker"], Protocol):
    """A ``StepHook`` open around one training.

    ``kept`` is called when a checkpoint covers the steps so far, ``finish`` with the trained model and its
    training.json.
    """

    def __call__(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None: ...

    def kept(self, step: int) -> None: ...

    def finish(self, info: ModelInfo, training: Mapping[str, Any]) -> None: ...
