"""Metrics: pure functions of RankStats (numbers) and of DocumentTable (their uncertainty).

A new metric is normally a few lines here, with no second forward pass. Logs are natural; "rank" is the pessimistic
rank unless a function says otherwise. Sources: [RBP] arXiv 2510.20387, [EE] arXiv 2510.04067.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rbp_lab.errors import LabError
from rbp_lab.stats import UNIT, DocumentTable, RankStats

TIES = ("pessimistic", "optimistic")


def _tokens(stats: RankStats) -> int:
    if not stats.num_tokens:
        raise LabError("no token was scored: every position was padding or special; check the dataset and its protocol")
    return stats.num_tokens


def check_threshold(k: int) -> int:
    """``k`` itself when it is a rank threshold (an integer ≥ 1); LabError otherwise."""
    if isinstance(k, bool) or int(k) != k or k < 1:
        raise LabError(f"a rank threshold k must be an integer of at least 1; got {k!r}")
    return int(k)


def rbp(stats: RankStats, k: int, ties: str = "pessimistic") -> float:
    """RBP_k = Pr(rank ≤ k), in [0, 1] ([RBP] eq. 3); chance level k/V; 1 for k ≥ V.

    ties: "pessimistic" counts candidates tied with the target ahead of it, "optimistic" behind it.
    """
    if ties not in TIES:
        raise LabError(f"ties must be one of {', '.join(TIES)}; got {ties!r}")
    return float(stats.hits(check_threshold(k), ties) / _tokens(stats))


def cross_entropy(stats: RankStats) -> float:
    """Mean nll in nats per token."""
    return float(int(stats.nll_units.sum()) * UNIT / _tokens(stats))


def perplexity(stats: RankStats) -> float:
    """exp(cross-entropy)."""
    return float(np.exp(cross_entropy(stats)))


def bits_per_byte(stats: RankStats) -> float | None:
    """Σ nll in bits over the bytes of the scored text; None when the tokenizer gives no offsets."""
    return float(stats.nll_sum.sum() / np.log(2) / stats.num_bytes) if stats.num_bytes else None


def predictive_entropy(stats: RankStats) -> float:
    """Mean entropy −Σ p log p of the predictive distribution, nats per token."""
    return stats.entropy_units * UNIT / _tokens(stats)


def entropy_gap(stats: RankStats) -> float:
    """Mean predictive entropy − cross-entropy, nats; 0 for a calibrated model (teacher-forced, arXiv 2511.11966)."""
    return predictive_entropy(stats) - cross_entropy(stats)


def tie_rate(stats: RankStats) -> float:
    """Share of tokens whose target's logit is tied with another candidate's."""
    return stats.num_tied / _tokens(stats)


def window_rbp(stats: RankStats, length: int, k: int) -> float | None:
    """p_{N,k}: share of windows of N = ``length`` scored tokens whose ranks are all ≤ k ([RBP] section 5.1).

    None when no document is that long; LabError when N was not recorded.
    """
    if length not in stats.window_lengths:
        raise LabError(f"windows of {length} tokens were not recorded; recorded are {list(stats.window_lengths)}")
    histogram = stats.window_max[stats.window_lengths.index(length)]
    total = int(histogram.sum())
    return float(histogram[: check_threshold(k)].sum() / total) if total else None


@dataclass(frozen=True)
class Decomposition:
    """Cross-entropy = error_entropy + self_alignment − confidence, nats ([EE] section 3); exact by construction."""

    error_entropy: float
    self_alignment: float
    confidence: float

    @property
    def cross_entropy(self) -> float:
        return self.error_entropy + self.self_alignment - self.confidence


def decomposition(stats: RankStats) -> Decomposition:
    """The three-way split of cross-entropy by rank-based error e = optimistic rank − 1 ([EE] section 3).

    p_e is the share of tokens with error e, Q_e the geometric mean of p(target) over them, C = Σ Q_e over observed
    e, q_e = Q_e/C: error_entropy = −Σ p log p, self_alignment = Σ p log(p/q) ≥ 0, confidence = log C. The plug-in
    error entropy is biased low for few tokens.
    """
    n = _tokens(stats)
    seen = stats.counts_optimistic > 0
    count = stats.counts_optimistic[seen]
    log_p = np.log(count / n)
    log_q = -stats.nll_sum[seen] / count
    confidence = float(np.logaddexp.reduce(log_q))
    p = count / n
    return Decomposition(
        error_entropy=float(-(p * log_p).sum()),
        self_alignment=float((p * (log_p - log_q + confidence)).sum()),
        confidence=confidence,
    )


@dataclass(frozen=True)
class Estimate:
    """A corpus number with its document-level uncertainty.

    value; lower and upper of the ``level`` interval; se_log, standard error of log(value); design_effect, variance
    over that of independent tokens (None where it has no meaning); documents, the number of units resampled.
    """

    value: float
    lower: float
    upper: float
    se_log: float
    design_effect: float | None
    documents: int
    level: float


def effective_documents(num_scored: np.ndarray) -> float:
    """Number of equally long documents of the same weight, (Σn)²/Σn² of their scored tokens [M]; 0 for none."""
    n = np.asarray(num_scored, dtype=np.float64)
    return float(n.sum() ** 2 / (n**2).sum()) if n.any() else 0.0


def ratio_estimate(
    numerator: np.ndarray, denominator: np.ndarray, level: float = 0.95, scale: str = "log"
) -> Estimate | None:
    """Σ numerator / Σ denominator over documents (one entry each) with a document-level interval.

    Linearised ratio estimator, Student t with documents − 1 degrees of freedom. scale: "log" builds the interval on
    log(value) (values > 0, such as cross-entropy); "neg_log" takes the ratio as a probability p, returns −log p and
    builds the interval on log(−log p), the scale on which the laws are fitted. None when the scale is undefined
    (fewer than two documents, p = 0 or p = 1, a zero value): these data have no interval.
    """
    keep = denominator > 0
    x, n = numerator[keep].astype(np.float64), denominator[keep].astype(np.float64)
    if len(n) < 2 or x.sum() <= 0:
        return None
    from scipy.special import stdtrit  # a tenth of a second, which the numbers alone do without

    ratio = x.sum() / n.sum()
    variance = len(n) / (len(n) - 1) * ((x - ratio * n) ** 2).sum() / n.sum() ** 2
    t = stdtrit(len(n) - 1, 0.5 + level / 2)
    if scale == "log":
        value, se_log, effect = ratio, np.sqrt(variance) / ratio, None
    elif ratio < 1:
        value = -np.log(ratio)
        se_log = np.sqrt(variance) / (ratio * value)
        effect = float(variance / (ratio * (1 - ratio) / n.sum()))
    else:
        return None
    bounds = value * np.exp(np.array([-t, t]) * se_log)
    return Estimate(float(value), float(bounds[0]), float(bounds[1]), float(se_log), effect, len(n), level)


def ratio_deviation(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray | None:
    """What each document moves Σ numerator / Σ denominator by [M]; the squares sum to the variance of the ratio.

    Delete-one jackknife over documents, so that one that holds much of the text counts for more than it does in
    ``ratio_estimate``. None with fewer than two documents.
    """
    x, n = numerator.astype(np.float64), denominator.astype(np.float64)
    total, kept = n.sum(), int((n > 0).sum())
    if kept < 2:
        return None
    return (x - x.sum() / total * n) / (total - n) * np.sqrt((kept - 1) / kept)


def ratio_influence(numerator: np.ndarray, denominator: np.ndarray, scale: str = "log") -> np.ndarray | None:
    """``ratio_deviation`` of the logarithm of ``ratio_estimate``'s value [M]; None where the scale is undefined."""
    moved = ratio_deviation(numerator, denominator)
    if moved is None or numerator.sum() <= 0:
        return None
    ratio = float(numerator.sum() / denominator.sum())
    if scale == "log":
        return moved / ratio
    return moved / (ratio * np.log(ratio)) if ratio < 1 else None


def neg_log_rbp(documents: DocumentTable, k: int) -> Estimate | None:
    """−log RBP_k in nats with its document-level interval; None when RBP_k is 0 or 1, or documents are too few."""
    return ratio_estimate(documents.hits(check_threshold(k)), documents.num_scored, scale="neg_log")


def neg_log_window_rbp(documents: DocumentTable, length: int, k: int) -> Estimate | None:
    """−log p_{N,k} in nats with its document-level interval; k must be one of the table's thresholds."""
    return ratio_estimate(documents.window_hits(length, k), documents.windows(length), scale="neg_log")


def cross_entropy_estimate(documents: DocumentTable) -> Estimate | None:
    """Cross-entropy in nats per token with its document-level interval."""
    return ratio_estimate(documents.nll_units * UNIT, documents.num_scored)


def bits_per_byte_estimate(documents: DocumentTable, level: float = 0.95) -> Estimate | None:
    """Bits per byte of the scored text with its document-level interval; None also when bytes are not known."""
    return ratio_estimate(documents.nll_units * (UNIT / np.log(2)), documents.num_bytes, level)


def summary(stats: RankStats, thresholds: tuple[int, ...]) -> dict[str, object]:
    """Headline numbers for a reader: plain JSON; ``rbp`` maps k to [pessimistic, optimistic]."""
    parts = decomposition(stats)
    return {
        "num_tokens": stats.num_tokens,
        "num_documents": stats.num_documents,
        "cross_entropy": cross_entropy(stats),
        "bits_per_byte": bits_per_byte(stats),
        "predictive_entropy": predictive_entropy(stats),
        "entropy_gap": entropy_gap(stats),
        "error_entropy": parts.error_entropy,
        "self_alignment": parts.self_alignment,
        "confidence": parts.confidence,
        "tie_rate": tie_rate(stats),
        "rbp": {str(k): [rbp(stats, k), rbp(stats, k, "optimistic")] for k in thresholds},
    }
