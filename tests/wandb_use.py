"""What the tests of W&B share: the stages as they use them."""

from __future__ import annotations

from pathlib import Path

import yaml

from rbp_lab.analysis.run import analyze as analyze_points
from rbp_lab.commands.sync import SyncRequest
from rbp_lab.config.build import read
from rbp_lab.config.directory import CONF
from rbp_lab.config.schemas import FitChoices
from rbp_lab.measurement.observers import Callback
from rbp_lab.points import points_from_records
from rbp_lab.store.layout import Store
from rbp_lab.store.records import list_records
from rbp_lab.tracking.settings import Tracking
from rbp_lab.tracking.wandb.analysis import mirror_analysis
from rbp_lab.tracking.wandb.session import shared_client
from rbp_lab.tracking.wandb.sync import mirror_store

ONLINE = {"mode": "auto", "seconds": 1e-9, "timeout": 20.0, "project": "rbp-lab", "entity": None}


class Waits(Callback):
    """Makes the loop wait for the answer to every request, so that no live point is left out."""

    def on_start(self, run):
        shared_client().request("log", []).result(300)

    def on_log(self, progress):
        shared_client().request("log", []).result(300)


WAITS = {"waits": {"_target_": "tests.wandb_use.Waits"}}


def sync(store, **changes):
    """``rbp-lab sync`` of a store; returns its line."""
    request = read(SyncRequest, {"store": str(store), "force": False, "tracking": ONLINE, **changes})
    return mirror_store(Store(request.store), request.tracking, request.force)


def analyze_config(store, **changes):
    """A composed configuration of ``analyze``."""
    fit = yaml.safe_load((Path(CONF) / "fit" / "default.yaml").read_text())
    filters = dict.fromkeys(("model", "family", "dataset", "dtype", "key", "wandb"))
    return {
        "source": "local", "filters": filters, "fit": fit, "size": "non_embedding_params", "csv": None,
        "store": str(store), "k": {"thresholds": [1, 5, 50]}, "name": "default", "tracking": ONLINE,
        "project": "rbp-lab", "entity": None, **changes,
    }  # fmt: skip


def analyze(store):
    """The quick part of ``rbp-lab analyze``: fits and one kind of figures of a store's records, mirrored."""
    records, out = list_records(store), Store(store).analysis("default").directory
    fit = FitChoices(figure_ks=[1], laws=False, formats=["png"])
    analysis = analyze_points(points_from_records(records, [1, 5, 50]), out, fit, records=records)
    mirror_analysis(Tracking(**ONLINE), store, out)
    return analysis
