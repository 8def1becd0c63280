"""Compare two models on one corpus in one pass: ``rbp-lab compare model@a=… model@b=…``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from rbp_lab.comparison.job import PairJob, Side
from rbp_lab.comparison.run import floors, run_pair
from rbp_lab.config.build import at_least, read
from rbp_lab.config.schemas import check_rising
from rbp_lab.measurement.job import Choices
from rbp_lab.report.comparison.show import Display
from rbp_lab.report.comparison.show_pair import show_pair
from rbp_lab.report.terminal import terminal
from rbp_lab.tracking.settings import NO_TRACKING, Tracking
from rbp_lab.tracking.wandb.comparison import mirror_comparison


@dataclass(frozen=True, kw_only=True)
class CompareModelsRequest(Display, Choices):
    """What ``conf/compare_models.yaml`` composes."""

    a: Side
    b: Side
    ks: list[int] = field(default_factory=lambda: [1, 10, 100])
    floor: bool = False
    perturbation: str | None = None  # of workers that compute a floor
    tokens: Annotated[int, at_least(0)] = 0
    states: str = "auto"
    max_disk: int | str = "4GB"
    tracking: Tracking = NO_TRACKING

    def __post_init__(self) -> None:
        check_rising("ks", self.ks)
        super().__post_init__()


def run(config: Mapping[str, Any]) -> str:
    """Print how the models differ, and keep it; "compared", or "found" when that was finished before."""
    from rbp_lab.comparison.tokens import token_texts  # torch: not for what is refused

    request, job = read(CompareModelsRequest, config), job_from_config(config)
    record, made = run_pair(job)
    report = show_pair(terminal(), request.store, record, floors(job) if request.floor else {}, request,
                       lambda names: token_texts(job, names), request.tokens)  # fmt: skip
    mirror_comparison(request.tracking, request.store, report.parent.name, config)
    return "compared" if made else "found"


def job_from_config(config: Mapping[str, Any]) -> PairJob:
    """The job that a composed configuration describes; LabError when it does not."""
    request = read(CompareModelsRequest, config)
    chosen = {f.name: getattr(request, f.name) for f in fields(PairJob) if f.name != "config"}
    return PairJob(**chosen | {"ks": tuple(request.ks), "config": config})
