"""The papers' panels as a saved W&B workspace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rbp_lab.config.build import read
from rbp_lab.config.schemas import Panels
from rbp_lab.errors import LabError
from rbp_lab.figures.style import family_styles
from rbp_lab.tracking.settings import NO_TRACKING, Tracking, destination
from rbp_lab.tracking.wandb.dashboard import save_dashboard


@dataclass(frozen=True)
class DashboardRequest:
    """What ``conf/dashboard.yaml`` composes."""

    store: str
    name: str
    panels: Panels
    tracking: Tracking = NO_TRACKING


def run(config: Mapping[str, Any]) -> None:
    """``rbp-lab dashboard``."""
    print(dashboard(config), flush=True)


def dashboard(config: Mapping[str, Any]) -> str:
    """Create or update the workspace that ``config`` describes; a line with its address."""
    request = read(DashboardRequest, config)
    where = destination(request.tracking)
    if where is None or not where.online:
        raise LabError("a dashboard lives on a W&B server: run wandb login or set WANDB_API_KEY")
    panels = request.panels
    url, new = save_dashboard(
        where, request.tracking, request.store, request.name, panels.ks, panels.windows, panels.emergence_k,
        lambda families: {name: style.color for name, style in family_styles(families).items()},
    )  # fmt: skip
    return f"dashboard {'created' if new else 'updated'}: {url}"
