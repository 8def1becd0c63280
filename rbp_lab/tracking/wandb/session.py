"""One W&B run, held at arm's length: in a process of its own, bounded in time, and broken at most once.

Whatever W&B does wrong (it raises, exits, crashes, hangs) ends in one warning; from then on the session, and every
later one of this process to the same server, does nothing. The caller's work goes on.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbp_lab.errors import warn
from rbp_lab.text import number
from rbp_lab.tracking.settings import Destination, Tracking
from rbp_lab.tracking.wandb.names import STEP

CLIENT = (sys.executable, "-m", "rbp_lab.tracking.wandb.client")
IMPORT_SECONDS = 60.0  # for Python to start and to import wandb
GRACE_SECONDS = 5.0  # how long after W&B's own timeout an answer is still waited for
EXIT_SECONDS = 5.0  # for the client process to end by itself
# What each request does, for the warning, and how many of W&B's own timeouts it may take one after the other.
REQUESTS = {
    "start": ("starting a run", 2), "log": ("logging", 1), "summary": ("reading the summary", 1),
    "summarize": ("writing the summary", 1), "artifact": ("logging an artifact", 1),
    "card": ("declaring an artifact", 1), "use": ("declaring what was used", 1),
    "show": ("logging tables and figures", 1), "finish": ("finishing a run", 3),
}  # fmt: skip


class ClientError(Exception):
    """What the client process answered, or that it is gone."""


class ClientProcess:
    """The process of ``client``. Requests are answered in order; neither making one nor a dead process blocks."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        environment.pop("WANDB_SERVICE", None)  # else it would share what wandb has started in this process
        self._process = subprocess.Popen(
            CLIENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            text=True, encoding="utf-8", start_new_session=True,
        )  # fmt: skip
        self._requests: queue.Queue[tuple[str, Future[Any]] | None] = queue.Queue()
        threading.Thread(target=self._work, name="wandb-client", daemon=True).start()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def request(self, name: str, *arguments: Any) -> Future[Any]:
        """Ask for a method of ``client.Client``; the answer is its value, or a ClientError."""
        answer: Future[Any] = Future()
        self._requests.put((json.dumps([name, *arguments], default=_plain), answer))
        return answer

    def close(self) -> None:
        """End the process, by force when it does not end by itself."""
        if self.alive:
            self._requests.put(None)
            try:
                self._process.wait(EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End the process now; requests under way are answered with a ClientError."""
        self._process.kill()
        self._process.wait()

    def _work(self) -> None:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        while (item := self._requests.get()) is not None:
            line, answer = item
            try:
                process.stdin.write(line + "\n")
                process.stdin.flush()
                reply = json.loads(process.stdout.readline())
            except (OSError, ValueError):
                answer.set_exception(ClientError("the process of the wandb package has ended"))
            else:
                if "error" in reply:
                    answer.set_exception(ClientError(reply["error"]))
                else:
                    answer.set_result(reply["value"])
        with suppress(OSError):
            process.stdin.close()


# Servers that failed in this process: a sweep waits for a dead one once, and its user reads one warning.
_given_up: set[str] = set()
_client: ClientProcess | None = None


def shared_client() -> ClientProcess:
    """The client process of this process, started when there is none."""
    global _client
    if _client is None or not _client.alive:
        _client = ClientProcess()
    return _client


@atexit.register
def reset() -> None:
    """End the client process and forget which servers failed, as at the start of this process."""
    global _client
    client, _client = _client, None
    _given_up.clear()
    if client is not None:
        client.close()


@dataclass(frozen=True)
class RunSpec:
    """What a run is: its id within the project, names to show, and the configuration it starts with."""

    id: str
    name: str
    group: str
    job_type: str
    config: Mapping[str, Any]
    step: str = STEP


class Session:
    """A W&B run that may fail. ``ok``: it is open and has not failed."""

    def __init__(self, tracking: Tracking, where: Destination, store: str | Path, hint: str):
        """store: offline runs go to <store>/wandb. hint: end of the warning's sentence, what is not lost."""
        self._tracking, self._where, self._store = tracking, where, Path(store)
        self._hint = hint
        self._client: ClientProcess | None = None
        self._pending: list[tuple[str, Future[Any]]] = []  # requests that nobody has waited for
        self._open = False
        self.failed = where.online and where.server in _given_up
        self.url: str | None = None

    @property
    def ok(self) -> bool:
        return self._open and not self.failed

    def start(self, spec: RunSpec) -> None:
        """Begin to open the run, or to find it again when its id exists; waits for nothing."""
        if self.failed:
            return
        tracking = self._tracking
        run = {
            "project": tracking.project, "entity": tracking.entity, "id": spec.id, "name": spec.name,
            "group": tracking.group or spec.group, "job_type": tracking.job_type or spec.job_type,
            "tags": list(tracking.tags) or None, "notes": tracking.notes, "config": dict(spec.config),
            "step": spec.step,
        }  # fmt: skip
        with self.guarded("starting a run"):
            self._client = shared_client()
            self._open = True
            where = {"mode": self._where.mode, "server": self._where.server, "key": self._where.key}
            self._send("start", where, tracking.timeout, str(self._store), run)

    def log(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """A live point of every curve per row, left out while an earlier request is under way. Waits for nothing.

        Returns whether the points were sent.
        """
        while self._pending and self._pending[0][1].done():
            self._settle(*self._pending.pop(0))
        if self.ok and not self._pending:
            with self.guarded("logging"):
                self._send("log", rows)
                return True
        return False

    def call(self, name: str, *arguments: Any) -> Any:
        """The answer to a request, after those before it; None when the session does nothing or fails at it."""
        if self.ok:
            with self.guarded(REQUESTS[name][0]):
                self._send(name, *arguments)
        answer = None
        while self._pending:
            answer = self._settle(*self._pending.pop(0))
        return answer if self.ok else None

    def finish(self, exit_code: int = 0, confirm: tuple[str, Any] | None = None) -> bool:
        """Close the run; True when everything has arrived (online) or is on the disk (offline).

        confirm: a summary value that the server must show in the end. Takes a bounded time in any case.
        """
        self.call("finish", exit_code, confirm)
        done = self.ok
        if self.failed:
            self.abandon()  # should the client still be able to
        self._open = False
        return done

    def abandon(self) -> None:
        """Have the run closed as failed; waits for nothing."""
        if self._open and self._client is not None:
            self._client.request("abandon")
        self._open = False

    @contextmanager
    def guarded(self, doing: str) -> Iterator[None]:
        """Turn an exception inside into the session's one warning."""
        try:
            yield
        except Exception as error:
            self.give_up(doing, f"{type(error).__name__}: {error}")

    def give_up(self, doing: str, why: str) -> None:
        """Warn once and do nothing from here on."""
        if self.failed:
            return
        self.failed = True
        if self._where.online:
            _given_up.add(self._where.server)
        first = (why.strip().splitlines() or [""])[0]
        warn(
            f"W&B ({self._where.server if self._where.online else 'offline'}) failed while {doing}: {first}; "
            f"tracking is off{self._hint}"
        )

    def _send(self, name: str, *arguments: Any) -> None:
        assert self._client is not None
        self._pending.append((name, self._client.request(name, *arguments)))

    def _settle(self, name: str, answer: Future[Any]) -> Any:
        doing, steps = REQUESTS[name]
        seconds = steps * self._tracking.timeout + (IMPORT_SECONDS if name == "start" else GRACE_SECONDS)
        try:
            value = answer.result(0 if self.failed else seconds)
        except TimeoutError:
            if not self.failed and self._client is not None:
                self._client.kill()
            self.give_up(doing, f"no answer within {number(seconds, 0)} s")
        except ClientError as error:
            self.give_up(doing, str(error))
        else:
            if name == "start":
                self.url = value
            return value
        return None


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays as JSON has them, anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def digest_files(files: Sequence[Path]) -> str:
    """sha256 (16 digits) over names and bytes: which version of a result was mirrored."""
    what = hashlib.sha256()
    for file in sorted(files):
        what.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        what.update(file.read_bytes())
    return what.hexdigest()[:16]
