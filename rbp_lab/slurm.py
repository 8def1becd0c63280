"""Jobs of Slurm: whether they can be started here, how they failed, and waiting for them.

hydra-submitit-launcher starts them, as ``conf/hydra/launcher/slurm.yaml`` says.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable

from rbp_lab.errors import LabError, warn

POLL_SECONDS = 5.0  # squeue asks the controller, which a cluster shares


def check_slurm() -> None:
    """LabError unless jobs can be submitted from this machine."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise LabError("hydra/launcher=slurm: there is no sbatch here; run this on a machine of the cluster")


def array_of(error: Exception) -> int | None:
    """The number of the job or array of which submitit's exception says that a task ended without a result."""
    ended = _ended(error)
    return int(ended[1].partition("_")[0]) if ended else None


def _ended(error: Exception) -> re.Match[str] | None:
    if not type(error).__module__.startswith("submitit."):
        return None
    ended = r"Job (\d\S*) .*with path (\S+)/[^/\s]+\s+has not produced any output \(state: (.*?)\)"
    return re.search(ended, str(error))


def job_failure(error: Exception) -> str | None:
    """What submitit's exception says, as one line; None for any other exception."""
    if not type(error).__module__.startswith("submitit."):
        return None
    if ended := _ended(error):
        job, logs, state = ended.groups()
        return (
            f"Slurm job {job} ended without a result ({state}); what it printed is in {logs}; finished work is kept, "
            "and the same command goes on from there"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"Slurm: {next((line for line in lines if 'error:' in line), (lines or [type(error).__name__])[0])}"


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
