"""Real processes on the CPU: uneven shares, every document once, the record of one process to the last bit."""

import json
import os
import signal
import sys
import threading
import time

import pytest
from torch.distributed import TCPStore

from rbp_lab.commands.measure import measure
from rbp_lab.errors import LabError
from rbp_lab.measurement import pool
from rbp_lab.measurement.observers import Callback
from rbp_lab.measurement.pool import FAILURE, run_to_end, write_failure
from rbp_lab.store.records import list_records
from tests import forked
from tests.sources import measure_config


@pytest.fixture(scope="module")
def alone(tiny_model_dir, tmp_path_factory):
    return measure(measure_config(tiny_model_dir, tmp_path_factory.mktemp("alone"))).record


NEEDED = (
    "rbp_lab.measurement.worker", "accelerate", "transformers.models.gpt_neox.modeling_gpt_neox",
    "rbp_lab.scoring.cpu_numba", "numba.core.typing.builtins",
)  # fmt: skip


@pytest.fixture
def ready(monkeypatch):
    """Measuring processes are forked from one that has imported what they need, and meet at a store of this process.

    What torch's launcher adds to them is tried by a killed process below, and from the command line.
    """

    def fork(command, environment, stderr):
        module, job = command[-2:]
        processes = int(command[command.index("--nproc-per-node") + 1])
        meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(meeting.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
        shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        script = f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
        scripts = [
            forked.Script(
                script, [job], {**environment, **shared, "RANK": str(i), "LOCAL_RANK": str(i)}, os.devnull, stderr.name
            )
            for i in range(processes)
        ]
        return max(map(abs, forked.run(NEEDED, scripts)))

    monkeypatch.setattr(pool, "run_to_end", fork)


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_give_the_record_of_one(tiny_model_dir, tmp_path, alone, processes, ready, monkeypatch):
    for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"):  # another project's settings
        monkeypatch.setenv(name, "true")
    outcome = measure(measure_config(tiny_model_dir, tmp_path, launch__processes=processes))
    record = outcome.record
    assert len(alone.documents) % processes != 0  # 23 documents have tokens: the shares are uneven
    assert record.provenance["processes"] == processes
    assert record.key == alone.key
    assert record.stats == alone.stats and record.documents == alone.documents
    assert not list(tmp_path.glob("cache/job-*"))


def test_more_processes_than_documents(tiny_model_dir, tmp_path, ready):
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
def test_what_goes_wrong_in_a_process_is_what_is_told(tiny_model_dir, tmp_path, how, error, message, request):
    if how != "killed":  # that a process was killed is told by the launcher
        request.getfixturevalue("ready")
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
    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"

    pid = tmp_path / "pid"

    def interrupt():  # when the process is under way, however long its start takes
        while not (pid.is_file() and pid.read_text()):
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with open(tmp_path / "log", "w") as log, pytest.raises(KeyboardInterrupt):
            run_to_end([sys.executable, "-c", script], os.environ, log)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_first_failure_is_the_cause(tmp_path):
    write_failure(tmp_path / "job.json", KeyError("first"), 1)
    write_failure(tmp_path / "job.json", LabError("collateral"), 0)
    told = json.loads((tmp_path / FAILURE).read_text())
    assert told["rank"] == 1 and told["message"] == "KeyError: 'first'" and not told["user"]
