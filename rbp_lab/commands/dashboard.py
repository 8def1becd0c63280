"""The papers' panels as a saved W&B workspace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbp_lab.config.build import call
from rbp_lab.errors import LabError
from rbp_lab.figures.style import family_styles
from rbp_lab.tracking.settings import Tracking, destination
from rbp_lab.tracking.wandb.dashboard import save_dashboard


def dashboard(config: Mapping[str, Any]) -> str:
    """Create or update the workspace that ``config`` describes; a line with its address."""
    tracking = call(Tracking, config["tracking"], "tracking")
    where = destination(tracking)
    if where is None or not where.online:
        raise LabError("a dashboard lives on a W&B server: run wandb login or set WANDB_API_KEY")
    panels = config["panels"]
    url, new = save_dashboard(
        where, tracking, config["store"], config["name"], panels["ks"], panels["windows"], panels["emergence_k"],
        lambda families: {name: style.color for name, style in family_styles(families).items()},
    )  # fmt: skip
    return f"dashboard {'created' if new else 'updated'}: {url}"
