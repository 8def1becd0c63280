"""What an exponent hangs on: single models, single documents, the rule for ties; and values that look misprinted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import special

from rbp_lab import metrics
from rbp_lab.fits.points import FitPoints
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import FEW_DOCUMENTS, FitResult
from rbp_lab.records import RunRecord


def document_influence(records: Sequence[RunRecord], k: int, size: str = "non_embedding_params") -> pd.DataFrame:
    """Change of the exponent α of −log RBP_k when one document is left out of every model, largest change first.

    Columns: document, shift (α without it − α with all). records: of one family on one data set; documents that some
    model lacks are left out. Documents without which some model would have RBP_k 0 or 1 have no shift and come first
    with a missing value, since everything hangs on them.
    """
    common = sorted(set.intersection(*(set(r.documents.document_id.tolist()) for r in records)))
    y = []
    for record in records:
        table = record.documents
        row = np.searchsorted(table.document_id, common)
        hit, n = table.hits(k), table.num_scored
        with np.errstate(divide="ignore", invalid="ignore"):  # nothing is left without the only document
            share = np.concatenate([[hit.sum() / n.sum()], (hit.sum() - hit[row]) / (n.sum() - n[row])])
            y.append(np.log(-np.log(share)))
    x = np.log([record.model.params.size(size) for record in records])
    dx = x - x.mean()
    with np.errstate(invalid="ignore"):
        alpha = -(dx @ np.array(y)) / float(dx @ dx)
    shift = np.where(np.isfinite(alpha[1:]), alpha[1:] - alpha[0], np.nan)
    names = [records[0].document_names[i] for i in common]
    table = pd.DataFrame({"document": names, "shift": shift})
    order = table["shift"].abs().fillna(np.inf).sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def few_documents(records: Sequence[RunRecord]) -> bool:
    """Whether some run has fewer than FEW_DOCUMENTS documents by the weight of their tokens."""
    return any(metrics.effective_documents(r.documents.num_scored) < FEW_DOCUMENTS for r in records)


def sensitivity_warnings(
    law: FitResult, records: Sequence[RunRecord], size: str = "non_embedding_params"
) -> tuple[str, ...]:
    """What runs show of a law: "few_documents", and for −log RBP_k "k_near_v", "tie_sensitive" and
    "one_document_dominates".

    records: of the law's models on its data set.
    """
    if not law.ok or not records:
        return ()
    found = ["few_documents"] if few_documents(records) else []
    if law.label.metric != "neg_log_rbp":
        return tuple(found)
    if 2 * law.label.k > min(record.stats.vocab_rows for record in records):
        found.append("k_near_v")
    low, high = law.intervals["alpha"]
    rbp = np.array([metrics.rbp(record.stats, law.label.k, "optimistic") for record in records])
    with np.errstate(divide="ignore"):
        sizes = np.array([record.model.params.size(size) for record in records])
        optimistic = fit_power(FitPoints(sizes, np.abs(np.log(rbp))))
    if not optimistic.ok or abs(optimistic.params["alpha"] - law.params["alpha"]) > 0.1 * (high - low):
        found.append("tie_sensitive")
    low, high = law.least_squares["alpha"]  # the full interval holds what single documents do
    shift = document_influence(records, law.label.k, size)["shift"]
    if len(shift) > 1 and (shift.isna().any() or shift.abs().max() > 0.5 * (high - low)):
        found.append("one_document_dominates")
    return tuple(found)


def carrying_documents(record: RunRecord, window: int, k: int, top: int = 5) -> pd.DataFrame:
    """The documents that carry p_{N,k}: name, share of all windows hit, hits, windows tried; largest share first.

    For large N a few repeated strings often make the whole point, and a reader should see which.
    """
    table = record.documents
    hit, tried = table.window_hits(window, k), table.windows(window)
    order = np.argsort(-hit, kind="stable")[:top]
    order = order[hit[order] > 0]
    names = [record.document_names[i] for i in table.document_id[order]]
    share = hit[order] / max(1, hit.sum())
    return pd.DataFrame({"document": names, "share": share, "hits": hit[order], "windows": tried[order]})


def leave_one_out(law: FitResult) -> pd.DataFrame:
    """The exponent of a power law without each of its models in turn, in the order of their sizes.

    Columns: model, size, residual_percent; alpha_without, shift (alpha_without − alpha); share_of_half, the shift in
    halves of the law's interval; outlier_p, the p-value of the model's distance from the line through the others
    (externally studentised residual, t(n−3)), times n since the farthest of n is looked for (Bonferroni); missing below
    n = 5, where it says nothing. Empty for a refused law.
    """
    columns = ["model", "size", "residual_percent", "alpha_without", "shift", "share_of_half", "outlier_p"]
    if not law.ok or law.form != "power":
        return pd.DataFrame(columns=columns)
    points, n = law.points, law.n
    x, y = np.log(points.x), np.log(points.value)
    dx = x - x.mean()
    residual = y - (law.params["log_a"] - law.params["alpha"] * x)
    leverage = 1 / n + dx**2 / float(dx @ dx)
    apart = leverage < 1 - 1e-9  # without the only model of another size there is no slope
    rest = np.where(apart, 1 - leverage, np.nan)
    shift = dx * residual / rest / float(dx @ dx)
    outlier = np.full(n, np.nan)
    if n >= 5:
        left = np.maximum(float(residual @ residual) - residual**2 / rest, 1e-24) / (n - 3)
        outlier = np.minimum(1.0, 2 * n * special.stdtr(n - 3, -np.abs(residual) / np.sqrt(left * rest)))
    low, high = law.intervals["alpha"]
    half = (high - low) / 2 or np.nan
    without = law.params["alpha"] + shift
    values = (points.names, points.x, 100 * np.expm1(residual), without, shift, shift / half, outlier)
    return pd.DataFrame(dict(zip(columns, values, strict=True)))


def odd_values(fits: Sequence[FitResult]) -> pd.DataFrame:
    """Values that stand out as a misprint would: columns model, quantity, value, expected, reason.

    fits: power laws of one family and data set, of all quantities. reason "off_the_line": farther from the line through
    the other models than chance allows at the 1 % level for the farthest (``leave_one_out``). reason "off_its_k": of
    quantities with k, whose errors are those of the same models and documents at the next k, so that a step from k to
    k runs along S smoothly: the model leaves this course at its k by more than eight times the typical amount, and by
    more than 2 %. expected: the value on the line, or on that course. Needs five models, and three k for the second.
    """
    rows = []
    for law in fits:
        table = leave_one_out(law)
        for r in table[table["outlier_p"] < 0.01].itertuples():
            value = float(law.points.value[r.Index])
            rows.append((r.model, law.label.quantity, value, value / (1 + r.residual_percent / 100), "off_the_line"))
    of_k: dict[tuple[str, int], list[FitResult]] = {}
    for law in fits:
        if law.ok and law.label.k is not None and law.n >= 5:
            of_k.setdefault((law.label.metric, law.label.window), []).append(law)
    for laws in of_k.values():
        rows += _off_their_k(sorted(laws, key=lambda law: law.label.k))
    return pd.DataFrame(rows, columns=["model", "quantity", "value", "expected", "reason"])


def _off_their_k(laws: list[FitResult]) -> list[tuple[str, str, float, float, str]]:
    laws = [law for law in laws if law.points.names == laws[0].points.names]
    if len(laws) < 3:
        return []
    log_k, x = np.log([law.label.k for law in laws]), np.log(laws[0].points.x)
    value = np.stack([np.log(law.points.value) for law in laws])  # [K,n]
    rows = []
    while True:
        away = np.stack([_from_course(x, value[k] - _from_neighbours(log_k, value, k)) for k in range(len(laws))])
        typical = 1.4826 * np.median(np.abs(away), axis=1, keepdims=True)  # the same amount for the normal, as its sd
        excess = np.abs(away) / np.maximum(8 * np.maximum(typical, np.median(typical)), 0.02)
        k, model = np.unravel_index(np.argmax(excess), excess.shape)
        if excess[k, model] <= 1 or len(rows) == len(x):
            return rows
        found, expected = np.exp(value[k, model]), np.exp(value[k, model] - away[k, model])
        rows.append((laws[k].points.names[model], laws[k].label.quantity, float(found), float(expected), "off_its_k"))
        value[k, model] -= away[k, model]  # its neighbours are compared with what was expected


def _from_neighbours(log_k: np.ndarray, value: np.ndarray, k: int) -> np.ndarray:
    """The rows beside row k [n], interpolated in ln k; the only one at an end."""
    if k in (0, len(value) - 1):
        return value[1 if k == 0 else -2]
    share = (log_k[k] - log_k[k - 1]) / (log_k[k + 1] - log_k[k - 1])
    return (1 - share) * value[k - 1] + share * value[k + 1]


def _from_course(x: np.ndarray, step: np.ndarray) -> np.ndarray:
    """step [n] − its line in x through medians (Theil and Sen), which one value cannot move."""
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] != x[first]
    slope = np.median((step[second] - step[first])[apart] / (x[second] - x[first])[apart]) if apart.any() else 0.0
    rest = step - slope * x
    return rest - np.median(rest)
