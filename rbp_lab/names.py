"""Names that people give to models: they become directory names, labels of figures and cells of tables."""

from __future__ import annotations

import re

from rbp_lab.errors import LabError

MAX_BYTES = 120  # in UTF-8; file systems take 255, and temporary names are longer
# Each has a meaning of its own to a file system, a shell, Hydra, TeX, rich or a table.
_RESERVED = '\\$[]{}<>|*?"`'


def check_label(value: str, path: str) -> None:
    """Raise LabError unless ``value`` can be printed, drawn and tabulated; path: where the configuration gives it."""
    if not isinstance(value, str):
        raise LabError(f"{path} must be text; got {value!r}")
    if not value.strip():
        raise LabError(f"{path} may not be empty; got {value!r}")
    if len(value.encode("utf-8", "replace")) > MAX_BYTES:
        raise LabError(f"{path} has {len(value)} characters, which is too long; choose at most {MAX_BYTES} bytes")
    wrong = next((c for c in value if c in _RESERVED or not c.isprintable()), None)
    if wrong is not None:
        raise LabError(
            f"{path} is a label and may not contain {wrong!r}; got {value!r}; use letters, digits, spaces and "
            ". _ - + @ = , ( )"
        )


def check_name(value: str, path: str) -> None:
    """As ``check_label``, and raise LabError unless ``value`` can be the name of a directory."""
    if isinstance(value, str) and (not value.strip(" .") or re.search(r"[/\\]", value)):
        raise LabError(f"{path} becomes a directory name and may not be empty or a path; got {value[:MAX_BYTES]!r}")
    check_label(value, path)


def clean_name(text: str) -> str:
    """A name made from any text: other characters become hyphens, what is too long is cut."""
    plain = re.sub(r"[^\w.@+-]+", "-", text).strip("-.")
    return plain.encode()[:MAX_BYTES].decode(errors="ignore") or "model"
