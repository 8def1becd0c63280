"""Processes and machines, told apart: who wrote a file, and whether it has ended since."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Owner:
    """A process: the machine (and container) it runs on, its number there, and when it started, in seconds."""

    machine: str
    pid: int
    started: float

    def is_gone(self) -> bool:
        """Whether it has certainly ended; False when it may run on another machine."""
        if self.machine != this_machine():
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) > 1 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.machine.partition(' ')[0]}"


@cache
def this_machine() -> str:
    """The host's name and what tells its present start, and a container's processes, from others of that name."""
    parts = [socket.gethostname() or "unknown"]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def this_process() -> Owner:
    """The process that asks."""
    return Owner(this_machine(), os.getpid(), psutil.Process().create_time())


def mark() -> str:
    """Twelve hexadecimal digits for file names: the machine (and container), and the process that asks."""
    return f"{_machine_digits()}{os.getpid() & 0xFFFFFF:06x}"


def is_of_a_gone_process(mark: str) -> bool:
    """Whether a mark is of a process of this machine that has certainly ended."""
    return mark[:6] == _machine_digits() and not psutil.pid_exists(int(mark[6:], 16))


@cache
def _machine_digits() -> str:
    return hashlib.sha256(this_machine().encode()).hexdigest()[:6]
