"""The error-entropy split of cross-entropy ([EE] arXiv 2510.04067) over models, and how each part scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import integrate
from scipy.special import digamma, stdtrit

from rbp_lab import metrics
from rbp_lab.fits.documents import DocumentEffects
from rbp_lab.fits.gls import DocumentErrors
from rbp_lab.fits.lognormal import rank_pairs
from rbp_lab.fits.paired import ExponentDifference, exponent_difference
from rbp_lab.fits.points import POOLED, FitPoints, Label
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import FitResult
from rbp_lab.quantities import CE
from rbp_lab.records import RunRecord
from rbp_lab.stats import RankStats

PARTS = ("cross_entropy", "error_entropy", "self_alignment", "confidence")


def corrected_entropy(counts: np.ndarray) -> float:
    """Entropy of a distribution from counts of independent draws, nats (Chao, Wang and Jost 2013).

    The plug-in value −Σ p log p is low when many ranks were seen once or never. This one adds what the accumulation of
    new ranks implies: Σ n_r/n·(ψ(n) − ψ(n_r)) for the ranks seen, and a tail from those seen once and twice. counts:
    any shape, zeros allowed; 0 without counts.
    """
    counts = np.asarray(counts, np.float64)
    counts = counts[counts > 0]
    n = counts.sum()
    if n == 0:
        return 0.0
    once, twice = float((counts == 1).sum()), float((counts == 2).sum())
    seen = float((counts / n * (digamma(n) - digamma(counts))).sum())
    if once == 0 or n == 1:
        return seen
    again = 2 * twice / ((n - 1) * once + 2 * twice) if twice else 2 / ((n - 1) * (once - 1) + 2)
    if again >= 1:
        return seen
    # (once/n)·Σ_{j≥0} (1 − again)^{j+1}/(n + j) as an integral, since the sum has some n terms
    tail, _ = integrate.quad(lambda v: math.exp(-v) / (again - (1 - again) * math.expm1(-v / n)), 0, math.inf)
    return seen + once / n * (1 - again) / n * tail


def corrected_error_entropy(record: RunRecord, confidence: float = 0.95) -> tuple[float, float | None, float | None]:
    """(error entropy corrected for the bias of few tokens, low, high), nats; no interval with fewer than two documents.

    Tokens of a document come in bursts, which hide part of the bias from ``corrected_entropy``: what is left of it, and
    the standard error, come from the delete-one jackknife over blocks of documents, t(blocks − 1). Documents keep
    pessimistic ranks, so with ties both are those of the pessimistic ranks.
    """
    ranks, counts, block = rank_pairs(record.documents)
    value = corrected_entropy(record.stats.counts_optimistic)
    names, block = np.unique(block, return_inverse=True)
    blocks = len(names)
    if blocks < 2:
        return value, None, None
    total = np.bincount(ranks, counts)
    left = np.array([
        corrected_entropy(total - np.bincount(ranks[block == b], counts[block == b], len(total))) for b in range(blocks)
    ])  # fmt: skip
    value += (blocks - 1) * (corrected_entropy(total) - left.mean())
    se = math.sqrt((blocks - 1) / blocks * float(((left - left.mean()) ** 2).sum()))
    half = stdtrit(blocks - 1, 0.5 + confidence / 2) * se
    return value, value - half, value + half


def decomposition_table(
    records: Sequence[RunRecord], size: str = "non_embedding_params", confidence: float = 0.95
) -> pd.DataFrame:
    """One row per run: cross_entropy = error_entropy + self_alignment − confidence in nats, and what to know with it.

    identity_error: how exactly the three parts sum (floating point only). error_entropy_corrected: for few tokens;
    with _low and _high its interval over documents, missing for a single one.
    share_of_ce: EE/CE, which exceeds 1 for a calibrated model; share_of_parts: EE/(|EE| + |SA| + |Conf|).
    training_tokens: of checkpoints, missing when unknown.
    """
    rows = []
    for record in records:
        split = metrics.decomposition(record.stats)
        ce = metrics.cross_entropy(record.stats)
        corrected, low, high = corrected_error_entropy(record, confidence)
        parts = abs(split.error_entropy) + abs(split.self_alignment) + abs(split.confidence)
        rows.append({
            "model": record.model.name, "family": record.model.family, "dataset": record.dataset.name,
            "size": record.model.params.size(size),
            "training_tokens": record.model.training_tokens, "tokens": record.stats.num_tokens, "cross_entropy": ce,
            "error_entropy": split.error_entropy, "self_alignment": split.self_alignment,
            "confidence": split.confidence, "identity_error": abs(split.cross_entropy - ce),
            "error_entropy_corrected": corrected, "error_entropy_corrected_low": low,
            "error_entropy_corrected_high": high,
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


def part_scalings(
    table: pd.DataFrame,
    dataset: str,
    family: str | None,
    confidence: float = 0.95,
    effects: DocumentEffects | None = None,
) -> list[PartScaling]:
    """log|M| = c − α·log S for CE, EE, SA and Conf ([EE]), with R² and |α_M − α_CE|; family POOLED takes all.

    A part that changes sign between models has no power law in S: it is refused with a sentence. effects: of the
    documents of the data set's runs; they enter the intervals.
    """
    rows = table[table["dataset"] == dataset]
    if family is not POOLED:
        rows = rows[rows["family"] == family]
    laws = {}
    for part in PARTS:
        value = rows[part].to_numpy(np.float64)
        # a value of mixed signs is passed as it is, so that the fit refuses it
        value = np.abs(value) if (value >= 0).all() or (value <= 0).all() else value
        names = tuple(rows["model"])
        points = FitPoints(rows["size"].to_numpy(), value, names, errors=_part_errors(effects, part, names))
        laws[part] = fit_power(points, Label(family, dataset, part), confidence)
    return [PartScaling(part, law, exponent_difference(law, laws["cross_entropy"])) for part, law in laws.items()]


def _part_errors(effects: DocumentEffects | None, part: str, models: Sequence[str]) -> DocumentErrors | None:
    if effects is None:
        return None
    if part == "cross_entropy":
        return effects.of(Label(metric=CE.name), models)
    return getattr(effects, f"of_{part}")(models)


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
    """The rows of runs whose training tokens are known, in their order per model, without untrained ones."""
    trained = table[table["training_tokens"].fillna(0) > 0]
    return trained.sort_values(["family", "size", "training_tokens"])
