"""What has been mirrored where, so that nothing is sent twice and ``rbp-lab sync`` knows what is missing.

One small JSON file per run below <store>/mirrored; losing it costs time, never a twin, since run ids are derived from
what they show.
"""

from __future__ import annotations

import json
from pathlib import Path

from rbp_lab.store.atomic import atomic_path
from rbp_lab.store.layout import Store
from rbp_lab.tracking.settings import Destination, Tracking


class Ledger:
    """The notes of one store about one destination (server, entity, project; offline is a destination of its own)."""

    def __init__(self, store: str | Path, tracking: Tracking, where: Destination):
        self._store = Store(store)
        server = where.server if where.online else "offline"
        self._where = f"{server} {tracking.entity or ''}/{tracking.project}"

    def has(self, run_id: str, digest: str) -> bool:
        """Whether this version of the result has arrived."""
        return self._read(run_id).get(self._where) == digest

    def note(self, run_id: str, digest: str) -> None:
        """Remember that this version has arrived."""
        notes = self._read(run_id) | {self._where: digest}
        with atomic_path(self._store.mirrored(run_id)) as path:
            path.write_text(json.dumps(notes, indent=1, sort_keys=True) + "\n")

    def _read(self, run_id: str) -> dict[str, str]:
        try:
            notes = json.loads(self._store.mirrored(run_id).read_text())
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}
