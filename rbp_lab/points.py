"""Points: the tidy table every law is fitted to, from finished runs; ``analysis.csv_points`` reads it from a CSV.

One row is one value of one metric, for one model on one data set; see ``COLUMNS``. Nothing is ever averaged: two
rows for the same (model, dataset, metric, k, window), or runs of different protocols, are an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from rbp_lab.dimensions import told_apart
from rbp_lab.errors import LabError
from rbp_lab.fits.points import POOLED, FitPoints, Label
from rbp_lab.quantities import QUANTITIES
from rbp_lab.records import SIZES, RunHeader, RunRecord

# size: S. metric: a name in QUANTITIES. k: missing where the metric has none. window: N, 1 where it has none.
# value: nats; +inf when RBP_k (p_{N,k}) was 0. se_log: standard error of ln value over documents, NaN when unknown.
# documents: how many se_log is over, missing when unknown.
# n: scored tokens (windows for "neg_log_p"), missing when unknown. key: of the record, "" for published values.
# training_tokens: what the model had been trained on. warmup_tokens: until its learning rate had reached the peak.
# flops: of its training, as published. Each is missing when unknown. precision, protocol: what tells the run from
# others (``dimensions.told_apart``), "" where nothing does.
COLUMNS = {
    "model": "str", "family": "str", "size": "float64", "dataset": "str", "metric": "str", "k": "Int64",
    "window": "Int64", "value": "float64", "se_log": "float64", "n": "Int64", "key": "str", "training_tokens": "Int64",
    "documents": "Int64", "warmup_tokens": "Int64", "flops": "float64", "precision": "str", "protocol": "str",
}  # fmt: skip
METRICS = tuple(QUANTITIES)

IDENTITY = ["model", "dataset", "metric", "k", "window"]


def points_from_records(
    records: Sequence[RunRecord],
    ks: Sequence[int],
    size: str = "non_embedding_params",
    windows: Sequence[int] = (),
) -> pd.DataFrame:
    """Cross-entropy, −log RBP_k for every k, and −log p_{N,k} for every N > 1 in ``windows``, of finished runs.

    size: which parameter count is S, "non_embedding_params" (the paper's) or "total_params". se_log comes from
    documents, never from tokens. Raises LabError on runs that must not share a table: other protocols or precisions on
    one data set, one name for two corpora, a model measured twice.
    """
    if size not in SIZES:
        raise LabError(f"size must be one of {', '.join(SIZES)}; got {size!r}")
    if not records:
        raise LabError("there is no finished run to analyse; measure some models first (rbp-lab measure)")
    check_comparable(records)
    told = told_apart(records)
    rows = [row | vars(told[record.key]) for record in records for row in _record_rows(record, ks, size, windows)]
    return validate(pd.DataFrame(rows, columns=list(COLUMNS)))


def _record_rows(record: RunRecord, ks: Sequence[int], size: str, windows: Sequence[int]) -> list[dict[str, object]]:
    stats, documents = record.stats, record.documents
    base = {
        "model": record.model.name, "family": record.model.family, "dataset": record.dataset.name,
        "size": record.model.params.size(size), "key": record.key, "training_tokens": record.model.training_tokens,
        "warmup_tokens": record.model.warmup_tokens,
    }  # fmt: skip
    rows = []
    for quantity in QUANTITIES.values():
        for window in [n for n in windows if n > 1] if quantity.of_windows else [1]:
            for k in ks if quantity.of_k else [None]:
                value = quantity.value(stats, k, window)
                if value is None:
                    continue  # no document is that long: there is no window to speak of
                n = int(documents.windows(window).sum()) if quantity.of_windows else stats.num_tokens
                names = {"metric": quantity.name, "k": pd.NA if k is None else k, "window": window}
                estimate = quantity.over_documents(documents, k, window)
                known = {} if estimate is None else {"se_log": estimate.se_log, "documents": estimate.documents}
                rows.append(base | names | {"value": value, "n": n} | known)
    return rows


# What runs on one data set must share before their numbers stand in one table, and what those of a family must.
_OF_DATASET, _OF_FAMILY = ("protocol", "candidates"), ("dtype", "tf32", "logits")


def check_comparable(records: Sequence[RunRecord | RunHeader]) -> None:
    """LabError when runs must not stand in one table.

    Other protocols on one data set, other precisions or weights rounded in different ways in one family
    (``dimensions.named_apart`` gives each a name of its own), one name for two corpora, two checkpoints of one model in
    unknown order.
    """
    seen: dict[str, RunRecord | RunHeader] = {}
    rounded: dict[tuple[str, str], RunRecord | RunHeader] = {}
    checkpoints: dict[tuple[str, str, str], RunRecord | RunHeader] = {}
    for record in records:
        model = record.model
        other = checkpoints.setdefault((record.dataset.name, model.family, model.path), record)
        differ = other.model.fingerprint != model.fingerprint and other.model.name != model.name
        if model.path and differ and None in (other.model.training_tokens, model.training_tokens):
            raise LabError(
                f"{other.model.name} and {model.name} are two checkpoints of {model.path} whose training tokens are "
                "unknown, so a law in S cannot tell which to take; choose one with filters.model"
            )
        other = rounded.setdefault((record.dataset.name, model.family), record)
        if other.model.quantisation != model.quantisation:
            ours, theirs = (m.quantisation or "not rounded" for m in (model, other.model))
            raise LabError(
                f"family {model.family} holds models whose weights were rounded in different ways: {other.model.name} "
                f"({theirs}) and {model.name} ({ours}); choose with filters.model, or measure again with families of "
                "their own (model.family; nothing is computed anew)"
            )
        first = seen.setdefault(record.dataset.name, record)
        if record.dataset.fingerprint != first.dataset.fingerprint:
            raise LabError(
                f"the name {record.dataset.name!r} stands for two corpora: runs {first.key} ({first.model.name}) and "
                f"{record.key} ({record.model.name}) differ in fingerprint; choose one with filters.key"
            )
        for names, before in ((_OF_DATASET, first), (_OF_FAMILY, other)):
            for name in names:
                ours, theirs = getattr(record.scoring, name), getattr(before.scoring, name)
                if ours != theirs:
                    raise LabError(
                        f"runs on {record.dataset.name!r} differ in {name}: {before.key} ({before.model.name}) has "
                        f"{theirs}, {record.key} ({record.model.name}) has {ours}; choose one with filters.dtype or "
                        "filters.key"
                    )


def validate(points: pd.DataFrame, where: str = "the points") -> pd.DataFrame:
    """The table with exactly ``COLUMNS`` in order and their types; LabError on duplicates and impossible values."""
    optional = {"training_tokens": pd.NA, "documents": pd.NA, "warmup_tokens": pd.NA, "flops": np.nan}
    optional |= {"precision": "", "protocol": ""}
    points = points.assign(**{name: missing for name, missing in optional.items() if name not in points})
    missing = [name for name in COLUMNS if name not in points.columns]
    if missing:
        raise LabError(f"{where} lack the columns {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    points = points[list(COLUMNS)].astype(COLUMNS).reset_index(drop=True)
    wrong = points[points["value"].isna() | (points["value"] < 0) | ~points["size"].between(0, np.inf, "neither")]
    if len(wrong):
        first = wrong.iloc[0]
        raise LabError(
            f"{where}: {first['model']} on {first['dataset']} has value {first['value']} and size {first['size']}; "
            "a value is at least 0, a size positive and finite"
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


def with_sizes(points: pd.DataFrame, least: int) -> pd.DataFrame:
    """The points of data sets on which some family has at least so many sizes; all of them when there is none."""
    sizes = points.groupby(["dataset", "family"])["size"].nunique()
    enough = {dataset for (dataset, _), count in sizes.items() if count >= least}
    kept = points[points["dataset"].isin(enough)].reset_index(drop=True)
    return points if kept.empty else kept


def may_be_pooled(points: pd.DataFrame) -> bool:
    """Whether the families of these points, of one data set, may share a law: several, all at one precision."""
    return points["family"].nunique() > 1 and points["precision"].nunique() == 1


def longest_trained(points: pd.DataFrame) -> pd.DataFrame:
    """The rows without earlier checkpoints: of one size of a family on a data set, those trained on most tokens.

    points: any table with the columns dataset, family, size and training_tokens. A law in S is about one training
    length per size. Rows whose training tokens are unknown stay.
    """
    tokens = points["training_tokens"].astype("Float64")
    most = tokens.groupby([points["dataset"], points["family"], points["size"]]).transform("max")
    return points[(tokens.isna() | (tokens == most)).to_numpy(bool, na_value=True)]


def series(points: pd.DataFrame, label: Label) -> FitPoints:
    """The points of one law in S: the rows of the label's data set, metric, k and window, of its family or of all.

    The family POOLED takes every family. Of the checkpoints of one size the longest trained is
    taken. The result may be empty.
    """
    rows = points[(points["dataset"] == label.dataset) & (points["metric"] == label.metric)]
    rows = rows[rows["window"] == label.window]
    if label.k is not None:
        rows = rows[rows["k"] == label.k]
    if label.family is not POOLED:
        rows = rows[rows["family"] == label.family]
    rows = longest_trained(rows)
    return FitPoints(
        rows["size"].to_numpy(), rows["value"].to_numpy(), tuple(rows["model"]), rows["se_log"].to_numpy(),
        documents=rows["documents"].to_numpy(np.float64, na_value=np.nan),
    )  # fmt: skip
