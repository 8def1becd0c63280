"""Compare two finished runs on the documents that both have scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from rbp_lab.comparison.overview import OnDataSet, names_of
from rbp_lab.comparison.pairs import find_pairs
from rbp_lab.config.build import read
from rbp_lab.config.schemas import check_rising
from rbp_lab.errors import LabError
from rbp_lab.report.comparison.show import Display, compare_pair
from rbp_lab.report.comparison.show_over import show_over
from rbp_lab.report.terminal import terminal
from rbp_lab.tracking.settings import NO_TRACKING, Tracking
from rbp_lab.tracking.wandb.comparison import mirror_comparison


@dataclass(frozen=True, kw_only=True)
class CompareRequest(Display):
    """What ``conf/compare.yaml`` composes."""

    store: str
    a: str | None = None
    b: str | None = None
    datasets: str = "*"
    ks: list[int] = field(default_factory=lambda: [1, 10, 100])
    windows: list[int] = field(default_factory=lambda: [2, 5])
    tracking: Tracking = NO_TRACKING

    def __post_init__(self) -> None:
        if self.a is None or self.b is None:
            raise LabError("rbp-lab compare takes two runs, as rbp-lab compare A B; rbp-lab ls shows what there is")
        check_rising("ks", self.ks)
        check_rising("windows", self.windows)
        super().__post_init__()


def run(config: Mapping[str, Any]) -> None:
    """``rbp-lab compare``: print the differences on every corpus that both runs have, and keep them with a page."""
    request = read(CompareRequest, config)
    pairs = find_pairs(request.store, request.a, request.b)
    wanted = request.datasets.split(",")
    chosen = [pair for pair in pairs if any(fnmatchcase(pair[0].dataset.name, name.strip()) for name in wanted)]
    if not chosen:
        names = ", ".join(sorted({a.dataset.name for a, _ in pairs}))
        raise LabError(f"dataset={request.datasets}: both were measured on {names}")
    console, sets = terminal(), []
    for (a, b), name in zip(chosen, names_of([a for a, _ in chosen]), strict=True):
        found, report = compare_pair(console, request.store, a, b, request.ks, request.windows, request)
        sets.append(OnDataSet(name, found, report))
        mirror_comparison(request.tracking, request.store, report.parent.name, config)
    show_over(console, request.store, chosen, sets, request.name)
