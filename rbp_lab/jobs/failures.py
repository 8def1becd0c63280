"""What became of the jobs of one command line, and how a failure is printed."""

from __future__ import annotations

import os
import sys
import traceback
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rbp_lab.errors import LabError, WrongUsage, memory_sentence, out_of_memory
from rbp_lab.store.atomic import REFUSALS
from rbp_lab.store.layout import Store
from rbp_lab.text import alike, one_line


@dataclass
class Failures:
    """jobs: how many began. ended: how many came to what. failed: the name and the sentence of each that did not.
    misused: of these, how many were refused before any work on them began."""

    jobs: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)
    misused: int = 0

    def add(self, name: str, error: Exception, store: str | None) -> str:
        """Print a failure at once and keep it; returns its sentence. name: "" when there is only one job."""
        message = sentence(error, store)
        self.failed.append((name, message))
        self.misused += isinstance(error, WrongUsage)
        print_error(f"{name}: {message}" if name else message)
        return message

    def code(self) -> int:
        """The exit code of the command: 2 when no job had any work begun because each was wrongly asked for."""
        if self.misused and self.misused == self.jobs:
            return 2
        return 1 if self.failed else 0

    def summary(self) -> str:
        """What the jobs of a sweep came to, in numbers; "" when there was only one."""
        if self.jobs < 2:
            return ""
        parts = [f"{number} {what}" for what, number in sorted(self.ended.items())]
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        return f"{self.jobs} jobs: {', '.join(parts)}"

    def table(self) -> str:
        """Every failed job with its sentence, which is read once where three jobs or more share it.

        "" when none failed or there was only one job.
        """
        if not self.failed or self.jobs < 2:
            return ""
        lines = [f"{len(self.failed)} of {self.jobs} jobs failed:"]
        for names, message in alike(self.failed):
            if len(names) == 1:
                lines.append(f"  {one_line(f'{names[0]}: {message}')}")
            else:
                lines += [f"  {one_line(message)}:", *(f"    {one_line(name)}" for name in names)]
        return "\n".join(lines)


OURS = "a defect of rbp_lab, or of a class of your own"


def sentence(error: Exception, store: str | None, whose: str = OURS) -> str:
    """A failure in words. The traceback of an unexpected one goes to a file below ``store``, or to stderr.

    whose: what may have caused an unexpected one.
    """
    if isinstance(error, LabError):
        return str(error)
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return f"cannot write {error.filename or 'the store'}: {error.strerror}; nothing half-written is left"
    if out_of_memory(error):
        return memory_sentence(error)
    lines = [line for line in str(error).splitlines() if line.strip()]
    what = f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
    report = "".join(traceback.format_exception(error))
    try:
        if store is None:
            raise OSError
        directory = Store(store).errors
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{os.getpid()}.log"
        path.write_text(report, encoding="utf-8", errors="backslashreplace")
    except OSError:
        print(report, file=sys.stderr)
        return f"{what} (unexpected: {whose})"
    return f"{what} (unexpected: {whose}; the traceback is in {path})"


def print_error(message: str) -> int:
    """Print an error as one line; returns the exit code of a failure."""
    print(f"error: {one_line(message)}", file=sys.stderr, flush=True)
    return 1
