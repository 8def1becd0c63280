"""Points and records for the analysis, from the local store, from W&B, or from a CSV."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from rbp_lab.analysis.csv_points import points_from_csv
from rbp_lab.comparison.pairs import measured
from rbp_lab.comparison.record import StoredPair, list_pairs
from rbp_lab.config.schemas import Filters, KSpec
from rbp_lab.dimensions import corpora_named_apart, named_apart, told_apart
from rbp_lab.errors import LabError, one_of, shown
from rbp_lab.laws.registry import AXES
from rbp_lab.points import COLUMNS, check_comparable, matches, points_from_records, select, validate
from rbp_lab.records import SIZES, RunHeader, RunRecord
from rbp_lab.report.sections import some
from rbp_lab.store.layout import Store
from rbp_lab.store.streamed import stream_records
from rbp_lab.tracking.settings import NO_TRACKING, Tracking, destination
from rbp_lab.tracking.wandb.pull import pull_runs
from rbp_lab.tracking.wandb.remote_run import NEEDS_TABLES, RemoteRun, summary_rows

SOURCES = ("local", "wandb", "csv")


@dataclass(frozen=True, eq=False)
class AnalysisInputs:
    """points: of every run. records: of the runs whose tables are there. source: where both came from, in a word.

    notes: what a reader must know of them. compared: comparisons in one pass of these records, which the store has.
    """

    points: pd.DataFrame
    records: list[RunRecord]
    source: str
    notes: list[str]
    compared: tuple[StoredPair, ...] = ()


@dataclass(frozen=True)
class LoadedRun:
    """A finished run that a source gave. record: None when its tables could not be had; ``remote`` then has why."""

    source: str
    header: RunHeader
    record: RunRecord | None
    remote: RemoteRun | None = None


@dataclass(frozen=True)
class Selection:
    """Which points an analysis takes. source: one of ``SOURCES``, or several joined by +; the rest as analyze.yaml.

    Laws in tokens also take −log p_{N,k}, of runs whose tables are there, for the N of ``k.windows``. compare: what the
    runs are expected to differ in, which is noted where they do not.
    """

    store: str
    k: KSpec
    source: str = "local"
    csv: str | None = None
    project: str | None = None
    entity: str | None = None
    size: str = "non_embedding_params"
    axis: str = "size"
    compare: Literal["precision"] | None = None
    filters: Filters = field(default_factory=Filters)
    tracking: Tracking = NO_TRACKING

    def __post_init__(self) -> None:
        one_of("axis", self.axis, AXES)
        names = self.source.split("+")
        if "wandb-offline" in names:
            raise LabError(
                "source=wandb-offline: offline W&B runs are not read back; their records are in the store that "
                "measured them: use source=local, or upload them with wandb sync and use source=wandb"
            )
        if not set(names) <= set(SOURCES):
            raise LabError(
                f"source must be one of {', '.join(SOURCES)}, or several joined by +; got {shown(self.source)}"
            )
        if "csv" in names and len(names) > 1:
            raise LabError(
                "source=csv cannot be joined with runs: published values and measurements follow protocols that "
                "rbp_lab cannot compare; analyse them apart"
            )
        if "csv" in names and not self.csv:
            raise LabError("source=csv needs the file: csv=PATH")
        if self.csv and "csv" not in names:
            raise LabError(f"csv={self.csv} is read with source=csv alone; got source={self.source}")
        if not self.csv:
            one_of("size", self.size, SIZES)


def gather(selection: Selection) -> AnalysisInputs:
    """The points and records that ``selection`` takes.

    The same record (key) from several places counts once: the first with its tables, in the order of the sources, the
    newest of one source; values are never averaged. Raises LabError on runs that must not share
    a table, or when nothing is left.
    """
    names, size, windows = selection.source.split("+"), selection.size, windows_of(selection.axis, selection.k)
    if selection.csv:
        table = points_from_csv(os.path.expanduser(selection.csv), size)
        points = select(table, *(selection.filters.as_list(name) for name in ("model", "family", "dataset")))
        return AnalysisInputs(points, [], Path(selection.csv).name, [])
    notes: list[str] = []
    there = [run for name in names for run in _load(name, selection, notes)]
    apart = named_apart(list({run.header.key: run.header for run in there}.values()))
    shown_as = {header.key: header for header in apart}
    passed = [under_filters(run, selection.filters, shown_as[run.header.key]) for run in there]
    found = [run for run in passed if run is not None]
    if not found and (there or str(selection.filters)):
        raise LabError("; ".join([_nothing_passes(selection.filters, apart), *notes]))
    if not found and not notes and names == ["local"]:
        raise LabError(
            f"there is no finished run to analyse in {selection.store}; measure some models first (rbp-lab measure) "
            "or name another store (store=DIR)"
        )
    if not found and notes:
        raise LabError("; ".join(["there is no run that can be analysed", *notes]))
    runs = sorted(_apart(deduplicated(found, notes), notes), key=lambda run: run.header.order)
    runs = _with_size(runs, size, notes)
    if selection.compare and not any(one.precision for one in told_apart([run.header for run in runs]).values()):
        notes.append(
            "no data set was measured at two precisions, so there is nothing to compare; "
            "rbp-lab measure -m 'model=glob(ladder-*)' precision=fp32,bf16 measures the ladder at two"
        )
    records = [run.record for run in runs if run.record is not None]
    remote = [run.remote for run in runs if run.record is None and run.remote is not None]
    ks = selection.k.thresholds
    known = set(map(measured, records))
    compared = tuple(StoredPair(h, selection.store) for h in list_pairs(selection.store) if measured(h.a) in known)
    if not remote:
        points = points_from_records(records, ks, size, windows)
        return AnalysisInputs(points, records, selection.source, notes, compared)
    check_comparable([run.header for run in runs])
    tables = [points_from_records(records, ks, size, windows)] if records else []
    told = told_apart([run.header for run in runs])
    rows = [row | vars(told[run.header.key]) for run in remote for row in summary_rows(run, ks, size)]
    tables.append(pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS))
    for run in remote:
        has = [k for k in ks if f"rbp/{k}" in run.numbers]
        lacks = f", and of these k: {', '.join(str(k) for k in ks if k not in has)}" if len(has) < len(ks) else ""
        notes.append(f"run {run.where}: {run.why}, so its summary is used; that rules out {NEEDS_TABLES}{lacks}")
    points = validate(pd.concat(tables, ignore_index=True))
    return AnalysisInputs(points, records, selection.source, notes, compared)


def _with_size(runs: list[LoadedRun], size: str, notes: list[str]) -> list[LoadedRun]:
    """The runs whose model has a size; the others are noted. LabError when none has."""
    kept = [run for run in runs if run.header.model.params.size(size) > 0]
    if without := {run.header.model.name for run in runs if run.header.model.params.size(size) <= 0}:
        why = f"S = 0 ({size}), where a law in S has no place: {some(sorted(without))}; size=total_params counts all"
        if not kept:
            raise LabError(f"every model has {why}")
        notes.append(f"left out are models with {why}")
    return kept


def windows_of(axis: str, k: KSpec) -> list[int]:
    """The N of −log p_{N,k} among the points: those measured for laws in tokens, none for laws in S, which have others.

    LabError when ``axis`` is none.
    """
    one_of("axis", axis, AXES)
    return [] if axis == "size" else k.windows


def _load(name: str, selection: Selection, notes: list[str]) -> list[LoadedRun]:
    """The finished runs of one source; of W&B the newest first. What is left out is noted."""
    if name == "local":
        return [LoadedRun(name, record.header, record) for record in stream_records(selection.store, notes.append)]
    where = destination(replace(selection.tracking, mode="online"))
    if where is None or not where.online:
        raise LabError("source=wandb needs a W&B key: run wandb login or set WANDB_API_KEY")
    project, entity = selection.project or selection.tracking.project, selection.entity or selection.tracking.entity
    pulled = pull_runs(where, project, entity, selection.filters, Store(selection.store), selection.tracking.timeout)
    notes += pulled.notes
    if not pulled.runs and not pulled.notes:
        path = f"{entity}/{project}" if entity else project
        asked = " that the filters ask for" if str(selection.filters) or selection.filters.wandb else ""
        notes.append(
            f"{where.server} has no finished measurement in the project {path}{asked}; check project and entity, or "
            "mirror a store there with rbp-lab sync"
        )
    runs = [LoadedRun(name, run.record.header if run.record else run.header, run.record, run) for run in pulled.runs]
    return sorted(runs, key=lambda run: str(run.record and run.record.provenance.get("finished", "")), reverse=True)


def deduplicated(found: Sequence[LoadedRun], notes: list[str]) -> list[LoadedRun]:
    """One run per key: the first that has its tables, else the first; every choice is noted."""
    kept: dict[str, LoadedRun] = {}
    for run in found:
        first = kept.setdefault(run.header.key, run)
        if first is run:
            continue
        if first.record is None and run.record is not None:
            first, run = run, first
            kept[run.header.key] = first
        if run.record is None:
            how = "known by its summary only"
        else:
            how = (
                "equal" if first.record is not None and first.record.stats == run.record.stats else "with other counts"
            )
        notes.append(
            f"run {run.header.key} ({run.header.model.name} on {run.header.dataset.name}) is there more than once: "
            f"kept the one of source {first.source}, left out one of {run.source}, {how}"
        )
    return _one_per_measurement(list(kept.values()), notes)


def _one_per_measurement(found: list[LoadedRun], notes: list[str]) -> list[LoadedRun]:
    """The richest of runs that differ only in the tables asked for (thresholds, windows) and counted the same."""
    kept: dict[object, LoadedRun] = {}
    for run in found:
        h = run.header
        if run.record is None:
            kept[h.key] = run
            continue
        spec = replace(h.scoring, thresholds=(), window_lengths=())
        model, counts = (h.model.fingerprint, h.model.quantisation), _digest(run.record.stats.counts)
        name = (*model, h.dataset.fingerprint, repr(spec), counts)
        first = kept.setdefault(name, run)
        if first is not run:
            richest, other = sorted((first, run), key=lambda r: len(r.header.scoring.thresholds), reverse=True)
            kept[name] = richest
            notes.append(
                f"runs {richest.header.key} and {other.header.key} ({h.model.name} on {h.dataset.name}) counted the "
                f"same tokens for other thresholds: kept the first, which has more"
            )
    return list(kept.values())


def _digest(counts: np.ndarray) -> bytes:
    return hashlib.sha256(counts.tobytes()).digest()


def under_filters(run: LoadedRun, filters: Filters, shown_as: RunHeader) -> LoadedRun | None:
    """The run under the first of its names that pass the filters, the present names first; None when none do.

    shown_as: the run under the names that it has in an analysis of everything, which pass as well. Filters are applied
    before runs are compared with each other, so what is left is named by what tells it from the rest of what is left.
    """

    def passes(**values: str) -> bool:
        return all(matches(value, filters.as_list(name)) for name, value in values.items())

    if not passes(dtype=run.header.scoring.dtype, key=run.header.key):
        return None

    def passing(header: RunHeader) -> RunHeader | None:
        return header.named_to_pass(
            lambda name, family: passes(model=name, family=family), lambda name: passes(dataset=name)
        )

    if (header := passing(run.header)) is not None:
        return _named(run, header)
    return None if passing(shown_as) is None else run


def _named(run: LoadedRun, header: RunHeader) -> LoadedRun:
    """The run under the names of this header."""
    record, remote = (part and replace(part, header=header) for part in (run.record, run.remote))
    return replace(run, header=header, record=record, remote=remote)


def _apart(runs: Sequence[LoadedRun], notes: list[str]) -> list[LoadedRun]:
    """The runs under names that tell precisions, protocols and corpora apart; what was renamed is noted."""
    headers = [run.header for run in runs]
    corpora = corpora_named_apart(headers)
    found = named_apart(corpora)
    for before, after, place, what in (
        (headers, found, 1, "precision, and each is a family"),
        (headers, corpora, 2, "documents under one name, and each corpus is a data set"),
        (corpora, found, 2, "protocol, and each is a data set"),
    ):
        names = {header.names[place] for header in after} - {header.names[place] for header in before}
        if names:
            notes.append(f"runs differ in {what} of its own, which no law pools: {some(sorted(names))}")
    return [_named(run, header) for run, header in zip(runs, found, strict=True)]


def _names(header: RunHeader) -> dict[str, list[str]]:
    """What each filter could match."""
    models = [(header.model.name, header.model.family), *header.other_models]
    return {
        "model": [name for name, _ in models],
        "family": [family for _, family in models],
        "dataset": [header.dataset.name, *header.other_datasets],
        "dtype": [header.scoring.dtype],
        "key": [header.key],
    }


def _nothing_passes(filters: Filters, headers: Sequence[RunHeader]) -> str:
    """The sentence for filters that no run passes: the filters, and what each could have matched."""
    if not headers:
        return f"there is no finished run that passes {filters}"
    there = []
    for name in ("model", "family", "dataset", "dtype", "key"):
        if filters.as_list(name):
            values = sorted({value for header in headers for value in _names(header)[name]})
            more = f" and {len(values) - 20} more" if len(values) > 20 else ""
            listed = ", ".join(f'"{value}"' if "," in value else value for value in values[:20])
            there.append(f"{name}: {listed}{more}")
    return f"none of {len(headers)} finished runs passes {filters}; there is {'; '.join(there)}"
