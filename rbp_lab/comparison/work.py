"""One process's work on a comparison in one pass: load both models, take shards until none is left, make the record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from rbp_lab.comparison.job import PairIdentity, PairJob
from rbp_lab.comparison.record import PairRecord, has_pair, write_pair
from rbp_lab.comparison.sums import PARTS, PairSums, Tally, TokenPairs, agreements, pair_sums
from rbp_lab.data.windows import TokenBatch, WindowPlan
from rbp_lab.errors import LabError
from rbp_lab.measurement.devices import Runtime
from rbp_lab.measurement.instrument import Instrument, load_instrument
from rbp_lab.measurement.loop import NonFiniteScores, scored
from rbp_lab.measurement.prepare import Prepared
from rbp_lab.measurement.progress import WorkProgress
from rbp_lab.measurement.sharding import provenance, read_shard, refuse_other_rules, removed, until_all_are_there
from rbp_lab.models.pair_scorer import PairScorer
from rbp_lab.models.row_probe import RowRules
from rbp_lab.models.weights import not_finite, why_not_finite
from rbp_lab.scoring.pairs import PairScores
from rbp_lab.store.layout import Store
from rbp_lab.store.shards import Gone


def work(ready: Prepared, runtime: Runtime) -> Path:
    """Take shards of the comparison and score them until all are there, and make the record; returns its directory.

    As ``measurement.work.work`` does for one model.
    """
    begin = time.monotonic()
    path = Store(ready.job.store).pair(ready.identity.key).directory
    try:
        pair = load(ready.identity, ready.plan, ready.job, runtime)
        refuse_other_rules(ready, pair.ran["rows"], pair.ran["device"])
        finished = ready.positions(ready.partial.finished())
        title = "compare {model} on {dataset}".format(**ready.identity.about)
        with closing(_Progress(title, ready.plan.num_positions, finished, runtime.is_main)) as progress:
            until_all_are_there(ready, partial(pair.make, ready, progress),
                                lambda: _make_record(ready, runtime, time.monotonic() - begin))  # fmt: skip
    except Gone:
        if not has_pair(ready.job.store, ready.identity.key):
            raise removed(ready) from None
    return path


class _Progress:
    """Where the work stands, in process 0."""

    def __init__(self, title: str, positions: int, finished: int, shown: bool):
        self._bar = WorkProgress(title, positions, 15.0, finished) if shown else None
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


class Pair:
    """Both models on a device, and how their rows are scored. ran: that as plain JSON, for the record's provenance."""

    def __init__(self, a: Instrument, b: Instrument, scorer: PairScorer):
        self._both, self._scorer = (a, b), scorer
        self._rules = RowRules(a.rules.padded and b.rules.padded, a.rules.together and b.rules.together)
        self.ran = {"rows": vars(self._rules), "device": a.ran["device"], "implementation": scorer.implementation,
                    "a": a.ran, "b": b.ran}  # fmt: skip

    def make(self, ready: Prepared, progress: _Progress, index: int) -> None:
        """Score one shard and keep its sums."""
        ks = ready.identity.header.ks
        total, document, agree = PairSums.zeros(ks), [np.zeros(0, np.int64)], [np.zeros(0, bool)]
        for batch, tokens in self.tokens(ready.identity, ready.shard(index), ready.job.scoring.batch_tokens):
            total = total + pair_sums(tokens, ks)
            document.append(tokens.document)  # runs go on from batch to batch
            agree.append(tokens.agree != 0)
            progress.batch(batch)
        total = replace(total, runs=agreements(np.concatenate(document), np.concatenate(agree)))
        for opened in ready.identity.models:
            opened.verify()
        ready.partial.write(index, to_arrays(total), {"ran": self.ran})

    def tokens(
        self, identity: PairIdentity, plan: WindowPlan, batch_tokens: int
    ) -> Iterator[tuple[TokenBatch, TokenPairs]]:
        """Every batch of a plan with its scored tokens; LabError when a logit is not finite."""
        plan = plan if self._rules.padded else plan.unpadded()
        try:
            for batch, scores in scored(plan.batches(batch_tokens if self._rules.together else 1), self._scorer):
                yield batch, token_pairs(batch, scores)
        except NonFiniteScores as error:
            raise LabError(f"{self._not_finite(identity)}: {error}") from None

    def _not_finite(self, identity: PairIdentity) -> str:
        names = [opened.info.name for opened in identity.models]
        why = [f"{n}: {why_not_finite(one.loaded.network)}" for n, one in zip(names, self._both, strict=True)]
        return f"models {' and '.join(dict.fromkeys(why))}"


def load(identity: PairIdentity, plan: WindowPlan, job: PairJob, runtime: Runtime) -> Pair:
    """Both models on this process's device, tried on rows of the plan; LabError when they cannot be compared."""
    a = load_instrument(identity.a.opened, identity.header.a.scoring, plan, job, runtime)
    b = a
    if identity.header.perturbation is None:
        b = load_instrument(identity.b.opened, identity.header.b.scoring, plan, job, runtime)
    for opened, one in zip(identity.models, (a, b), strict=True):
        if one.scorer.plan.kind != "head" and (why := not_finite(one.loaded.network)):
            raise LabError(f"model {opened.info.name}: {why}")
    return Pair(a, b, PairScorer(a.scorer, b.scorer, identity.header.ks, identity.header.perturbation))


def token_pairs(batch: TokenBatch, scores: PairScores) -> TokenPairs:
    """The scored tokens of a batch as arrays."""
    a, b = scores.a, scores.b

    def both(name: str) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(getattr(a, name)), np.asarray(getattr(b, name))

    return TokenPairs(
        document=np.repeat(batch.document_id, batch.scored.sum(1)),
        nll=both("nll"),
        entropy=both("entropy"),
        rank=tuple(1 + np.asarray(s.num_greater) + np.asarray(s.num_equal) for s in (a, b)),
        confidence=(np.asarray(scores.confidence_a), np.asarray(scores.confidence_b)),
        kl=(np.asarray(scores.kl_ab), np.asarray(scores.kl_ba)),
        variation=np.asarray(scores.variation),
        agree=np.asarray(scores.agree),
        overlap=np.asarray(scores.overlap),
    )


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
