"""Compare two models in one pass: find the finished comparison or make it."""

from __future__ import annotations

from dataclasses import replace

from rbp_lab.comparison.job import PairJob
from rbp_lab.comparison.record import PERTURBATIONS, PairRecord, has_pair, read_pair
from rbp_lab.errors import note
from rbp_lab.measurement.run import make
from rbp_lab.store.header import DamagedRecord


def run_pair(job: PairJob) -> tuple[PairRecord, bool]:
    """The comparison that ``job`` asks for, and whether it was made now.

    A finished one of the same key is returned, with the names that are asked for, unless ``force``; a damaged one is
    made again. Raises LabError on anything the user can put right; finished shards are kept then.
    """
    corpus = job.dataset.corpus()
    identity = job.identify(corpus)
    if has_pair(job.store, identity.key) and not job.force:
        try:
            found = read_pair(job.store, identity.key)
            return replace(found, header=identity.header), False  # under the names that are asked for
        except DamagedRecord as error:
            note(f"{error}; doing so now")
    make(job, corpus, identity)
    return read_pair(job.store, identity.key), True


def found_pair(job: PairJob) -> PairRecord | None:
    """The finished comparison that ``job`` asks for, with the names that are asked for; None when there is none."""
    identity = job.identify(job.dataset.corpus())
    if not has_pair(job.store, identity.key):
        return None
    return replace(read_pair(job.store, identity.key), header=identity.header)


def floors(job: PairJob) -> dict[str, PairRecord]:
    """What a differs by from itself, by perturbation: smaller differences of two models mean nothing."""
    config = {**job.config, "b": job.config.get("a", {})}
    return {
        name: run_pair(replace(job, b=job.a, perturbation=name, config={**config, "perturbation": name}))[0]
        for name in PERTURBATIONS
    }
