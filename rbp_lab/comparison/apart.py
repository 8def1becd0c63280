"""Two models of which one at a time is in memory: hidden states of a wait on disk until b comes.

For a few shards at a time, as many as the disk may hold, a is loaded, its states are written beside the shards, and of
a only the output layer stays; then b is loaded, scores the shards with them, and they go. A killed process leaves
states that the next one uses. The numbers are those of both models side by side, for states keep every bit.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from rbp_lab.comparison.job import PairIdentity, PairJob
from rbp_lab.comparison.pair import Half, Pair, batches, load_half, load_pair, rules_of_both
from rbp_lab.comparison.states import StoredStates, write_states
from rbp_lab.data.windows import TokenBatch, WindowPlan
from rbp_lab.errors import LabError, note
from rbp_lab.measurement.devices import Runtime, memory_for_weights
from rbp_lab.measurement.instrument import keep_only, release
from rbp_lab.measurement.prepare import Prepared
from rbp_lab.measurement.sharding import refuse_other_rules
from rbp_lab.models.placement import bytes_of, limited, place_model, weight_bytes
from rbp_lab.models.row_probe import RowRules
from rbp_lab.store.atomic import remove_directory
from rbp_lab.store.clean import size
from rbp_lab.text import byte_size


def why_apart(identity: PairIdentity, job: PairJob, runtime: Runtime) -> str:
    """Why the models of a comparison must not be in memory together; "" when they may."""
    if identity.is_of_one or job.states == "memory":
        return ""
    why = "states=stored" if job.states == "stored" else _why_not_together(identity, job, runtime)
    if why:
        release()  # of what an earlier job has left as well
    return why


def _why_not_together(identity: PairIdentity, job: PairJob, runtime: Runtime) -> str:
    """Why both models do not fit in memory; "" when they do, and then what an earlier job has left of them stays."""
    here = keep_only(identity.in_formats, runtime, job.launch)  # others of an earlier job take no room from these
    if any(one is not None and len(one.shares) > 1 for one in here):
        here = keep_only((), runtime, job.launch)  # one that is spread lies where it would not if there is more room
    models = [(opened.empty, getattr(torch, dtype)) for opened, dtype in identity.in_formats]
    need = [weight_bytes(*model) for model in models]
    memory = memory_for_weights(runtime)
    first = next(iter(memory))
    memory[first] += sum(size for size, one in zip(need, here, strict=False) if one is not None)
    memory = limited(memory, job.launch.max_memory or {})
    room = memory[first]
    names = " and ".join(opened.info.name for opened in identity.models)
    if sum(need) > room:
        where = "in main memory" if first == "cpu" else f"on GPU {first}"
        return (
            f"the weights of {names} take {' and '.join(map(byte_size, need))}, and {byte_size(room)} {where} may hold "
            "weights"
        )
    if any(len(place_model(*model, runtime.device, memory, job.launch.placement).shares) > 1 for model in models):
        return f"the weights of {names} do not lie on one device"
    return ""


class Apart:
    """One process's work on a comparison whose models are loaded in turn."""

    def __init__(
        self,
        ready: Prepared,
        runtime: Runtime,
        write: Callable[[Pair, int], object],
        advance: Callable[[TokenBatch], object],
    ):
        """write: scores the shard of a number with a pair, and keeps it. advance: is told of every batch that a has
        computed."""
        self._ready, self._runtime, self._write, self._advance = ready, runtime, write, advance
        self._rules: RowRules | None = None  # of both models, once both were tried
        self._room = 0  # bytes for the states of the shards that are taken together
        scored = ready.per_shard(ready.plan.length - 1 - ready.plan.skip)  # or fewer: special tokens are not scored
        self._bytes = scored * row_bytes(ready.identity)
        for index in ready.partial.waiting() & ready.partial.finished():  # of a process that was killed in between
            self._remove(index)

    def fits(self, taken: list[int], index: int) -> bool:
        """Whether the states of a shard may wait on disk together with those of others that were taken.

        Every process of the command takes its share of the disk and of the shards. LabError when its share does not
        hold the first one.
        """
        partial, most, world = self._ready.partial, self._ready.job.max_disk, self._runtime.world
        if not taken:
            there = sum(size(partial.files.states(one)) for one in partial.waiting())
            self._room = min(bytes_of(most), there + shutil.disk_usage(partial.files.directory).free // 2) // world
            if self._bytes[index] > self._room:
                raise LabError(
                    f"the hidden states of a shard take {byte_size(self._bytes[index])}, and a process may keep "
                    f"{byte_size(self._room)} of them below {partial.files.directory}: its share of "
                    f"max_disk={most}, or of half of what is free there; raise max_disk, free some, or use fewer "
                    "launch.processes"
                )
        left = len(partial.plan) - len(partial.finished())
        return sum(self._bytes[[*taken, index]]) <= self._room and len(taken) < -(-left // world)

    def make(self, shards: list[int]) -> None:
        """Have both models compute some shards. One whose states turn out to be of no use to b is left for later."""
        ready = self._ready
        a = self._store(shards)
        b = load_half(ready.identity.b, ready.plan, ready.job, self._runtime)
        if self._rules is None:
            self._rules = rules_of_both(a.rules, b.rules)
            refuse_other_rules(ready, vars(self._rules), a.ran["device"])
        for index in shards:
            if (states := self._stored(a, self._rules, index)) is not None:
                self._write(Pair(with_states(a, states), b, ready.identity.header.ks, states="stored"), index)
                states.check_end()
                self._remove(index)

    def _store(self, shards: list[int]) -> Half:
        """Have a compute the states of some shards, and return what stays of it."""
        ready = self._ready
        a = load_half(ready.identity.a, ready.plan, ready.job, self._runtime)
        rules = self._rules or a.rules
        for index in shards:
            some = batches(ready.shard(index), rules, ready.job.scoring.batch_tokens)
            if self._stored(a, rules, index) is not None:
                for batch in some:
                    self._advance(batch)
                continue
            path = ready.partial.files.states(index)
            try:
                write_states(path, a, some, self._about(a, rules, index), self._advance)
            except FileNotFoundError:
                ready.partial.finished()  # raises Gone
                raise
            ready.identity.a.opened.verify()
        return without_body(a)

    def _about(self, a: Half, rules: RowRules, index: int) -> dict[str, Any]:
        """What stored states must have in common with the rows that b computes."""
        return {
            "identity": self._ready.partial.plan.identity,
            "index": index,
            "rows": vars(rules),
            "batch_tokens": self._ready.job.scoring.batch_tokens,
            "device": a.ran["device"],
        }

    def _stored(self, a: Half, rules: RowRules, index: int) -> StoredStates | None:
        """The stored states of a shard; None when there are none, or of other rows."""
        try:
            found = StoredStates(self._ready.partial.files.states(index), a.side.head.weight.device)
        except FileNotFoundError:
            return None
        except LabError as error:
            note(f"the hidden states of shard {index} are damaged ({error}); they are computed again")
            return None
        same = all(found.about.get(name) == value for name, value in self._about(a, rules, index).items())
        return found if same else None

    def _remove(self, index: int) -> None:
        with suppress(FileNotFoundError):
            remove_directory(self._ready.partial.files.states(index))


def sentence(ready: Prepared, why: str) -> str:
    """What is done with models that are loaded in turn, and why, for a user."""
    a, b = (opened.info.name for opened in ready.identity.models)
    head = ready.identity.a.opened.empty.get_output_embeddings()
    held = "" if head is None else f" ({byte_size(head.weight.shape[0] * row_bytes(ready.identity))})"
    return (
        f"{why}; so they are loaded in turn: hidden states of {a}, at most {ready.job.max_disk} at a time, wait below "
        f"{ready.partial.files.directory} for {b}, beside which only the output layer of {a}{held} stays in memory"
    )


def row_bytes(identity: PairIdentity) -> int:
    """Bytes of the hidden states of a at one position, which are those of a row of its output layer."""
    head = identity.a.opened.empty.get_output_embeddings()
    return 0 if head is None else head.weight.shape[1] * getattr(torch, identity.dtypes[0]).itemsize


def without_body(half: Half) -> Half:
    """What of a model is needed to score its hidden states; holds nothing else of it."""
    why = half.why_not_finite()

    def states(tokens: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
        raise ValueError("the body of this model is no longer in memory")

    side = replace(half.side, states=states, head=half.side.head.map(torch.clone))
    return replace(half, side=side, why_not_finite=lambda: why)


def with_states(half: Half, states: StoredStates) -> Half:
    """The same with states that were stored."""
    return replace(half, side=replace(half.side, states=states))


@contextmanager
def pair_for(
    rows: Sequence[WindowPlan], identity: PairIdentity, plan: WindowPlan, job: PairJob, runtime: Runtime
) -> Iterator[Pair]:
    """Both models, ready to score some rows, each a plan of its own, in their order, a batch for each."""
    if not why_apart(identity, job, runtime):
        yield load_pair(identity, plan, job, runtime)
        return
    with TemporaryDirectory(prefix="rbp-lab-states-") as folder:
        path, a = Path(folder) / "states", load_half(identity.a, plan, job, runtime)
        write_states(path, a, (batch for row in rows for batch in batches(row, a.rules, 1)), {})
        a = without_body(a)
        states = StoredStates(path, a.side.head.weight.device)
        yield Pair(with_states(a, states), load_half(identity.b, plan, job, runtime), identity.header.ks)
