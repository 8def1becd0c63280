"""One process's work on a comparison in one pass: load the models, take shards until none is left, make the record."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from rbp_lab.comparison.apart import Apart, sentence, why_apart
from rbp_lab.comparison.pair import Pair, load_pair
from rbp_lab.comparison.record import PairRecord, has_pair, write_pair
from rbp_lab.comparison.sums import PARTS, PairSums, Tally, agreements, pair_sums
from rbp_lab.data.windows import TokenBatch
from rbp_lab.errors import note
from rbp_lab.measurement.devices import Runtime
from rbp_lab.measurement.prepare import Prepared
from rbp_lab.measurement.progress import WorkProgress
from rbp_lab.measurement.sharding import provenance, read_shard, refuse_other_rules, removed, until_all_are_there
from rbp_lab.store.layout import Store
from rbp_lab.store.shards import Gone


def work(ready: Prepared, runtime: Runtime) -> Path:
    """Take shards of the comparison and score them until all are there, and make the record; returns its directory.

    As ``measurement.work.work`` does for one model.
    """
    begin = time.monotonic()
    path = Store(ready.job.store).pair(ready.identity.key).directory

    def finish() -> None:
        _make_record(ready, runtime, time.monotonic() - begin)

    try:
        if why := why_apart(ready.identity, ready.job, runtime):
            if runtime.is_main:
                note(sentence(ready, why))
            with closing(_Progress(ready, runtime.is_main, rounds=2)) as progress:
                apart = Apart(ready, runtime, partial(_make, ready, progress), progress.batch)
                until_all_are_there(ready, apart.make, finish, fits=apart.fits)
            return path
        pair = load_pair(ready.identity, ready.plan, ready.job, runtime)
        refuse_other_rules(ready, pair.ran["rows"], pair.ran["device"], pair.ran["implementation"])
        with closing(_Progress(ready, runtime.is_main)) as progress:

            def make(shards: list[int]) -> None:
                _make(ready, progress, pair, *shards)

            until_all_are_there(ready, make, finish)
    except Gone:
        if not has_pair(ready.job.store, ready.identity.key):
            raise removed(ready) from None
    return path


class _Progress:
    """Where the work stands, in process 0. rounds: how often it goes over every shard."""

    def __init__(self, ready: Prepared, shown: bool, rounds: int = 1):
        title = "compare {model} on {dataset}".format(**ready.identity.about)
        finished = rounds * ready.positions(ready.partial.finished())
        self._bar = WorkProgress(title, rounds * ready.plan.num_positions, 15.0, finished) if shown else None
        self._begin, self._done, self._finished = time.monotonic(), 0, finished

    def batch(self, batch: TokenBatch) -> None:
        self._done += batch.tokens.size
        if self._bar is not None:
            self._bar.advance(batch.tokens.size)
            rate = self._done / max(1e-9, time.monotonic() - self._begin)
            self._bar.show(self._finished + self._done, rate, "")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _make(ready: Prepared, progress: _Progress, pair: Pair, index: int) -> None:
    """Score one shard and keep its sums."""
    ks = ready.identity.header.ks
    total, document, agree = PairSums.zeros(ks), [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    for batch, tokens in pair.tokens(ready.shard(index), ready.job.scoring.batch_tokens):
        total = total + pair_sums(tokens, ks)
        document.append(tokens.document)  # runs go on from batch to batch
        agree.append(tokens.agree != 0)
        progress.batch(batch)
    total = replace(total, runs=agreements(np.concatenate(document), np.concatenate(agree)))
    for opened in ready.identity.models:
        opened.verify()
    ready.partial.write(index, to_arrays(total), {"ran": pair.ran})


def to_arrays(sums: PairSums) -> dict[str, np.ndarray]:
    """Every number of some sums; ``from_arrays`` gives it back."""
    return {f"{part}.{name}": getattr(getattr(sums, part), name) for part in PARTS for name in ("keys", "sums")}


def from_arrays(arrays: Mapping[str, np.ndarray], ks: tuple[int, ...]) -> PairSums:
    """The sums of what ``to_arrays`` was given."""
    return PairSums(ks, *(Tally(arrays[f"{part}.keys"], arrays[f"{part}.sums"]) for part in PARTS))


def _make_record(ready: Prepared, runtime: Runtime, seconds: float) -> Path:
    """Write the record of all shards, remove them, and return its directory; errors as of ``merge.make_record``."""
    ks, ran, shards = ready.identity.header.ks, [], []
    for index in range(len(ready.partial.plan)):

        def wrong(arrays: Mapping[str, np.ndarray], index: int = index) -> str | None:
            if not np.isin(arrays["cells.keys"][:, 0], ready.shard_documents(index)).all():
                return "holds documents from which it was not made"
            tokens = {int(from_arrays(arrays, ks).column("tokens").sum()), *(
                int(arrays[f"{part}.sums"].sum()) for part in ("transitions", "moves", "spread")
            )}  # fmt: skip
            same = int((arrays["runs.keys"][:, 1] * arrays["runs.sums"][:, 0]).sum())
            if same != int(from_arrays(arrays, ks).column("agree").sum()):
                return "has runs of other tokens than those at which the models agree"
            return None if len(tokens) == 1 else "has tables of different tokens"

        arrays, about = read_shard(ready, index, wrong)
        shards.append(from_arrays(arrays, ks))
        ran.append(about["ran"])
    total = PairSums(ks, *(_joined([getattr(one, part) for one in shards]) for part in PARTS))
    record = PairRecord(
        header=ready.identity.header,
        sums=total,
        names=dict(enumerate(ready.names)),
        provenance={
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "processes": runtime.world,
            "batch_tokens": ready.job.scoring.batch_tokens,
            **provenance(ran),
        },
    )
    path = write_pair(ready.job.store, record)
    ready.partial.remove()
    return path


def _joined(tallies: list[Tally]) -> Tally:
    """Their sum, in one sort."""
    keys, sums = (np.concatenate([getattr(one, name) for one in tallies]) for name in ("keys", "sums"))
    return Tally.of(keys.T, sums.T)
