"""Jobs of a sweep whose results would go to one directory: each gets one of its own."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbp_lab.errors import LabError
from rbp_lab.names import MAX_BYTES, clean_name
from rbp_lab.store.layout import Store

ANALYSES = ("analyze", "demo")  # commands whose results go to a directory that the configuration names
# Commands whose results go to a directory that what is compared names, with what changes only how that is shown.
COMPARISONS = {
    "compare": ("ks", "windows", "confidence", "detect"),
    "compare_models": ("confidence", "detect", "floor", "tokens"),
}
WRITING = (*ANALYSES, *COMPARISONS)


@dataclass(frozen=True)
class Place:
    """Where a job's results go, None where it alone knows, and what is changed in its configuration for that."""

    directory: Path | None
    change: Mapping[str, str]


def analysis_name(config: Mapping[str, Any]) -> str:
    """What an analysis is called: its name, without one "default", or of laws in tokens what their axis is called."""
    return str(config["name"] or "") or ("default" if config["axis"] == "size" else str(config["axis"]))


def own_places(command: str, jobs: Sequence[Sequence[str]], configs: Sequence[Mapping[str, Any]]) -> dict[int, Place]:
    """By its number, a place for each job that shares the one which its configuration names with others.

    command: one of WRITING. jobs: the overrides of each. A place says in which of them its job differs from those
    others, "default-filters.dtype-float32"; where that is too long or the same for two, which job it is of,
    "default-job1".
    """
    sharing = defaultdict(list)
    for job, config in enumerate(configs):
        if not isinstance(config.get("out"), (list, Mapping)):  # no path, which running the job says
            sharing[_shared(command, config)].append(job)
    places = {}
    for same in sharing.values():
        if len(same) < 2:
            continue
        config = configs[same[0]]
        name = str(config["name"] or "") if command in COMPARISONS else analysis_name(config)
        shared = set.intersection(*(set(jobs[job]) for job in same))
        words = [clean_name("-".join(word for word in jobs[job] if word not in shared)) for job in same]
        if len(set(words)) < len(same) or any(len(f"{name}-{word}".encode()) > MAX_BYTES for word in words):
            words = [f"job{job}" for job in same]
        for job, word in zip(same, words, strict=True):
            with suppress(LabError):  # of a name that no directory can have, which running the job says
                places[job] = _place(command, config, name, word)
    return places


def _shared(command: str, config: Mapping[str, Any]) -> str:
    """What jobs have in common whose results go to one directory."""
    if command in COMPARISONS:
        return repr({name: value for name, value in config.items() if name not in COMPARISONS[command]})
    out = config.get("out")
    return repr((str(config["store"]), None if out is None else str(out), analysis_name(config)))


def _place(command: str, config: Mapping[str, Any], name: str, word: str) -> Place:
    named = {"name": f"{name}-{word}" if name else word}
    if command in COMPARISONS:
        return Place(None, named)
    if (out := config.get("out")) is not None:
        own = os.path.join(os.path.expanduser(str(out)), word)
        return Place(Path(own), {"out": own})
    return Place(Store(str(config["store"])).analysis(named["name"]).directory, named)
