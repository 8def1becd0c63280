"""Mirror to W&B what a store holds and W&B does not. Safe to repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rbp_lab.config.build import read
from rbp_lab.store.layout import Store
from rbp_lab.tracking.settings import NO_TRACKING, Tracking
from rbp_lab.tracking.wandb.sync import mirror_store


@dataclass(frozen=True)
class SyncRequest:
    """What ``conf/sync.yaml`` composes. force: also what has been mirrored."""

    store: str
    tracking: Tracking = NO_TRACKING
    force: bool = False


def run(config: Mapping[str, Any]) -> None:
    """``rbp-lab sync``."""
    request = read(SyncRequest, config)
    print(mirror_store(Store(request.store), request.tracking, request.force), flush=True)
