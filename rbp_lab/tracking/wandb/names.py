"""Stable names: what a run, its metrics and its artifacts are called, so that dashboards and ``source=wandb`` agree.

Every value is taken from statistics that are already there. ``rbp/K`` is RBP_k, ``p/N/K`` is p_{N,k}; bounds of the
95 % document-level interval append ``/lower`` and ``/upper``, the standard error of the law's value ``/se_log``.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from rbp_lab import metrics
from rbp_lab.records import ModelInfo, RunHeader, RunRecord
from rbp_lab.stats import RankStats

STEP = "tokens"  # the x-axis of every curve: tokens scored, or trained on
RANKS = "ranks"  # the histogram
RECORD = "record_digest"  # summary: which version of the record the numbers are of
MAX_BINS = 200  # W&B drops histograms of 512 bins and more
MEASURE, TRAIN, ANALYSIS, COMPARISON = "measure", "train", "analysis", "compare"  # job types
RECORD_TYPE, MODEL_TYPE, REPORT_TYPE, COMPARISON_TYPE = "rbp-record", "model", "rbp-analysis", "rbp-comparison"


def run_id(kind: str, key: str) -> str:
    """The W&B run of a result; the same result is the same run, however often it is made."""
    return f"{kind}-{key}"


def record_artifact(key: str) -> str:
    """Name of the artifact that holds a record's directory."""
    return f"record-{key}"


def model_artifact(name: str) -> str:
    """Name of the artifact that stands for a model: its card, not its weights."""
    return f"model-{safe(name)}"


def safe(name: str) -> str:
    """The name in the letters that W&B allows for an artifact."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in name)


def bin_edges(vocab_rows: int) -> np.ndarray:
    """Integer edges [≤ 201] of log-spaced bins over ranks 1…V; bin i holds the ranks edges[i] … edges[i+1] − 1."""
    return np.unique(np.rint(np.geomspace(1, vocab_rows + 1, MAX_BINS + 1)).astype(np.int64))


def binned(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts by rank (entry r − 1 is rank r) summed into bins; nothing is lost, the total stays."""
    return np.add.reduceat(counts, edges[:-1] - 1)


def histogram(counts: np.ndarray, edges: np.ndarray) -> dict[str, np.ndarray]:
    """Counts by rank as a histogram that a session logs: exact counts per bin."""
    return {"counts": binned(counts, edges), "edges": edges}


def record_config(header: RunHeader) -> dict[str, Any]:
    """What a dashboard filters by, and with the summary all that points need beyond the artifact."""
    model, dataset, scoring = header.model, header.dataset, header.scoring
    return {
        "key": header.key,
        "model": model.name,
        "family": model.family,
        "non_embedding_params": model.params.non_embedding,
        "total_params": model.params.total,
        "vocab_rows": model.vocab_rows,
        "architecture": model.architecture,
        "model_revision": model.revision,
        "model_fingerprint": model.fingerprint,
        "training_tokens": model.training_tokens,
        "training_step": model.step,
        "warmup_tokens": model.warmup_tokens,
        "quantisation": model.quantisation,
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "precision": scoring.dtype,
        "tf32": scoring.tf32,
        "logits": scoring.logits,
        "candidates": scoring.candidates,
        "attention": scoring.attention,
        "protocol": dict(scoring.protocol),
        "thresholds": list(scoring.thresholds),
        "windows": list(scoring.window_lengths),
    }


def totals(stats: RankStats) -> dict[str, Any]:
    """Corpus numbers without intervals, in the names of live and final values."""
    return {STEP: stats.num_tokens, "documents": stats.num_documents, "ties/rate": metrics.tie_rate(stats)}


def rbp_interval(name: str, estimate: metrics.Estimate | None) -> dict[str, float]:
    """Bounds of a probability from the estimate of its −log; {} when the data do not determine them."""
    if estimate is None:
        return {}
    return {f"{name}/lower": math.exp(-estimate.upper), f"{name}/upper": math.exp(-estimate.lower)}


def final_row(record: RunRecord) -> dict[str, Any]:
    """The last point of every live curve, of the whole corpus."""
    stats, documents = record.stats, record.documents
    row = totals(stats) | {"ce": metrics.cross_entropy(stats)}
    estimate = metrics.cross_entropy_estimate(documents)
    if estimate is not None:
        row |= {"ce/lower": estimate.lower, "ce/upper": estimate.upper}
    for k in record.scoring.thresholds:
        row[f"rbp/{k}"] = metrics.rbp(stats, k)
        row |= rbp_interval(f"rbp/{k}", metrics.neg_log_rbp(documents, k))
    return row


def record_summary(record: RunRecord) -> dict[str, Any]:
    """Every headline number of a finished record under its stable name; numbers only."""
    stats, documents, ks = record.stats, record.documents, record.scoring.thresholds
    parts = metrics.decomposition(stats)
    row = final_row(record) | {
        "perplexity": metrics.perplexity(stats),
        "bits_per_byte": metrics.bits_per_byte(stats),
        "predictive_entropy": metrics.predictive_entropy(stats),
        "entropy_gap": metrics.entropy_gap(stats),
        "error_entropy": parts.error_entropy,
        "self_alignment": parts.self_alignment,
        "confidence": parts.confidence,
        "ce/se_log": _se(metrics.cross_entropy_estimate(documents)),
        "seconds": record.provenance.get("seconds"),
    }
    for k in ks:
        row[f"rbp/{k}/se_log"] = _se(metrics.neg_log_rbp(documents, k))
        if row[f"rbp/{k}"] > 0:
            row[f"neg_log_rbp/{k}"] = abs(math.log(row[f"rbp/{k}"]))
        row[f"rbp_optimistic/{k}"] = metrics.rbp(stats, k, "optimistic")
    for length in record.scoring.window_lengths:
        if length > 1 and metrics.window_rbp(stats, length, 1) is not None:
            row[f"p/{length}/windows"] = int(documents.windows(length).sum())
            for k in ks:
                row[f"p/{length}/{k}"] = metrics.window_rbp(stats, length, k)
                row[f"p/{length}/{k}/se_log"] = _se(metrics.neg_log_window_rbp(documents, length, k))
    return {name: value for name, value in row.items() if value is not None}


def _se(estimate: metrics.Estimate | None) -> float | None:
    return None if estimate is None else estimate.se_log


def model_card(info: ModelInfo) -> dict[str, Any]:
    """What identifies a model, the same from its training and from its measurement; no path of a machine.

    Where in its training it stands is said by its tokens; step and warm-up are known to some sources only.
    """
    return {name: value for name, value in asdict(info).items() if name not in ("path", "step", "warmup_tokens")}
