"""Rows of a table to documents: which field or template is the text, which rows count, which are chosen."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rbp_lab.data.corpus import Corpus, chosen_corpus, select
from rbp_lab.errors import LabError

READ_AT_ONCE = 1000  # rows decoded at a time while only their lengths are needed


@dataclass(frozen=True)
class RowText:
    """The text of a row: literal pieces, each followed by the value of a field (None after the last piece)."""

    pieces: tuple[tuple[str, str | None], ...]

    @property
    def fields(self) -> list[str]:
        return [name for _, name in self.pieces if name is not None]

    def render(self, row: Mapping[str, Any], where: str) -> str:
        """The text. A lone field that is null gives "", so that the length filter drops the row; in a template it is
        an error, and so is a list or a mapping. where: names the row in messages."""
        if len(self.pieces) == 1 and value_of(row, self.fields[0], where) is None:
            return ""
        return "".join(literal + ("" if name is None else _as_text(row, name, where)) for literal, name in self.pieces)


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


def value_of(row: Mapping[str, Any], name: str, where: str) -> Any:
    """The value of a field; a dotted name reaches into mappings unless a field has just that name.

    Raises LabError that lists the fields there are.
    """
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if value is None and part != name.split(".")[0]:
            return None
        if not isinstance(value, Mapping) or part not in value:
            raise LabError(f"{where} has no field {name!r}; its fields are {', '.join(field_names(row)) or 'none'}")
        value = value[part]
    return value


def field_names(row: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Names of a row's fields, of nested ones with dots."""
    for name, value in row.items():
        if isinstance(value, Mapping) and value:
            yield from field_names(value, f"{prefix}{name}.")
        else:
            yield prefix + str(name)


def _as_text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = value_of(row, name, where)
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    if value is None:
        raise LabError(f"{where} has nothing in field {name!r}; leave such rows out or choose another field")
    kind = "list" if isinstance(value, Sequence) else type(value).__name__
    raise LabError(f"{where}: field {name!r} holds a {kind}, not a text; name a field inside it")


def matches(row: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> bool:
    """Whether each field in ``wanted`` has its value, or one of its values where a list is given."""
    for name, values in wanted.items():
        if value_of(row, name, where) not in (values if isinstance(values, list) else [values]):
            return False
    return True


def flat(wanted: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested conditions as dotted ones: {meta: {set: x}} and {meta.set: x} ask the same."""
    out: dict[str, Any] = {}
    for name, value in wanted.items():
        out |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return out


def corpus_from_rows(
    name: str,
    tables: Sequence[tuple[str, Any]],
    text: RowText,
    wanted: Mapping[str, Any],
    *,
    shuffle_seed: int | None,
    num_documents: int | None,
    min_chars: int,
    info: dict[str, Any],
) -> Corpus:
    """The Corpus of the chosen rows of tables, a sequence of (label, rows); a document's id is "label/row number".

    Rows are a ``datasets.Dataset``, or any iterable of mappings (a stream), which is read once and whose matching
    texts are all held. Of a Dataset only lengths are held and the chosen rows read again; with min_chars = 0 and
    nothing wanted, nothing is read but the chosen rows. Raises LabError as ``select``, when nothing matches
    ``wanted``, when a field is missing and when a chosen document is empty.
    """
    wanted = flat(wanted)
    scans = [_scan(f"dataset {name!r}, {label}", rows, text, wanted, min_chars) for label, rows in tables]
    if wanted and any(scan.rows_read for scan in scans) and not any(len(scan.rows) for scan in scans):
        raise LabError(f"dataset {name!r}: none of {sum(s.rows_read for s in scans)} rows has {wanted}; check where")
    lengths = np.concatenate([scan.lengths for scan in scans])
    order = select(lengths, shuffle_seed=shuffle_seed, num_documents=num_documents, min_chars=min_chars, name=name)
    starts = np.cumsum([0, *(len(scan.rows) for scan in scans)])
    texts, ids = [], []
    for index, table in zip(order, np.searchsorted(starts, order, side="right") - 1, strict=True):
        (label, rows), scan, within = tables[table], scans[table], index - starts[table]
        row = int(scan.rows[within])
        where = f"dataset {name!r}, {label}, row {row}"
        texts.append(text.render(rows[row], where) if scan.texts is None else scan.texts[within])
        ids.append(f"{label}/{row}")
        if not texts[-1]:
            raise LabError(f"{where} is empty; set dataset.min_chars=1 to leave empty documents out")
    selection = {"shuffle_seed": shuffle_seed, "num_documents": num_documents, "min_chars": min_chars}
    return chosen_corpus(name, texts, ids, {**info, **selection, "documents_before_selection": len(lengths)})


@dataclass(frozen=True)
class _Scan:
    """The rows of one table that match: their numbers, lengths, and texts where they cannot be read again."""

    rows: np.ndarray
    lengths: np.ndarray
    texts: list[str] | None
    rows_read: int


def _scan(where: str, rows: Any, text: RowText, wanted: Mapping[str, Any], min_chars: int) -> _Scan:
    stream = not hasattr(rows, "num_rows")
    if not stream and min_chars <= 0 and not wanted:
        return _Scan(np.arange(rows.num_rows), np.zeros(rows.num_rows, dtype=np.int64), None, 0)
    numbers, lengths, texts, number = [], [], [], -1
    for number, row in enumerate(rows if stream else _rows_of(rows, [*text.fields, *wanted])):
        if not matches(row, wanted, f"{where}, row {number}"):
            continue
        rendered = text.render(row, f"{where}, row {number}")
        numbers.append(number)
        lengths.append(len(rendered))
        if stream:
            texts.append(rendered)
    found = np.array(numbers, dtype=np.int64), np.array(lengths, dtype=np.int64)
    return _Scan(*found, texts if stream else None, number + 1)


def _rows_of(rows: Any, fields: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """The rows of a Dataset, decoded many at a time and, when they exist, only in the columns needed."""
    columns = {name if name in rows.column_names else name.split(".")[0] for name in fields}
    if columns <= set(rows.column_names):  # otherwise the first row's message names what is there
        rows = rows.select_columns(sorted(columns))
    for batch in rows.iter(batch_size=READ_AT_ONCE):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))
