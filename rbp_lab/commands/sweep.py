"""What a sweep would do, found out before its first job: which of its models cannot be measured here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from rbp_lab.config.build import MADE, read
from rbp_lab.config.schemas import Launch, Precision
from rbp_lab.config.trajectory import checkpoint_configs
from rbp_lab.data.corpus import TextSource
from rbp_lab.errors import LabError, warn
from rbp_lab.measurement.devices import choose_device
from rbp_lab.models.source import ModelSource


@dataclass(frozen=True)
class Asked:
    """What of a measurement's configuration decides whether its model can be measured."""

    model: Annotated[ModelSource, MADE]
    dataset: Annotated[TextSource, MADE]
    precision: Precision
    launch: Launch


def look_ahead(configs: Iterable[Mapping[str, Any]]) -> None:
    """Check every model of a sweep once for each protocol and precision that it is asked for with.

    Prints a table and why some cannot be measured, nothing when all can. Jobs wrongly configured say so themselves.
    """
    from rbp_lab.measurement.preflight import check

    checks = {}
    for config in configs:
        try:
            last = checkpoint_configs(config)[-1]  # stands for all checkpoints, which differ in their weights alone
            parts = {name: last[name] for name in ("model", "dataset", "precision", "launch")}
            asked = read(Asked, parts)
            if (device := asked.launch.device) != "auto":  # which takes torch to find out
                choose_device(device)
        except (LabError, KeyError):
            continue
        protocol, dtype = asked.dataset.protocol, asked.precision.dtype
        same = json.dumps([parts["model"], asdict(protocol), dtype, device], sort_keys=True)
        if same not in checks:
            checks[same] = check(asked.model, protocol, dtype, device)
    if not (failed := [one for one in checks.values() if one.problem]):
        return
    from rich.console import Console

    from rbp_lab.report.listing import print_checks  # and what tables of laws need, half a second

    print_checks(list(checks.values()), Console(stderr=True))
    rest = "; it goes on with the others" if len(failed) < len(checks) else ""
    warn(f"{len(failed)} of {len(checks)} models of this sweep cannot be measured{rest}")
