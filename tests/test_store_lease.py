"""Leases: one owner at a time, also after crashes, and nothing depends on clocks that agree."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rbp_lab.store.lease import BEAT, STALE, Lease, Leases, Owner, owner_of, this_process

FAST = {"beat": 0.02, "stale": 0.3}


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def left_by(path, owner):
    """A lease as a process leaves it that was killed."""
    path.write_text(json.dumps(vars(owner)))


@pytest.fixture
def for_a_group():
    before = os.umask(0o002)
    yield
    os.umask(before)


def test_one_process_has_it_until_it_is_given_back(tmp_path, for_a_group):
    path = tmp_path / "a.lease"
    with Leases().take(path) as lease:
        assert path.stat().st_mode & 0o777 == 0o664
        assert owner_of(path) == this_process() and Leases().take(path) is None
        assert Leases().is_alive(path)
        with pytest.raises(FileExistsError):
            Lease(path)
    assert not path.exists() and owner_of(path) is None and not Leases().is_alive(path)
    lease.give_back()  # a second time is nothing
    assert Leases().take(path) is not None


def test_that_of_a_process_of_this_machine_that_is_gone_is_taken_at_once(tmp_path):
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    me = this_process()
    for gone in (Owner(me.machine, int(child.stdout), me.started), Owner(me.machine, me.pid, me.started - 100)):
        left_by(tmp_path / "a.lease", gone)
        with Leases().take(tmp_path / "a.lease"):
            assert owner_of(tmp_path / "a.lease") == me
    assert os.listdir(tmp_path) == []


def test_that_of_another_machine_is_taken_when_it_is_not_touched_whatever_its_clock_says(tmp_path):
    path, me = tmp_path / "a.lease", this_process()
    left_by(path, Owner("elsewhere", me.pid, me.started))
    for moment in (0, time.time() + 10**6):  # far in the past, far in the future
        os.utime(path, (moment, moment))
        leases, began = Leases(**FAST), time.monotonic()
        assert leases.take(path) is None  # who has not watched it cannot know
        assert leases.take(path) is None or time.monotonic() - began > FAST["stale"]  # nor who has for a moment
        wait_for(lambda held=leases: not held.is_alive(path))
    with leases.take(path):
        assert owner_of(path) == me


def test_a_process_of_another_machine_is_never_known_to_be_gone():
    me = this_process()
    for started in (me.started, me.started - 100):
        assert not Owner("elsewhere", me.pid, started).is_gone()
    assert not Owner("elsewhere", 2**22 + 1, 0.0).is_gone() and Owner(me.machine, 2**22 + 1, 0.0).is_gone()


def test_a_process_that_has_ended_is_gone_before_its_parent_asks():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        owner = Owner(this_process().machine, child.pid, psutil.Process(child.pid).create_time())
        assert not owner.is_gone()
        child.stdin.close()
        wait_for(owner.is_gone)  # nobody has waited for it, so that its number is taken still


def test_an_owner_misses_some_touches_before_its_lease_is_stale():
    assert STALE >= 6 * BEAT


def test_a_file_system_that_is_away_for_a_moment_does_not_end_a_lease(tmp_path, monkeypatch):
    def away(path):
        raise OSError(errno.ESTALE, "Stale file handle")

    path = tmp_path / "a.lease"
    with Lease(path, beat=0.01):
        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_bytes", away)
            patched.setattr(os, "utime", away)
            time.sleep(0.1)
        os.utime(path, (0, 0))
        wait_for(lambda: path.stat().st_mtime > 0)
    assert not path.exists()


def test_a_touched_one_stays_with_its_owner(tmp_path, monkeypatch):
    monkeypatch.setattr(Owner, "is_gone", lambda self: False)  # as of a process of another machine
    path, watching = tmp_path / "a.lease", Leases(stale=1e-9)
    with Lease(path, beat=0.02):
        for _ in range(3):
            last = path.stat().st_mtime_ns
            wait_for(lambda before=last: path.stat().st_mtime_ns != before)
            assert watching.take(path) is None  # it was touched since the last look


def test_an_owner_that_was_stopped_does_not_touch_or_remove_what_another_has_taken(tmp_path):
    path = tmp_path / "a.lease"
    stopped = Lease(path, beat=0.01)
    path.unlink()
    with Leases().take(path):
        os.utime(path, (0, 0))
        time.sleep(0.1)
        stopped.give_back()
        assert path.stat().st_mtime == 0


@pytest.mark.parametrize("links", [True, False])
def test_a_lease_made_while_a_stale_one_is_removed_is_put_back(tmp_path, monkeypatch, links):
    """Two find it stale; the first takes it, and the second must not end with it as well, where files can be linked."""
    path, me = tmp_path / "a.lease", this_process()
    left_by(path, Owner(me.machine, me.pid, me.started - 100))
    first, second, held = Leases(), Leases(), []
    real = Leases._is_stale

    def slow(self, at, text):
        stale = real(self, at, text)
        if self is second and not held:
            held.append(first.take(path))  # in between the look and the removal
        return stale

    def refuse(old, new):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Leases, "_is_stale", slow)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    taken = second.take(path)
    assert (taken is None) == held[0]._is_mine() == links and owner_of(path) == me
    (held[0] if links else taken).give_back()
    assert os.listdir(tmp_path) == []


def test_one_that_is_given_back_while_it_is_looked_at_is_free(tmp_path, monkeypatch):
    path = tmp_path / "a.lease"
    lease = Leases().take(path)
    monkeypatch.setattr(Leases, "_is_stale", lambda self, at, text: lease.give_back() or True)
    with Leases().take(path) as taken:
        assert taken._is_mine()


def test_a_full_disk_leaves_no_empty_lease(tmp_path, monkeypatch):
    def full(handle, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*a.lease'"):
        Leases().take(tmp_path / "a.lease")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"machine": 1}', '{"machine": "m", "pid": "x", "started": 0}'])
def test_one_that_cannot_be_read_is_nobodys_and_waits(tmp_path, text):
    (tmp_path / "a.lease").write_text(text)
    assert owner_of(tmp_path / "a.lease") is None and Leases().take(tmp_path / "a.lease") is None
