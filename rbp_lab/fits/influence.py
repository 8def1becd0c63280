"""What an exponent hangs on: the rule for ties, and single documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rbp_lab import metrics
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import FEW_DOCUMENTS, FitPoints, FitResult
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
        share = np.concatenate([[hit.sum() / n.sum()], (hit.sum() - hit[row]) / (n.sum() - n[row])])
        with np.errstate(divide="ignore", invalid="ignore"):
            y.append(np.log(-np.log(share)))
    x = np.log(_sizes(records, size))
    dx = x - x.mean()
    with np.errstate(invalid="ignore"):
        alpha = -(dx @ np.array(y)) / float(dx @ dx)
    shift = np.where(np.isfinite(alpha[1:]), alpha[1:] - alpha[0], np.nan)
    names = [records[0].document_names[i] for i in common]
    table = pd.DataFrame({"document": names, "shift": shift})
    order = table["shift"].abs().fillna(np.inf).sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def _sizes(records: Sequence[RunRecord], size: str) -> np.ndarray:
    params = [record.model.params for record in records]
    return np.array([p.non_embedding if size == "non_embedding_params" else p.total for p in params], np.float64)


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
        optimistic = fit_power(FitPoints(_sizes(records, size), np.abs(np.log(rbp))))
    if not optimistic.ok or abs(optimistic.params["alpha"] - law.params["alpha"]) > 0.1 * (high - low):
        found.append("tie_sensitive")
    low, high = law.least_squares["alpha"]  # the full interval holds what single documents do
    shift = document_influence(records, law.label.k, size)["shift"]
    if len(shift) > 1 and (shift.isna().any() or shift.abs().max() > 0.5 * (high - low)):
        found.append("one_document_dominates")
    return tuple(found)
