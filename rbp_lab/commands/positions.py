"""``rbp-lab train`` of a language model: with an objective and task=next-token, from groups of its positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import make_dataclass
from typing import Annotated, Any

from rbp_lab.config.build import MADE, read_part
from rbp_lab.errors import WrongUsage


def of_positions(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of the language model that learns as the objective says; the same without one.

    Raises WrongUsage when no language model can learn so, or there is only one part of a classifier.
    """
    if config.get("objective") is None:
        if given := [name for name in ("observation", "classifier", "task") if config.get(name) is not None]:
            raise WrongUsage(
                f"{given[0]} is of classifiers; choose objective=supervised, aggregate or likelihood as well"
            )
        return config
    from rbp_lab.ladder.aggregate.objective import Objective  # torch: not for a model that is found
    from rbp_lab.ladder.aggregate.observations import Observation
    from rbp_lab.ladder.aggregate.positions import group_size

    request = make_dataclass(
        "Request", [("objective", Objective), ("observation", Annotated[Observation | None, MADE], None)]
    )
    asked = read_part(request, config)
    return {**config, "model": {**config["model"], "groups": group_size(asked.objective, asked.observation)}}
