"""Figures drawn by a second process while this one computes.

That process is an interpreter of its own, so no thread of this one is copied, and it ends when its connection does,
however this process ends.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from rbp_lab.errors import warn
from rbp_lab.report.panels import Panel, draw_panels, panel_drawings
from rbp_lab.report.sections import ReportFigure

COMMAND = (sys.executable, "-P", "-m", "rbp_lab.report.beside")
GRACE = 5.0  # seconds that the process has to remove what it has half written


class Drawer:
    """Draws the figures of a report when their panels are asked for."""

    def __init__(self, directory: Path, formats: Sequence[str] = ()) -> None:
        """directory, formats: of files of the figures; see ``draw_panels``."""
        self.directory, self.formats = directory, tuple(formats)

    def begin(self, figure: ReportFigure) -> None:
        """Say that the panels of this figure will be asked for."""

    def panels(self, figure: ReportFigure) -> list[Panel]:
        """Its panels; whatever drawing raises is raised here."""
        return draw_panels(figure, self.directory, self.formats)

    def __enter__(self) -> Drawer:
        return self

    def __exit__(self, *exception: object) -> None:
        """End what was begun."""


class DrawerBeside(Drawer):
    """A drawer whose figures are drawn by a second process, in the order in which they were begun.

    The panels are the same: one that the process has not begun when it is asked for, that cannot be sent to it, that
    fails there, or that it leaves when it dies is drawn in this process, as all are where it cannot be started. The
    figures are plain values and functions of modules; custom ones that are not are drawn here.
    """

    def __init__(self, directory: Path, formats: Sequence[str] = (), command: Sequence[str] = COMMAND) -> None:
        super().__init__(directory, formats)
        self._turn = ThreadPoolExecutor(1)  # one drawing at a time goes there and comes back
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._begun: dict[str, list[Future[Panel | None]]] = {}
        path = os.pathsep.join(place or os.getcwd() for place in sys.path)
        try:
            self._connection, theirs = Pipe()
            with theirs:
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is this one's
                    env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                )  # fmt: skip
        except OSError as error:  # of processes, of memory, of open files
            self._give_up(f"no second process can draw figures ({error}); this one draws them")

    def _give_up(self, why: str) -> None:
        if not self._ended:
            warn(why)
        self._ended = True

    def begin(self, figure: ReportFigure) -> None:
        if self._ended:
            return
        drawings = panel_drawings(figure, self.directory, self.formats)
        try:
            self._begun[figure.name] = [self._turn.submit(self._ask, drawing) for drawing in drawings]
        except RuntimeError as error:  # this process may have no thread more
            self._give_up(f"no thread can have figures drawn by a second process ({error}); this one draws them")

    def _ask(self, drawing: Callable[[], Panel | None]) -> Panel | None:
        """What it draws; an exception of any kind when the second process does not."""
        job = pickle.dumps(drawing)
        try:
            self._connection.send_bytes(job)
            answer = self._connection.recv_bytes()
        except (EOFError, OSError):
            self._give_up("the process that draws figures has ended; this one draws the rest")
            raise
        drawn, panel = pickle.loads(answer)
        if not drawn:
            raise RuntimeError("it could not be drawn there")
        return panel

    def panels(self, figure: ReportFigure) -> list[Panel]:
        drawings = panel_drawings(figure, self.directory, self.formats)
        begun = self._begun.get(figure.name) or [None] * len(drawings)
        panels = [
            drawing() if there is None or there.cancel() or there.exception() is not None else there.result()
            for drawing, there in zip(drawings, begun, strict=True)
        ]
        return [panel for panel in panels if panel is not None]

    def __exit__(self, *exception: object) -> None:
        self._ended = True
        self._turn.shutdown(wait=False, cancel_futures=True)
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._turn.shutdown()
        self._connection.close()


def main() -> None:
    """Draw what comes by the connection whose number is the argument, until it ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that files half written are removed
    with Connection(int(sys.argv[1])) as connection:
        while True:
            try:
                job = connection.recv_bytes()
            except (EOFError, OSError):
                return
            try:
                answer = pickle.dumps((True, pickle.loads(job)()))
            except Exception:  # the other process draws it, and raises what there is to raise
                answer = pickle.dumps((False, None))
            connection.send_bytes(answer)


if __name__ == "__main__":
    main()
