"""What is shown while a model is measured or trained."""

from types import SimpleNamespace

import numpy as np

from rbp_lab.ladder.aggregate.progress import StepProgress
from rbp_lab.measurement.observers import Progress, RunInfo
from rbp_lab.measurement.progress import ProgressBar, TrainingProgress
from rbp_lab.stats import RankStats


def measured(rank: int, in_terminal: bool, monkeypatch, capsys) -> str:
    """What process ``rank`` of two shows at 60 of 100 tokens, of which 20 were done before it began."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: in_terminal, raising=False)
    bar = ProgressBar(seconds=0.0)
    bar.on_start(RunInfo("gpt2", "text", 2, 100, 8, (1,), (1,), rank, 2, finished_positions=20))
    bar.on_batch(SimpleNamespace(tokens=np.zeros((2, 20))), None)
    bar.on_log(Progress(60, 2.0, 20, RankStats.zeros(8)))
    bar.close()
    return capsys.readouterr().out


def test_the_first_process_prints_lines_outside_a_terminal(monkeypatch, capsys):
    line = measured(0, False, monkeypatch, capsys)
    assert line.strip() == "measure gpt2 on text: 60%, 20 tok/s, 2 s left"
    assert measured(1, False, monkeypatch, capsys) == ""


def test_a_terminal_has_a_bar_that_is_stopped(monkeypatch, capsys):
    shown = measured(0, True, monkeypatch, capsys)
    assert "60%" in shown and "tok/s" in shown and "s left" not in shown


def test_progress_is_printed_in_lines_outside_a_terminal(capsys):
    with TrainingProgress("train x", steps=4, tokens_per_step=10, seconds=0.0) as progress:
        for step in (1, 2, 3, 4):
            progress(step, 5.0 - step, 1.0, 20.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "train x: 25%, 20 tok/s, 2 s left  step 1/4  loss 4.000"
    assert len(lines) == 3 and "step 3/4  loss 3.000" in lines[2]


def test_a_resumed_training_shows_the_loss_of_its_first_step(capsys):
    with TrainingProgress("train x", steps=100, tokens_per_step=10, seconds=0.0) as progress:
        progress(51, 3.0, 1.0, 20.0)
    assert capsys.readouterr().out.strip() == "train x: 51%, 20 tok/s, 24 s left  step 51/100  loss 3.000"


def test_training_of_classifiers_is_printed_in_lines_too(capsys):
    with StepProgress("train c", seconds=0.0) as progress:
        for step in (1, 2, 3, 4):
            progress(step, 4, 1 / step)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("%")[0] for line in lines] == ["train c: 50", "train c: 75"]
    assert "steps/s, 0 s left  step 2/4  risk 0.500" in lines[0]
