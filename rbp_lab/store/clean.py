"""What crashes leave in a store, and unfinished work that nobody goes on with."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rbp_lab.store.atomic import is_abandoned
from rbp_lab.store.layout import PartialFiles, Store
from rbp_lab.store.lease import Leases, Owner, owner_of


@dataclass(frozen=True)
class Unfinished:
    """One unfinished measurement.

    owners: of the processes that work on it, as far as is known. silent: seconds since one of them was heard of, by
    this machine's clock, which may differ from theirs: to be shown, not to act upon.
    """

    files: PartialFiles
    owners: tuple[Owner, ...]
    silent: float

    @property
    def is_worked_on(self) -> bool:
        return bool(self.owners)


def unfinished(store: Store) -> list[Unfinished]:
    """Every unfinished measurement, by key."""
    leases = Leases()
    found = []
    for files in store.partials():
        taken = [path for path in files.leases() if leases.is_alive(path)]
        owners = {owner for path in taken if (owner := owner_of(path)) is not None}
        found.append(Unfinished(files, tuple(sorted(owners, key=str)), min(map(_age, taken), default=0.0)))
    return found


def _age(lease: Path) -> float:
    """Seconds since a lease was touched; 0 when it is gone."""
    try:
        return time.time() - lease.stat().st_mtime
    except OSError:
        return 0.0


def idle(store: Store) -> list[Path]:
    """Shards of measurements, and checkpoints of trainings, that nobody works on."""
    leases = Leases()
    trainings = [files.directory for files in store.all_checkpoints() if not leases.is_alive(files.lease)]
    return [one.files.directory for one in unfinished(store) if not one.is_worked_on] + trainings


def leftovers(store: Store) -> Iterator[Path]:
    """What writers and processes that have ended left: temporary files and directories, leases, and hidden states of
    shards that are finished."""
    leases = Leases()
    for files in store.partials():
        for index in sorted(files.waiting() & files.finished()):
            if not leases.is_alive(files.lease(index)):
                yield files.states(index)
    for directory, below, names in os.walk(store.root):
        here = Path(directory)
        abandoned = [name for name in (*below, *names) if name.startswith(".") and _is_abandoned(here / name)]
        yield from (here / name for name in sorted(abandoned))
        below[:] = [name for name in below if name not in abandoned]
        yield from (here / name for name in sorted(names) if name.endswith(".lease") and _is_left(leases, here / name))


def size(path: Path) -> int:
    """Bytes of a file, or of all that is in a directory; 0 when it is gone."""
    files = path.rglob("*") if path.is_dir() else [path]
    total = 0
    for file in files:
        try:
            total += file.lstat().st_size if not file.is_dir() else 0
        except OSError:
            continue
    return total


def _is_abandoned(path: Path) -> bool:
    try:
        return is_abandoned(path)
    except OSError:  # gone meanwhile
        return False


def _is_left(leases: Leases, path: Path) -> bool:
    owner = owner_of(path)
    return owner is not None and owner.is_gone() and not leases.is_alive(path)
