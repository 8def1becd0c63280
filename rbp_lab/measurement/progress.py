"""Progress of loops: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from rich import progress as rich_progress
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from rbp_lab.data.windows import TokenBatch
from rbp_lab.measurement.observers import Callback, Progress, RunInfo
from rbp_lab.metrics import cross_entropy, rbp
from rbp_lab.text import number, si

if TYPE_CHECKING:
    from rbp_lab.scoring.types import TokenScores


class Rate(ProgressColumn):
    """Work per second. unit: of the work."""

    def __init__(self, unit: str):
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{si(task.speed or 0.0)} {self._unit}/s", style="progress.data.speed")


class WorkProgress:
    """Share, work per second, time left and a note.

    In a terminal a bar that vanishes at the end, elsewhere a line every ``seconds``.
    """

    def __init__(self, title: str, total: int, seconds: float, done: int = 0, unit: str = "tok"):
        """total: work of the whole loop, in ``unit``. done: what of it is done at the beginning."""
        self._title, self._total, self._seconds, self._unit = title, total, seconds, unit
        self._printed = time.monotonic()
        self._bar: rich_progress.Progress | None = None
        if sys.stdout.isatty():
            self._bar = rich_progress.Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:3.0f}%"),
                Rate(unit),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                transient=True,
            )
            self._task = self._bar.add_task(title, total=total, completed=done, note="")
            self._bar.start()

    def advance(self, work: int) -> None:
        """Move the bar by so much."""
        if self._bar is not None:
            self._bar.advance(self._task, work)

    def show(self, done: int, per_second: float, note: str) -> None:
        """Put the note beside the bar, or print a line when one is due. done: work so far."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
        elif per_second > 0 and done < self._total and time.monotonic() - self._printed >= self._seconds:
            self._printed = time.monotonic()
            left = (self._total - done) / per_second
            share = f"{number(100 * done / self._total, 0)}%, {si(per_second)} {self._unit}/s"
            print(f"{self._title}: {share}, {number(left, 0)} s left  {note}", flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class ProgressBar(Callback):
    """Shows where a measurement stands, with cross-entropy and RBP_1 of what process 0 has scored; in process 0."""

    def __init__(self, seconds: float = 15.0):
        self._seconds = seconds
        self._progress: WorkProgress | None = None

    def on_start(self, run: RunInfo) -> None:
        if run.rank == 0:
            title = f"measure {run.model} on {run.dataset}"
            self._progress = WorkProgress(title, run.num_positions, self._seconds, run.finished_positions)

    def on_batch(self, batch: TokenBatch, scores: TokenScores) -> None:
        if self._progress is not None:
            self._progress.advance(batch.tokens.size)

    def on_log(self, progress: Progress) -> None:
        if self._progress is not None:
            stats = progress.stats
            note = f"CE {number(cross_entropy(stats), 3)}  RBP_1 {number(rbp(stats, 1), 3)}" if stats.num_tokens else ""
            self._progress.show(progress.positions, progress.positions_per_second, note)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.close()
            self._progress = None


class TrainingProgress:
    """Shows where a training stands, with its loss: a hook of the training loop, and a context manager."""

    def __init__(self, title: str, steps: int, tokens_per_step: int, seconds: float = 15.0):
        self._title, self._steps, self._tokens, self._seconds = title, steps, tokens_per_step, seconds
        self._loss, self._shown, self._done = 0.0, 0, 0

    def __enter__(self) -> TrainingProgress:
        self._progress = WorkProgress(self._title, self._steps * self._tokens, self._seconds)
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()

    def __call__(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        # A moving average with the bias of its start taken out: a single batch is noise to the eye.
        self._shown += 1
        self._loss += (loss - self._loss) / min(self._shown, 20)
        self._progress.advance((step - self._done) * self._tokens)  # a resumed training begins in its middle
        self._done = step
        note = f"step {step}/{self._steps}  loss {number(self._loss, 3)}"
        self._progress.show(step * self._tokens, tokens_per_s, note)
