"""OpenBLAS is loaded only where the memory that it takes is there: it would wait for it without end."""

import sys
from types import ModuleType

import pytest

import rbp_lab.__main__
from rbp_lab import room
from rbp_lab.errors import out_of_memory
from rbp_lab.room import RoomForBLAS


@pytest.mark.parametrize("name", ["numpy", "scipy.linalg", "scipy.special"])
def test_without_room_the_import_is_refused_until_there_is_some(name, monkeypatch):
    monkeypatch.setattr(room, "threads", lambda: 3)
    there, asked = [], []

    def has_room(size):
        asked.append(size)
        return bool(there)

    finder = RoomForBLAS(has_room)
    assert finder.find_spec("json") is None and not asked
    with pytest.raises(MemoryError, match=f"{name.split('.')[0]} needs .* MiB") as caught:
        finder.find_spec(name)
    assert out_of_memory(caught.value)
    there.append(True)
    assert finder.find_spec(name) is None
    there.clear()
    assert finder.find_spec(name) is None  # it is loaded
    assert set(asked) == {(3 * 32 + 64) << 20}


def test_the_number_of_threads_is_the_one_asked_for(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "")
    assert 1 <= room.threads() <= room.MOST_THREADS
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert room.threads() == 1


def test_what_no_system_gives_is_refused():
    assert room.can_map(1 << 20)
    assert sys.platform == "win32" or not room.can_map(1 << 60)


def test_a_command_that_cannot_be_imported_for_want_of_memory_says_so(monkeypatch, capsys):
    class Lacking(ModuleType):
        def __getattr__(self, name):
            RoomForBLAS(lambda size: False).find_spec("numpy")

    monkeypatch.setitem(sys.modules, "rbp_lab.cli", Lacking("rbp_lab.cli"))
    monkeypatch.setattr(rbp_lab.__main__.atexit, "register", lambda end: None)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    with pytest.raises(SystemExit) as ended:
        rbp_lab.__main__.run()
    assert ended.value.code == 1
    assert "error: memory is not enough (numpy needs" in capsys.readouterr().err
    assert isinstance(sys.meta_path[0], RoomForBLAS)
