"""Jobs of Slurm: whether they can be started here, how they failed, and waiting for them.

hydra-submitit-launcher starts them, as ``conf/hydra/launcher/slurm.yaml`` says.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping

from rbp_lab.errors import LabError, WrongUsage, warn

POLL_SECONDS = 5.0  # squeue asks the controller, which a cluster shares
# States, by sacct, of a task that is still to come to something; "UNKNOWN" when sacct has no row for it.
COMING = ("UNKNOWN", "PENDING", "RUNNING", "REQUEUED", "COMPLETING", "PREEMPTED")


def check_slurm() -> None:
    """WrongUsage unless jobs can be submitted from this machine."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise WrongUsage("hydra/launcher=slurm: there is no sbatch here; run this on a machine of the cluster")


def watch_queue() -> None:
    """Have submitit, which waits for the jobs of a sweep, also believe squeue that a task has ended.

    sacct has no row for a task that is cancelled before it begins, and none at all where no accounts are kept; by
    itself submitit waits for such a task without end. Prints what is left of an array whenever that changes.
    """
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    asked: dict[str, float] = {}  # when, and what came of it, by array
    queued: dict[str, Mapping[str, str]] = {}
    shown: dict[str, str] = {}

    def has_left(task: str) -> bool:
        array = task.partition("_")[0]
        if time.monotonic() - asked.get(array, float("-inf")) >= POLL_SECONDS:
            asked[array] = time.monotonic()
            try:
                queued[array] = _queued(int(array))
                line = _waiting(int(array), Counter(queued[array].values()))
                if queued[array] and line != shown.get(array):
                    print(line, flush=True)
                shown[array] = line
            except _Unknown:
                queued[array] = {}
            except (_Refused, LabError):  # a controller that does not answer is asked again
                pass
        return array in queued and task not in queued[array]

    class QueueWatcher(SlurmInfoWatcher):
        def get_state(self, job_id: str, mode: str = "standard") -> str:
            state = super().get_state(job_id, mode)
            if state not in COMING or not has_left(job_id):
                return state
            return "no longer in the queue" if state == "UNKNOWN" else f"{state}, but no longer in the queue"

    SlurmJob.watcher = QueueWatcher()


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
    if trace := re.search(r"failed during processing with trace:\n-+\n(.*)\n-+\n", str(error), re.DOTALL):
        return f"Slurm: a task failed with {trace[1].strip().splitlines()[-1]}"
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
                print(_waiting(job, left), flush=True)
                shown = left
            time.sleep(poll_seconds)
            try:
                left, asking = _left(job), True
            except _Unknown:  # it has ended, and is forgotten
                break
            except _Refused as error:
                if asking:
                    warn(f"{error}; asking again")
                asking = False


def _waiting(job: int, left: Mapping[str, int]) -> str:
    """A line that says how many tasks of a job are in which state."""
    states = ", ".join(f"{number} {state.lower()}" for state, number in sorted(left.items()))
    return f"waiting for Slurm job {job}: {states}"


class _Refused(Exception):
    """What squeue says in place of an answer."""


class _Unknown(_Refused):
    """Slurm does not know the job: it has ended some minutes ago, or there was none."""


def _left(job: int) -> Counter[str]:
    """How many tasks of a job are in which state, of those that have not ended."""
    return Counter(_queued(job).values())


def _queued(job: int) -> dict[str, str]:
    """The state of each task of a job that has not ended: by "12_0", "12_1", … of an array, by "12" of a job alone."""
    command = ["squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={job}"]  # --array: one line a task
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise WrongUsage(f"wait={job}: there is no squeue here; only a machine of the cluster can wait") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"squeue failed with exit code {done.returncode}"])[-1]
        raise (_Unknown if "invalid job id" in said.lower() else _Refused)(said)
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line.strip())
