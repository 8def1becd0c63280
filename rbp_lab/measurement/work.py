"""One process's work on a measurement: load the model, take shards until none is left, and make the record of them."""

from __future__ import annotations

import time
from pathlib import Path

from rbp_lab.errors import LabError
from rbp_lab.measurement.devices import Runtime
from rbp_lab.measurement.instrument import Instrument, load_instrument
from rbp_lab.measurement.loop import NonFiniteScores, Watch, measure
from rbp_lab.measurement.merge import make_record
from rbp_lab.measurement.observers import Measurement, Observers, RunInfo
from rbp_lab.measurement.parts import to_arrays
from rbp_lab.measurement.prepare import Prepared
from rbp_lab.measurement.sharding import refuse_other_rules, removed, until_all_are_there
from rbp_lab.models.weights import why_not_finite
from rbp_lab.store.records import has_record, read_record, record_path
from rbp_lab.store.shards import Gone


def work(ready: Prepared, runtime: Runtime) -> Path:
    """Take shards of the measurement and score them until all are there, and make the record; returns its directory.

    Of several processes, of this command or of others, one makes the record and the others wait for it. Raises LabError
    on what the user can put right; finished shards are kept then.
    """
    job, header, partial = ready.job, ready.identity.header, ready.partial
    begin = time.monotonic()
    path = record_path(job.store, header.key)
    try:
        instrument = load_instrument(ready.identity.opened, header.scoring, ready.plan, job, runtime)
        refuse_other_rules(ready, instrument.ran["rows"], instrument.ran["device"], instrument.ran["implementation"])
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
            finished_positions=ready.positions(partial.finished()),
        )
    except Gone:
        return _made_by_another(ready)
    with Observers(job.callbacks) as observers:
        observers.notify("on_start", run)
        watch = Watch(run, observers)

        def make(shards: list[int]) -> None:
            (index,) = shards
            measurement = _measure(ready, instrument, index, run, watch)
            partial.write(index, to_arrays(measurement), {"ran": instrument.ran})
            observers.notify("on_shard", measurement)

        try:
            until_all_are_there(ready, make, lambda: make_record(ready, runtime, time.monotonic() - begin),
                                watch.count_others)  # fmt: skip
        except Gone:
            _made_by_another(ready)
        if runtime.is_main and observers.listen("on_record"):
            observers.notify("on_record", read_record(path), path)
    return path


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


def _made_by_another(ready: Prepared) -> Path:
    """The directory of the record that another process has made; LabError when the work is gone without one."""
    if not has_record(ready.job.store, ready.identity.key):
        raise removed(ready)
    return record_path(ready.job.store, ready.identity.key)
