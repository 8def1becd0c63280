"""Shards of a pass over a corpus: taken until all are there, whoever makes them, and what they must have in common."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rbp_lab.errors import LabError, note, note_once
from rbp_lab.measurement.prepare import Prepared
from rbp_lab.store.lease import Leases
from rbp_lab.store.shards import DamagedShard, alone


def until_all_are_there(
    ready: Prepared,
    make: Callable[[list[int]], object],
    finish: Callable[[], object],
    count_others: Callable[[Callable[[], int]], object] = lambda positions: None,
    fits: Callable[[list[int], int], bool] = alone,
) -> None:
    """Take shards until none is left, have each made, and ``finish`` with the record of all.

    make: makes and keeps the shards of some numbers, or of some of them. finish: raises DamagedShard for one that is to
    be made again. count_others: is given what counts the positions that other processes have finished since the
    beginning. fits: which shards are made together, as of ``Partial.take``. Raises Gone when another process has made
    the record.
    """
    leases, partial, mine = Leases(), ready.partial, set[int]()
    before = ready.positions(partial.finished())
    count_others(lambda: ready.positions(partial.finished() - mine) - before)
    while True:
        for some in partial.take(leases, fits):
            make(some)
            mine.update(some)
        with partial.last(leases):
            try:
                finish()
                return
            except DamagedShard as error:
                note(f"run {ready.identity.key}: {error}; it is measured again")


def read_shard(ready: Prepared, index: int, wrong: Callable[[Mapping[str, np.ndarray]], str | None]) -> tuple:
    """The arrays of a shard and what is said of it. wrong: why arrays cannot be those of this shard, None if they can.

    Raises DamagedShard for one that cannot be used; it is removed, to be made again.
    """
    try:
        arrays, about = ready.partial.read(index)
        if why := wrong(arrays):
            raise DamagedShard(f"shard {index} {why}")
        return arrays, about
    except DamagedShard:
        ready.partial.discard(index)
        raise


def refuse_other_rules(ready: Prepared, rules: Mapping[str, Any], device: str, implementation: str = "") -> None:
    """LabError when a finished shard was computed by other rules for rows than ``rules``; raises Gone.

    One that another implementation of the scores computed is gone on with, and noted: all agree to rounding.
    """
    for index in sorted(ready.partial.finished())[:1]:
        try:
            _, about = ready.partial.read(index)
        except DamagedShard:
            return  # found again when the record is made
        if about["ran"]["rows"] != rules:
            raise LabError(
                f"finished shards of run {ready.identity.key} were computed on {about['ran']['device']} with rows "
                f"{about['ran']['rows']}, which here are {rules} on {device}; go on there, or delete "
                f"{ready.partial.files.directory}"
            )
        before = about["ran"].get("implementation", implementation)
        if implementation and before != implementation:
            note_once(
                f"finished shards of run {ready.identity.key} were scored by {before}, the others are scored by "
                f"{implementation}; the two agree to rounding, and the record says what scored how many"
            )


def removed(ready: Prepared) -> LabError:
    """The error of a process whose work is gone without a record."""
    return LabError(
        f"the unfinished work on run {ready.identity.key} was removed while this process did its part; run again"
    )


def provenance(ran: list[dict[str, Any]]) -> dict[str, Any]:
    """What ran most of the shards, and their number; for the others, what was different with them."""
    kinds = Counter(json.dumps(one, sort_keys=True) for one in ran)
    if len({json.dumps(one["rows"], sort_keys=True) for one in ran}) > 1:
        raise LabError("the shards of this run were computed by different rules for rows on different devices")
    (most, _), *others = [(json.loads(kind), count) for kind, count in kinds.most_common()]
    also = [{"shards": n, **{name: v for name, v in one.items() if v != most.get(name)}} for one, n in others]
    return {**most, "shards": len(ran), **({"other_shards": also} if also else {})}
