"""What became of jobs that a launcher ran in processes of its own.

Each leaves a file in its directory, which the command line that started them reads in the end. Hydra would keep but the
first exception, and lets a task of a cluster that has failed end as a success.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rbp_lab.jobs.failures import Failures, print_error
from rbp_lab.store.atomic import atomic_path

FILE = "outcome.json"


@dataclass(frozen=True)
class JobOutcome:
    """job: its number in the sweep. name: its overrides. ended: what it came to, None when it failed. error: why.
    misused: whether it was refused before any work began."""

    job: int
    name: str
    ended: str | None
    error: str | None
    misused: bool = False


def leave(outcome: JobOutcome, directory: str | Path) -> None:
    """Called by a job at its end. directory: of the job.

    A failed task of Slurm then ends with exit code 1, so that ``sacct`` shows it, after its launcher has kept what it
    keeps. Of several tasks that share a job the first one speaks.
    """
    if os.environ.get("SLURM_PROCID", "0") == "0":
        with atomic_path(Path(directory) / FILE) as path:
            path.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    if outcome.error is not None and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        atexit.register(_fail)


def _fail() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def left_in(directory: str | Path) -> dict[int, JobOutcome]:
    """The outcomes that jobs have left below the directory of their sweep, by their numbers."""
    found = {}
    for path in Path(directory).rglob(FILE):
        try:
            outcome = JobOutcome(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # a job was killed as it wrote, or another program uses the name
            continue
        found[outcome.job] = outcome
    return dict(sorted(found.items()))


def count(failures: Failures, left: Mapping[int, JobOutcome], names: Sequence[str]) -> None:
    """Add the jobs ``names`` of a sweep to ``failures`` by what they have left, and print a line for each."""
    lost = (JobOutcome(job, name, None, "it ended without a result") for job, name in enumerate(names))
    for one in ({outcome.job: outcome for outcome in lost} | dict(left)).values():
        failures.jobs += 1
        if one.error is None:
            failures.ended[one.ended or "done"] += 1
            print(f"{one.name}: {one.ended or 'done'}", flush=True)
        else:
            failures.failed.append((one.name, one.error))
            failures.misused += one.misused
            print_error(f"{one.name}: {one.error}")
