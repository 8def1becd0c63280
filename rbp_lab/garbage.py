"""How often Python looks for garbage while a command runs."""

from __future__ import annotations

import gc

# New objects between two looks: importing torch and transformers makes a million that all stay.
NEW_OBJECTS = 10_000


def look_seldom() -> None:
    """Let Python look less often: in a process that scores, not where figures are drawn by the dozen and freed."""
    gc.set_threshold(NEW_OBJECTS)
