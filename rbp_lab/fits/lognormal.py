"""The lognormal of ranks ([RBP] section 5.2, appendix D), fitted to (rank, count) pairs, with intervals over documents.

Two laws share the name, "pmf" and "rounded": ``fits.rank_laws`` has both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import log_ndtr, ndtr, stdtrit

from rbp_lab.errors import LabError
from rbp_lab.fits.rank_laws import Pmf, Rounded, log_density
from rbp_lab.stats import DocumentTable

MODELS = ("rounded", "pmf")
RIDGE_SIGMA = 30.0  # beyond this σ the law is a power law on any real vocabulary
BLOCKS = 64


@dataclass(frozen=True)
class LognormalFit:
    """One fitted lognormal of ranks.

    model, xmin, vocab: "rounded" or "pmf"; first rank of the fit; V, None where the law is not cut. n: tokens of rank
    ≥ xmin. mu, sigma: None when refused. ratio: μ/σ. se_mu, se_sigma, se_ratio: from blocks of documents when given,
    else None. intervals: of "mu", "sigma" and "ratio" at ``confidence``, t(blocks − 1). blocks: their number. theta:
    what was optimised. p1_fit, p1_observed: share of rank 1 (of xmin…, when xmin > 1 that of rank xmin). ks: largest
    distance between the cumulative shares, at rank ks_rank. log_likelihood: per token, nats. status: "ok", "ridge" (μ
    and σ run off together), "not_converged" or "refused", with a sentence.
    """

    model: str
    xmin: int
    vocab: int | None
    n: int
    status: str
    message: str
    mu: float | None = None
    sigma: float | None = None
    se_mu: float | None = None
    se_sigma: float | None = None
    se_ratio: float | None = None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    blocks: int | None = None
    confidence: float = 0.95
    theta: tuple[float, float] | None = None
    log_likelihood: float | None = None
    p1_fit: float | None = None
    p1_observed: float | None = None
    ks: float | None = None
    ks_rank: int | None = None
    iterations: int = 0

    @property
    def ratio(self) -> float | None:
        """μ/σ, which the paper scales against S."""
        return None if self.mu is None else self.mu / self.sigma

    def to_frame(self) -> pd.DataFrame:
        """One row with every field but theta; intervals as mu_low, mu_high and so on, missing where there are none."""
        row = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("theta", "intervals")}
        for name in ("mu", "sigma", "ratio"):
            row[f"{name}_low"], row[f"{name}_high"] = self.intervals.get(name, (None, None))
        return pd.DataFrame([row | {"ratio": self.ratio}])


def fit_lognormal(
    ranks: np.ndarray,
    counts: np.ndarray,
    model: str = "rounded",
    xmin: int = 2,
    vocab: int | None = None,
    block: np.ndarray | None = None,
    confidence: float = 0.95,
) -> LognormalFit:
    """μ and σ of the lognormal of ranks by maximum likelihood on (rank, count) pairs.

    ranks, counts: [m] integers from 1, any order; a rank may occur in several pairs. xmin: ranks below are left out
    (with xmin = 1 the rounded likelihood may run off to μ → −∞, and the fit then says "ridge"). vocab: V, where the law
    is cut; required for "pmf". block: document or block of each pair [m]; standard errors then come from the spread of
    the blocks' scores (sandwich), since tokens of a document are not independent, and intervals are Student's with
    blocks − 1 degrees of freedom; without it there are none.
    """
    if model not in MODELS:
        raise LabError(f"model must be one of {', '.join(MODELS)}; got {model!r}")
    if model == "pmf" and vocab is None:
        raise LabError("the pmf model is a sum over the vocabulary: give vocab")
    ranks, counts = np.asarray(ranks, np.int64), np.asarray(counts, np.int64)
    if len(ranks) and (ranks.min() < 1 or (vocab is not None and ranks.max() > vocab)):
        raise LabError(f"ranks must lie in 1…{vocab or '∞'}; got {ranks.min()}…{ranks.max()}")
    keep = (ranks >= xmin) & (counts > 0)
    if block is not None:
        block = np.unique(np.asarray(block)[keep], return_inverse=True)[1]
    ranks, counts = ranks[keep], counts[keep]
    distinct, of_pair = np.unique(ranks, return_inverse=True)
    weight = np.bincount(of_pair, weights=counts, minlength=len(distinct)) if len(distinct) else np.zeros(0)
    n = int(counts.sum())
    if len(distinct) < 3:
        why = f"a lognormal needs at least 3 distinct ranks from {xmin} on; got {len(distinct)}"
        return LognormalFit(model, xmin, vocab, n, "refused", why)
    law = Pmf(xmin, vocab) if model == "pmf" else Rounded(xmin, vocab)
    theta, iterations, converged = law.maximise(distinct, weight / n)
    log_p = law.log_prob(theta, distinct)
    shape = law.shape(theta)
    if shape is None:
        why = "the counts fall off more slowly than any lognormal (θ2 ≥ 0): it is a power law or heavier"
        return LognormalFit(model, xmin, vocab, n, "refused", why, theta=tuple(theta.tolist()), iterations=iterations)
    mu, sigma = shape
    gap_fit = np.abs(np.cumsum(weight / n) - law.cumulative(theta, distinct))
    gap_before = np.abs(np.concatenate([[0], np.cumsum(weight / n)[:-1]]) - law.cumulative(theta, distinct - 1))
    gap = np.maximum(gap_fit, gap_before)
    status, message = "ok", "fitted"
    if sigma > RIDGE_SIGMA:
        status, message = "ridge", f"σ = {sigma:.0f}: μ and σ run off together, the counts are those of a power law"
    elif not converged:
        status, message = "not_converged", f"no optimum after {iterations} iterations"
    errors, intervals, blocks = (None, None, None), {}, None
    if status == "ok" and block is not None and block.max() > 0:
        blocks = int(block.max()) + 1
        errors = _block_errors(law, theta, distinct, of_pair, counts, block)
        t = stdtrit(blocks - 1, 0.5 + confidence / 2)
        estimates = {"mu": mu, "sigma": sigma, "ratio": mu / sigma}
        intervals = {
            name: (value - t * se, value + t * se) for (name, value), se in zip(estimates.items(), errors, strict=True)
        }
    first = float(weight[0] / n) if distinct[0] == xmin else 0.0
    return LognormalFit(
        model, xmin, vocab, n, status, message, mu, sigma, *errors, intervals, blocks, confidence,
        tuple(theta.tolist()), float(weight @ log_p / n),
        float(np.exp(law.log_prob(theta, np.array([xmin]))[0])), first, float(gap.max()),
        int(distinct[gap.argmax()]), iterations,
    )  # fmt: skip


def rank_shares(fit: LognormalFit, vocab: int) -> np.ndarray:
    """Share of each rank 1…vocab among the tokens of rank ≥ xmin under a fitted law [vocab]; 0 below xmin.

    LabError when the fit was refused.
    """
    if fit.mu is None:
        raise LabError(f"there is no lognormal to draw: {fit.message}")
    law = Pmf(fit.xmin, fit.vocab) if fit.model == "pmf" else Rounded(fit.xmin, fit.vocab)
    last = vocab if fit.vocab is None else min(vocab, fit.vocab)
    shares = np.zeros(vocab)
    shares[fit.xmin - 1 : last] = np.exp(law.log_prob(np.array(fit.theta), np.arange(fit.xmin, last + 1)))
    return shares


def rank_bins(counts: np.ndarray, fit: LognormalFit) -> pd.DataFrame:
    """Tokens in bins of ranks that grow by a quarter of an octave, so that single counts far out do not hide the law.

    counts: tokens by rank 1…V [V]. Columns rank (the geometric middle of the bin), tokens (in the bin), share (of all
    tokens, per rank) and law (what the fit makes of it; NaN below xmin and for a refused fit). One row per bin.
    """
    edge = np.unique(np.round(2 ** np.arange(0, np.log2(len(counts) + 1) + 0.25, 0.25)).astype(int))
    edge = np.append(edge[edge <= len(counts)], len(counts) + 1)
    tokens, width = np.add.reduceat(counts, edge[:-1] - 1), np.diff(edge)
    rank, law = np.sqrt(edge[:-1] * (edge[1:] - 1)), np.full(len(width), np.nan)
    if fit.mu is not None:
        # the law is about ranks from xmin on, so it stands for their share of all tokens
        law = np.add.reduceat(rank_shares(fit, len(counts)), edge[:-1] - 1) / width * fit.n / counts.sum()
        law[rank < fit.xmin] = np.nan
    return pd.DataFrame({"rank": rank, "tokens": tokens, "share": tokens / width / counts.sum(), "law": law})


def rank_pairs(documents: DocumentTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ranks, counts, block) of a DocumentTable for ``fit_lognormal``; more than 64 documents become 64 blocks.

    Blocks are by a hash of the document id, so that they do not depend on the order of documents.
    """
    per_pair = np.repeat(documents.document_id, np.diff(documents.indptr))
    if len(documents) > BLOCKS:
        per_pair = (per_pair.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(58)  # 2**6 = 64 blocks
    return documents.rank, documents.count, per_pair


def _block_errors(
    law: Pmf | Rounded,
    theta: np.ndarray,
    distinct: np.ndarray,
    of_pair: np.ndarray,
    counts: np.ndarray,
    block: np.ndarray,
) -> tuple[float, float, float]:
    """Standard errors of μ, σ and μ/σ: sandwich over blocks, which is the delete-one-block jackknife to first order."""
    n = counts.sum()
    share = np.bincount(of_pair, weights=counts, minlength=len(distinct)) / n
    per_pair = law.scores(theta, distinct)[of_pair] * counts[:, None]
    blocks = int(block.max()) + 1
    total = np.stack([np.bincount(block, weights=per_pair[:, i], minlength=blocks) for i in range(2)], axis=1)
    bread = np.linalg.inv(law.information(theta, distinct, share)) / n
    covariance = blocks / (blocks - 1) * bread @ (total.T @ total) @ bread
    jacobian = law.shape_jacobian(theta)
    covariance = jacobian @ covariance @ jacobian.T
    mu, sigma = law.shape(theta)
    ratio = np.array([1 / sigma, -mu / sigma**2])
    return math.sqrt(covariance[0, 0]), math.sqrt(covariance[1, 1]), math.sqrt(ratio @ covariance @ ratio)


def neg_log_p1(mu: float, sigma: float) -> float:
    """−log p_1 of the pmf lognormal on 1…∞ in nats, c ≈ ψ(1)/2 + Φ(μ/σ) ([RBP] appendix D).

    In the form log(½ + σΦ(μ/σ)/φ(μ/σ)), which does not overflow for large −μ/σ.
    """
    a = mu / sigma
    return float(np.logaddexp(-math.log(2), math.log(sigma) + log_ndtr(a) - float(log_density(np.array(a)))))


def rank_entropy(mu: float, sigma: float) -> float:
    """−Σ p_k log p_k of the pmf lognormal on 1…∞ in nats, as [RBP] appendix D approximates it.

    The appendix calls it cross-entropy; it is the Shannon entropy of the rank law (the error entropy of [EE]).
    """
    log_c = neg_log_p1(mu, sigma) - math.log(math.sqrt(2 * math.pi) * sigma) - mu**2 / (2 * sigma**2)
    mass, density = ndtr(mu / sigma), math.exp(-((mu / sigma) ** 2) / 2) / math.sqrt(2 * math.pi)
    inner = mass * ((sigma**2 - mu**2) / (2 * sigma**2) + mu) + density * (sigma - mu / (2 * sigma))
    return float(math.log(math.sqrt(2 * math.pi) * sigma) + log_c + mu**2 / (2 * sigma**2) + inner / math.exp(log_c))
