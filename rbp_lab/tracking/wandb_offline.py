"""Finished runs read back from offline W&B run directories; no file of theirs is touched."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from rbp_lab.errors import LabError
from rbp_lab.tracking.offline import OfflineRun, read_offline_run
from rbp_lab.tracking.wandb.names import MEASURE, record_artifact
from rbp_lab.tracking.wandb.pulled_run import PulledRun


def find_offline_runs(directory: str | Path) -> list[Path]:
    """Every ``run-*.wandb`` file below ``directory`` (or of one run's directory), by name, which is by time."""
    return sorted(Path(directory).rglob("run-*.wandb"), key=lambda path: (path.parent.name, path.name))


def pull_offline(directory: str | Path) -> list[PulledRun]:
    """The measurements among the offline runs below ``directory``, the newest first.

    An offline run names its artifact's files where they lie; they count only while their checksums hold. Raises
    LabError when there is no offline run at all.
    """
    files = find_offline_runs(directory)
    if not files:
        raise LabError(f"no offline W&B run below {directory}; offline_dir names where run-*.wandb files lie")
    runs = [read_offline_run(file) for file in reversed(files)]
    return [_pulled(run) for run in runs if run.id.startswith(f"{MEASURE}-") and "key" in run.config]


def _pulled(run: OfflineRun) -> PulledRun:
    entries = run.artifacts.get(record_artifact(run.config["key"]), {})
    where = str(run.path.parent)
    if not entries:
        return PulledRun(where, run.config, run.summary, None, "the run is not finished")
    paths = [Path(path) for path, _ in entries.values()]
    for path, (_, checksum) in zip(paths, entries.values(), strict=True):
        if not path.is_file():
            return PulledRun(where, run.config, run.summary, None, f"{path} is gone")
        if base64.b64encode(hashlib.md5(path.read_bytes(), usedforsecurity=False).digest()).decode() != checksum:
            return PulledRun(where, run.config, run.summary, None, f"{path} has changed since")
    return PulledRun(where, run.config, run.summary, paths[0].parent)
