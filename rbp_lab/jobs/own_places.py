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

WRITING = ("analyze", "demo")  # commands whose results go to a directory that the configuration names


@dataclass(frozen=True)
class Place:
    """Where a job's results go, and what is changed in its configuration for that."""

    directory: Path
    change: Mapping[str, str]


def analysis_name(config: Mapping[str, Any]) -> str:
    """What an analysis is called: its name, without one "default", or of laws in tokens what their axis is called."""
    return str(config["name"] or "") or ("default" if config["axis"] == "size" else str(config["axis"]))


def own_places(jobs: Sequence[Sequence[str]], configs: Sequence[Mapping[str, Any]]) -> dict[int, Place]:
    """By its number, a place for each job that shares the one which its configuration names with others.

    jobs: the overrides of each. A place says in which of them its job differs from those others,
    "default-filters.dtype-float32"; where that is too long or the same for two, which job it is of, "default-job1".
    """
    sharing = defaultdict(list)
    for job, config in enumerate(configs):
        out = config.get("out")
        if not isinstance(out, (list, Mapping)):  # no path, which running the job says
            sharing[str(config["store"]), None if out is None else str(out), analysis_name(config)].append(job)
    places = {}
    for (store, out, name), same in sharing.items():
        if len(same) < 2:
            continue
        shared = set.intersection(*(set(jobs[job]) for job in same))
        words = [clean_name("-".join(word for word in jobs[job] if word not in shared)) for job in same]
        if len(set(words)) < len(same) or any(len(f"{name}-{word}".encode()) > MAX_BYTES for word in words):
            words = [f"job{job}" for job in same]
        for job, word in zip(same, words, strict=True):
            if out is not None:
                own = os.path.join(os.path.expanduser(out), word)
                places[job] = Place(Path(own), {"out": own})
                continue
            with suppress(LabError):  # of a name that no directory can have, which running the job says
                places[job] = Place(Store(store).analysis(f"{name}-{word}").directory, {"name": f"{name}-{word}"})
    return places
