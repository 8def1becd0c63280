"""The border: composed configuration (nested mappings) in, typed values out, mistakes as one sentence.

The only validator of configuration. A mapping with ``_target_`` becomes what that dotted name makes of the other keys
(open sets: models, datasets, callbacks, a user's own classes); everything else follows the annotations of a dataclass.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    PlainValidator,
    PydanticUndefinedAnnotation,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)

from rbp_lab.config.old_names import current_name
from rbp_lab.errors import LabError, WrongUsage, no_such, shown

T = TypeVar("T")
TARGET = "_target_"


def _opened(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | list | Mapping):
        raise ValueError(f"a mapping with {TARGET}, the dotted name of a class")
    return value


# Marks a field whose value is what a ``_target_`` made: Annotated[Callback, OPEN], which may be of any class, and
# Annotated[ModelSource, MADE], which must have what the (runtime checkable) protocol has.
OPEN = PlainValidator(_opened)
MADE = BeforeValidator(_opened)


def at_least(least: int) -> AfterValidator:
    """Marks a number that must not be smaller: Annotated[int, at_least(1)]."""

    def check(value: float) -> float:
        if not value >= least:
            raise ValueError(f"at least {least}")
        return value

    return AfterValidator(check)


def read(cls: type[T], config: Mapping[str, Any]) -> T:
    """``config`` as a value of the dataclass ``cls``. A null at the top stands for the default.

    Raises WrongUsage with the config path, what was expected and what came.
    """
    return _validated(cls, {k: _built(v, k) for k, v in config.items() if v is not None}, "")


def read_part(cls: type[T], config: Mapping[str, Any]) -> T:
    """What of ``config`` the dataclass ``cls`` has fields for, as ``read`` gives it; the rest is another command's."""
    return read(cls, part(cls, config))


def part(cls: type[Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes of ``config`` that the dataclass ``cls`` has fields for."""
    names = {f.name for f in dataclasses.fields(cls)}
    return {name: node for name, node in config.items() if name in names}


def build(node: Mapping[str, Any], path: str) -> Any:
    """The object that a node with ``_target_`` describes. path: where it stands in the configuration, for messages."""
    made = locate(str(current_name(f"{path}.{TARGET}", node[TARGET])), path)
    return call(made, {k: v for k, v in node.items() if k != TARGET}, path)


def locate(target: str, path: str) -> Any:
    """The class or function that a dotted name means; WrongUsage naming the config path when there is none."""
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise WrongUsage(f"{path}.{TARGET}: cannot import {target!r} ({error})") from None
    if not callable(found):
        raise WrongUsage(f"{path}.{TARGET}: expected a class or function, got {target}, a {type(found).__name__}")
    return found


def call(target: Any, arguments: Mapping[str, Any], path: str) -> Any:
    """``target(**arguments)``. The fields of a dataclass are checked against their annotations."""
    arguments = {name: _built(value, f"{path}.{name}") for name, value in arguments.items()}
    if dataclasses.is_dataclass(target):
        return _validated(target, arguments, path)
    _check_names(target, arguments, path)
    try:
        return target(**arguments)
    except LabError as error:
        raise WrongUsage(_located(str(error), arguments, path)) from None


def _built(value: Any, path: str) -> Any:
    """``value`` with every mapping in it that has a ``_target_`` replaced by the object it describes."""
    if isinstance(value, Mapping):
        if TARGET in value:
            return build(value, path)
        return {name: _built(inner, f"{path}.{name}") for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_built(inner, f"{path}.{i}") for i, inner in enumerate(value)]
    return current_name(path, value)


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    # Given for ``cls | None``, the configuration reaches the plain dataclasses within; ``cls`` alone takes none.
    return TypeAdapter(
        cls | None, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True, coerce_numbers_to_str=True)
    )


def _validated(cls: Any, given: Mapping[str, Any], path: str) -> Any:
    try:
        made = _adapter(cls).validate_python(given)
    except ValidationError as error:
        raise WrongUsage(_sentence(error, cls, given, path)) from None
    except LabError as error:
        raise WrongUsage(_located(str(error), given, path)) from None
    except (PydanticUserError, PydanticUndefinedAnnotation, NameError):
        # Annotations of a user's class that cannot be resolved: its values are taken as they come.
        _check_names(cls, given, path)
        return cls(**given)
    _check_kept(given, made, path)
    return made


def _check_names(target: Any, arguments: Mapping[str, Any], path: str) -> None:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # written in C
        return
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in arguments:
            if name not in names:
                raise WrongUsage(no_such(f"{path}.{name}", "key", name, names))
    for p in parameters:
        if p.name in names and p.default is p.empty and p.name not in arguments:
            raise WrongUsage(_missing(f"{path}.{p.name}"))


def _check_kept(given: Any, made: Any, path: str) -> None:
    """Refuse what a conversion would quietly make something else: true as the number 1, 1e5 as a text."""
    if isinstance(given, Mapping):
        for name, value in given.items():
            inner = made.get(name) if isinstance(made, Mapping) else getattr(made, str(name), None)
            _check_kept(value, inner, _join(path, name))
    elif isinstance(given, list) and isinstance(made, Sequence) and len(made) == len(given):
        for i, (value, inner) in enumerate(zip(given, made, strict=True)):
            _check_kept(value, inner, _join(path, i))
    elif isinstance(given, bool) and isinstance(made, int | float) and not isinstance(made, bool):
        raise WrongUsage(f"{path} must be a number; got {shown(given)}")
    elif isinstance(given, float) and isinstance(made, str):
        raise WrongUsage(_text_expected(path, given))


# Kinds of error (pydantic's) and, in words, what was expected.
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "dataclass": "a mapping",
    "path": "a path",
}


def _sentence(error: ValidationError, cls: Any, given: Mapping[str, Any], path: str) -> str:
    """The first mistake as one line; branches of a union count as one mistake."""
    errors = error.errors(include_url=False)
    place, value = _place(errors[0]["loc"], given)
    full, kind = _join(path, *place), str(errors[0]["type"])
    if kind in ("missing", "missing_argument"):
        return _missing(_join(path, *errors[0]["loc"]))
    if kind == "unexpected_keyword_argument":
        return no_such(full, "key", str(place[-1]), _fields(cls, place[:-1]))
    here = [e for e in errors if _place(e["loc"], given)[0] == place]
    if any(e["type"] == "string_type" for e in here) and isinstance(value, bool | int | float):
        return _text_expected(full, value)
    expected = dict.fromkeys(_expected(e) for e in here)
    return f"{full} must be {' or '.join(expected)}; got {shown(value)}"


def _place(loc: tuple[int | str, ...], given: Any) -> tuple[tuple[int | str, ...], Any]:
    """The part of an error's location that exists in what was given (the rest names branches of a union)."""
    place: list[int | str] = []
    for step in loc:
        try:
            given = given[step]
        except (KeyError, IndexError, TypeError):
            break
        place.append(step)
    return tuple(place), given


def _expected(error: Any) -> str:
    kind = str(error["type"])
    if kind == "is_instance_of":
        return f"a {error['ctx']['class']}"
    if kind == "none_required":
        return "null"
    word = _EXPECTED.get(kind.split("_")[0])
    return word or str(error["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")


def _missing(path: str) -> str:
    return f"{path} must be given, e.g. {path}=…"


def _text_expected(path: str, value: bool | int | float) -> str:
    kind = "a truth value" if isinstance(value, bool) else "a number"
    return f"{path} must be a text; got {shown(value)}, {kind}; to mean the letters, quote them: '{path}=\"…\"'"


def _at(cls: Any, place: Sequence[int | str]) -> Any:
    """The annotation at a place below a dataclass; None where it is not known."""
    for step in place:
        for option in (cls, *typing.get_args(cls)):
            if dataclasses.is_dataclass(option):
                cls = typing.get_type_hints(option).get(str(step))
                break
        else:
            arguments = typing.get_args(cls)
            cls = arguments[-1] if arguments else None
    return cls


def _fields(cls: Any, place: Sequence[int | str]) -> list[str]:
    here = _at(cls, place)
    found = next((option for option in (here, *typing.get_args(here)) if dataclasses.is_dataclass(option)), None)
    return [f.name for f in dataclasses.fields(found) if f.init] if found else []


def _join(*parts: int | str) -> str:
    return ".".join(str(p) for p in parts if p != "")


def _located(message: str, given: Mapping[str, Any], path: str) -> str:
    """A class's own complaint with the config path before it, unless it names the path by itself."""
    first = message.split(" ")[0].rstrip(":")
    if not path or first == path or first.startswith(f"{path}."):
        return message
    return f"{path}.{message}" if first.split(".")[0] in given else f"{path}: {message}"
