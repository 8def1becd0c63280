"""One process's work on a measurement: load the model, take shards until none is left, and make the record of them."""

from __future__ import annotations

import gc
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from rbp_lab import __version__
from rbp_lab.config.schemas import Launch
from rbp_lab.errors import LabError, note
from rbp_lab.measurement.devices import Runtime, memory_for_weights
from rbp_lab.measurement.loop import NonFiniteScores, Watch, measure
from rbp_lab.measurement.merge import make_record
from rbp_lab.measurement.observers import Measurement, Observers, RunInfo
from rbp_lab.measurement.parts import to_arrays
from rbp_lab.measurement.prepare import Prepared
from rbp_lab.models.placement import Placement, enough_memory, limited, place_model
from rbp_lab.models.row_probe import RowRules, probe_rows, row_lengths
from rbp_lab.models.scorer import Scorer, describe_head
from rbp_lab.models.source import LoadedModel, OpenModel
from rbp_lab.models.weights import coarsest_eps, why_not_finite
from rbp_lab.store.lease import Leases
from rbp_lab.store.records import has_record, read_record, record_path
from rbp_lab.store.shards import DamagedShard, Gone


@dataclass(frozen=True)
class Instrument:
    """A model on a device, and how its rows are scored. ran: that as plain JSON, for the record's provenance."""

    loaded: LoadedModel
    scorer: Scorer
    rules: RowRules
    ran: dict[str, Any]


def work(ready: Prepared, runtime: Runtime) -> Path:
    """Take shards of the measurement and score them until all are there, and make the record; returns its directory.

    Of several processes, of this command or of others, one makes the record and the others wait for it. Raises LabError
    on what the user can put right; finished shards are kept then.
    """
    job, header, partial = ready.job, ready.identity.header, ready.partial
    begin = time.monotonic()
    path = record_path(job.store, header.key)
    try:
        instrument = load_instrument(ready, runtime)
        before = _positions(ready, partial.finished())
        run = RunInfo(
            model=header.model.name,
            dataset=header.dataset.name,
            num_rows=len(ready.plan),
            num_positions=ready.plan.num_positions,
            vocab_rows=header.model.vocab_rows,
            thresholds=header.scoring.thresholds,
            window_lengths=header.scoring.window_lengths,
            rank=runtime.rank,
            world=runtime.world,
            header=header,
            finished_positions=before,
        )
    except Gone:
        return _made_by_another(ready)
    with Observers(job.callbacks) as observers:
        observers.notify("on_start", run)
        try:
            _until_all_are_there(ready, runtime, instrument, run, observers, begin)
        except Gone:
            _made_by_another(ready)
        if runtime.is_main and observers.listen("on_record"):
            observers.notify("on_record", read_record(path), path)
    return path


def _until_all_are_there(
    ready: Prepared, runtime: Runtime, instrument: Instrument, run: RunInfo, observers: Observers, begin: float
) -> None:
    """Measure shards and make the record; what is damaged is measured again. Raises Gone when another one made it."""
    leases, watch, mine = Leases(), Watch(run, observers), set[int]()
    watch.count_others(lambda: _positions(ready, ready.partial.finished() - mine) - run.finished_positions)
    while True:
        for index in ready.partial.take(leases):
            measurement = _measure(ready, instrument, index, run, watch)
            mine.add(index)
            ready.partial.write(index, to_arrays(measurement), {"ran": instrument.ran})
            observers.notify("on_shard", measurement)
        with ready.partial.last(leases):
            try:
                make_record(ready, runtime, time.monotonic() - begin)
                return
            except DamagedShard as error:
                note(f"run {ready.identity.key}: {error}; it is measured again")


def _measure(ready: Prepared, instrument: Instrument, index: int, run: RunInfo, watch: Watch) -> Measurement:
    rules, batch_tokens = instrument.rules, ready.job.scoring.batch_tokens
    shard = ready.shard(index)
    try:
        measurement = measure(
            shard if rules.padded else shard.unpadded(), instrument.scorer, run, watch,
            batch_tokens if rules.together else 1,
        )  # fmt: skip
    except NonFiniteScores as error:
        why = why_not_finite(instrument.loaded.network)
        raise LabError(f"model {run.model}: {error}: {why}") from None
    ready.identity.opened.verify()
    return measurement


def _positions(ready: Prepared, shards: set[int]) -> int:
    return int(ready.shard_positions[sorted(shards)].sum())


def _made_by_another(ready: Prepared) -> Path:
    """The directory of the record that another process has made; LabError when the work is gone without one."""
    if not has_record(ready.job.store, ready.identity.key):
        raise LabError(
            f"the unfinished work on run {ready.identity.key} was removed while this process did its part; run again"
        )
    return record_path(ready.job.store, ready.identity.key)


def load_instrument(ready: Prepared, runtime: Runtime) -> Instrument:
    """The model on this process's device, tried on rows of the measurement.

    Raises LabError when a record of it would mean nothing, or when its rows cannot be computed in the way in which
    those of the finished shards were.
    """
    opened, header = ready.identity.opened, ready.identity.header
    model, spec, job = header.model, header.scoring, ready.job
    torch.set_float32_matmul_precision("high" if spec.tf32 else "highest")
    with enough_memory(f"to load model {model.name} and to try it on a row"):
        placement, loaded = _weights(opened, getattr(torch, spec.dtype), runtime, job.launch)
        scorer = Scorer(
            loaded.network,
            placement.device,
            num_candidates=min(model.vocab_rows, model.tokenizer_size) if spec.candidates == "tokenizer" else None,
            logits=spec.logits,
            budget=None if job.scoring.logits_mb is None else int(job.scoring.logits_mb * 2**20),
            implementation=job.scoring.implementation,
            lengths=sorted({*row_lengths(ready.plan), int(ready.plan.width.max())}),
        )
    rules = probe_rows(ready.plan, scorer, coarsest_eps(loaded.network), scorer.reset)
    notes = [*opened.notes, *loaded.notes]
    notes += [describe_head(scorer.plan)] if scorer.plan.kind != "head" else []
    notes += [line for line in (rules.sentence(), placement.sentence()) if line]
    if runtime.is_main:
        for line in notes:
            note(f"model {model.name}: {line}")
    ran = {
        "device": placement.device,
        "placement": dict(placement.shares),
        "machine": platform.processor() or platform.machine(),
        "head": describe_head(scorer.plan),
        "implementation": scorer.implementation,
        "product": scorer.product,
        "attention": getattr(loaded.network.config, "_attn_implementation", None),
        "rows": asdict(rules),
        "notes": notes,
        "rbp_lab": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    for index in sorted(ready.partial.finished())[:1]:
        _refuse_other_rules(ready, index, ran["rows"])
    return Instrument(loaded, scorer, rules, ran)


# The weights of the last measurement, and what they are: the next one of a sweep over data sets has the same.
_last: tuple[tuple[object, ...], tuple[Placement, LoadedModel]] | None = None


def _weights(
    opened: OpenModel, dtype: torch.dtype, runtime: Runtime, launch: Launch
) -> tuple[Placement, LoadedModel]:
    """The model's weights and where they lie; they stay in memory until another model's are asked for."""
    global _last
    info, limits = opened.info, launch.max_memory or {}
    how = (opened.attention, dtype, runtime.device, launch.placement, tuple(sorted(limits.items())))
    what = (info.path, info.revision, info.fingerprint, info.quantisation, *how)
    if _last is None or _last[0] != what:
        _last = None  # before the next ones take room
        gc.collect()  # a model that is spread holds itself in a circle
        memory = limited(memory_for_weights(runtime), limits)
        placement = place_model(opened.empty, dtype, runtime.device, memory, launch.placement)
        _last = what, (placement, opened.load(dtype, placement.device_map))
    return _last[1]


def _refuse_other_rules(ready: Prepared, index: int, rules: dict[str, Any]) -> None:
    """LabError when a finished shard was computed by other rules for rows than ``rules``."""
    try:
        _, about = ready.partial.read(index)
    except DamagedShard:
        return  # found again when the record is made
    if about["ran"]["rows"] != rules:
        raise LabError(
            f"finished shards of run {ready.identity.key} were computed on {about['ran']['device']} with rows "
            f"{about['ran']['rows']}, which here are {rules}; go on there, or delete {ready.partial.files.directory}"
        )
