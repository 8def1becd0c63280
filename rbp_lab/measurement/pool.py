"""Several measuring processes on this machine: they stay for the next measurement, and end with this process.

A worker reads jobs from its standard input, one JSON line each, and answers with one line on a pipe of its own. The
end of its input, which the system brings about however this process ends, ends it at once.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from rbp_lab.errors import LabError, warn
from rbp_lab.measurement.devices import Runtime, group_of, processors, visible_gpus

GRACE = 8.0  # seconds that a worker has to end its callbacks when it is told to stop
COMMAND = (sys.executable, "-m", "rbp_lab.measurement.worker")
_LOG_LINES = 200
# Settings of accelerate (DeepSpeed, FSDP, mixed precision, …) and of torch's launcher: about training, not about this.
FOREIGN = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PET_", "TORCHELASTIC_")


def launch(command: str, config: Mapping[str, Any], key: str, places: Sequence[Runtime]) -> None:
    """Do the job of ``config`` in as many processes as there are ``places``; they see plain JSON, never words.

    command: the module of ``commands`` that makes a job of it. key: of the record to make; a process that finds another
    model or text stops. When one is killed the others do its work. Raises LabError on a user's mistake in a process, or
    when all were killed; RuntimeError with the cause and its traceback on everything else.
    """
    workers = start(len(places), places[0].device)
    done = False
    try:
        for worker, place in zip(workers, places, strict=True):
            worker.send({"command": command, "config": config, "key": key, "place": asdict(place)})
        _until_all_answer(workers)
        done = True
    finally:
        if not done or not all(worker.is_alive() for worker in workers):
            close()


class Worker:
    """One measuring process."""

    popen = subprocess.Popen

    def __init__(self, environment: Mapping[str, str], command: Sequence[str] = COMMAND):
        """command: of the process, without the number of its pipe."""
        reading, writing = os.pipe()
        self._process = self.popen(
            [*command, str(writing)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[writing],
            env=dict(environment), text=True, errors="replace",
            start_new_session=True,  # Ctrl-C is this process's to pass on
        )  # fmt: skip
        os.close(writing)
        self.answers = os.fdopen(reading, encoding="utf-8")
        self.log: deque[str] = deque(maxlen=_LOG_LINES)
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def send(self, job: Mapping[str, Any]) -> None:
        """Have the worker begin a job; one that is dead is found when its answer does not come."""
        with suppress(OSError):
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def exit_code(self) -> int:
        """The exit code of a worker whose pipe has ended; negative when a signal ended it."""
        return self._process.wait()

    def _read_log(self) -> None:
        for line in self._process.stderr:
            if line.startswith(("note: ", "warning: ")):
                _print_once(line)
            else:
                self.log.append(line)

    def whole_log(self) -> str:
        """The end of what a worker that has ended wrote to its standard error."""
        self._reader.join(timeout=5)
        return "".join(self.log)

    def tell_to_stop(self) -> None:
        self._process.send_signal(signal.SIGINT)  # SIGTERM is a cluster's as well, see ``worker``

    def end(self, seconds: float) -> None:
        """Wait for the end of the process, and bring it about after so many seconds."""
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(OSError):
            self._process.stdin.close()  # not before: that would end the process at once, its leases and trackers open
        self._reader.join(timeout=5)
        self._process.stderr.close()
        self.answers.close()


_workers: list[Worker] = []
_printed: set[str] = set()
_lock = threading.Lock()


def _print_once(line: str) -> None:
    """Pass on a note; that of several processes, or of several jobs, once."""
    with _lock:
        if line in _printed:
            return
        _printed.add(line)
    print(line, end="", file=sys.stderr, flush=True)


def start(number: int, device: str) -> list[Worker]:
    """Living workers, those of the last measurement where it had as many."""
    if len(_workers) != number or not all(worker.is_alive() for worker in _workers):
        close()
        _workers.extend(Worker(environment) for environment in _environments(number, device))
    return list(_workers)


def _environments(number: int, device: str) -> list[dict[str, str]]:
    """The environment of each worker: its share of the processors, and of the GPUs."""
    common = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    common["OMP_NUM_THREADS"] = str(max(1, processors() // number))
    gpus = visible_gpus() if device == "cuda" else []
    own = [{"CUDA_VISIBLE_DEVICES": ",".join(group_of(gpus, i, number))} if gpus else {} for i in range(number)]
    return [{**common, **one} for one in own]


def close() -> None:
    """End every worker: first all are told, then they have a few seconds."""
    ending, _workers[:] = list(_workers), []
    for worker in ending:
        worker.tell_to_stop()
    for worker in ending:
        worker.end(GRACE)


atexit.register(close)


def _until_all_answer(workers: Sequence[Worker]) -> None:
    """Return when every worker has answered that its work is done, or was killed and is not needed."""
    with selectors.DefaultSelector() as waiting:
        for rank, worker in enumerate(workers):
            waiting.register(worker.answers, selectors.EVENT_READ, rank)
        while waiting.get_map():
            for ready, _ in waiting.select():
                waiting.unregister(ready.fileobj)
                line = ready.fileobj.readline()
                if line:
                    _raise_failure(json.loads(line), ready.data)
                else:
                    _take_in_loss(workers[ready.data], ready.data, len(waiting.get_map()))


def _raise_failure(answer: Mapping[str, Any], rank: int) -> None:
    if answer.get("done"):
        return
    if answer["user"]:
        raise LabError(answer["message"])
    error = RuntimeError(f"in process {rank}: {answer['message']}")
    error.add_note(answer["traceback"])
    raise error


def _take_in_loss(worker: Worker, rank: int, others: int) -> None:
    """A worker ended without an answer: warn where the others can do its work, else raise."""
    code = worker.exit_code()
    number = -code if code < 0 else code - 128  # killed, or told to end by a signal
    if number not in set(signal.Signals):
        error = RuntimeError(f"measuring process {rank} ended with exit code {code}")
        error.add_note(worker.whole_log())
        raise error
    name = signal.Signals(number).name
    if others:
        trackers = "; what it told trackers is incomplete: rbp-lab sync mirrors the record" if rank == 0 else ""
        warn(f"measuring process {rank} was ended by {name}; the others do its work{trackers}")
        return
    raise LabError(
        f"measuring process {rank} was ended by {name}; if memory ran out, use fewer launch.processes or a smaller "
        "scoring.batch_tokens"
    )
