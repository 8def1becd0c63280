"""Whatever the wandb package does, a measurement keeps its record and its exit code and prints one warning."""

import json
import os
import sys
import time
from types import SimpleNamespace

import pytest

from rbp_lab.cli import main
from rbp_lab.commands.measure import measure
from rbp_lab.measurement import pool
from rbp_lab.measurement.observers import Observers, RunInfo
from rbp_lab.tracking.jsonl import JsonLines
from rbp_lab.tracking.settings import Tracking, destination
from rbp_lab.tracking.wandb import session
from rbp_lab.tracking.wandb.analysis import mirror_analysis
from rbp_lab.tracking.wandb.measurement import MeasurementTracker
from tests.sources import measure_config

OFFLINE = {"mode": "offline", "timeout": 60.0}
IMPATIENT = {**OFFLINE, "timeout": 1.0}
WORKING = """
import atexit, os, signal, sys, threading, time
print("noise on stdout", flush=True)
class Settings:
    model_fields = {}
    def __init__(self, **_): pass
def setup(settings=None): pass
class Histogram:
    def __init__(self, np_histogram): pass
class Artifact:
    def __init__(self, *_, **__): pass
    def add_file(self, *_, **__): pass
class Run:
    url, entity, project = None, "e", "p"
    def __init__(self, id, place):
        self.id, self.dir, self.summary = id, place + "/wandb/run/files", {}
        os.makedirs(self.dir, exist_ok=True)
    def define_metric(self, *_, **__): pass
    def log(self, row): pass
    def log_artifact(self, artifact): pass
    def finish(self, exit_code=0):
        with open(f"{self.dir}/../run-{self.id}.wandb", "w") as file:
            file.write("x")
def init(id, dir, **_): return Run(id, dir)
def broken(*_, **__): raise OSError(28, "No space left on device")
def hung(*_, **__): time.sleep(1000)
"""
FAULTS = {  # what a wandb package does, and what the warning says
    "raises while it is imported": ("raise RuntimeError('broken install')", "broken install"),
    "raises no Exception while it is imported": ("class Odd(BaseException): pass\nraise Odd('odd')", "Odd: odd"),
    "calls sys.exit while it is imported": ("import sys; sys.exit(5)", "SystemExit"),
    "ends its process while it is imported": ("import os; os._exit(7)", "has ended"),
    "crashes while it is imported": ("import os; os.kill(os.getpid(), 11)", "has ended"),
    "exits when a run starts": (f"{WORKING}\ndef init(**_): sys.exit(3)", "SystemExit: 3"),
    "hangs when a run is logged to": (f"{WORKING}\nRun.log = hung", "no answer within"),
    "raises when a run is logged to": (f"{WORKING}\nRun.log = broken", "No space left on device"),
    "ends its process in finish": (f"{WORKING}\nRun.finish = lambda *_, **__: os._exit(4)", "has ended"),
    "hangs in finish": (f"{WORKING}\nRun.finish = hung", "no answer within"),
    "writes nothing": (f"{WORKING}\nRun.finish = lambda *_, **__: None", "is the disk full?"),
}
SILENT = {
    "works": WORKING,
    "hangs at the interpreter's exit": f"{WORKING}\natexit.register(hung)",
    "leaves a thread behind": f"{WORKING}\nthreading.Thread(target=hung).start()",
    "ends its process at the interpreter's exit": f"{WORKING}\natexit.register(os._exit, 9)",
    "cannot be terminated": f"{WORKING}\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\natexit.register(hung)",
}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Installs a made-up wandb package in front of the real one, for client processes to come."""
    session.reset()
    monkeypatch.setattr(session, "GRACE_SECONDS", 1.0)
    monkeypatch.setattr(session, "EXIT_SECONDS", 1.0)

    def install(source):
        (tmp_path / "fake").mkdir()
        (tmp_path / "fake" / "wandb.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path / "fake")

    yield install
    session.reset()


@pytest.fixture(scope="module")
def outcome(tiny_model_dir, tmp_path_factory):
    return measure(measure_config(tiny_model_dir, tmp_path_factory.mktemp("measured")))


def track(store, outcome, tracking=OFFLINE):
    """What a measurement of the outcome's record would ask of the tracker."""
    header = outcome.record.header
    run = RunInfo("m", "d", 5, 100, header.model.vocab_rows, (1, 5), (1,), header=header)
    with Observers([MeasurementTracker(Tracking(**tracking), store)]) as observers:
        observers.notify("on_start", run)
        observers.notify("on_record", outcome.record, outcome.path)


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_wandb_package_costs_one_warning(fake, tmp_path, outcome, capsys, name):
    source, why = FAULTS[name]
    fake(source)
    begin = time.monotonic()
    track(tmp_path / "store", outcome, IMPATIENT if name.startswith("hangs") else OFFLINE)
    session.reset()  # as at this process's exit
    assert time.monotonic() - begin < 500  # what hangs does so for longer
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: W&B (offline) failed while") and why in warning and "rbp-lab sync" in warning
    assert not (tmp_path / "store" / "mirrored").exists()


@pytest.mark.parametrize("name", SILENT)
def test_what_the_wandb_package_does_at_its_end_costs_nothing(fake, tmp_path, outcome, capsys, name):
    fake(SILENT[name])
    track(tmp_path / "store", outcome)
    process = session.shared_client()
    session.reset()
    assert not process.alive and capsys.readouterr() == ("", "")
    assert (tmp_path / "store" / "mirrored").is_dir()


def test_an_import_that_hangs_is_given_up(fake, tmp_path, outcome, capsys, monkeypatch):
    monkeypatch.setattr(session, "IMPORT_SECONDS", 1.0)
    fake("import time; time.sleep(1000)")
    track(tmp_path / "store", outcome, IMPATIENT)
    assert "failed while starting a run: no answer within 3 s" in capsys.readouterr().err


def test_the_exit_code_and_the_record_are_kept(fake, tiny_model_dir, tmp_path, monkeypatch, capsys):
    """The command line as a user calls it, with a wandb package that exits when it is imported."""
    fake("import sys; sys.exit(5)")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 20)
    overrides = [
        "model=hf", f"model.path={tiny_model_dir}", "model.name=tiny", "dataset=local", "dataset.files=text.txt",
        "dataset.protocol.max_tokens=32", "launch.device=cpu", "store=store", "tracking=[wandb,jsonl]",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as exit:
        main(["measure", *overrides])
    err = capsys.readouterr().err
    assert exit.value.code in (0, None), err
    assert err.count("warning") == 1 and "SystemExit: 5" in err
    (record,) = (tmp_path / "store" / "runs").glob("*/record.json")
    (log,) = (tmp_path / "store" / "tracking").iterdir()  # the other tracker goes on
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert log.name == f"{record.parent.name}.jsonl" and events[0] == "start" and events[-1] == "record"


def test_a_store_that_takes_no_notes_costs_one_warning(fake, tmp_path, outcome, capsys):
    fake(WORKING)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mirrored").write_text("in the way")
    track(tmp_path / "store", outcome)
    (warning,) = capsys.readouterr().err.splitlines()
    assert "failed while noting that it has arrived" in warning


def test_an_analysis_that_cannot_be_read_costs_one_warning(tmp_path, capsys):
    (tmp_path / "points.csv").write_bytes(b"\xff\x00,")
    (tmp_path / "analysis.json").write_text('{"files": ["points.csv"]}')
    assert mirror_analysis(Tracking(**OFFLINE), tmp_path / "store", tmp_path) is None
    (warning,) = capsys.readouterr().err.splitlines()
    assert "failed while mirroring an analysis" in warning


def test_an_environment_that_is_no_use_is_no_key(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / "netrc").write_bytes(b"machine caf\xe9 login a password b\n\xff")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for server in ("http://[", "no address", "http://127.0.0.1:99999999"):
        monkeypatch.setenv("WANDB_BASE_URL", server)
        assert destination(Tracking(mode="online")).mode == "offline"


def test_warnings_of_measuring_processes_reach_the_terminal_once(capsys):
    said = "warning: W&B (offline) failed\nW1125 noise\nnote: a\nwarning: W&B (offline) failed\n"
    script = f"import sys; sys.stderr.write({said!r})"
    workers = [pool.Worker(os.environ, [sys.executable, "-c", script]) for _ in range(2)]
    for worker in workers:
        assert worker.exit_code() == 0 and worker.whole_log() == "W1125 noise\n"
        worker.end(1.0)
    assert sorted(capsys.readouterr().err.splitlines()) == ["note: a", "warning: W&B (offline) failed"]


def test_json_lines_hold_start_progress_record_and_error(tmp_path, outcome):
    header, stats = outcome.record.header, outcome.record.stats
    run = RunInfo("m", "d", 5, 100, header.model.vocab_rows, (1, 5), (1,), header=header)
    tracker = JsonLines(str(tmp_path / "log"), seconds=1e-9)
    tracker.on_start(run)
    tracker.on_log(SimpleNamespace(stats=stats, positions_per_second=9.0))
    tracker.on_record(outcome.record, outcome.path)
    tracker.on_error(OSError("no room"))
    start, progress, record, error = map(
        json.loads, (tmp_path / "log" / f"{header.key}.jsonl").read_text().splitlines()
    )
    assert start["key"] == header.key and start["processes"] == 1
    assert progress["tokens"] == stats.num_tokens and progress["ce"] == record["summary"]["cross_entropy"]
    assert progress["rbp"]["5"] == record["summary"]["rbp"]["5"][0]
    assert record["path"] == str(outcome.path) and error["error"] == "OSError: no room"
    other = JsonLines(str(tmp_path / "other"))
    other.on_start(RunInfo("m", "d", 5, 100, 300, (1, 5), (1,), rank=1, world=2, header=header))
    other.on_error(OSError("no room"))
    assert not (tmp_path / "other").exists()  # process 0 writes for all
