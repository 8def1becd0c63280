"""Rows of JSON files, values as they are written: numbers keep their digits, a field named twice is an error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rbp_lab.data.decoding import CHUNK, read_pieces
from rbp_lab.errors import LabError

_SPACE = re.compile(r"[ \t\n\r]*")  # what JSON allows between values
_LONGEST_INTEGER = 4000  # digits; Python refuses to convert more than 4300


class _Number(float):
    """A JSON number that prints as it is written."""

    def __new__(cls, literal: str) -> _Number:
        number = super().__new__(cls, literal)
        number.literal = literal
        return number

    def __str__(self) -> str:
        return self.literal


class _NamedTwice(ValueError):
    """An object names a field twice; the message is the rest of a sentence about it."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a JSON object, each of one name: json itself keeps the last of several."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _NamedTwice(f"names the field {twice!r} twice; give each field its own name")
    return fields


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_float=_Number,
    parse_constant=_Number,
    parse_int=lambda literal: _Number(literal) if literal == "-0" or len(literal) > _LONGEST_INTEGER else int(literal),
)


def json_rows(path: Path, fields: list[str]) -> Iterator[dict[str, Any]]:
    """Objects, one a line, in one list, or one after another; a text in place of an object is its field "text"."""
    first = _first_line_with_text(path)
    if not first:
        raise LabError(f"{path} is empty")
    lines = not first.startswith("[")
    if lines and not {".jsonl", ".ndjson"} & {suffix.lower() for suffix in path.suffixes}:  # or values over many lines
        try:
            _DECODER.decode(first)
        except _NamedTwice:
            pass
        except (ValueError, RecursionError):
            lines = False
    for line, value in (_json_lines if lines else _json_values)(path):
        if isinstance(value, str):
            value = {"text": value}
        if not isinstance(value, dict):
            raise LabError(f"{path}, line {line} holds no object with fields, but {json.dumps(value)[:40]}")
        yield value


def _first_line_with_text(path: Path) -> str:
    """The first character of a list, else the first line that is not blank; "" when there is none."""
    for piece in read_pieces(path, size=CHUNK):
        if piece.strip():
            if piece.lstrip().startswith("["):
                return "["
            break
    return next((line.strip() for line in read_pieces(path) if line.strip()), "")


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(read_pieces(path), 1):
        if line.strip():
            try:
                yield number, _DECODER.decode(line)
            except json.JSONDecodeError as error:
                raise LabError(f"{path}, line {number} is not JSON: {error.msg} (column {error.colno})") from None
            except _NamedTwice as error:
                raise LabError(f"{path}, line {number} {error}") from None
            except RecursionError:
                raise LabError(f"{path}, line {number} is nested too deeply to be read") from None


def _json_values(path: Path) -> Iterator[tuple[int, Any]]:
    """The values of a JSON list, or values one after another, each over any number of lines."""
    text = _JsonText(path)
    if text.next_character() != "[":
        while text.next_character():
            yield text.line, text.value()
        return
    text.at += 1
    if text.next_character() == "]":
        text.at += 1
    else:
        while True:
            text.next_character()
            yield text.line, text.value()
            mark = text.next_character()
            text.at += 1
            if mark == "]":
                break
            if mark != ",":
                raise LabError(f"{path} is not JSON: expected ',' or ']' after an element, line {text.line}")
    if text.next_character():
        raise LabError(f"{path} is not JSON: more follows the end of the list, line {text.line}")


class _JsonText:
    """A window that moves over a JSON file: ``text`` from ``at`` on is still to be decoded."""

    def __init__(self, path: Path) -> None:
        self.path, self.text, self.at, self._line = path, "", 0, 1
        self._pieces = read_pieces(path, size=CHUNK)

    @property
    def line(self) -> int:
        return self._line + self.text.count("\n", 0, self.at)

    def more(self) -> bool:
        """Drop what is decoded and at least double what is left; False at the end of the file."""
        wanted = max(CHUNK, len(self.text) - self.at)
        pieces: list[str] = []
        while wanted > 0 and (piece := next(self._pieces, "")):
            pieces.append(piece)
            wanted -= len(piece)
        self._line, self.text, self.at = self.line, self.text[self.at :] + "".join(pieces), 0
        return bool(pieces)

    def next_character(self) -> str:
        """The next character that is not blank, "" at the end of the file."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def value(self) -> Any:
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                # A value that goes on beyond the window stops near its end, or inside a text that does not end.
                unfinished = error.pos > len(self.text) - 64 or error.msg.startswith("Unterminated string")
                if unfinished and self.more():
                    continue
                self.at = error.pos
                raise LabError(f"{self.path} is not JSON: {error.msg}, line {self.line}") from None
            except _NamedTwice as error:
                raise LabError(f"{self.path}, line {self.line}: the value that begins here {error}") from None
            except RecursionError:
                raise LabError(f"{self.path}, line {self.line} is nested too deeply to be read") from None
            if end == len(self.text) and not isinstance(value, str | list | dict) and self.more():
                continue  # a number may go on
            self.at = end
            return value
