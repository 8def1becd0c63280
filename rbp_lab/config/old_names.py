"""Names that configurations used before; each still works, with a one-line note."""

from __future__ import annotations

import os
from typing import Any

from rbp_lab.errors import note_once

# Of classes.
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

IMPLEMENTATIONS = {"tiled": "torch", "native": "numba", "chunked": "triton-chunked", "fused": "triton-fused"}


def current_name(path: str, value: Any) -> Any:
    """The value at a config path under its present name; a former one is noted once."""
    former = TARGETS if path.endswith("._target_") else IMPLEMENTATIONS if path == "scoring.implementation" else {}
    if not isinstance(value, str) or value not in former:
        return value
    if "RANK" not in os.environ:  # the process that launches others notes it
        note_once(f"{path}={value} is called {former[value]} now")
    return former[value]
