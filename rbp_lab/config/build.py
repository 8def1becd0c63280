"""Plain configuration to objects: a mapping with ``_target_`` becomes a call of what it names."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Mapping
from typing import Any

from rbp_lab.errors import LabError


def locate(target: str, path: str) -> Any:
    """The class or function that a dotted name means; LabError naming the config path when there is none."""
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise LabError(f"{path}._target_: cannot import {target!r} ({error})") from None


def build(node: Mapping[str, Any], path: str) -> Any:
    """The object that ``node`` describes: its ``_target_`` called with the other keys.

    Fields of a dataclass that are dataclasses themselves are built from their mappings. path: where the node stands
    in the configuration, for messages. Raises LabError on an unknown or missing key, and passes on LabError of the
    constructor with the path before it.
    """
    if "_target_" not in node:
        raise LabError(f"{path}: expected a mapping with a _target_; got keys {sorted(map(str, node))}")
    target = locate(str(node["_target_"]), path)
    return call(target, {k: v for k, v in node.items() if k != "_target_"}, path)


def call(target: Any, arguments: Mapping[str, Any], path: str) -> Any:
    """``target(**arguments)`` with the checks of ``build``."""
    arguments = dict(arguments)
    if dataclasses.is_dataclass(target):
        names = {f.name for f in dataclasses.fields(target) if f.init}
        unknown = sorted(set(arguments) - names)
        if unknown:
            raise LabError(f"{path}.{unknown[0]}: no such key; expected one of {', '.join(sorted(names))}")
        missing = [
            f.name
            for f in dataclasses.fields(target)
            if f.init
            and f.name not in arguments
            and f.default is dataclasses.MISSING
            and f.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise LabError(f"{path}.{missing[0]} must be given")
        hints = typing.get_type_hints(target)
        for name, value in arguments.items():
            if isinstance(value, Mapping) and dataclasses.is_dataclass(hints[name]):
                arguments[name] = call(hints[name], value, f"{path}.{name}")
    try:
        return target(**arguments)
    except LabError as error:
        message = str(error)
        raise LabError(message if message.startswith(path) else f"{path}: {message}") from None
    except TypeError as error:
        if dataclasses.is_dataclass(target):
            raise
        raise LabError(f"{path}: {error}") from None
