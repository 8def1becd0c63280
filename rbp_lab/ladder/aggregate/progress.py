"""Where the training of classifiers stands: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class StepProgress:
    """A step hook of the training loop, and a context manager. seconds: between two plain lines."""

    def __init__(self, title: str, seconds: float = 15.0):
        self._title, self._seconds = title, seconds
        self._begin = self._printed = time.monotonic()
        self._bar: Progress | None = None
        self._task = None

    def __enter__(self) -> StepProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, step: int, steps: int, risk: float) -> None:
        note = f"step {step}/{steps}  risk {risk:.3f}"
        if sys.stdout.isatty():
            if self._bar is None:
                self._bar = Progress(
                    TextColumn("{task.description}"), BarColumn(bar_width=24),
                    TextColumn("{task.percentage:3.0f}%"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
                    transient=True,
                )  # fmt: skip
                self._task = self._bar.add_task(self._title, total=steps, note=note)
                self._bar.start()
            self._bar.update(self._task, completed=step, note=note)
            return
        now = time.monotonic()
        if step < steps and now - self._printed >= self._seconds:
            self._printed = now
            left = (now - self._begin) / step * (steps - step)
            print(f"{self._title}: {step / steps:.0%}, {left:.0f} s left  {note}", flush=True)

    def close(self) -> None:
        """Take the bar away; the next step begins a new one."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
