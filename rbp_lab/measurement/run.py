"""Measure one model on one corpus: find the finished record or make it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Any

from rbp_lab.data.corpus import Corpus
from rbp_lab.errors import LabError, note, note_once, warn
from rbp_lab.measurement.devices import Runtime, choose_device, number_of_processes, place_in_cluster
from rbp_lab.measurement.job import Job, Outcome, Subject, Task
from rbp_lab.records import RunHeader, RunRecord
from rbp_lab.store.atomic import may_be_written
from rbp_lab.store.records import DamagedRecord, has_record, read_totals, record_path, with_header
from rbp_lab.store.shards import Gone, Partial


def run_each(
    configs: Sequence[Mapping[str, Any]], job_of: Callable[[Mapping[str, Any]], Job], say: Callable[[str], None]
) -> list[Outcome]:
    """``run_job`` for the job of each configuration, with a line for each outcome.

    Of several, one that fails is said and does not stop the others; LabError at the end.
    """
    outcomes, failed = [], 0
    for job in map(job_of, configs):
        try:
            outcomes.append(run_job(job))
        except LabError as error:
            if len(configs) == 1:
                raise
            failed += 1
            warn(f"{job.model.name}: {str(error).removeprefix(f'model {job.model.name}: ')}")
            continue
        say(outcomes[-1].line())
    if failed:
        raise LabError(f"{failed} of {len(configs)} checkpoints could not be measured")
    return outcomes


def run_job(job: Job) -> Outcome:
    """Run the measurement in this process or in ``launch.processes`` of them.

    A finished record of the same key is returned without measuring unless ``force``; it takes the names that are asked
    for. A damaged one is measured again. What was measured of it before, by whatever command, is gone on with. Raises
    LabError on anything the user can put right; finished shards are kept then.
    """
    corpus = job.dataset.corpus()
    identity = job.identify(corpus)
    path = record_path(job.store, identity.key)
    if has_record(job.store, identity.key) and not job.force:
        try:
            found = read_totals(path, identity.key)
            return Outcome(path, _named_as_asked(job.store, found, identity.header), measured=False)
        except DamagedRecord as error:
            note(f"{error}; doing so now")
    make(job, corpus, identity)
    return Outcome(path, read_totals(path, identity.key).header, measured=True)


def make(job: Task, corpus: Corpus, identity: Subject) -> None:
    """Make the record that ``job`` asks for, in this process or in ``launch.processes`` of them.

    identity: of the job, by ``job.identify(corpus)``. Raises LabError on anything the user can put right; finished
    shards are kept then.
    """
    if not may_be_written(job.store):
        raise LabError(f"nothing may be written to the store {job.store}; choose another one with store=DIR")
    if left_out := corpus.left_out_note():
        note_once(left_out)
    from rbp_lab.measurement.prepare import prepare  # torch: not for what is refused or found

    device = choose_device(job.launch.device)
    processes = number_of_processes(job.launch.processes, device, partial(_gpus_each, job, identity))
    if processes > 1:
        from rbp_lab.measurement import pool

        pool.start(processes, device)  # they import torch meanwhile
    ready = prepare(job, corpus, identity, device)
    place = place_in_cluster(os.environ, device)
    with _kept(ready.partial, identity.key):
        if processes == 1:
            import_module(job.worker).work(ready, place)
        else:
            first, world = place.rank * processes, place.world * processes
            places = [Runtime(first + i, world, device, processes) for i in range(processes)]
            pool.launch(job.command, job.config, identity.key, places)


def _gpus_each(job: Task, identity: Subject, memory: list[int]) -> int:
    """How many GPUs a process needs, each with so many bytes for weights."""
    import torch

    from rbp_lab.models.placement import gpus_per_model, limited

    given = list(limited(dict(enumerate(memory)), job.launch.max_memory or {}).values())
    return max(
        gpus_per_model(opened.empty, getattr(torch, dtype), given, job.launch.placement)
        for opened, dtype in zip(identity.models, identity.dtypes, strict=True)
    )


@contextmanager
def _kept(partial: Partial, key: str) -> Iterator[None]:
    """Say what is there of an unfinished measurement, at its beginning and when it breaks off."""
    whole = len(partial.plan)
    partial.begins()
    with suppress(Gone):
        if finished := len(partial.finished()):
            note(f"run {key} goes on: {finished} of {whole} shards are there")
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception):
            partial.failed(str(error) or type(error).__name__)
        with suppress(Gone, OSError):
            if finished := len(partial.finished()):
                note(f"{finished} of {whole} shards of run {key} are kept; the same command goes on from there")
        raise


def _named_as_asked(store: str, record: RunRecord, asked: RunHeader) -> RunHeader:
    """The header of the found record under the names that are asked for, with what is known of the training by now.

    Neither is part of the key.
    """
    header = record.header.told(asked.model)
    if header.names != asked.names:
        header = header.named(*asked.names)
    if header == record.header:
        return header
    before, now = ("{} of family {} on {}".format(*h.names) for h in (record.header, header))
    what = f"run {asked.key} was measured as {before}; it is now called {now}, and filters find it under either name"
    try:
        with_header(store, record, header)
    except LabError as error:
        what = f"run {asked.key} stays called {before} in the store, and is called {now} here only: {error}"
    if header.names != record.header.names:
        note(what)
    return header
