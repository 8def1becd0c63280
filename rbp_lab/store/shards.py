"""The finished shards of an unfinished measurement: the one way to split work, to resume it, and to share it.

``<store>/partial/<key>/`` holds plan.json, which says how the work is cut, and a file for each finished shard. Any
number of processes, of one command or of several, on one machine or on many, take shards by leases; a shard counts
when its file is there, whoever wrote it. When all are there, their sum is written as the record, and the directory
goes. What a killed process loses is the shard that it was working on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from rbp_lab.errors import LabError
from rbp_lab.store.arrays import read_arrays, write_arrays
from rbp_lab.store.atomic import AlreadyThere, atomic_directory, atomic_path, remove_directory
from rbp_lab.store.layout import PartialFiles, Store
from rbp_lab.store.lease import Lease, Leases

WAIT = 0.2  # seconds between looks at what others work on


class DamagedShard(LabError):
    """The file of a shard does not hold what was written."""


class Gone(Exception):
    """The directory is no longer there: another process has written the record, or removed the work."""


def alone(taken: list[int], index: int) -> bool:
    """Whether a shard is the first one that is taken."""
    return not taken


@dataclass(frozen=True)
class Plan:
    """How a measurement is cut.

    identity: hash of everything that the cut depends on; shards of another identity are of no use. bounds: rising
    document ids; shard i holds the documents from bounds[i] to bounds[i+1] − 1. about: what it is a measurement of.
    """

    identity: str
    bounds: tuple[int, ...]
    about: Mapping[str, Any]

    def __len__(self) -> int:
        """Number of shards."""
        return len(self.bounds) - 1


@dataclass(frozen=True)
class Partial:
    """One unfinished measurement on disk."""

    files: PartialFiles
    plan: Plan

    @classmethod
    def begin(cls, store: Store, key: str, plan: Plan) -> Partial:
        """The work that is there already, cut as it was cut then; else a new one, cut by ``plan``.

        What is there of another identity, or cannot be read, is removed. Raises LabError when the store may not be
        written.
        """
        files = store.partial(key)
        while True:
            with suppress(FileNotFoundError, NotADirectoryError):
                found = read_plan(files)
                if found is not None and found.identity == plan.identity:
                    return cls(files, found)
                remove_directory(files.directory)
            text = json.dumps({"identity": plan.identity, "bounds": plan.bounds, "about": plan.about})
            with suppress(AlreadyThere), atomic_directory(files.directory, replace=False) as directory:
                PartialFiles(directory).plan.write_text(text, encoding="utf-8")

    def finished(self) -> set[int]:
        """The shards that are done; raises Gone."""
        try:
            return self.files.finished()
        except FileNotFoundError:
            raise Gone from None

    def take(
        self, leases: Leases, fits: Callable[[list[int], int], bool] = alone, wait: float = WAIT
    ) -> Iterator[list[int]]:
        """Shards that nobody else works on, some at a time, all leased while the caller works on them.

        fits: whether a shard may be taken together with those that were taken just now. Ends when every shard is done;
        waits while others work on the last ones. Those of which hidden states wait come first. Raises Gone.
        """
        while left := set(range(len(self.plan))) - self.finished():
            waiting = self.waiting()
            with ExitStack() as held:
                taken: list[int] = []
                for index in sorted(left, key=lambda index: (index not in waiting, index)):
                    if fits(taken, index) and (lease := self._lease(leases, index)) is not None:
                        held.enter_context(lease)
                        if index not in self.finished():
                            taken.append(index)
                if taken:
                    yield taken
            if not taken:
                time.sleep(wait)

    def waiting(self) -> set[int]:
        """The shards of which hidden states wait for the other model of a comparison; raises Gone."""
        try:
            return self.files.waiting()
        except FileNotFoundError:
            raise Gone from None

    def _lease(self, leases: Leases, name: str | int) -> Lease | None:
        try:
            return leases.take(self.files.lease(name))
        except FileNotFoundError:
            raise Gone from None

    def last(self, leases: Leases) -> Lease:
        """The lease on making the record of all shards, as soon as nobody else has it; raises Gone."""
        while (lease := self._lease(leases, "record")) is None:
            time.sleep(WAIT)
        return lease

    def write(self, index: int, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
        """Keep a finished shard. Raises Gone; LabError when the disk refuses."""
        about = {"identity": self.plan.identity, "index": index, **about}
        try:
            write_arrays(self.files.shard(index), arrays, about, make_directory=False)
        except FileNotFoundError:
            raise Gone from None

    def read(self, index: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """What was written of a shard. Raises DamagedShard, also when it is not there; Gone."""
        try:
            arrays, about = read_arrays(self.files.shard(index))
        except FileNotFoundError:
            self.finished()
            raise DamagedShard(f"shard {index} is missing") from None
        except LabError as error:
            raise DamagedShard(f"shard {index} is damaged ({error})") from error
        if about.pop("identity", None) != self.plan.identity or about.pop("index", None) != index:
            raise DamagedShard(f"shard {index} is damaged (it is the file of another shard)")
        return arrays, about

    def discard(self, index: int) -> None:
        """Have a shard made again."""
        self.files.shard(index).unlink(missing_ok=True)

    def failed(self, message: str) -> None:
        """Leave the sentence that says why the work broke off, for whoever lists the store, if that is possible."""
        with suppress(OSError, LabError), atomic_path(self.files.error, make_directory=False) as path:
            path.write_text(message, encoding="utf-8")

    def begins(self) -> None:
        """Forget why the work broke off before."""
        with suppress(OSError):
            self.files.error.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove everything; nothing when another process has done so."""
        with suppress(FileNotFoundError):
            remove_directory(self.files.directory)


def read_plan(files: PartialFiles) -> Plan | None:
    """The plan of an unfinished measurement, None when it cannot be read; FileNotFoundError when there is none."""
    try:
        plan = json.loads(files.plan.read_bytes())
        return Plan(str(plan["identity"]), tuple(map(int, plan["bounds"])), dict(plan["about"]))
    except FileNotFoundError:
        if files.directory.is_dir():  # something else is in its place
            return None
        raise
    except (ValueError, KeyError, TypeError):
        return None
