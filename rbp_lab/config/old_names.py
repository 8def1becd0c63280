"""Names that configurations used before; each still works, with a one-line note."""

from __future__ import annotations

import sys

# Of classes in ``_target_``.
TARGETS = {
    "rbp_lab.corpora.LocalText": "rbp_lab.data.LocalText",
    "rbp_lab.corpora.HubText": "rbp_lab.data.HubText",
    "rbp_lab.corpora.files.LocalText": "rbp_lab.data.LocalText",
    "rbp_lab.corpora.hub.HubText": "rbp_lab.data.HubText",
    "rbp_lab.corpora.StdlibText": "rbp_lab.data.stdlib.StdlibText",
    "rbp_lab.corpora.stdlib.StdlibText": "rbp_lab.data.stdlib.StdlibText",
    "rbp_lab.models.ladder.LadderModel": "rbp_lab.models.LadderModel",
    "rbp_lab.progress.ProgressBar": "rbp_lab.measurement.progress.ProgressBar",
}

_noted: set[tuple[str, str]] = set()


def note(path: str, old: str, new: str) -> None:
    """Say once a process that ``old`` has another name now."""
    if (path, old) not in _noted:
        _noted.add((path, old))
        print(f"note: {path}={old} is called {new} now", file=sys.stderr, flush=True)
