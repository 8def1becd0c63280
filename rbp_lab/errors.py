"""The one exception type for what a user can put right, and the sentences that every part shares."""

from __future__ import annotations

import difflib
import errno
import sys
from collections.abc import Iterable
from typing import Any

MANY = 24  # of more choices only the NEAREST are named
NEAREST = 5


class LabError(Exception):
    """A mistake in configuration or input: the message says what was expected, what came and what to do.

    The command line prints it as one line and exits with a non-zero code; every other exception is a defect of
    rbp_lab and keeps its traceback.
    """


class WrongUsage(LabError):
    """A mistake in what was asked for, seen before any work on it began: exit code 2 where nothing else was asked."""


# What is said of memory that the system refuses: by torch on a CPU and on a GPU, by the system (of a library, too), by
# C++, and by Python of the stack of a thread.
_LACKING = (
    "DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "Cannot allocate memory", "std::bad_alloc",
    "can't start new thread", "failed to map segment from shared object",
)  # fmt: skip


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that a device's memory, or the computer's, was not enough.

    A LabError has its own sentence. Needs no torch to be told.
    """
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return not isinstance(error, LabError) and (
        type(error).__name__ == "OutOfMemoryError"  # of torch, for GPUs
        or isinstance(error, MemoryError)
        or getattr(error, "errno", None) == errno.ENOMEM
        or any(words in str(error) for words in _LACKING)
        or (before is not None and out_of_memory(before))
    )


def memory_sentence(error: BaseException) -> str:
    """What to do about a lack of memory that was met where nothing smaller can be chosen: while something is loaded."""
    return (
        f"memory is not enough ({first_line(error)}); let this process have more (ulimit -v, the memory of a cluster's "
        "job), end what else runs, use fewer launch.processes, or take a smaller model"
    )


def first_line(error: BaseException) -> str:
    """The first non-empty line of an error's message, or its type when it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def note(message: str) -> None:
    """Print to stderr what the user should know of a run that goes on."""
    print(f"note: {message}", file=sys.stderr, flush=True)


def note_once(message: str) -> None:
    """The same, at most once in a process: of what a sweep meets again with every model."""
    if message not in _noted:
        _noted.add(message)
        note(message)


_noted: set[str] = set()


def warn(message: str) -> None:
    """Print to stderr what a run that goes on has lost."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def one_of(path: str, given: Any, choices: Iterable[str]) -> None:
    """WrongUsage unless ``given`` is one of ``choices``."""
    choices = list(choices)
    if given not in choices:
        raise WrongUsage(
            f"{path} must be one of {', '.join(choices)}; got {shown(given)}{_near(given, choices, '; ', '')}"
        )


def no_such(path: str, what: str, given: str, choices: Iterable[str], listed: str = "") -> str:
    """The sentence for a name that is not among ``choices``: the nearest one, and all of them where they are few.

    Of more than ``MANY`` choices the nearest few are named. listed: the command that lists them all.
    """
    choices = [c for c in choices if not c.startswith("_")]
    if not choices:
        return f"{path}: no such {what}; there is none to choose from"
    if len(choices) <= MANY:
        return f"{path}: no such {what}; {_near(given, choices, '', ' ')}expected one of {', '.join(choices)}"
    few = _nearest(given, choices)
    meant = f"did you mean {' or '.join(few)}? " if few else ""
    listing = f", which {listed} lists" if listed else f", such as {', '.join(choices[:NEAREST])}"
    return f"{path}: no such {what}; {meant}there are {len(choices)} to choose from{listing}"


def _nearest(given: str, choices: list[str]) -> list[str]:
    """The few choices nearest to a name, best first: those that contain it, otherwise those with like letters."""
    lower = {choice.lower(): choice for choice in choices}
    given = given.lower()
    within = sorted((name for name in lower if given in name), key=len) if len(given) > 1 else []
    return [lower[name] for name in within[:NEAREST] or difflib.get_close_matches(given, lower, NEAREST, 0.7)]


def shown(value: Any) -> str:
    """A value as the configuration writes it, short and without control characters."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}…"


def _near(given: Any, choices: list[str], before: str, after: str) -> str:
    close = difflib.get_close_matches(str(given), choices, 1)
    return f"{before}did you mean {close[0]}?{after}" if close else ""
