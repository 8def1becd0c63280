"""Room for OpenBLAS, which numpy and scipy load: where memory is refused to it, it asks again for ever."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable, Sequence

# Importing one of these loads a copy of OpenBLAS, or finds it loaded. scipy comes with a copy of its own.
LOADING = {"numpy": "numpy", "scipy.linalg": "scipy", "scipy.special": "scipy"}
BUFFER = 32 << 20  # bytes that OpenBLAS takes for a thread when it is loaded; memory/alloc_mmap in its driver/others
MOST_THREADS = 64  # of the builds in the wheels
BESIDE = 64 << 20  # bytes, for the libraries themselves


def can_map(size: int) -> bool:
    """Whether the system gives this process so many bytes more; they are given back. True where it cannot be asked."""
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return True
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return False
    return True


def threads() -> int:
    """How many threads OpenBLAS begins with."""
    asked = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(int(asked) if asked.isdigit() and int(asked) else processors, processors, MOST_THREADS)


class RoomForBLAS:
    """Asks for the memory that OpenBLAS will take before it is loaded, and raises MemoryError where it is refused.

    The endless loop holds Python's lock, so that no signal but SIGKILL would end the process. On ``sys.meta_path``,
    because most of such imports stand in other libraries. room: whether so many bytes are to be had.
    """

    def __init__(self, room: Callable[[int], bool] = can_map):
        self._room, self._loaded = room, set[str]()

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        """None: the module is found elsewhere."""
        package = LOADING.get(name)
        if package is None or package in self._loaded:
            return
        needed = threads() * BUFFER + BESIDE
        if not self._room(needed):
            raise MemoryError(
                f"{package} needs {needed >> 20} MiB when it is loaded, the less the smaller OPENBLAS_NUM_THREADS"
            )
        self._loaded.add(package)


def make_sure_of_room() -> None:
    """Before the first import of numpy: have every later import of a copy of OpenBLAS ask for memory first."""
    sys.meta_path.insert(0, RoomForBLAS())
