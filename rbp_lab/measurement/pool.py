"""Several measuring processes on this machine, started by torch's launcher, and what went wrong in them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rbp_lab.errors import LabError
from rbp_lab.store.layout import Store

FAILURE = "failure.json"
# Settings of accelerate (DeepSpeed, FSDP, mixed precision, …) and of the launcher: about training and other machines.
FOREIGN = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PET_", "TORCHELASTIC_")


def launch(config: Mapping[str, Any], key: str, processes: int, store: Store) -> None:
    """Measure ``config`` in ``processes`` processes; they see plain JSON, never the command line.

    key: of the record to make; a process that finds another model or text stops. Raises LabError on a user's mistake
    in a process, or when one was killed; RuntimeError with the cause and its traceback on everything else.
    """
    store.jobs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="job-", dir=store.jobs) as directory:
        job, log = Path(directory) / "job.json", Path(directory) / "launcher.log"
        job.write_text(json.dumps({"config": config, "key": key}))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += ["-m", "rbp_lab.measurement.worker", str(job)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))
        with open(log, "w") as stderr:
            code = run_to_end(command, environment, stderr)
        _pass_on(log.read_text(errors="replace"))
        if code:
            _raise_cause(Path(directory) / FAILURE, log.read_text(errors="replace"), code)


def _pass_on(log: str) -> None:
    """Print the notes and warnings of the processes, each once; the rest of the log is the launcher's."""
    for line in dict.fromkeys(log.splitlines()):
        if line.startswith(("note: ", "warning: ")):
            print(line, file=sys.stderr, flush=True)


def run_to_end(command: Sequence[str], environment: Mapping[str, str], stderr: IO[str]) -> int:
    """The exit code of ``command``. An exception here (Ctrl-C, SIGTERM) ends the command before it goes on."""
    with subprocess.Popen(command, stderr=stderr, env=environment) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()  # torch's launcher ends its processes with it
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


def write_failure(job: Path, error: Exception, rank: int) -> None:
    """Leave what went wrong beside ``job`` for the starting process; the first to fail is the cause, and stays."""
    what = "".join(traceback.format_exception_only(error)).strip()
    failure = {
        "user": isinstance(error, LabError),
        "rank": rank,
        "message": str(error) if isinstance(error, LabError) else what,
        "traceback": "".join(traceback.format_exception(error)),
    }
    mine = job.with_name(f"failure-{rank}.json")
    mine.write_text(json.dumps(failure))
    try:
        os.link(mine, job.with_name(FAILURE))  # whole or not at all, and never over another
    except FileExistsError:
        return
    except OSError:  # a file system without links
        mine.rename(job.with_name(FAILURE))


def _raise_cause(failure: Path, log: str, code: int) -> None:
    if failure.is_file():
        cause = json.loads(failure.read_text())
        if cause["user"]:
            raise LabError(cause["message"])
        error = RuntimeError(f"in process {cause['rank']}: {cause['message']}")
        error.add_note(cause["traceback"])
        raise error
    killed = re.search(r"exitcode\s*:\s*-(\d+)", log)
    if killed:
        name = signal.Signals(int(killed[1])).name
        raise LabError(
            f"a measuring process was ended by {name}; if memory ran out, use fewer launch.processes or a smaller "
            "scoring.batch_tokens"
        )
    error = RuntimeError(f"the measuring processes ended with exit code {code}")
    error.add_note(log)
    raise error
