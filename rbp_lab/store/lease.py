"""Leases on pieces of work, for processes that share a directory, also across machines and containers.

A lease is a file that its owner makes exclusively and touches every few seconds. It is stale, and anybody may take it,
when its owner is a process of this machine that is gone, or when it was not touched for ``STALE`` seconds by the clock
of the one who looks, so that no two machines need agree on the time. File locks are not used: network file systems
and containers break them in silence.

A lease saves work from being done twice; nothing else may depend on it. An owner that was stopped for longer than
``STALE`` finds another one at its work, and both write the same result.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from rbp_lab.store.machine import Owner, mark, this_process

BEAT, STALE = 5.0, 60.0  # seconds


class Leases:
    """The leases that one process takes and watches; keep it for as long as stale ones may have to be found."""

    def __init__(self, beat: float = BEAT, stale: float = STALE):
        self._beat, self._stale = beat, stale
        self._seen: dict[Path, tuple[int, float]] = {}  # the time of the last touch, and since when it is seen

    def take(self, path: Path) -> Lease | None:
        """The lease at ``path``, or None while another living process has it.

        Raises FileNotFoundError when the directory is gone, OSError when it may not be written.
        """
        for _ in range(2):
            with suppress(FileExistsError):
                return Lease(path, self._beat)
            if not self._remove_stale(path):
                return None
        return None

    def is_alive(self, path: Path) -> bool:
        """Whether somebody holds the lease at ``path``, as far as is known by now."""
        try:
            return not self._is_stale(path, path.read_bytes())
        except FileNotFoundError:
            return False

    def _is_stale(self, path: Path, text: bytes) -> bool:
        owner = _owner(text)
        if owner is not None and owner.is_gone():
            return True
        touched, now = path.stat().st_mtime_ns, time.monotonic()
        before, since = self._seen.get(path, (None, now))
        if touched != before:
            self._seen[path] = touched, now
            return False
        return now - since > self._stale

    def _remove_stale(self, path: Path) -> bool:
        """Remove a stale lease; False when it is alive. Of several that try, one removes it."""
        try:
            text = path.read_bytes()
            if not self._is_stale(path, text):
                return False
            aside = path.with_name(f".{path.name}.{mark()}{secrets.token_hex(4)}.part")
            path.rename(aside)
        except FileNotFoundError:  # given back, or removed by another
            return True
        if aside.read_bytes() != text:  # another one removed the stale lease and made its own: give it back
            with suppress(OSError):
                os.link(aside, path)
        aside.unlink(missing_ok=True)
        return True


class Lease:
    """One lease that this process has; a context manager that gives it back."""

    def __init__(self, path: Path, beat: float = BEAT):
        """FileExistsError when somebody has it."""
        self._path, self._beat = path, beat
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            # A file's number serves as no identity: the next file has it again. So every lease says something else.
            self._text = json.dumps({**vars(this_process()), "lease": secrets.token_hex(8)}).encode()
            os.write(handle, self._text)
        except OSError as error:  # a full disk
            with suppress(OSError):
                path.unlink()
            raise OSError(error.errno, error.strerror, str(path)) from error
        finally:
            os.close(handle)
        self._given_back = threading.Event()
        threading.Thread(target=self._touch, daemon=True).start()

    def _touch(self) -> None:
        while not self._given_back.wait(self._beat) and self._is_mine():
            with suppress(OSError):
                os.utime(self._path)

    def _is_mine(self) -> bool:
        try:
            return self._path.read_bytes() == self._text
        except FileNotFoundError:
            return False
        except OSError:  # a network file system that is away for a moment
            return True

    def give_back(self) -> None:
        """Let others have it; what another process has taken meanwhile stays theirs."""
        self._given_back.set()
        with suppress(OSError):
            if self._is_mine():
                self._path.unlink()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.give_back()


def owner_of(path: Path) -> Owner | None:
    """Who has the lease at ``path``; None when that cannot be read, as in the instant in which it is made."""
    try:
        return _owner(path.read_bytes())
    except OSError:
        return None


def _owner(text: bytes) -> Owner | None:
    try:
        owner = json.loads(text)
        return Owner(str(owner["machine"]), int(owner["pid"]), float(owner["started"]))
    except (ValueError, KeyError, TypeError):
        return None
