"""One of several measuring processes: ``python -m rbp_lab.measurement.worker DESCRIPTOR``; see ``measurement.pool``."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from importlib import import_module
from typing import Any

from rbp_lab.errors import LabError, memory_sentence, out_of_memory
from rbp_lab.garbage import look_seldom
from rbp_lab.interrupts import end_on_signals
from rbp_lab.measurement.devices import Runtime
from rbp_lab.models.placement import remove_written_weights
from rbp_lab.room import make_sure_of_room
from rbp_lab.store.layout import Store


def serve(answers: int) -> None:
    """Do the jobs that come on standard input, and answer each on the file descriptor ``answers``."""
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=[jobs], daemon=True).start()
    import_module("rbp_lab.measurement.instrument")  # torch, while the process that gives the jobs prepares the first
    while True:
        answer = answer_to(json.loads(jobs.get()))
        os.write(answers, (json.dumps(answer) + "\n").encode())


def _read(jobs: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        jobs.put(line)
    remove_written_weights()
    os._exit(0)  # the process that gave the jobs has ended, or needs this one no longer


def answer_to(work_order: dict[str, Any]) -> dict[str, Any]:
    """Do a job: {"done": True}, or what went wrong, for ``pool`` to raise.

    work_order: the command and the composed configuration, the key of the record that it must be of, and this process's
    place.
    """
    try:
        job = import_module(f"rbp_lab.commands.{work_order['command']}").job_from_config(work_order["config"])
        place = Runtime(**work_order["place"])
        corpus = job.dataset.corpus()
        identity = job.identify(corpus)
        if identity.key != work_order["key"]:
            raise LabError("the model or the text changed while the processes started; run again")
        # The process that gives the job has begun the work; what is there no longer is done, or removed, which it says.
        if Store(job.store).partial(identity.key).directory.is_dir():
            from rbp_lab.measurement.prepare import prepare  # half a second, in which a signal would find no handler

            import_module(job.worker).work(prepare(job, corpus, identity, place.device), place)
        return {"done": True}
    except Exception as error:
        if out_of_memory(error):
            return {"user": True, "message": memory_sentence(error)}
        what = "".join(traceback.format_exception_only(error)).strip()
        return {
            "user": isinstance(error, LabError),
            "message": str(error) if isinstance(error, LabError) else what,
            "traceback": "".join(traceback.format_exception(error)),
        }


if __name__ == "__main__":
    for warning in ("SIGUSR1", "SIGUSR2"):  # of a cluster, before it takes the job away: for the one that gave the work
        if hasattr(signal, warning):
            signal.signal(getattr(signal, warning), signal.SIG_IGN)
    look_seldom()
    make_sure_of_room()
    with end_on_signals():
        if "SUBMITIT_EXECUTOR" in os.environ:
            # Every process of a cluster's job gets it before the job is killed, perhaps to be put into the queue again.
            # The one that gave the work goes on until then, as submitit has it, and a job that goes on has not failed.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        serve(int(sys.argv[1]))
