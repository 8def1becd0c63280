"""The error-entropy split of cross-entropy ([EE] arXiv 2510.04067) over models, and how each part scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rbp_lab import metrics
from rbp_lab.fits.paired import ExponentDifference, exponent_difference
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import POOLED, FitPoints, FitResult, Label
from rbp_lab.records import RunRecord
from rbp_lab.stats import RankStats

PARTS = ("cross_entropy", "error_entropy", "self_alignment", "confidence")


def corrected_entropy(counts: np.ndarray) -> float:
    """Entropy of a distribution from counts, nats, corrected for the bias of few tokens (Chao and Shen 2003).

    The plug-in value −Σ p log p is low when many ranks were seen once or never. This one scales shares by the coverage
    1 − f1/n and weighs each seen rank by the chance of having been seen. counts: any shape, zeros allowed; 0 without
    counts.
    """
    counts = np.asarray(counts, np.float64)
    counts = counts[counts > 0]
    n = counts.sum()
    if n == 0:
        return 0.0
    singles = float((counts == 1).sum())
    if singles == n:  # nothing was seen twice: the coverage would be zero
        singles -= 1
    p = counts / n * (1 - singles / n)
    return float(-(p * np.log(p) / -np.expm1(n * np.log1p(-np.minimum(p, 1 - 1e-15)))).sum())


def decomposition_table(records: Sequence[RunRecord], size: str = "non_embedding_params") -> pd.DataFrame:
    """One row per run: cross_entropy = error_entropy + self_alignment − confidence in nats, and what to know with it.

    identity_error: how exactly the three parts sum (floating point only). error_entropy_corrected: for few tokens.
    share_of_ce: EE/CE, which exceeds 1 for a calibrated model; share_of_parts: EE/(|EE| + |SA| + |Conf|).
    training_tokens: of checkpoints, missing when unknown.
    """
    rows = []
    for record in records:
        split, params = metrics.decomposition(record.stats), record.model.params
        ce = metrics.cross_entropy(record.stats)
        parts = abs(split.error_entropy) + abs(split.self_alignment) + abs(split.confidence)
        rows.append({
            "model": record.model.name, "family": record.model.family, "dataset": record.dataset.name,
            "size": float(params.non_embedding if size == "non_embedding_params" else params.total),
            "training_tokens": record.model.training_tokens, "tokens": record.stats.num_tokens, "cross_entropy": ce,
            "error_entropy": split.error_entropy, "self_alignment": split.self_alignment,
            "confidence": split.confidence, "identity_error": abs(split.cross_entropy - ce),
            "error_entropy_corrected": corrected_entropy(record.stats.counts_optimistic),
            "share_of_ce": split.error_entropy / ce, "share_of_parts": split.error_entropy / parts,
        })  # fmt: skip
    return pd.DataFrame(rows).astype({"training_tokens": "Int64"})


@dataclass(frozen=True, eq=False)
class PartScaling:
    """How one part scales: the power law of |part| in S, and α_part − α_CE over the same models."""

    part: str
    law: FitResult
    difference: ExponentDifference

    @property
    def distance(self) -> float | None:
        """|α_part − α_CE|, the score of [EE]; None when either law was refused."""
        return None if self.difference.difference is None else abs(self.difference.difference)

    def to_frame(self) -> pd.DataFrame:
        """One row: the law, the distance to cross-entropy's exponent, and its interval."""
        frame = self.law.to_frame()
        frame["alpha_minus_ce"] = self.difference.difference
        frame["alpha_minus_ce_low"], frame["alpha_minus_ce_high"] = self.difference.low, self.difference.high
        frame["distance"] = self.distance
        return frame


def part_scalings(table: pd.DataFrame, dataset: str, family: str | None, confidence: float = 0.95) -> list[PartScaling]:
    """log|M| = c − α·log S for CE, EE, SA and Conf ([EE]), with R² and |α_M − α_CE|; family POOLED takes all.

    A part that changes sign between models has no power law in S: it is refused with a sentence.
    """
    rows = table[table["dataset"] == dataset]
    if family is not POOLED:
        rows = rows[rows["family"] == family]
    laws = {}
    for part in PARTS:
        value = rows[part].to_numpy(np.float64)
        # a value of mixed signs is passed as it is, so that the fit refuses it
        value = np.abs(value) if (value >= 0).all() or (value <= 0).all() else value
        points = FitPoints(rows["size"].to_numpy(), value, tuple(rows["model"]))
        laws[part] = fit_power(points, Label(family, dataset, part), confidence)
    return [PartScaling(part, law, exponent_difference(law, laws["cross_entropy"])) for part, law in laws.items()]


def error_curves(stats: RankStats) -> pd.DataFrame:
    """The curves behind the split: e = optimistic rank − 1, p_e its share, q_e the model's normalised geometric mean.

    Only observed e. Σ p_e = Σ q_e = 1, and self_alignment = Σ p_e log(p_e/q_e).
    """
    seen = np.flatnonzero(stats.counts_optimistic)
    count = stats.counts_optimistic[seen]
    log_q = -stats.nll_sum[seen] / count
    log_q -= np.logaddexp.reduce(log_q)
    return pd.DataFrame({"e": seen, "p": count / count.sum(), "q": np.exp(log_q)})


def checkpoints(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of runs that carry a training step, in order of training tokens per model; empty when there are none."""
    return table.dropna(subset=["training_tokens"]).sort_values(["family", "size", "training_tokens"])
