"""Progress for people: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from rbp_lab.data.windows import TokenBatch
from rbp_lab.measurement.observers import Callback, Measurement, RunInfo
from rbp_lab.measurement.observers import Progress as LoopProgress
from rbp_lab.metrics import cross_entropy, rbp
from rbp_lab.scoring.types import TokenScores
from rbp_lab.text import si


class TokenRate(ProgressColumn):
    """Tokens per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{si(task.speed or 0.0)} tok/s", style="progress.data.speed")


def token_bar(console: Console | None = None) -> Progress:
    """A rich bar over tokens: description, bar, share, tokens/s, time left, and a free text field ``note``."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:3.0f}%"),
        TokenRate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console or Console(),
        transient=True,
    )


class ProgressBar(Callback):
    """Shows where the measuring loop stands: share, tokens/s, time left, cross-entropy and RBP_1 so far.

    In a terminal a bar that vanishes at the end; elsewhere a line every ``seconds``. Process 0 speaks for its share.
    """

    def __init__(self, seconds: float = 15.0):
        self._seconds = seconds
        self._bar: Progress | None = None

    def on_start(self, run: RunInfo) -> None:
        self._run = run
        self._quiet = run.rank != 0
        self._title = f"measure {run.model} on {run.dataset}" + (f" (1 of {run.world})" if run.world > 1 else "")
        self._spoke = time.monotonic()
        if not self._quiet and sys.stdout.isatty():
            self._bar = token_bar()
            self._task = self._bar.add_task(self._title, total=run.num_positions, note="")
            self._bar.start()

    def on_batch(self, batch: TokenBatch, scores: TokenScores) -> None:
        if self._bar is not None:
            self._bar.advance(self._task, batch.tokens.size)

    def on_log(self, progress: LoopProgress) -> None:
        stats = progress.stats
        note = f"CE {cross_entropy(stats):.3f}  RBP_1 {rbp(stats, 1):.3f}" if stats.num_tokens else ""
        if self._bar is not None:
            self._bar.update(self._task, note=note)
        elif not self._quiet and time.monotonic() - self._spoke >= self._seconds:
            self._spoke = time.monotonic()
            share = progress.positions / max(1, self._run.num_positions)
            left = progress.seconds * (1 / share - 1)
            rate = si(progress.positions_per_second)
            print(f"{self._title}: {share:.0%}, {rate} tok/s, {left:.0f} s left  {note}", flush=True)

    def on_end(self, measurement: Measurement) -> None:
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
