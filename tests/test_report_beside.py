"""Figures that a second process draws while this one computes."""

import contextlib
import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from rbp_lab.analysis import run as analysis
from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.config.schemas import FitChoices
from rbp_lab.errors import LabError
from rbp_lab.figures.style import new_figure, styled
from rbp_lab.laws.base import Inputs
from rbp_lab.laws.registry import LAWS, compute, sections
from rbp_lab.points import points_from_records
from rbp_lab.report import beside
from rbp_lab.report.beside import Drawer, DrawerBeside
from rbp_lab.report.panels import panel_drawings
from rbp_lab.report.sections import ReportFigure
from tests.fits_data import ladder

DEAD = (sys.executable, "-c", "raise SystemExit")


@styled
def line_figure(values, fails=None, seconds=0.0):
    """A figure of a module, as figures of laws are."""
    if fails is not None:
        raise fails
    time.sleep(seconds)
    figure = new_figure(3, 2)
    figure.subplots().plot(values)
    return figure


def figure_of(name, *args, **kwargs):
    drawings = {str(i): functools.partial(line_figure, np.arange(i), *args, **kwargs) for i in (2, 3)}
    return ReportFigure(name, None, "caption", drawings)


def is_running(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_the_panels_and_files_are_those_of_one_process(tmp_path):
    figures = [figure_of("one"), figure_of("none", LabError("nothing to draw")), figure_of("not begun")]
    here, there = tmp_path / "here", tmp_path / "there"
    with Drawer(here, ("png", "svg")) as drawer:
        alone = [drawer.panels(figure) for figure in figures]
    with DrawerBeside(there, ("png", "svg")) as drawer:
        for figure in figures[:2]:
            drawer.begin(figure)
        assert drawer._begun["one"][1].result().choice == "3"  # drawn there, before it is asked for
        found = [drawer.panels(figure) for figure in figures]
    assert [[p.svg for p in panels] for panels in found] == [[p.svg for p in panels] for panels in alone]
    assert [len(panels) for panels in found] == [2, 0, 2] and len(list(here.iterdir())) == 8
    for file in here.iterdir():
        assert (there / file.name).read_bytes() == file.read_bytes()
    assert not is_running(drawer._process.pid)


def test_every_figure_of_an_analysis_can_be_sent():
    runs = ladder(7, documents=20)
    points = points_from_records(runs, [1, 2, 5, 10, 100])
    inputs = Inputs(points, fit_all(points, records=runs), runs, choices=FitChoices(every_figure=True))
    shown = sections(LAWS, compute(LAWS, inputs))
    drawings = [drawing for section in shown for f in section.figures for drawing in panel_drawings(f)]
    assert len(drawings) > 20 and max(len(pickle.dumps(drawing)) for drawing in drawings) < 1e6


def test_an_analysis_of_many_records_writes_the_same_bytes(tmp_path, monkeypatch):
    records, started = ladder(3, documents=20), []

    class Counted(DrawerBeside):
        def __init__(self, directory, formats):
            super().__init__(directory, formats)
            started.append(directory.name)

    monkeypatch.setattr(analysis, "DrawerBeside", Counted)
    monkeypatch.setattr(analysis, "processors", lambda: 2)
    points = points_from_records(records, [1, 10, 100])
    fit = FitChoices(formats=["svg"], only=["scaling", "decomposition"])
    alone = analysis.analyze(points, tmp_path / "few", fit, records=records, beside=True)
    monkeypatch.setattr(analysis, "MANY", 3)
    both = analysis.analyze(points, tmp_path / "many", fit, records=records, beside=True)
    assert started == ["many"]
    assert [f.name for f in both.files] == [f.name for f in alone.files] and len(both.files) > 10
    for one, other in zip(alone.files, both.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_what_cannot_be_drawn_there_is_drawn_here(tmp_path, capfd):
    local = ReportFigure("local", lambda: line_figure([1, 2]), "a function that only this process has")
    broken = figure_of("broken", ValueError("a defect"))
    with DrawerBeside(tmp_path) as drawer:
        for figure in (local, broken, figure_of("after")):
            drawer.begin(figure)
        assert len(drawer.panels(local)) == 1
        with pytest.raises(ValueError, match="a defect"):
            drawer.panels(broken)
        assert len(drawer.panels(figure_of("after"))) == 2
    assert capfd.readouterr().err == ""


def test_a_process_that_has_died_is_told_once_and_not_missed(tmp_path, capfd):
    figures = [figure_of("a"), figure_of("b")]
    with DrawerBeside(tmp_path, command=DEAD) as drawer:
        drawer._process.wait()
        for figure in figures:
            drawer.begin(figure)
        assert [len(drawer.panels(figure)) for figure in figures] == [2, 2]
    assert capfd.readouterr().err.count("the process that draws figures has ended") == 1


REFUSALS = [
    ("Popen", BlockingIOError(11, "Resource temporarily unavailable")),
    ("Popen", FileNotFoundError(2, "No such file or directory")),
    ("Pipe", OSError(24, "Too many open files")),
    ("thread", RuntimeError("can't start new thread")),
]


@pytest.mark.parametrize(("name", "error"), REFUSALS, ids=str)
def test_where_no_second_process_can_be_had_figures_are_drawn_here(tmp_path, capfd, monkeypatch, name, error):
    def refused(*_, **__):
        raise error

    place = {"Popen": beside.subprocess, "Pipe": beside, "thread": threading.Thread}[name]
    monkeypatch.setattr(place, "start" if name == "thread" else name, refused)
    figures = [figure_of("a"), figure_of("b")]
    with DrawerBeside(tmp_path, ("png",)) as drawer:
        for figure in figures:
            drawer.begin(figure)
        assert [len(drawer.panels(figure)) for figure in figures] == [2, 2]
    assert len(list(tmp_path.iterdir())) == 4
    said = capfd.readouterr().err
    assert said.count("warning: ") == 1 and str(error) in said


@pytest.mark.parametrize("answer", ["", "import os; os.write(int(sys.argv[1]), b'no answer')"])
def test_a_process_killed_while_it_draws_is_not_missed(tmp_path, capfd, answer):
    """Killed with nothing answered, and in the midst of an answer."""
    code = f"import sys, signal, os; os.read(int(sys.argv[1]), 1); {answer}\nos.kill(os.getpid(), signal.SIGKILL)"
    with DrawerBeside(tmp_path, command=(sys.executable, "-c", code)) as drawer:
        drawer.begin(figure_of("a"))
        assert len(drawer.panels(figure_of("a"))) == 2
    assert capfd.readouterr().err.count("the process that draws figures has ended") == 1


def test_an_interruption_ends_the_process(tmp_path, capfd):
    with pytest.raises(KeyboardInterrupt), DrawerBeside(tmp_path, ("svg",)) as drawer:
        drawer.begin(figure_of("slow", seconds=60.0))
        time.sleep(0.1)
        begin = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - begin < beside.GRACE + 1 and not is_running(drawer._process.pid)
    assert not list(tmp_path.iterdir()) and capfd.readouterr().err == ""


def test_it_ends_with_a_process_that_is_killed(tmp_path):
    code = (
        "import sys, time; from rbp_lab.report.beside import DrawerBeside; from pathlib import Path\n"
        "drawer = DrawerBeside(Path(sys.argv[1])); print(drawer._process.pid, flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as owner:
        pid = int(owner.stdout.readline())
        assert is_running(pid)
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)
