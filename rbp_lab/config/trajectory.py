"""A model's checkpoints in a composed configuration: one configuration for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rbp_lab.config.build import TARGET, build


def checkpoint_configs(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A configuration for each checkpoint that ``config``'s model names; [config] when it names none.

    LabError as the model's ``members`` raises it.
    """
    node = config.get("model")
    if not isinstance(node, Mapping) or TARGET not in node or node.get("checkpoints") is None:
        return [config]
    source = build(node, "model")

    def changes(member: Any) -> dict[str, Any]:
        values = {f.name: getattr(member, f.name) for f in fields(member)}
        return {name: value for name, value in values.items() if value != getattr(source, name)}

    return [{**config, "model": {**node, **changes(member)}} for member in source.members()]
