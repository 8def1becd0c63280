"""Points and records for the analysis, from the local store, from W&B, or from a CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from rbp_lab.config.build import call
from rbp_lab.errors import LabError
from rbp_lab.points import (
    COLUMNS,
    SIZES,
    check_comparable,
    matches,
    points_from_csv,
    points_from_records,
    validate,
)
from rbp_lab.records import RunRecord
from rbp_lab.store.layout import Store
from rbp_lab.store.records import list_records, read_record
from rbp_lab.tracking.settings import Tracking, destination
from rbp_lab.tracking.wandb.remote_run import RULED_OUT, PulledRun, described, summary_rows

SOURCES = ("local", "wandb", "csv")


@dataclass(frozen=True, eq=False)
class Gathered:
    """points: of every run. records: of the runs whose tables are there. notes: what a reader must know of them."""

    points: pd.DataFrame
    records: list[RunRecord]
    notes: list[str]


@dataclass(frozen=True)
class Found:
    """A run that a source gave. summary: set when its record could not be had; ``record`` then has no statistics."""

    source: str
    record: RunRecord
    summary: PulledRun | None = None


def gather(config: Mapping[str, Any]) -> Gathered:
    """What ``config`` of ``analyze`` asks for: source (several joined by +), store, project, entity, filters, k, size.

    The same record (key) from several places counts once: the first with its tables, in the order of the sources, the
    newest of one source; values are never averaged. Raises LabError on an unknown source, on runs that must not share
    a table, or when nothing is left.
    """
    names, size = config["source"].split("+"), config["size"]
    for name in names:
        if name == "wandb-offline":
            raise LabError(
                "source=wandb-offline: offline W&B runs are not read back; their records are in the store that "
                "measured them: use source=local, or upload them with wandb sync and use source=wandb"
            )
        if name not in SOURCES:
            raise LabError(f"source must be one of {', '.join(SOURCES)}, or several joined by +; got {name!r}")
    if "csv" in names:
        if len(names) > 1:
            raise LabError(
                "source=csv cannot be joined with runs: published values and measurements follow protocols that "
                "rbp_lab cannot compare; analyse them apart"
            )
        if not config["csv"]:
            raise LabError("source=csv needs the file: csv=PATH")
        return Gathered(points_from_csv(config["csv"], size), [], [])
    if size not in SIZES:
        raise LabError(f"size must be one of {', '.join(SIZES)}; got {size!r}")
    notes: list[str] = []
    found = [f for name in names for f in _from(name, config, notes) if wanted(f.record, config["filters"])]
    runs = sorted(deduplicated(found, notes), key=lambda f: _order(f.record))
    records = [f.record for f in runs if f.summary is None]
    summaries = [f.summary for f in runs if f.summary is not None]
    ks = config["k"]["thresholds"]
    if not summaries:
        return Gathered(points_from_records(records, ks, size), records, notes)
    check_comparable([f.record for f in runs])
    tables = [points_from_records(records, ks, size)] if records else []
    rows = [row for run in summaries for row in summary_rows(run, ks, size)]
    tables.append(pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS))
    for run in summaries:
        has = [k for k in ks if f"rbp/{k}" in run.summary]
        lacks = f", and of these k: {', '.join(str(k) for k in ks if k not in has)}" if len(has) < len(ks) else ""
        notes.append(f"run {run.where}: {run.why}, so its summary is used; that rules out {RULED_OUT}{lacks}")
    return Gathered(validate(pd.concat(tables, ignore_index=True)), records, notes)


def _order(record: RunRecord) -> tuple[object, ...]:
    return record.dataset.name, record.model.family, record.model.params.non_embedding, record.key


def _from(name: str, config: Mapping[str, Any], notes: list[str]) -> list[Found]:
    if name == "local":
        return [Found(name, record) for record in list_records(config["store"])]
    from rbp_lab.tracking.wandb.pull import pull_runs

    where = destination(call(Tracking, {**(config["tracking"] or {}), "mode": "online"}, "tracking"))
    if where is None or not where.online:
        raise LabError("source=wandb needs a W&B key: run wandb login or set WANDB_API_KEY")
    timeout = (config["tracking"] or {}).get("timeout", 30.0)
    pulled = pull_runs(where, config["project"], config["entity"], config["filters"], Store(config["store"]), timeout)
    unfinished = [run for run in pulled if not run.finished]
    if unfinished:
        notes.append(f"{len(unfinished)} runs of source {name} are not finished and are left out")
    found = []
    for run in pulled:
        if run.finished:
            known = run.directory is not None
            found.append(Found(name, read_record(run.directory) if known else described(run), None if known else run))
    newest_first = sorted(found, key=lambda f: str(f.record.provenance.get("finished", "")), reverse=True)
    return newest_first


def deduplicated(found: Sequence[Found], notes: list[str]) -> list[Found]:
    """One run per key: the first that has its tables, else the first; every choice is noted."""
    kept: dict[str, Found] = {}
    for run in found:
        first = kept.setdefault(run.record.key, run)
        if first is run:
            continue
        if first.summary is not None and run.summary is None:
            first, run = run, first
            kept[run.record.key] = first
        same = run.summary is None and first.record.stats == run.record.stats
        how = "equal" if same else "known by its summary only" if run.summary is not None else "with other counts"
        notes.append(
            f"run {run.record.key} ({run.record.model.name} on {run.record.dataset.name}) is there more than once: "
            f"kept the one of source {first.source}, left out one of {run.source}, {how}"
        )
    return _one_per_measurement(list(kept.values()), notes)


def _one_per_measurement(found: list[Found], notes: list[str]) -> list[Found]:
    """Of runs that differ only in the tables asked for (thresholds, windows) and counted the same, the richest."""
    kept: dict[object, Found] = {}
    for run in found:
        r, spec = run.record, replace(run.record.scoring, thresholds=(), window_lengths=())
        if run.summary is not None:
            kept[r.key] = run
            continue
        name = (r.model.fingerprint, r.dataset.fingerprint, repr(spec), r.stats.counts.tobytes())
        first = kept.setdefault(name, run)
        if first is not run:
            richest, other = sorted((first, run), key=lambda f: len(f.record.scoring.thresholds), reverse=True)
            kept[name] = richest
            notes.append(
                f"runs {richest.record.key} and {other.record.key} ({r.model.name} on {r.dataset.name}) counted the "
                f"same tokens for other thresholds: kept the first, which has more"
            )
    return list(kept.values())


def wanted(record: RunRecord, filters: Mapping[str, Any]) -> bool:
    """Whether a run passes the filters; those by name are applied before runs are compared with each other."""
    values = {
        "model": record.model.name,
        "family": record.model.family,
        "dataset": record.dataset.name,
        "dtype": record.scoring.dtype,
        "key": record.key,
    }
    return all(matches(value, patterns(filters.get(name))) for name, value in values.items())


def patterns(given: Sequence[str] | str | None) -> list[str] | None:
    """A filter may be one pattern or a list of them."""
    return [given] if isinstance(given, str) else None if given is None else list(given)
