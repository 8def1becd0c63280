"""Former names in a configuration mean what they meant, with one line on stderr."""

from dataclasses import dataclass

import pytest

from rbp_lab.config import old_names
from rbp_lab.config.build import build, locate, read
from rbp_lab.config.schemas import Scoring


@dataclass(frozen=True)
class Composed:
    scoring: Scoring


@pytest.fixture(autouse=True)
def nothing_noted_yet(monkeypatch):
    monkeypatch.setattr("rbp_lab.errors._noted", set())
    monkeypatch.delenv("RANK", raising=False)


@pytest.mark.parametrize("old", old_names.IMPLEMENTATIONS)
def test_a_former_implementation_is_taken_and_noted_once(old, capsys):
    new = old_names.IMPLEMENTATIONS[old]
    for _ in "12":
        assert read(Composed, {"scoring": {"implementation": old}}).scoring.implementation == new
    assert capsys.readouterr().err == f"note: scoring.implementation={old} is called {new} now\n"


def test_a_former_class_is_taken_and_noted_once(capsys):
    old, new = "rbp_lab.progress.ProgressBar", "rbp_lab.measurement.progress.ProgressBar"
    for _ in "12":
        assert type(build({"_target_": old, "seconds": 1.0}, "callbacks.progress")) is locate(new, "")
    assert capsys.readouterr().err == f"note: callbacks.progress._target_={old} is called {new} now\n"


def test_launched_processes_leave_the_note_to_the_process_that_launches(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert read(Composed, {"scoring": {"implementation": "native"}}).scoring.implementation == "numba"
    assert capsys.readouterr().err == ""


def test_every_class_is_there_under_its_present_name():
    assert not set(old_names.TARGETS) & set(old_names.TARGETS.values())
    assert all(locate(new, "") for new in old_names.TARGETS.values())


def test_a_former_name_elsewhere_is_a_text(capsys):
    assert old_names.current_name("dataset.name", "native") == "native"
    assert capsys.readouterr().err == ""
