"""Points along trainings: which checkpoints take part in laws in tokens, why others do not, and the laws themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from rbp_lab.fits.documents import effects_by_dataset
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import FitResult
from rbp_lab.records import RunRecord
from rbp_lab.text import count

QUANTITY = ["metric", "window", "k"]


def training_of(model: str) -> str:
    """What the checkpoints of one training are called without their step: "pythia-14m" of "pythia-14m@step512".

    A mark of rounded weights stays: "pythia-14m+int8" of "pythia-14m@step512+int8".
    """
    return re.sub(r"@[^@+]+", "", model, count=1)


def checkpoints(points: pd.DataFrame, least_tokens: int = 0) -> pd.DataFrame:
    """One row per model and data set: dataset, family, training, model, size, training_tokens, left_out.

    left_out: why it takes no part in laws in tokens, "" when it does. Until the learning rate has reached its peak the
    value falls with the rate as well as with the tokens, so a warm-up is left out where it is known.
    """
    found = points.drop_duplicates(["dataset", "model"]).assign(training=lambda t: t["model"].map(training_of))
    return found.assign(left_out=[_why_left_out(r, least_tokens) for r in found.itertuples()])[
        ["dataset", "family", "training", "model", "size", "training_tokens", "left_out"]
    ].sort_values(["dataset", "family", "size", "training", "training_tokens"], ignore_index=True)


def _why_left_out(row: object, least_tokens: int) -> str:
    tokens, warmup = row.training_tokens, row.warmup_tokens
    if pd.isna(tokens):
        return "its training tokens are not known"
    if tokens == 0:
        return "it is not trained: a power of 0 tokens has no logarithm"
    if not pd.isna(warmup) and tokens < warmup:
        return f"warm-up: the learning rate reaches its peak at {count(warmup)} tokens only"
    return f"fewer than fit.least_tokens={count(least_tokens)}" if tokens < least_tokens else ""


def quantities(points: pd.DataFrame, left_out: pd.DataFrame) -> Iterator[tuple[str, str, Label, pd.DataFrame]]:
    """(data set, family, label, rows) of every quantity: the points of the checkpoints that take part, with "training".

    left_out: of ``checkpoints``.
    """
    part = left_out[left_out["left_out"] == ""].set_index(["dataset", "model"])["training"]
    keys = pd.MultiIndex.from_frame(points[["dataset", "model"]])
    rows = points.assign(training=part.reindex(keys).to_numpy()).dropna(subset=["training"])
    for (dataset, family, metric, window, k), mine in rows.groupby(["dataset", "family", *QUANTITY], dropna=False):
        label = Label(family, dataset, metric, None if pd.isna(k) else int(k), int(window))
        yield dataset, family, label, mine


def fit_along(
    points: pd.DataFrame, least_tokens: int = 0, confidence: float = 0.95, records: Sequence[RunRecord] = ()
) -> tuple[FitResult, ...]:
    """A power law of every quantity against training tokens, for each training by itself; refused fits among them.

    In the order of ``order``. Labels carry the training. records: the runs behind the points, when there are: intervals
    then count the errors of documents.
    """
    fits, effects = [], effects_by_dataset(records)
    for dataset, _, label, rows in quantities(points, checkpoints(points, least_tokens)):
        for training, mine in rows.groupby("training"):
            along = FitPoints(
                mine["training_tokens"].to_numpy(np.float64), mine["value"].to_numpy(), tuple(mine["model"]),
                mine["se_log"].to_numpy(), axis="D", documents=mine["documents"].to_numpy(np.float64, na_value=np.nan),
            )  # fmt: skip
            along = effects[dataset].with_errors(along, label) if dataset in effects else along
            fit = fit_power(along, replace(label, training=training), confidence)
            fits.append((order(label, mine["size"].iloc[0]), fit))
    return tuple(fit for _, fit in sorted(fits, key=lambda pair: pair[0]))


def order(label: Label, size: float = 0.0) -> tuple[object, ...]:
    """Sorts by data set, window, cross-entropy before k, k, family, size."""
    return label.dataset, label.window, label.k or 0, label.metric, label.family or "", size, label.training


def shown_of(fits: Sequence[FitResult], ks: Sequence[int]) -> list[FitResult]:
    """The fits of cross-entropy and of −log RBP_k at these k."""
    return [f for f in fits if f.label.window == 1 and (f.label.k is None or f.label.k in ks)]
