"""What the tests of W&B share: the stages as they use them."""

from __future__ import annotations

from pathlib import Path

import yaml
from rich.console import Console

from rbp_lab.cli import CONF
from rbp_lab.commands.analyze import analyze_sources
from rbp_lab.commands.sync import sync as sync_stage
from rbp_lab.measurement.observers import Callback
from rbp_lab.tracking.wandb.session import shared_client

ONLINE = {"mode": "auto", "seconds": 1e-9, "timeout": 20.0, "project": "rbp-lab", "entity": None}


class Waits(Callback):
    """Makes the loop wait for the answer to every request, so that no live point is left out."""

    def on_start(self, run):
        shared_client().request("log", []).result(60)

    def on_log(self, progress):
        shared_client().request("log", []).result(60)


WAITS = {"waits": {"_target_": "tests.wandb_use.Waits"}}


def sync(store, **changes):
    """``rbp-lab sync`` of a store; returns its line."""
    return sync_stage({"store": str(store), "force": False, "tracking": ONLINE, **changes})


def analyze_config(store, **changes):
    """A composed configuration of ``analyze``."""
    fit = yaml.safe_load((Path(CONF) / "fit" / "default.yaml").read_text())
    filters = dict.fromkeys(("model", "family", "dataset", "dtype", "key", "wandb"))
    return {
        "source": "local", "filters": filters, "fit": fit, "size": "non_embedding_params", "csv": None,
        "store": str(store), "k": {"thresholds": [1, 5, 50]}, "name": "default", "tracking": ONLINE,
        "project": "rbp-lab", "entity": None, **changes,
    }  # fmt: skip


def analyze(store, console=None, **changes):
    """``rbp-lab analyze`` of a store."""
    return analyze_sources(analyze_config(store, **changes), console or Console(quiet=True))
