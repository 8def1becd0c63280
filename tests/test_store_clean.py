"""rbp-lab clean and the unfinished work in rbp-lab ls: what is removed, what is kept, and what is said of it."""

import json
import os
import time
from dataclasses import replace

import pytest

from rbp_lab.commands.clean import run
from rbp_lab.report.listing import print_runs
from rbp_lab.report.terminal import Console
from rbp_lab.store.atomic import delete
from rbp_lab.store.layout import Store
from rbp_lab.store.lease import Lease
from rbp_lab.store.machine import mark, this_process
from rbp_lab.store.shards import Partial, Plan


@pytest.fixture
def work(tmp_path):
    """An unfinished measurement with one of three shards."""
    plan = Plan("who", (0, 1, 2, 3), {"model": "m", "dataset": "d"})
    partial = Partial.begin(Store(tmp_path), "0123456789abcdef", plan)
    partial.write(1, {}, {})
    return partial


def shown(tmp_path, capsys):
    print_runs(tmp_path, Console(width=200))
    return capsys.readouterr().out


def clean(tmp_path, capsys, **changes):
    run({"store": str(tmp_path), "unfinished": False, **changes})
    return capsys.readouterr().out


def gone(process):
    """The mark and the lease of a process that was, on this machine."""
    return f"{mark()[:6]}{0xFFFFFF:06x}", json.dumps(vars(replace(process, started=process.started - 100)))


def test_leftovers_of_crashes_go_and_nothing_else(tmp_path, work, capsys):
    gone_mark, gone_lease = gone(this_process())
    for name in ("runs", "cache/tokens"):
        (tmp_path / name).mkdir(parents=True)
    half = tmp_path / "runs" / f".a.{gone_mark}00000000.part"
    half.mkdir()
    (half / "half").write_bytes(b"x" * 3000)
    (tmp_path / "cache" / "tokens" / f".t.{gone_mark}00000000.part.safetensors").write_bytes(b"x" * 500)
    mine = tmp_path / "runs" / f".b.{mark()}00000000.part"
    mine.mkdir()
    (tmp_path / ".hidden").touch()
    work.files.lease(0).write_text(gone_lease)
    assert clean(tmp_path, capsys).startswith("removed 3 leftovers of crashes, 3.")
    assert mine.is_dir() and not half.exists() and work.finished() == {1} and not work.files.leases()
    said = clean(tmp_path, capsys)
    assert said.startswith("removed 0 leftovers of crashes, 0 B\n1 unfinished measurement or training")


def test_unfinished_work_goes_on_request_unless_somebody_is_at_it(tmp_path, work, capsys):
    with Lease(work.files.lease(0)):
        assert "removed 0 unfinished measurements and trainings" in clean(tmp_path, capsys, unfinished=True)
    assert work.finished() == {1}
    checkpoint = Store(tmp_path).checkpoints("0" * 24)
    checkpoint.mkdir(parents=True)
    (checkpoint / "step-1.safetensors").write_bytes(b"x" * 2000)
    with Lease(checkpoint / "training.lease"):
        assert "removed 1 unfinished measurement or training, " in clean(tmp_path, capsys, unfinished=True)
    assert checkpoint.exists()
    assert "removed 1 unfinished measurement or training, 1.953 KiB" in clean(tmp_path, capsys, unfinished=True)
    assert not checkpoint.exists()
    assert not work.files.directory.exists()


def test_unfinished_work_is_listed_with_its_state(tmp_path, work, capsys):
    assert "1 of 3" in (line := shown(tmp_path, capsys)) and "stopped; the same command goes on" in line
    with Lease(work.files.lease(0)):
        assert f"running: process {os.getpid()} on " in shown(tmp_path, capsys)
    lease = work.files.lease(0)
    lease.write_text(json.dumps(vars(replace(this_process(), machine="node7 elsewhere", pid=12))))
    assert "running: process 12 on node7" in shown(tmp_path, capsys)
    os.utime(lease, (before := time.time() - 300, before))
    assert "stale: not heard of for 5 min: process 12 on node7; the same command goes on" in shown(tmp_path, capsys)
    lease.unlink()
    work.failed("the disk\nis full")
    assert "failed: the disk is full" in shown(tmp_path, capsys)
    work.begins()
    assert "stopped" in shown(tmp_path, capsys)
    work.files.plan.write_text("{")
    assert " ? " in shown(tmp_path, capsys)
    work.remove()
    assert "stopped" not in (out := shown(tmp_path, capsys)) and "none yet" in out


def test_deleting_does_not_follow_links(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    delete(tmp_path / "link")
    assert os.listdir(tmp_path) == ["kept"]
