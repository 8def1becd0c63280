"""Measurements that are killed at random moments and gone on with: ``python -m tests.kills JSON`` prints the results.

One process imports everything once and forks from itself what is to be killed: a start of Python and torch costs
seconds, and what happens before a measurement begins is not what is tried.
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from rbp_lab.interrupts import CODES, end_on_signals
from rbp_lab.measurement import pool
from rbp_lab.measurement.observers import Callback

ROOT = Path(__file__).resolve().parent.parent


class Slow(Callback):
    """Takes its time after each batch, and writes down how many tokens were scored, also those that are lost."""

    def __init__(self, tally: str, seconds: float):
        self._tally, self._seconds = tally, seconds

    def on_batch(self, batch, scores):
        handle = os.open(self._tally, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(handle, f"{int(batch.scored.sum())}\n".encode())
        os.close(handle)
        time.sleep(self._seconds)


def fork(work: Callable[[], object], end: Callable[[], None] = lambda: None) -> int:
    """The number of a process that does ``work`` and exits as Python does. end: called in it at first."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        end()
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        pool.close()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class ForkedProcess:
    """What ``pool`` needs of subprocess.Popen: a measuring process forked from this one, which has imported it all."""

    def __init__(self, command: object, *, pass_fds: list[int], env: Mapping[str, str], **_: object):
        answers, environment = pass_fds[0], env
        (in_read, in_write), (err_read, err_write) = os.pipe(), os.pipe()
        for handle in (in_write, err_read):
            os.set_inheritable(handle, False)

        def begin() -> None:
            os.setsid()
            os.dup2(in_read, 0)
            os.dup2(err_write, 2)
            keep = {0, 1, 2, answers}
            for handle in map(int, os.listdir("/proc/self/fd")):
                if handle not in keep:
                    with suppress(OSError):
                        os.close(handle)
            os.environ.clear()
            os.environ.update(environment)
            sys.stdin, sys.stderr = os.fdopen(0), os.fdopen(2, "w")
            pool._workers.clear()

        def work() -> None:
            from rbp_lab.measurement.worker import serve

            with end_on_signals():
                serve(answers)

        self.pid = fork(work, begin)
        os.close(in_read)
        os.close(err_write)
        self.stdin, self.stderr = os.fdopen(in_write, "w"), os.fdopen(err_read)
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (3600 if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("worker", timeout)
            time.sleep(0.005)
        return self._code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run_until_finished(
    config: Mapping[str, Any], store: Path, kills: int, seed: int, signals: Sequence[str]
) -> dict[str, Any]:
    """Measure ``config``, sending one of ``signals`` to a process of it at random up to ``kills`` times.

    The process is the one that the user started or, half of the times where there are others, one of those. Returns
    what came of it: "slow" are ends, after a signal that asks for one, that took more than ten seconds; "wrong" exit
    codes that are not the signal's.
    """
    from rbp_lab.commands.measure import measure

    rng, done, tally = random.Random(seed), 0, store / "tally"
    store.mkdir(parents=True, exist_ok=True)
    orphans = slow = wrong = 0

    def work() -> None:
        with end_on_signals():
            measure(config)

    while True:
        begin = time.monotonic()
        told, expected = None, {0}
        child = fork(work, os.setsid)
        process = psutil.Process(child)
        at = begin + rng.uniform(0.0, 0.9) if done < kills else float("inf")
        while (status := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() >= at:
                workers = process.children(recursive=True)
                victim = rng.choice(workers) if workers and rng.random() < 0.5 else process
                number = signal.Signals[rng.choice(signals)]
                with suppress(psutil.NoSuchProcess):
                    victim.send_signal(number)
                done, at = done + 1, float("inf")
                if victim == process:
                    told, expected = time.monotonic(), {0, -number, CODES.get(number, -number)}
                    _, left = psutil.wait_procs(workers, timeout=10)
                    orphans += len(left)
                else:
                    expected = {0, 1}
            time.sleep(0.002)
        code = os.waitstatus_to_exitcode(status[1])
        slow += told is not None and time.monotonic() - told > 10
        wrong += code not in expected
        if code == 0:
            break
    scored = sum(map(int, tally.read_text().split()))
    return {"kills": done, "scored": scored, "orphans": orphans, "slow": slow, "wrong": wrong}


def run_together(config: Mapping[str, Any], store: Path, commands: int) -> dict[str, Any]:
    """Measure ``config`` by several commands at once, the last of which stands still for some seconds in its middle.

    "codes" are their exit codes; a lease is stale after three seconds, so that the others take over what that one has.
    """
    from rbp_lab.commands.measure import measure
    from rbp_lab.measurement import sharding
    from rbp_lab.store.lease import Leases

    store.mkdir(parents=True, exist_ok=True)
    sharding.Leases = functools.partial(Leases, beat=0.1, stale=3.0)
    children = [fork(lambda: measure(config), os.setsid) for _ in range(commands)]
    while not (store / "tally").exists():
        time.sleep(0.002)
    os.kill(children[-1], signal.SIGSTOP)
    time.sleep(6)
    os.kill(children[-1], signal.SIGCONT)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return {"codes": codes, "scored": sum(map(int, (store / "tally").read_text().split()))}


def main(task: Mapping[str, Any]) -> None:
    """task: config, several seeds, kills of each, names of signals; prints one JSON line for each seed.

    With "commands" in it: so many at once, and none is killed.
    """
    import rbp_lab.measurement.worker
    import rbp_lab.scoring.cpu_numba  # noqa: F401
    from rbp_lab.store.atomic import delete
    from rbp_lab.store.clean import leftovers
    from rbp_lab.store.layout import Store
    from rbp_lab.store.records import list_records

    for name in ("transformers.models.gpt_neox.modeling_gpt_neox", "numba.core.typing.builtins"):
        __import__(name)
    pool.Worker.popen = ForkedProcess
    for seed in task["seeds"]:
        store = Path(task["directory"]) / str(seed)
        config = json.loads(json.dumps(task["config"]).replace("STORE", str(store)))
        if "commands" in task:
            result = run_together(config, store, task["commands"])
        else:
            result = run_until_finished(config, store, task["kills"], seed, task["signals"])
        (record,) = list_records(store)
        crashed = list(leftovers(Store(store)))
        for path in crashed:
            delete(path)
        left = sorted(p.name for p in store.rglob("*") if p.name.endswith((".part", ".lease")) or p.match("partial/*"))
        result["leftovers"] = len(crashed)
        print(json.dumps({**result, "record": str(store / "runs" / record.key), "left": left}), flush=True)


def lost(results: list[Mapping[str, Any]], tokens: int) -> float:
    """Median over the trials of the tokens that were scored in vain, for each kill, as a share of all."""
    return statistics.median((r["scored"] - tokens) / tokens / max(1, r["kills"]) for r in results)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
