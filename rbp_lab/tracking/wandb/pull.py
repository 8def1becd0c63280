"""Finished runs pulled back from a W&B server; their records' files are cached by digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rbp_lab.errors import LabError
from rbp_lab.store.atomic import atomic_directory
from rbp_lab.store.layout import Store
from rbp_lab.tracking.settings import Destination
from rbp_lab.tracking.wandb.client import public_api
from rbp_lab.tracking.wandb.names import RECORD, RECORD_TYPE
from rbp_lab.tracking.wandb.remote_run import PulledRun
from rbp_lab.tracking.wandb.session import digest_files

SERVER_SIDE = {"model": "model", "family": "family", "dataset": "dataset", "dtype": "precision", "key": "key"}


def pull_runs(
    where: Destination,
    project: str,
    entity: str | None,
    filters: Mapping[str, Any],
    store: Store,
    timeout: float = 30.0,
) -> list[PulledRun]:
    """The measurements in a project that pass ``filters``, each with its record's files when they are there.

    filters: as ``analyze`` has them; names without wildcards are asked of the server, the rest is the caller's to
    apply. ``wandb`` among them is a query of W&B's own (Mongo style), such as {"tags": "paper"}. store: keeps the
    files by digest of the artifact, so they are fetched once. Raises LabError when the server does not answer or
    refuses.
    """
    import wandb

    path = f"{entity}/{project}" if entity else project
    try:
        api = public_api(where.server, where.key, timeout)
        found = api.runs(path, filters=query(filters), per_page=100, lazy=False)
        return [_pulled(run, store) for run in found if "key" in run.config and _is_measurement(run)]
    except (wandb.errors.Error, wandb.errors.CommError, OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LabError(f"cannot pull runs of {path} from {where.server}: {first}") from error


def query(filters: Mapping[str, Any]) -> dict[str, Any]:
    """W&B's filter for what can be asked of the server exactly."""
    wanted: list[dict[str, Any]] = []
    for name, theirs in SERVER_SIDE.items():
        given = filters.get(name)
        given = [given] if isinstance(given, str) else given
        if given and not any(c in pattern for pattern in given for c in "*?["):
            wanted.append({f"config.{theirs}": {"$in": list(given)}})
    if filters.get("wandb"):
        wanted.append(dict(filters["wandb"]))
    return {"$and": wanted} if wanted else {}


def _is_measurement(run: Any) -> bool:
    return run.id.startswith("measure-") or run.job_type == "measure"


def _pulled(run: Any, store: Store) -> PulledRun:
    summary = {name: run.summary.get(name) for name in run.summary.keys()}  # noqa: SIM118 - not a mapping
    directory, why = None, "the run is not finished"
    if RECORD in summary:
        directory, why = _record(run, str(summary[RECORD]), store)
    return PulledRun("/".join(run.path), dict(run.config), summary, directory, why)


def _record(run: Any, digest: str, store: Store) -> tuple[Path | None, str]:
    """The directory of the version that the summary is of, fetched once; (None, why) when there is none."""
    versions = [a for a in run.logged_artifacts() if a.type == RECORD_TYPE and a.state == "COMMITTED"]
    mine = [a for a in versions if (a.metadata or {}).get(RECORD) == digest]
    if not mine:
        return None, "its artifact is missing" if not versions else "its artifact is of another version"
    artifact: Any = mine[-1]
    directory = store.pulled(artifact.digest)
    if not directory.is_dir():
        with atomic_directory(directory) as temporary:
            artifact.download(root=str(temporary), skip_cache=True)
            _check(list(temporary.iterdir()), digest, artifact.name)
    return directory, ""


def _check(files: Sequence[Path], digest: str, name: str) -> None:
    if digest_files(files) != digest:
        raise LabError(f"the files of W&B artifact {name} are not those that were mirrored; mirror the record again")
