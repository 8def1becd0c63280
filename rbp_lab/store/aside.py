"""Where a directory lies while another takes its place, on systems that cannot exchange two names in one step."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

_ASIDE = re.compile(r"\.(.+)\.replaced")


def recovered(path: Path) -> Path:
    """``path`` with the directory that belongs there, or where that lies when it may not be put back.

    It differs from ``path`` only after a writer was killed between moving the old directory aside and giving the new
    one its place.
    """
    aside = aside_of(path)
    if aside.is_dir() and not path.exists():
        with suppress(OSError):  # put back by another reader, or the disk is read-only
            aside.rename(path)
    return path if path.exists() or not aside.is_dir() else aside


def named(path: Path) -> str:
    """The name of a directory, also while it lies aside."""
    found = _ASIDE.fullmatch(path.name)
    return found[1] if found else path.name


def aside_of(path: Path) -> Path:
    """The name beside ``path`` under which what is to be replaced waits."""
    return path.with_name(f".{path.name}.replaced")
