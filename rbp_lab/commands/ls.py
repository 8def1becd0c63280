"""What there is: models and datasets to choose from, finished runs of a store; whether models can be measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from rbp_lab.config.arguments import LISTED
from rbp_lab.config.build import MADE, read
from rbp_lab.config.schemas import DEVICES, Precision
from rbp_lab.data.corpus import TextSource
from rbp_lab.errors import LabError, WrongUsage, one_of
from rbp_lab.models.source import ModelSource
from rbp_lab.report.listing import print_checks, print_models, print_names, print_runs


@dataclass(frozen=True, kw_only=True)
class ListRequest:
    """What ``conf/ls.yaml`` composes. sources: the models that ``pattern`` matches."""

    store: str
    models: list[str]
    datasets: list[str]
    dataset: Annotated[TextSource, MADE]
    precision: Precision
    what: str = "all"
    pattern: str | list[str] | None = None
    check: bool = False
    device: str = "auto"
    sources: dict[str, Annotated[ModelSource, MADE]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("what", self.what, ("all", *LISTED))
        one_of("device", self.device, DEVICES)


def run(config: Mapping[str, Any]) -> None:
    """``rbp-lab ls``. LabError when a model that is checked cannot be measured."""
    request = read(ListRequest, config)
    if request.what == "models":
        return checked(request) if request.check else print_models(request.sources)
    for what, names in (("model", request.models), ("dataset", request.datasets)):
        if request.what in ("all", f"{what}s"):
            print_names(f"{what}=", names)
    if request.what in ("all", "runs"):
        print_runs(request.store)


def checked(request: ListRequest) -> None:
    """Print whether each model can be measured here, and why not. LabError when one cannot."""
    from rbp_lab.measurement.devices import choose_device
    from rbp_lab.measurement.preflight import check  # torch: not for lists of names

    if not request.sources:
        raise WrongUsage(f"no model matches {request.pattern!r}; rbp-lab ls models lists what there is")
    device, protocol = choose_device(request.device), request.dataset.protocol
    checks = [check(source, protocol, request.precision.dtype, device) for source in request.sources.values()]
    if failed := print_checks(checks):
        raise LabError(f"{failed} of {len(checks)} models cannot be measured here as they are asked for")
