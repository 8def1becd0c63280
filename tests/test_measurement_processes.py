"""Real processes on the CPU: whoever takes which shard, the record of one process to the last bit."""

import os
import signal
import sys
import time

import psutil
import pytest

from rbp_lab.commands.measure import measure
from rbp_lab.errors import LabError
from rbp_lab.measurement import pool
from rbp_lab.measurement.observers import Callback
from rbp_lab.store.records import list_records
from tests.sources import measure_config


@pytest.fixture(scope="module")
def alone(tiny_model_dir, tmp_path_factory):
    return measure(measure_config(tiny_model_dir, tmp_path_factory.mktemp("alone"))).record


def several(model, store, **changes):
    """Two processes that take shards of a few documents each."""
    return measure_config(model, store, launch__processes=2, launch__shard_tokens=300, **changes)


@pytest.mark.parametrize("processes", [2])
def test_several_processes_give_the_record_of_one(tiny_model_dir, tmp_path, alone, processes, monkeypatch):
    for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"):  # another project's settings
        monkeypatch.setenv(name, "true")
    outcome = measure(several(tiny_model_dir, tmp_path))
    record = outcome.record
    assert record.provenance["processes"] == processes and record.provenance["shards"] > 4
    assert record.key == alone.key
    assert record.stats == alone.stats and record.documents == alone.documents
    assert record.document_names == alone.document_names
    assert not list(tmp_path.glob("partial/*"))
    before = list(pool._workers)
    again = measure(several(tiny_model_dir, tmp_path / "x", dataset__num_documents=3)).record
    assert pool._workers == before  # the processes of the last measurement
    assert len(again.documents) == 1  # one document has tokens, one process has nothing to do


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        pytest.param("mistake", LabError, r"^callbacks\.mine: this callback is for nobody$", marks=pytest.mark.slow),
        ("defect", RuntimeError, r"^in process \d: ArithmeticError: no such luck"),
        pytest.param(
            "killed", LabError, r"^measuring process \d was ended by SIGKILL; if memory ran out", marks=pytest.mark.slow
        ),
    ],
)
def test_what_goes_wrong_in_a_process_is_what_is_told(tiny_model_dir, tmp_path, how, error, message):
    config = several(tiny_model_dir, tmp_path)
    config["callbacks"] = {"mine": {"_target_": "tests.test_measurement_processes.only_in_workers", "how": how}}
    with pytest.raises(error, match=message) as caught:
        measure(config)
    if how == "defect":
        assert "in only_in_workers" in caught.value.__notes__[0]  # the traceback of the process
    assert list_records(tmp_path) == [] and not pool._workers


def only_in_workers(how):
    """A callback that can be built by the parent, but not by a launched process."""
    if is_worker():
        if how == "mistake":
            raise LabError("this callback is for nobody")
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ArithmeticError("no such luck")
    return Callback()


def is_worker():
    return os.path.basename(sys.argv[0]) == "worker.py"


class KilledIn(Callback):
    """Kills process ``rank`` at its first shard, unless the file ``once`` is there."""

    def __init__(self, rank, once):
        self._rank, self._once = rank, once

    def on_start(self, run):
        self._mine = run.rank == self._rank

    def on_batch(self, batch, scores):
        if self._mine and not os.path.exists(self._once):
            open(self._once, "x").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if not self._mine:
            while not os.path.exists(self._once):
                time.sleep(0.01)


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_others_do_the_work_of_a_killed_process(tiny_model_dir, tmp_path, alone, rank, capsys):
    config = several(tiny_model_dir, tmp_path)
    target = "tests.test_measurement_processes.KilledIn"
    config["callbacks"] = {"killed": {"_target_": target, "rank": rank, "once": str(tmp_path / "once")}}
    record = measure(config).record
    assert record.stats == alone.stats and record.documents == alone.documents
    assert f"measuring process {rank} was ended by SIGKILL; the others do its work" in capsys.readouterr().err
    assert not list(tmp_path.glob("partial/*"))


class Interrupts(Callback):
    """As Ctrl-C, once each process is in the middle of a shard; notes who has closed."""

    def __init__(self, directory):
        self._directory = directory

    def _note(self, what):
        open(f"{self._directory}/{what}-{self._rank}", "w").close()

    def on_start(self, run):
        self._rank = run.rank

    def on_batch(self, batch, scores):
        self._note("began")
        while not all(os.path.exists(f"{self._directory}/began-{rank}") for rank in (0, 1)):
            time.sleep(0.01)
        if self._rank == 0:
            os.kill(os.getppid(), signal.SIGINT)
        time.sleep(60)

    def close(self):
        time.sleep(0.3)  # as a tracker that sends the last it has
        self._note("closed")


def test_interrupted_processes_close_their_callbacks_and_give_their_shards_back(tiny_model_dir, tmp_path):
    config = several(tiny_model_dir, tmp_path / "store")
    target = "tests.test_measurement_processes.Interrupts"
    config["callbacks"] = {"interrupts": {"_target_": target, "directory": str(tmp_path)}}
    with pytest.raises(KeyboardInterrupt):
        measure(config)
    assert {path.name for path in tmp_path.glob("closed-*")} == {"closed-0", "closed-1"}
    assert list(tmp_path.glob("store/partial/*/plan.json")) and not list(tmp_path.glob("store/partial/*/*.lease"))


def test_the_processes_end_with_the_one_that_started_them():
    (worker,) = pool.start(1, "cpu")
    process = psutil.Process(worker._process.pid)
    worker._process.stdin.close()  # as the system does when a process ends, however it ends
    process.wait(timeout=60)
    pool.close()
