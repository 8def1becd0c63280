"""Measure one model on one corpus: find the finished record or make it."""

from __future__ import annotations

from dataclasses import replace

from rbp_lab.errors import LabError, note
from rbp_lab.measurement.devices import Runtime, choose_device
from rbp_lab.measurement.job import Job, Outcome, identify
from rbp_lab.measurement.pool import launch
from rbp_lab.records import RunHeader, RunRecord
from rbp_lab.store.atomic import may_be_written
from rbp_lab.store.layout import Store
from rbp_lab.store.records import DamagedRecord, has_record, read_record, record_path, rename_record


def run_job(job: Job) -> Outcome:
    """Run the measurement in this process or in ``launch.processes`` of them.

    A finished record of the same key is returned without measuring unless ``force``; it takes the names that are asked
    for. A damaged one is measured again. Raises LabError on anything the user can put right; the store then holds
    nothing new.
    """
    corpus = job.dataset.corpus()
    identity = identify(job, corpus)
    if has_record(job.store, identity.key) and not job.force:
        path = record_path(job.store, identity.key)
        try:
            found = read_record(path, identity.key)
            return Outcome(_named_as_asked(job.store, found, identity.header), path, measured=False)
        except DamagedRecord as error:
            note(f"{error}; doing so now")
    if not may_be_written(job.store):
        raise LabError(f"nothing may be written to the store {job.store}; choose another one with store=DIR")
    if left_out := corpus.left_out_note():
        note(left_out)
    if job.launch.processes == 1:
        from rbp_lab.measurement.shard import measure_shard  # torch: not for what is refused or found

        path = measure_shard(job, corpus, identity, Runtime(device=choose_device(job.launch.device)))
    else:
        choose_device(job.launch.device)
        launch(job.config, identity.key, job.launch.processes, Store(job.store))
        path = record_path(job.store, identity.key)
    return Outcome(read_record(path), path, measured=True)


def _named_as_asked(store: str, record: RunRecord, asked: RunHeader) -> RunRecord:
    """The found record under the names that are asked for; they are not part of the key."""
    if record.header.names == asked.names:
        return record
    before, now = ("{} of family {} on {}".format(*names) for names in (record.header.names, asked.names))
    what = f"run {asked.key} was measured as {before}; it is now called {now}, and filters find it under either name"
    try:
        record = rename_record(store, record, *asked.names)
    except LabError as error:
        record = replace(record, header=record.header.named(*asked.names))
        what = f"run {asked.key} stays called {before} in the store, and is called {now} here only: {error}"
    note(what)
    return record
