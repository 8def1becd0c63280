"""The whole way on one page: train a ladder, measure it, fit its laws."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from rbp_lab.analysis.run import Analysis, analyze
from rbp_lab.commands.measure import measure
from rbp_lab.commands.train import train
from rbp_lab.config.build import build, call
from rbp_lab.points import points_from_records
from rbp_lab.report.terminal import terminal
from rbp_lab.store.layout import Store
from rbp_lab.tracking.settings import Tracking
from rbp_lab.tracking.wandb.analysis import mirror_analysis


def demo(config: Mapping[str, Any], console: Console | None = None) -> Analysis:
    """Train, measure and analyse the models of ``config`` in order; finished work is found and not done again.

    config: as ``measure`` takes it, with ``models`` (name → model node), ``training`` (the dataset trained on) and
    ``fit``. Writes to <store>/analysis/demo. Raises LabError as the stages do.
    """
    console = console or terminal()
    begin = time.monotonic()

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    training = build(config["training"], "training")
    tracking = call(Tracking, config.get("tracking") or {"mode": "none"}, "tracking")
    records = []
    for name, node in config["models"].items():
        model, force = build(node, f"models.{name}"), config["force"]
        shown = {**config, "models": {name: node}}
        trained = train(model, training, config["store"], force=force, tracking=tracking, config=shown)
        say(str(trained))
        outcome = measure({**config, "model": node})
        say(outcome.line())
        records.append(outcome.record)
    points = points_from_records(records, config["k"]["thresholds"])
    fit = config["fit"]
    out = Store(config["store"]).analysis("demo").directory
    analysis = analyze(
        points,
        out,
        figure_ks=fit["figure_ks"],
        confidence=fit["confidence"],
        records=records,
        laws=fit["laws"],
        formats=("png", "svg"),  # drawing PDFs as well takes as long again; rbp-lab analyze writes them
        console=console,
    )
    mirror_analysis(tracking, config["store"], out, config)
    say(f"demo finished in {time.monotonic() - begin:.0f} s")
    return analysis
