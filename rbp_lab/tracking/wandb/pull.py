"""Finished runs pulled back from a W&B server; their records' files are kept by digest and fetched once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rbp_lab.config.schemas import Filters
from rbp_lab.errors import LabError
from rbp_lab.records import RunHeader, RunRecord
from rbp_lab.store.atomic import atomic_directory
from rbp_lab.store.layout import RecordFiles, Store
from rbp_lab.store.records import TABLES, read_record
from rbp_lab.tracking.settings import Destination
from rbp_lab.tracking.wandb.client import public_api
from rbp_lab.tracking.wandb.names import MEASURE, RECORD, RECORD_TYPE, record_config
from rbp_lab.tracking.wandb.remote_run import RemoteRun, header_from_config, is_name, numbers_from_summary, shown
from rbp_lab.tracking.wandb.session import digest_files

SERVER_SIDE = {"model": "model", "family": "family", "dataset": "dataset", "dtype": "precision", "key": "key"}
MAX_BYTES = 1 << 34  # of one file of a record
LONGEST_DOCUMENT = 4096  # characters of a document's name; a path has no more


@dataclass(frozen=True)
class Pulled:
    """runs: the finished measurements. notes: sentences about what was left out and why."""

    runs: tuple[RemoteRun, ...]
    notes: tuple[str, ...]


def pull_runs(
    where: Destination,
    project: str,
    entity: str | None,
    filters: Filters,
    store: Store,
    timeout: float,
) -> Pulled:
    """The measurements in a project that pass ``filters``, each with its record when that is there and sound.

    filters: as ``analyze`` has them; names without wildcards are asked of the server, the rest is the caller's to
    apply. store: keeps the files, by the digest of the record. A run that cannot be used is left out with a note.
    Raises LabError when the server does not answer or refuses.
    """
    path = f"{entity}/{project}" if entity else project
    try:
        api = public_api(where.server, where.key, timeout)
        found = [run for run in api.runs(path, filters=query(filters), per_page=100, lazy=True) if _is_measurement(run)]
    except Exception as error:  # W&B raises many kinds, of its own and of the network
        raise LabError(f"cannot pull runs of {path} from {where.server}: {_first_line(error)}") from error
    runs, notes, unfinished = [], [], 0
    for run in found:
        name = shown(f"{path}/{run.id}")
        try:
            pulled = _pulled(run, name, store)
        except Exception as error:  # whatever one run holds, the others are not to blame
            notes.append(f"run {name} is left out: {_first_line(error)}")
            continue
        if pulled is None:
            unfinished += 1
        else:
            runs.append(pulled)
    if unfinished:
        notes.append(f"{unfinished} runs of source wandb are not finished and are left out")
    return Pulled(tuple(runs), tuple(notes))


def query(filters: Filters) -> dict[str, Any]:
    """W&B's filter for what can be asked of the server exactly."""
    asked: list[dict[str, Any]] = []
    for name, theirs in SERVER_SIDE.items():
        given = filters.as_list(name)
        if given and not any(c in pattern for pattern in given for c in "*?["):
            asked.append({f"config.{theirs}": {"$in": given}})
    if filters.wandb:
        asked.append(dict(filters.wandb))
    return {"$and": asked} if asked else {}


def _is_measurement(run: Any) -> bool:
    return str(run.id).startswith(f"{MEASURE}-")


def _first_line(error: Exception) -> str:
    kind = "" if isinstance(error, LabError) else f"{type(error).__name__}: "
    lines = str(error).strip().splitlines()
    return kind + "".join(c if c.isprintable() else "?" for c in (lines[0] if lines else "no reason given"))[:300]


def _pulled(run: Any, where: str, store: Store) -> RemoteRun | None:
    """One run, checked; None when it is not finished. Raises when it cannot be used at all."""
    summary = {name: run.summary.get(name) for name in run.summary.keys()}  # noqa: SIM118 - not a mapping
    if RECORD not in summary:
        return None
    header = header_from_config(run.config)
    pulled = RemoteRun(where, header, numbers_from_summary(summary))
    try:
        return replace(pulled, record=_record(run, header, summary[RECORD], store))
    except Exception as error:  # the summary is sound, whatever the artifact holds
        return replace(pulled, why=_first_line(error))


def _record(run: Any, header: RunHeader, digest: Any, store: Store) -> RunRecord:
    """The record of the version that the summary is of, fetched once; raises when there is none or it is another."""
    directory = store.pulled(digest)
    if not directory.is_dir() or digest_files(list(directory.iterdir())) != digest:
        versions = [a for a in run.logged_artifacts() if a.type == RECORD_TYPE and a.state == "COMMITTED"]
        mine = [a for a in versions if (a.metadata or {}).get(RECORD) == digest]
        if not mine:
            raise LabError("its artifact is of another version" if versions else "its artifact is missing")
        with atomic_directory(directory) as temporary:
            _download(mine[-1], temporary)
            if digest_files(list(temporary.iterdir())) != digest:
                raise LabError("the files of its artifact are not those that were mirrored; mirror the record again")
    record = read_record(directory)
    theirs = header_from_config(record_config(record.header))  # its names are as foreign as those of the configuration
    if [theirs.key, theirs.model.fingerprint, theirs.dataset.fingerprint] != [
        header.key, header.model.fingerprint, header.dataset.fingerprint,
    ]:  # fmt: skip
        raise LabError(f"its artifact holds the record {theirs.key}, not the one that its configuration names")
    others = [*(name for pair in record.header.other_models for name in pair), *record.header.other_datasets]
    if not all(map(is_name, others)):
        raise LabError("its artifact's record has other names that cannot be names")
    if not all(isinstance(name, str) and len(name) <= LONGEST_DOCUMENT for name in record.document_names):
        raise LabError(f"its artifact's record names a document with more than {LONGEST_DOCUMENT} characters")
    return record


def _download(artifact: Any, directory: Path) -> None:
    """The files of a record into ``directory``: those names and no others, no links, no references to elsewhere."""
    files = RecordFiles(directory)
    expected = {files.header.name, *(files.table(name).name for name in TABLES)}
    entries = artifact.manifest.entries
    if set(entries) != expected:
        raise LabError(f"its artifact holds other files than a record: {shown(sorted(set(entries) ^ expected)[0])}")
    for name, entry in entries.items():
        if entry.ref is not None or (entry.size or 0) > MAX_BYTES:
            raise LabError(f"its artifact's {name} is a reference or too large")
    artifact.download(root=str(directory), skip_cache=True)
    if any(path.is_symlink() or not path.is_file() for path in directory.iterdir()):
        raise LabError("its artifact holds something other than files")
