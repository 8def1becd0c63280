"""CSV files that a spreadsheet may open: no cell of text begins a formula there."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from rbp_lab.store.atomic import atomic_path

# What a spreadsheet takes for a formula (OWASP, "CSV Injection"), and such text once escaped.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r\n]")


def escaped(cell: object) -> object:
    """Text that would begin a formula, with an apostrophe before it; every other value as it is."""
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def unescaped(cell: object) -> object:
    """The inverse of ``escaped``."""
    return cell[1:] if isinstance(cell, str) and _ESCAPED.match(cell) else cell


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write a table without its index, atomically, text escaped and numbers as they are."""
    safe = table.copy()
    for name in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[name]):
            safe[name] = safe[name].astype(object).map(escaped, na_action="ignore")
    with atomic_path(path) as temporary:
        safe.to_csv(temporary, index=False)
    return path


def read_csv(path: Path, **options: object) -> pd.DataFrame:
    """Read a table that ``write_csv`` wrote, text as it was; ``options`` are those of pandas.read_csv."""
    table = pd.read_csv(path, **options)
    for name in table.columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            table[name] = table[name].map(unescaped, na_action="ignore")
    return table
