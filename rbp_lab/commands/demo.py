"""The whole way on one page: train a ladder, measure it, fit its laws."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from rbp_lab.analysis.run import analyze
from rbp_lab.analysis.sources import windows_of
from rbp_lab.commands.measure import MeasureRequest, MeasureSettings, job_from_config
from rbp_lab.commands.train import train
from rbp_lab.config.build import MADE, part, read
from rbp_lab.config.schemas import FitChoices
from rbp_lab.config.trajectory import checkpoint_configs
from rbp_lab.data.corpus import TextSource
from rbp_lab.measurement.run import run_each
from rbp_lab.models.source import ModelSource
from rbp_lab.points import points_from_records
from rbp_lab.report.terminal import print_line, terminal
from rbp_lab.store.layout import Store
from rbp_lab.text import number
from rbp_lab.tracking.wandb.analysis import mirror_analysis


@dataclass(frozen=True, kw_only=True)
class DemoRequest(MeasureSettings):
    """What ``conf/demo.yaml`` composes. models: in the order of training. training: the dataset trained on.

    name: results go to <store>/analysis/<name>. axis: of the laws, as in ``conf/analyze.yaml``.
    """

    models: dict[str, Annotated[ModelSource, MADE]]
    training: Annotated[TextSource, MADE]
    fit: FitChoices = field(default_factory=FitChoices)
    name: str = "demo"
    axis: str = "size"


def run(config: Mapping[str, Any]) -> None:
    """``rbp-lab demo``: its study when it has one, else the ladder. Finished work is found and not done again."""
    if config.get("study") is not None:
        from rbp_lab.commands.study import run_and_analyze

        return run_and_analyze(config)
    config = {name: node for name, node in config.items() if name != "study"}
    request, console, begin = read(DemoRequest, config), terminal(), time.monotonic()
    records, windows = [], windows_of(request.axis, request.k)
    for name, model in request.models.items():
        alone = {**config, "models": {name: config["models"][name]}}
        trained = train(model, request.training, request.store, request.force, (), request.tracking, alone)
        print_line(console, str(trained))
        configs = checkpoint_configs({**part(MeasureRequest, config), "model": config["models"][name]})
        records += [o.record for o in run_each(configs, job_from_config, lambda line: print_line(console, line))]
    out = Store(request.store).analysis(request.name).directory
    points = points_from_records(records, request.k.thresholds, windows=windows)
    analyze(points, out, request.fit, records=records, axis=request.axis, console=console)
    mirror_analysis(request.tracking, request.store, out, config)
    return print_line(console, f"demo finished in {number(time.monotonic() - begin, 0)} s")
