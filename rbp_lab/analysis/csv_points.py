"""Points from a CSV: of published values, or one that an analysis wrote."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from rbp_lab.data.readers import csv_rows
from rbp_lab.errors import LabError, shown
from rbp_lab.fits.compute import OPERATIONS
from rbp_lab.points import COLUMNS, METRICS, validate
from rbp_lab.quantities import CE, QUANTITIES, RBP, neg_log
from rbp_lab.store.tables import unescaped

LARGEST_WHOLE = 2**53  # beyond it not every whole number is a float
SMALLEST_NATS, LARGEST_NATS = 1e-30, 1e6  # no corpus has enough tokens for an RBP_k or a loss beyond them


def points_from_csv(path: str | Path, size: str = "non_embedding_params") -> pd.DataFrame:
    """Points from a CSV of published values, or from a points.csv that an analysis wrote.

    Published layout: family, model, ``size`` (a column of that name), dataset, k, and neg_log_rbp or rbp (both must
    agree to 1e-4); optional se_log, documents, n, training_tokens, warmup_tokens, flops (of the training; where tokens
    are not given they are flops/(6·size)). A row with k = CE takes its value from a column ``value``.
    Raises LabError that names the file, the line and the column.
    """
    path = Path(path)
    if not path.is_file():
        raise LabError(f"no CSV file at {path}; csv must name a file with a header line")
    table = list(csv_rows(path, skip_spaces=True))
    if not table:
        raise LabError(f"{path} has a header but no rows")
    published = "metric" not in table[0][1]
    rows = [_csv_row(path, line, row, size, published) for line, row in table]
    return validate(pd.DataFrame(rows, columns=list(COLUMNS)), str(path))


def _csv_row(path: Path, line: int, row: dict[str, str], size: str, published: bool) -> dict[str, object]:
    def text(column: str) -> str:
        if column not in row:
            raise LabError(f"{path} has no column {column!r}; its columns are {', '.join(row)}")
        if not row[column].strip():
            raise LabError(f"{path}, line {line}, column {column!r}: expected a value, found nothing")
        cell = row[column].strip()
        cell = cell if published else str(unescaped(cell))
        if not cell.isprintable():
            raise LabError(f"{path}, line {line}, column {column!r}: expected printable characters, got {shown(cell)}")
        return cell

    def number(column: str, low: float = -math.inf, high: float = math.inf) -> float:
        try:
            value = float(text(column))
        except ValueError:
            raise LabError(f"{path}, line {line}, column {column!r}: expected a number, got {row[column]!r}") from None
        if not low <= value <= high:  # false for NaN too
            bounds = f"in [{low:g}, {high:g}]" if high < math.inf else f"of at least {low:g}"
            raise LabError(f"{path}, line {line}, column {column!r}: expected a number {bounds}, got {row[column]!r}")
        return value

    def nats(column: str) -> float:
        value = number(column, 0)
        if value not in (0, math.inf) and not SMALLEST_NATS <= value <= LARGEST_NATS:
            raise LabError(
                f"{path}, line {line}, column {column!r}: expected nats, 0 or {SMALLEST_NATS:g} to {LARGEST_NATS:g} "
                f"or inf, got {row[column]!r}"
            )
        return value

    def whole(column: str, least: int = 1) -> int:
        value = number(column, least, LARGEST_WHOLE)
        if value != int(value):
            raise LabError(f"{path}, line {line}, column {column!r}: expected a whole number, got {row[column]!r}")
        return int(value)

    def optional(column: str) -> bool:
        return bool(row.get(column, "").strip())

    metric = RBP.name if published else text("metric")
    if published and text("k").upper() == "CE":
        metric = CE.name
    if metric not in METRICS:
        raise LabError(f"{path}, line {line}, column 'metric': expected {', '.join(METRICS)}; got {metric!r}")
    if published and metric == RBP.name:
        value = _published_value(path, line, row, number, nats, optional)
    else:
        value = nats("value")
    length = number(size if published else "size", 1)
    flops = number("flops", 1) if optional("flops") else math.nan
    tokens = whole("training_tokens", 0) if optional("training_tokens") else pd.NA
    if tokens is pd.NA and not math.isnan(flops):
        tokens = round(flops / (OPERATIONS * length))
        if not 1 <= tokens <= LARGEST_WHOLE:
            raise LabError(
                f"{path}, line {line}, column 'flops': {row['flops']!r} of a model of size {length:g} are {tokens:g} "
                "training tokens; expected flops = 6·size·tokens"
            )
    return {
        "model": text("model"), "family": text("family"), "dataset": text("dataset"), "metric": metric,
        "size": length, "k": whole("k") if QUANTITIES[metric].of_k else pd.NA,
        "window": whole("window") if optional("window") else 1, "value": value,
        "se_log": number("se_log", 0) if optional("se_log") else math.nan,
        "n": whole("n") if optional("n") else pd.NA, "key": row.get("key", ""),
        "precision": row.get("precision", ""), "protocol": row.get("protocol", ""),
        "training_tokens": tokens, "documents": whole("documents") if optional("documents") else pd.NA,
        "warmup_tokens": whole("warmup_tokens", 0) if optional("warmup_tokens") else pd.NA, "flops": flops,
    }  # fmt: skip


def _published_value(path: Path, line: int, row: dict[str, str], number, nats, optional) -> float:
    """−log RBP_k in nats from either column of the published layout; both present must say the same."""
    if not (optional("neg_log_rbp") or optional("rbp")):
        raise LabError(f"{path}, line {line}: expected neg_log_rbp (nats) or rbp, found neither")
    if not optional("rbp"):
        return nats("neg_log_rbp")
    rbp = number("rbp", 0, 1)
    if not optional("neg_log_rbp"):
        return neg_log(rbp)
    value = nats("neg_log_rbp")
    if abs(math.exp(-value) - rbp) > 1e-4:
        raise LabError(
            f"{path}, line {line}: columns 'neg_log_rbp' and 'rbp' contradict each other: exp(−{value:g}) = "
            f"{math.exp(-value):.6f}, but rbp is {rbp:g}; is the logarithm natural?"
        )
    return value
