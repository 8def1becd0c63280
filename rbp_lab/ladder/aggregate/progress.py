"""Where the training of classifiers stands."""

from __future__ import annotations

import time

from rbp_lab.measurement.progress import WorkProgress
from rbp_lab.text import number


class StepProgress:
    """A step hook of the training loop, and a context manager. seconds: between two plain lines."""

    def __init__(self, title: str, seconds: float = 15.0):
        self._title, self._seconds = title, seconds
        self._progress: WorkProgress | None = None

    def __enter__(self) -> StepProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, step: int, steps: int, risk: float) -> None:
        if self._progress is None:
            self._begin, self._done = time.monotonic(), step
            self._progress = WorkProgress(self._title, steps, self._seconds, step, "steps")
        rate = (step - self._done) / max(1e-9, time.monotonic() - self._begin)
        self._progress.show(step, rate, f"step {step}/{steps}  risk {number(risk, 3)}")

    def close(self) -> None:
        """Take the bar away; the next step begins a new one."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None
