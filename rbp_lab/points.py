"""Points: the tidy table every law is fitted to, from finished runs or from a CSV of published values.

One row is one value of one metric, for one model on one data set; see ``COLUMNS``. Nothing is ever averaged: two
rows for the same (model, dataset, metric, k, window), or runs of different protocols, are an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd

from rbp_lab import metrics
from rbp_lab.errors import LabError
from rbp_lab.fits.result import POOLED, FitPoints, Label
from rbp_lab.records import RunHeader, RunRecord

# size: S. metric: "ce", "neg_log_rbp" or "neg_log_p". k: missing for "ce". window: N, 1 unless "neg_log_p".
# value: nats; +inf when RBP_k (p_{N,k}) was 0. se_log: standard error of ln value over documents, NaN when unknown.
# n: scored tokens (windows for "neg_log_p"), missing when unknown. key: of the record, "" for published values.
COLUMNS = {
    "model": "str", "family": "str", "size": "float64", "dataset": "str", "metric": "str", "k": "Int64",
    "window": "Int64", "value": "float64", "se_log": "float64", "n": "Int64", "key": "str",
}  # fmt: skip
METRICS = ("ce", "neg_log_rbp", "neg_log_p")
SIZES = ("non_embedding_params", "total_params")
IDENTITY = ["model", "dataset", "metric", "k", "window"]


def points_from_records(
    records: Sequence[RunRecord],
    ks: Sequence[int],
    size: str = "non_embedding_params",
    windows: Sequence[int] = (),
    ties: str = "pessimistic",
) -> pd.DataFrame:
    """Cross-entropy, −log RBP_k for every k, and −log p_{N,k} for every N > 1 in ``windows``, of finished runs.

    size: which parameter count is S, "non_embedding_params" (the paper's) or "total_params". se_log comes from
    documents, never from tokens, and is given for the tie rule of the document table ("pessimistic").
    Raises LabError on runs that must not share a table: other protocols or precisions on one data set, one name for
    two corpora, a model measured twice.
    """
    if size not in SIZES:
        raise LabError(f"size must be one of {', '.join(SIZES)}; got {size!r}")
    if not records:
        raise LabError("there is no finished run to analyse; measure some models first (rbp-lab measure)")
    check_comparable(records)
    rows = [row for record in records for row in _record_rows(record, ks, size, windows, ties)]
    return validate(pd.DataFrame(rows, columns=list(COLUMNS)))


def _record_rows(
    record: RunRecord, ks: Sequence[int], size: str, windows: Sequence[int], ties: str
) -> list[dict[str, object]]:
    stats, documents, params = record.stats, record.documents, record.model.params
    base = {
        "model": record.model.name, "family": record.model.family, "dataset": record.dataset.name, "window": 1,
        "size": float(params.non_embedding if size == "non_embedding_params" else params.total),
        "n": stats.num_tokens, "key": record.key,
    }  # fmt: skip
    estimate = metrics.cross_entropy_estimate(documents)
    ce = {"metric": "ce", "k": pd.NA, "value": metrics.cross_entropy(stats), "se_log": _se(estimate)}
    rows = [base | ce]
    for k in ks:
        se = _se(metrics.neg_log_rbp(documents, k)) if ties == "pessimistic" else math.nan
        value = _neg_log(metrics.rbp(stats, k, ties))
        rows.append(base | {"metric": "neg_log_rbp", "k": k, "value": value, "se_log": se})
    for length in windows:
        for k in ks if length > 1 else ():
            p = metrics.window_rbp(stats, length, k)
            if p is None:
                continue  # no document is that long: there is no window to speak of
            stored = k in documents.thresholds
            se = _se(metrics.neg_log_window_rbp(documents, length, k)) if stored else math.nan
            n = int(documents.windows(length).sum())
            p_row = {"metric": "neg_log_p", "k": k, "window": length, "value": _neg_log(p), "se_log": se, "n": n}
            rows.append(base | p_row)
    return rows


def _se(estimate: metrics.Estimate | None) -> float:
    return math.nan if estimate is None else estimate.se_log


def _neg_log(p: float) -> float:
    return abs(math.log(p)) if p > 0 else math.inf


# What two runs on one data set must share before their numbers stand in one table.
_COMPARABLE = ("protocol", "dtype", "tf32", "logits", "candidates")


def check_comparable(records: Sequence[RunRecord | RunHeader]) -> None:
    """LabError when runs must not stand in one table: other protocols or precisions, one name for two corpora."""
    seen: dict[str, RunRecord | RunHeader] = {}
    for record in records:
        first = seen.setdefault(record.dataset.name, record)
        if record.dataset.fingerprint != first.dataset.fingerprint:
            raise LabError(
                f"the name {record.dataset.name!r} stands for two corpora: runs {first.key} ({first.model.name}) and "
                f"{record.key} ({record.model.name}) differ in fingerprint; choose one with filters.key"
            )
        for name in _COMPARABLE:
            ours, theirs = getattr(record.scoring, name), getattr(first.scoring, name)
            if ours != theirs:
                raise LabError(
                    f"runs on {record.dataset.name!r} differ in {name}: {first.key} ({first.model.name}) has {theirs}, "
                    f"{record.key} ({record.model.name}) has {ours}; choose one with filters.dtype or filters.key"
                )


def points_from_csv(path: str | Path, size: str = "non_embedding_params") -> pd.DataFrame:
    """Points from a CSV of published values, or from a points.csv that an analysis wrote.

    Published layout: family, model, ``size`` (a column of that name), dataset, k, and neg_log_rbp or rbp (both must
    agree to 1e-4); optional se_log, n. A row with k = CE takes its value from a column ``value``.
    Raises LabError that names the file, the line and the column.
    """
    path = Path(path)
    if not path.is_file():
        raise LabError(f"no CSV file at {path}; csv must name a file with a header line")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is not a CSV table with a header line: {error}") from error
    if table.empty:
        raise LabError(f"{path} has a header but no rows")
    published = "metric" not in table.columns
    rows = [_csv_row(path, line, row, size, published) for line, row in enumerate(table.to_dict("records"), start=2)]
    return validate(pd.DataFrame(rows, columns=list(COLUMNS)), str(path))


def _csv_row(path: Path, line: int, row: dict[str, str], size: str, published: bool) -> dict[str, object]:
    def text(column: str) -> str:
        if column not in row:
            raise LabError(f"{path} has no column {column!r}; its columns are {', '.join(row)}")
        if not row[column].strip():
            raise LabError(f"{path}, line {line}, column {column!r}: expected a value, found nothing")
        return row[column].strip()

    def number(column: str, low: float = -math.inf, high: float = math.inf) -> float:
        try:
            value = float(text(column))
        except ValueError:
            raise LabError(f"{path}, line {line}, column {column!r}: expected a number, got {row[column]!r}") from None
        if not low <= value <= high:  # false for NaN too
            bounds = f"in [{low:g}, {high:g}]" if high < math.inf else f"of at least {low:g}"
            raise LabError(f"{path}, line {line}, column {column!r}: expected a number {bounds}, got {row[column]!r}")
        return value

    def whole(column: str) -> int:
        value = number(column, 1)
        if value != int(value):
            raise LabError(f"{path}, line {line}, column {column!r}: expected a whole number, got {row[column]!r}")
        return int(value)

    def optional(column: str) -> bool:
        return bool(row.get(column, "").strip())

    metric = "neg_log_rbp" if published else text("metric")
    if published and text("k").upper() == "CE":
        metric = "ce"
    if metric not in METRICS:
        raise LabError(f"{path}, line {line}, column 'metric': expected {', '.join(METRICS)}; got {metric!r}")
    if published and metric == "neg_log_rbp":
        value = _published_value(path, line, row, number, optional)
    else:
        value = number("value", 0)
    return {
        "model": text("model"), "family": text("family"), "dataset": text("dataset"), "metric": metric,
        "size": number(size if published else "size", 1), "k": pd.NA if metric == "ce" else whole("k"),
        "window": whole("window") if optional("window") else 1, "value": value,
        "se_log": number("se_log", 0) if optional("se_log") else math.nan,
        "n": whole("n") if optional("n") else pd.NA, "key": row.get("key", ""),
    }  # fmt: skip


def _published_value(path: Path, line: int, row: dict[str, str], number, optional) -> float:
    """−log RBP_k in nats from either column of the published layout; both present must say the same."""
    if not (optional("neg_log_rbp") or optional("rbp")):
        raise LabError(f"{path}, line {line}: expected neg_log_rbp (nats) or rbp, found neither")
    if not optional("rbp"):
        return number("neg_log_rbp", 0)
    rbp = number("rbp", 0, 1)
    if not optional("neg_log_rbp"):
        return _neg_log(rbp)
    value = number("neg_log_rbp", 0)
    if abs(math.exp(-value) - rbp) > 1e-4:
        raise LabError(
            f"{path}, line {line}: columns 'neg_log_rbp' and 'rbp' contradict each other: exp(−{value:g}) = "
            f"{math.exp(-value):.6f}, but rbp is {rbp:g}; is the logarithm natural?"
        )
    return value


def validate(points: pd.DataFrame, where: str = "the points") -> pd.DataFrame:
    """The table with exactly ``COLUMNS`` in order and their types; LabError on duplicates and impossible values."""
    missing = [name for name in COLUMNS if name not in points.columns]
    if missing:
        raise LabError(f"{where} lack the columns {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    points = points[list(COLUMNS)].astype(COLUMNS).reset_index(drop=True)
    wrong = points[points["value"].isna() | (points["value"] < 0) | ~(points["size"] > 0)]
    if len(wrong):
        first = wrong.iloc[0]
        raise LabError(
            f"{where}: {first['model']} on {first['dataset']} has value {first['value']} and size {first['size']}; "
            "a value is at least 0, a size positive"
        )
    twice = points[points.duplicated(IDENTITY, keep=False)]
    if len(twice):
        first = twice.iloc[0]
        label = Label(
            metric=first["metric"], k=None if pd.isna(first["k"]) else int(first["k"]), window=first["window"]
        )
        same = twice[(twice["model"] == first["model"]) & (twice["dataset"] == first["dataset"])]
        keys = ", ".join(sorted({str(key) for key in same["key"]} - {""}))
        hint = f" from runs {keys}" if keys else ""
        raise LabError(
            f"{where}: {first['model']} on {first['dataset']} has more than one value of {label.quantity}{hint}; "
            "values are never averaged: keep one"
        )
    for column in ("family", "size"):
        distinct = points.groupby("model")[column].nunique()
        if (distinct > 1).any():
            model = distinct.index[distinct > 1][0]
            found = ", ".join(map(str, points.loc[points["model"] == model, column].unique()))
            raise LabError(f"{where}: model {model!r} appears with more than one {column}: {found}")
    return points


def matches(name: str, patterns: Iterable[str] | None) -> bool:
    """True when no pattern is given or when one of the shell patterns matches the name, case-sensitively."""
    patterns = list(patterns or ())
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def select(
    points: pd.DataFrame,
    models: Sequence[str] | None = None,
    families: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The points whose names match the shell patterns; LabError when none is left."""
    keep = np.ones(len(points), bool)
    for column, patterns in (("model", models), ("family", families), ("dataset", datasets)):
        keep &= np.array([matches(name, patterns) for name in points[column]], bool)
    if not keep.any():
        have = "; ".join(f"{c}: {', '.join(sorted(points[c].unique()))}" for c in ("model", "family", "dataset"))
        raise LabError(
            f"no point matches models {models or '*'}, families {families or '*'}, datasets {datasets or '*'}; {have}"
        )
    return points[keep].reset_index(drop=True)


def series(points: pd.DataFrame, label: Label) -> FitPoints:
    """The points of one law: the rows of the label's data set, metric, k and window, of its family or of all.

    The family POOLED takes every family. The result may be empty.
    """
    rows = points[(points["dataset"] == label.dataset) & (points["metric"] == label.metric)]
    rows = rows[rows["window"] == label.window]
    if label.k is not None:
        rows = rows[rows["k"] == label.k]
    if label.family is not POOLED:
        rows = rows[rows["family"] == label.family]
    return FitPoints(rows["size"].to_numpy(), rows["value"].to_numpy(), tuple(rows["model"]), rows["se_log"].to_numpy())
