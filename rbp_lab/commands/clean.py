"""Remove what crashes left in a store; on request unfinished work that nobody goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbp_lab.config.build import read
from rbp_lab.store.atomic import delete
from rbp_lab.store.clean import idle, leftovers, size
from rbp_lab.store.layout import Store
from rbp_lab.text import byte_size, count


@dataclass(frozen=True)
class CleanRequest:
    """What ``conf/clean.yaml`` composes. unfinished: remove shards and checkpoints that nobody works on too."""

    store: str
    unfinished: bool = False


def run(config: Mapping[str, Any]) -> None:
    """``rbp-lab clean``."""
    request = read(CleanRequest, config)
    store = Store(request.store)
    print(_removed("leftover of a crash", "leftovers of crashes", list(leftovers(store))), flush=True)
    left = idle(store)
    if request.unfinished:
        what = "unfinished measurement or training"
        print(_removed(what, "unfinished measurements and trainings", left), flush=True)
    elif left:
        what = "measurement or training is" if len(left) == 1 else "measurements and trainings are"
        kept = f"{count(len(left))} unfinished {what} kept ({_bytes(left)}), to be gone on with"
        print(f"{kept}; unfinished=true removes them", flush=True)


def _removed(one: str, several: str, paths: list[Path]) -> str:
    """Remove the paths, and say how many bytes of what that were."""
    bytes_ = _bytes(paths)
    for path in paths:
        delete(path)
    return f"removed {count(len(paths))} {one if len(paths) == 1 else several}, {bytes_}"


def _bytes(paths: list[Path]) -> str:
    return byte_size(sum(map(size, paths)))
