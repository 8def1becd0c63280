"""Waiting for jobs of Slurm. hydra-submitit-launcher starts them, as ``conf/hydra/launcher/slurm.yaml`` says."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterable

from rbp_lab.errors import LabError, warn

POLL_SECONDS = 5.0  # squeue asks the controller, which a cluster shares


def wait_for(jobs: Iterable[int], poll_seconds: float = POLL_SECONDS) -> None:
    """Return once none of ``jobs`` (a job array by its own number) is waiting or running, however it ended.

    Prints what is left whenever that changes. A controller that does not answer for a while is asked again.

    Raises:
        LabError: there is no squeue here, or Slurm does not know a job.
    """
    for job in jobs:
        try:
            left = _left(job)
        except _Refused as error:
            raise LabError(f"wait={job}: {error}; Slurm forgets a job that has ended: leave wait out") from None
        shown, asking = None, True
        while left:
            if left != shown:
                states = ", ".join(f"{number} {state.lower()}" for state, number in sorted(left.items()))
                print(f"waiting for Slurm job {job}: {states}", flush=True)
                shown = left
            time.sleep(poll_seconds)
            try:
                left, asking = _left(job), True
            except _Refused as error:
                if "invalid job id" in str(error).lower():  # it has ended, and is forgotten
                    break
                if asking:
                    warn(f"{error}; asking again")
                asking = False


class _Refused(Exception):
    """What squeue says in place of an answer."""


def _left(job: int) -> Counter[str]:
    """How many tasks of a job are in which state, of those that have not ended."""
    command = ["squeue", "--noheader", "--array", "--format=%T", f"--jobs={job}"]  # --array: one line a task
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise LabError(f"wait={job}: there is no squeue here; only a machine of the cluster can wait for it") from None
    if done.returncode:
        raise _Refused((done.stderr.strip().splitlines() or [f"squeue failed with exit code {done.returncode}"])[-1])
    return Counter(done.stdout.split())
