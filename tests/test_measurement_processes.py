"""Real processes on the CPU: uneven shares, every document once, the record of one process to the last bit."""

import json
import os
import signal
import sys
import time

import pytest

from rbp_lab.commands.measure import measure
from rbp_lab.errors import LabError
from rbp_lab.measurement.observers import Callback
from rbp_lab.measurement.pool import FAILURE, run_to_end, write_failure
from rbp_lab.store.records import list_records
from tests.sources import measure_config


@pytest.fixture(scope="module")
def alone(tiny_model_dir, tmp_path_factory):
    return measure(measure_config(tiny_model_dir, tmp_path_factory.mktemp("alone"))).record


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_give_the_record_of_one(tiny_model_dir, tmp_path, alone, processes, monkeypatch):
    for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"):  # another project's settings
        monkeypatch.setenv(name, "true")
    outcome = measure(measure_config(tiny_model_dir, tmp_path, launch__processes=processes))
    record = outcome.record
    assert len(alone.documents) % processes != 0  # 23 documents have tokens: the shares are uneven
    assert record.provenance["processes"] == processes
    assert record.key == alone.key
    assert record.stats == alone.stats and record.documents == alone.documents
    assert not list(tmp_path.glob("cache/job-*"))


def test_more_processes_than_documents(tiny_model_dir, tmp_path):
    config = measure_config(tiny_model_dir, tmp_path, dataset__num_documents=3, launch__processes=2)
    alone = measure(measure_config(tiny_model_dir, tmp_path / "x", dataset__num_documents=3)).record
    record = measure(config).record  # one document has tokens, one process has nothing to do
    assert record.stats == alone.stats and len(record.documents) == 1


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("mistake", LabError, r"^callbacks\.mine: this callback is for nobody$"),
        ("defect", RuntimeError, r"^in process \d: ArithmeticError: no such luck"),
        ("killed", LabError, r"^a measuring process was ended by SIGKILL; if memory ran out"),
    ],
)
def test_what_goes_wrong_in_a_process_is_what_is_told(tiny_model_dir, tmp_path, how, error, message):
    config = measure_config(tiny_model_dir, tmp_path, launch__processes=2)
    config["callbacks"] = {"mine": {"_target_": "tests.test_measurement_processes.only_in_workers", "how": how}}
    with pytest.raises(error, match=message) as caught:
        measure(config)
    if how == "defect":
        assert "in only_in_workers" in caught.value.__notes__[0]  # the traceback of the process
    assert list_records(tmp_path) == [] and not list(tmp_path.glob("cache/job-*"))


def only_in_workers(how):
    """A callback that can be built by the parent, but not by a launched process."""
    if "RANK" in os.environ:
        if how == "mistake":
            raise LabError("this callback is for nobody")
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ArithmeticError("no such luck")
    return Callback()


def test_an_interrupt_ends_what_was_started(tmp_path):
    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def interrupt(*_):
        while not (tmp_path / "pid").is_file():
            time.sleep(0.01)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with open(tmp_path / "log", "w") as log, pytest.raises(KeyboardInterrupt):
            run_to_end([sys.executable, "-c", script], os.environ, log)
    finally:
        signal.signal(signal.SIGALRM, before)
    time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_first_failure_is_the_cause(tmp_path):
    write_failure(tmp_path / "job.json", KeyError("first"), 1)
    write_failure(tmp_path / "job.json", LabError("collateral"), 0)
    told = json.loads((tmp_path / FAILURE).read_text())
    assert told["rank"] == 1 and told["message"] == "KeyError: 'first'" and not told["user"]
