"""A W&B server that fails in every way, and a full disk: one warning, the record is kept, sync mirrors it later."""

import functools
import os
import subprocess
import time

import pytest

from rbp_lab.commands.measure import measure
from rbp_lab.measurement.observers import Callback
from rbp_lab.store.records import read_record
from rbp_lab.tracking.wandb import session
from tests.sources import measure_config
from tests.wandb_use import ONLINE, sync

FOREVER = 600.0
IMPATIENT = {**ONLINE, "timeout": 2.0}


class LoopWaits(Callback):
    """How often the last measurement had waited for W&B when it began, and since then when it last logged."""

    total, before, between = 0, None, None

    def on_start(self, run):
        LoopWaits.before = LoopWaits.between = None

    def on_log(self, progress):
        if LoopWaits.before is None:
            LoopWaits.before = LoopWaits.total
        else:
            LoopWaits.between = LoopWaits.total - LoopWaits.before


def counting(result):
    def wait(answer, *timeout):
        LoopWaits.total += not answer.done()
        return result(answer, *timeout)

    return wait


def later(what):
    """The server works while the run is opened, then no more."""
    return lambda path, number: what if number >= 3 else None


def only(part, what):
    return lambda path, number: what if part in path else None


FAULTS = {
    "answers 500": lambda path, number: 500,
    "drops every connection": lambda path, number: "drop",
    "never answers": lambda path, number: FOREVER,
    "refuses the key": lambda path, number: 401,
    "dies in the middle": later("drop"),
    "hangs in the middle": later(FOREVER),
    "loses what is logged": only("file_stream", 500),
    "takes no files": only("/storage", 500),
}
# a server that dies in the middle is met below too, where sync repairs what it cost
QUICK = ("answers 500", "never answers", "loses what is logged")


@pytest.fixture
def fresh():
    """A client process of its own: one that waits for a dead server would be in the way of the next test."""
    session.reset()
    yield
    session.reset()


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in FAULTS])
def test_a_failing_server_costs_one_warning_and_no_record(
    server, fresh, tiny_model_dir, tmp_path, monkeypatch, capsys, name
):
    import rbp_lab.measurement.work as module

    monkeypatch.setattr(module, "Watch", functools.partial(module.Watch, log_seconds=0.0))
    monkeypatch.setattr(session.Future, "result", counting(session.Future.result))
    server.fault = FAULTS[name]
    waits = {"waits": {"_target_": "tests.test_wandb_faults.LoopWaits"}}
    config = measure_config(tiny_model_dir, tmp_path, tracking=IMPATIENT, scoring__batch_tokens=128, callbacks=waits)
    begin = time.monotonic()
    outcome = measure(config)
    assert time.monotonic() - begin < FOREVER / 2
    assert LoopWaits.between == 0 and LoopWaits.total > 0  # between batches for nothing, afterwards in vain
    assert outcome.measured and read_record(outcome.path).stats == outcome.record.stats
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line.lower()]
    assert len(warnings) == 1 and "W&B" in warnings[0] and "rbp-lab sync" in warnings[0]
    assert not (tmp_path / "mirrored").exists()
    again = measure({**config, "force": True})  # the same process does not wait for the same server twice
    assert again.measured and "warning" not in capsys.readouterr().err


def test_after_a_failure_sync_mirrors_the_record_into_the_same_run(server, fresh, tiny_model_dir, tmp_path):
    server.fault = later("drop")
    outcome = measure(measure_config(tiny_model_dir, tmp_path, tracking=IMPATIENT))
    (run,) = server.lab.runs.values()
    assert "record_digest" not in run["summary"]
    server.fault = None
    session.reset()  # sync is another process
    assert sync(tmp_path).startswith("1 results mirrored")
    (run,) = server.lab.runs.values()
    assert (
        run["name"] == f"measure-{outcome.record.key}" and run["summary"]["tokens"] == outcome.record.stats.num_tokens
    )
    assert [a["state"] for a in server.lab.artifacts.values() if a["type"] == "rbp-record"] == ["COMMITTED"]


def test_a_slow_server_is_waited_for(server, fresh, tiny_model_dir, tmp_path, capsys):
    server.fault = lambda path, number: 0.1
    measure(measure_config(tiny_model_dir, tmp_path, tracking=ONLINE))
    assert "warning" not in capsys.readouterr().err and len(list((tmp_path / "mirrored").iterdir())) == 1


def test_a_key_that_cannot_be_one(server, tiny_model_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert measure(measure_config(tiny_model_dir, tmp_path, tracking=ONLINE)).measured
    assert "key must have" in capsys.readouterr().err


def test_a_place_that_cannot_be_written(tiny_model_dir, tmp_path, capsys):
    (tmp_path / "wandb").write_text("in the way")
    assert measure(measure_config(tiny_model_dir, tmp_path, tracking={**ONLINE, "mode": "offline"})).measured
    assert capsys.readouterr().err.count("warning: W&B (offline)") == 1


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="a small file system can only be mounted by root")
def test_a_full_disk(fresh, tiny_model_dir, tmp_path, capsys):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        (small / "fill").write_bytes(b"0" * 60_000)
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "wandb").symlink_to(small)
        config = measure_config(tiny_model_dir, tmp_path / "store", tracking={**ONLINE, "mode": "offline"})
        assert measure(config).measured
        assert capsys.readouterr().err.count("is the disk full?") == 1
        assert not (tmp_path / "store" / "mirrored").exists()
    finally:
        subprocess.run(["umount", "-l", small], check=True)
