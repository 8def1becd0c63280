"""Files and directories are complete or absent, whoever writes them, and whatever ends the writer."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rbp_lab.errors import LabError
from rbp_lab.store import atomic, machine
from rbp_lab.store.aside import recovered
from rbp_lab.store.atomic import ABANDONED_SECONDS, atomic_directory, atomic_path
from rbp_lab.store.records import has_record, list_headers, list_records, write_record
from tests.fits_data import synthetic_record


@contextmanager
def file_size_limit(limit):
    """No file may grow beyond ``limit`` bytes: as on a full disk, the write itself fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def everything(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*"))


def test_files_and_directories_vanish_on_failure(tmp_path):
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "x" / "file.txt") as p:
        p.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "y") as d:
        (d / "file").write_text("half")
        raise RuntimeError
    assert everything(tmp_path) == ["x"]


def test_contents_are_on_the_disk_before_their_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, os.replace

    def flushed(handle):
        order.append(("flushed", os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def renamed(old, new):
        order.append(("renamed", str(new)))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    with atomic_path(tmp_path / "new" / "file.txt") as path:
        path.write_text("all")
    assert order == [
        ("flushed", str(tmp_path)),  # which now names the directory
        ("flushed", str(path)),
        ("renamed", str(tmp_path / "new" / "file.txt")),
        ("flushed", str(tmp_path / "new")),
    ]
    order.clear()
    with atomic_directory(tmp_path / "d") as directory:
        (directory / "in").mkdir()
        (directory / "in" / "file").write_text("all")
    flushes = [where for what, where in order if what == "flushed"]
    assert set(flushes[:-1]) == {str(directory), str(directory / "in"), str(directory / "in" / "file")}
    assert flushes[-1] == str(tmp_path)


@pytest.fixture(params=["exchanged", "moved aside"])
def replacing(request, monkeypatch):
    """How a directory takes the place of another: in one step, or in two where the system cannot."""
    if request.param == "moved aside":
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    return request.param


@pytest.mark.parametrize("killed_at", range(6))
def test_a_directory_that_is_replaced_is_there_at_every_instant(tmp_path, monkeypatch, replacing, killed_at):
    """A writer that is killed before any of its steps leaves the old contents or the new ones."""
    path, steps = tmp_path / "d", 0

    def write(text):
        with atomic_directory(path) as directory:
            (directory / "file").write_text(text)

    def counted(step):
        def stepping(*args, **kwargs):
            nonlocal steps
            if steps == killed_at:
                monkeypatch.undo()  # what is done from here on is another process
                raise KeyboardInterrupt
            steps += 1
            return step(*args, **kwargs)

        return stepping

    write("old")
    for where, name in ((Path, "rename"), (atomic, "_exchange"), (shutil, "rmtree")):
        monkeypatch.setattr(where, name, counted(getattr(where, name)))
    try:
        write("new")
        done = True
    except KeyboardInterrupt:
        done = False
    monkeypatch.undo()
    found = recovered(path)
    assert found == path and (found / "file").read_text() in ("old", "new")
    assert not done or ((found / "file").read_text() == "new" and everything(tmp_path) == ["d", "d/file"])
    write("newest")
    assert (path / "file").read_text() == "newest" and not list(tmp_path.glob(".*.replaced"))


def test_what_a_killed_writer_had_moved_aside_is_found_in_a_record_store(tmp_path):
    record = synthetic_record("m", 1000, seed=0)
    path = write_record(tmp_path, record)
    aside = path.with_name(f".{path.name}.replaced")
    path.rename(aside)
    assert [found.key for found in list_records(tmp_path)] == [record.key] and path.is_dir()
    path.rename(aside)
    assert has_record(tmp_path, record.key) and path.is_dir()
    path.rename(aside)
    headers, damaged = list_headers(tmp_path)
    assert [header["key"] for header in headers] == [record.key] and not damaged
    path.rename(aside)
    write_record(tmp_path, record)
    assert [p.name for p in path.parent.iterdir()] == [record.key]


def test_what_lies_aside_is_read_where_it_cannot_be_put_back(tmp_path, monkeypatch):
    record = synthetic_record("m", 1000, seed=0)
    path = write_record(tmp_path, record)
    path.rename(path.with_name(f".{path.name}.replaced"))

    def refuse(old, new):
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(Path, "rename", refuse)
    assert [found.key for found in list_records(tmp_path)] == [record.key] and not path.exists()
    assert [header["key"] for header in list_headers(tmp_path)[0]] == [record.key]


def test_writers_that_share_a_disk_never_meet(tmp_path, monkeypatch, replacing):
    """Containers on several machines may all have one process id; each of these threads stands for such a writer."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    failures, barrier = [], threading.Barrier(8)

    def write(number):
        try:
            for _ in range(20):
                barrier.wait()
                with atomic_path(tmp_path / "file") as path:
                    path.write_text(str(number) * 1000)
                with atomic_directory(tmp_path / "d") as directory:
                    for name in "ab":
                        (directory / name).write_text(str(number) * 1000)
        except Exception as error:
            failures.append(error)
            barrier.abort()

    writers = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    texts = {name: (tmp_path / name).read_text() for name in ("file", "d/a", "d/b")}
    assert all(len(t) == 1000 and len(set(t)) == 1 for t in texts.values()) and texts["d/a"] == texts["d/b"]
    assert everything(tmp_path) == ["d", "d/a", "d/b", "file"]


@pytest.mark.parametrize("name", ["x" * 200, "é" * 100, "a.b.c", "x" * 250])
def test_long_and_odd_names_can_be_written(tmp_path, name):
    with atomic_path(tmp_path / name) as path:
        path.write_text("all")
    assert (tmp_path / name).read_text() == "all"


WRITERS = {
    "text": lambda p: p.write_text("x" * 10_000),
    "numpy": lambda p: np.save(p.open("wb"), np.zeros(10_000)),
    "csv": lambda p: pd.DataFrame({"x": range(10_000)}).to_csv(p),
    "parquet": lambda p: pd.DataFrame({"x": np.random.default_rng(0).random(10_000)}).to_parquet(p),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path, writer):
    (tmp_path / "file").write_text("old")
    sentence = rf"cannot write {tmp_path}/file: (File too large|No space left on device); nothing half-written is left"
    with file_size_limit(1000), pytest.raises(LabError, match=sentence), atomic_path(tmp_path / "file") as path:
        WRITERS[writer](path)
    assert everything(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"


def test_a_full_disk_while_a_model_is_saved_is_one_sentence(tmp_path):
    from safetensors.numpy import save_file

    sentence = rf"cannot write {tmp_path}/model: File too large; nothing half-written is left"
    with file_size_limit(1000), pytest.raises(LabError, match=sentence), atomic_directory(tmp_path / "model") as inside:
        save_file({"w": np.zeros(10_000)}, inside / "model.safetensors")
    assert everything(tmp_path) == []


def test_what_may_not_be_written_is_one_sentence(tmp_path):
    (tmp_path / "in-the-way").write_text("a file")
    for write in (atomic_path, atomic_directory):
        with pytest.raises(LabError, match=r"cannot write .*in-the-way/x: "), write(tmp_path / "in-the-way" / "x"):
            pass


def test_other_errors_keep_their_kind(tmp_path):
    with pytest.raises(ConnectionResetError), atomic_path(tmp_path / "x"):
        raise ConnectionResetError(104, "reset")
    with pytest.raises(LabError, match=r"^mine$"), atomic_path(tmp_path / "x"):
        raise LabError("mine")


HANG = """
import sys
from pathlib import Path
from rbp_lab.store.atomic import atomic_directory, atomic_path
with atomic_path(Path(sys.argv[1], "file.txt")) as file, atomic_directory(Path(sys.argv[1], "d")) as directory:
    file.write_text("half")
    (directory / "half").write_text("half")
    print("half", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("where", ["here", "on another machine"])
def test_a_kill_leaves_nothing_that_has_the_name_and_later_nothing_at_all(tmp_path, monkeypatch, where):
    child = subprocess.Popen(
        [sys.executable, "-c", HANG, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "half\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    left = list(tmp_path.iterdir())
    assert len(left) == 2 and all(p.name.startswith(".") for p in left)
    if where == "on another machine":
        monkeypatch.setattr(machine, "_machine_digits", lambda: "000000")
        with atomic_path(tmp_path / "other") as path:
            path.write_text("x")
        assert set(left) < set(tmp_path.iterdir())  # they might still be someone's
    for file in (*left, *(p for d in left for p in d.rglob("*"))):
        os.utime(file, (0, file.stat().st_mtime - (ABANDONED_SECONDS + 1) * (where != "here")))
    with atomic_path(tmp_path / "other") as path:
        path.write_text("x")
    mine = tmp_path / ".notes.part"
    mine.touch()
    os.utime(mine, (0, 0))
    with atomic_directory(tmp_path / "d"):
        pass
    assert everything(tmp_path) == [".notes.part", "d", "other"]


def test_a_directory_that_is_still_written_to_is_not_abandoned(tmp_path):
    with atomic_directory(tmp_path / "slow") as directory:
        os.utime(directory, (0, 0))
        (directory / "sub").mkdir()
        (directory / "sub" / "growing").touch()
        os.utime(directory, (0, 0))
        with atomic_path(tmp_path / "other"):
            pass
        assert directory.is_dir()
    assert atomic.ABANDONED_SECONDS >= 3600
