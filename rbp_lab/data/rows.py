"""Rows of a table to texts: which field or template is the text, and which rows count."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rbp_lab.errors import LabError

MISSING: Any = object()  # a row has no such field
OTHER = "not matching where"


@dataclass(frozen=True)
class RowText:
    """The text of a row: literal pieces, each followed by the value of a field (None after the last piece)."""

    pieces: tuple[tuple[str, str | None], ...]

    @property
    def fields(self) -> list[str]:
        return [name for _, name in self.pieces if name is not None]

    @property
    def lone_field(self) -> str | None:
        """The field that is the whole text; None for a template."""
        return self.fields[0] if self.pieces[0][0] == "" and len(self.pieces) == 1 else None


def row_text(field: str | None, template: str | None) -> RowText:
    """The text that a source's ``field`` (dots reach into nested fields; null means "text") or ``template`` asks for.

    In a template {name} stands for a field, {{ and }} for braces, and the two characters backslash n (as a shell
    passes them) for a line break. Raises LabError when both are given or the template is malformed.
    """
    if template is None:
        return RowText((("", field or "text"),))
    if field is not None:
        raise LabError(f"give dataset.field or dataset.template, not both; got {field!r} and {template!r}")
    pieces = []
    try:
        for literal, name, spec, conversion in string.Formatter().parse(template.replace("\\n", "\n")):
            if name == "" or spec or conversion:
                raise ValueError("fields are written {name}, without position, format or conversion")
            pieces.append((literal, name))
    except ValueError as error:
        raise LabError(f"dataset.template {template!r} is malformed: {error}") from None
    if not any(name for _, name in pieces):
        raise LabError(f"dataset.template {template!r} names no field; write for example {{question}}\\n{{answer}}")
    return RowText(tuple(pieces))


@dataclass
class RowReader:
    """Texts of rows, one after another. Call it with each row.

    text: what of a row is its text. wanted: dotted fields and the value they must have, or a list of values. fixed:
    every row has the same fields (a table), so that a missing one is an error at once; where rows are objects of
    their own (JSON) it is an error when no row has it, see ``check``.
    """

    text: RowText
    wanted: Mapping[str, Any]
    fixed: bool = True
    rows: int = 0
    matching: int = 0
    _found: set[str] = field(default_factory=set)
    _first: tuple[Mapping[str, Any], str] | None = None

    @property
    def fields(self) -> list[str]:
        return [*self.text.fields, *self.wanted]

    def __call__(self, row: Mapping[str, Any], where: str) -> tuple[str | None, str | None]:
        """(text, why it is none). A row that does not match has no text; a lone field that is null, NaN or missing
        gives "", so that the length filter drops the row.

        where: names the row in messages. Raises LabError when a template's field has no value, and when a value is
        no text: a list or a mapping, and outside of a template a number or a boolean.
        """
        self.rows += 1
        if self._first is None:
            self._first = row, where
        for name, values in self.wanted.items():
            value = self._value(row, name, where)
            if not any(_same(value, one) for one in (values if isinstance(values, list) else [values])):
                return None, OTHER
        self.matching += 1
        lone = self.text.lone_field
        if lone is None:
            filled = [piece + ("" if n is None else self._written(row, n, where)) for piece, n in self.text.pieces]
            return "".join(filled), None
        value = self._value(row, lone, where)
        if value is MISSING:
            return "", f"without field {lone}"
        if _is_nothing(value):
            return "", f"with nothing in field {lone}"
        if not isinstance(value, str):
            cure = "name a field inside it"
            if isinstance(value, bool | int | float):
                cure = f'dataset.template="{{{lone}}}" takes it as it is written'
            raise LabError(f"{where}: field {lone!r} holds {_kind(value)}, not a text; {cure}")
        return value, None

    def check(self) -> None:
        """Raise LabError when rows were read and a field was in none of them, or no row matched."""
        if self._first is not None:
            for name in self.wanted if self.matching == 0 else self.fields:
                if name not in self._found:
                    raise no_field(name, *self._first)
        if self.wanted and self.rows and self.matching == 0:
            raise LabError(f"dataset.where: none of {self.rows} rows has {dict(self.wanted)}; check names and values")

    def _value(self, row: Mapping[str, Any], name: str, where: str) -> Any:
        value = value_of(row, name)
        if value is not MISSING:
            self._found.add(name)
        elif self.fixed:
            raise no_field(name, row, where)
        return value

    def _written(self, row: Mapping[str, Any], name: str, where: str) -> str:
        """The value of a template's field as text: numbers as they are written, booleans as true and false."""
        value = self._value(row, name, where)
        if value is MISSING:
            raise no_field(name, row, where)
        if _is_nothing(value):
            raise LabError(f"{where} has nothing in field {name!r}; leave such rows out or choose another field")
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str | int | float):
            return str(value)
        raise LabError(f"{where}: field {name!r} holds {_kind(value)}, not a text; name a field inside it")


def value_of(row: Mapping[str, Any], name: str) -> Any:
    """The value of a field, MISSING when there is none; a dotted name reaches into mappings unless a field has just
    that name, and what is inside of null is null."""
    if name in row:
        return row[name]
    value: Any = row
    for depth, part in enumerate(name.split(".")):
        if value is None and depth:
            return None
        if not isinstance(value, Mapping) or part not in value:
            return MISSING
        value = value[part]
    return value


def no_field(name: str, row: Mapping[str, Any], where: str) -> LabError:
    """The error that says which fields a row has in place of the one asked for."""
    return LabError(f"{where} has no field {name!r}; its fields are {', '.join(field_names(row)) or 'none'}")


def field_names(row: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Names of a row's fields, of nested ones with dots."""
    for name, value in row.items():
        if isinstance(value, Mapping) and value:
            yield from field_names(value, f"{prefix}{name}.")
        else:
            yield prefix + str(name)


def flat(wanted: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested conditions as dotted ones: {meta: {set: x}} and {meta.set: x} ask the same."""
    out: dict[str, Any] = {}
    for name, value in wanted.items():
        out |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return out


def as_cells(wanted: Mapping[str, Any]) -> dict[str, list[str]]:
    """Conditions on cells of a CSV file, which are texts: null is the empty cell, a number or boolean its spelling."""

    def spellings(value: Any) -> list[str]:
        if isinstance(value, bool):
            return [str(value), str(value).lower(), str(value).upper()]
        return ["" if value is None else str(value)]

    return {
        name: [one for value in (values if isinstance(values, list) else [values]) for one in spellings(value)]
        for name, values in wanted.items()
    }


def _same(value: Any, wanted: Any) -> bool:
    """Equality under which 1 and true differ, as they do in the file."""
    return value is not MISSING and isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int | float):
        digits = str(value)
        return f"the number {digits}" if len(digits) <= 60 else f"a number of {len(digits)} characters"
    if isinstance(value, bytes):
        return "binary data"
    return "a list" if isinstance(value, Sequence) else f"a {type(value).__name__}"
