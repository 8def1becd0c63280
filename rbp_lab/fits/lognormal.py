"""The lognormal of ranks ([RBP] section 5.2, appendix D), fitted to (rank, count) pairs.

Two laws share the name, and both are here:

* "pmf": p_k = ψ(k)/Σψ on k = xmin…V, ψ the lognormal density. A two-parameter exponential family in ln k and ln² k,
  log p_k = θ1·ln k + θ2·ln² k − log c with θ1 = μ/σ² − 1 and θ2 = −1/(2σ²): concave, solved by Newton's method.
* "rounded": the continuous lognormal rounded to integers, p_k ∝ Φ(z_{k+½}) − Φ(z_{k−½}), k ≥ xmin. What the powerlaw
  package fits with discrete=True, and with xmin = 2 what the paper published. Optimised over log(1/σ) and μ/σ², which
  stay finite on the ridge μ → −∞.

Written by hand because powerlaw takes expanded samples (slower) and gives no intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import optimize, stats
from scipy.special import log_ndtr

from rbp_lab.errors import LabError
from rbp_lab.stats import DocumentTable

MODELS = ("rounded", "pmf")
RIDGE_SIGMA = 30.0  # beyond this σ the law is a power law on any real vocabulary
BLOCKS = 64
NARROW = 64  # from this rank on, the cell [ln(k − ½), ln(k + ½)] is narrow enough for quadrature
GAUSS_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(3)
GAUSS_LOG_WEIGHTS = np.log(_WEIGHTS)


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
    law = _Pmf(xmin, vocab) if model == "pmf" else _Rounded(xmin, vocab)
    theta, iterations, converged = law.maximise(distinct, weight / n)
    log_p = law.log_prob(theta, distinct)
    shape = law.shape(theta)
    if shape is None:
        why = "the counts fall off slower than any lognormal (θ2 ≥ 0): it is a power law or heavier"
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
        t = stats.t.ppf(0.5 + confidence / 2, blocks - 1)
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
    law = _Pmf(fit.xmin, fit.vocab) if fit.model == "pmf" else _Rounded(fit.xmin, fit.vocab)
    last = vocab if fit.vocab is None else min(vocab, fit.vocab)
    shares = np.zeros(vocab)
    shares[fit.xmin - 1 : last] = np.exp(law.log_prob(np.array(fit.theta), np.arange(fit.xmin, last + 1)))
    return shares


def rank_pairs(documents: DocumentTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ranks, counts, block) of a DocumentTable for ``fit_lognormal``; more than 64 documents become 64 blocks.

    Blocks are by a hash of the document id, so that they do not depend on the order of documents.
    """
    per_pair = np.repeat(documents.document_id, np.diff(documents.indptr))
    if len(documents) > BLOCKS:
        per_pair = (per_pair.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(58)  # 2**6 = 64 blocks
    return documents.rank, documents.count, per_pair


class _Pmf:
    """p_k = ψ(k)/Σψ on xmin…V; θ = (θ1, θ2) of the exponential family."""

    def __init__(self, xmin: int, vocab: int) -> None:
        self.first = xmin
        self.x = np.log(np.arange(xmin, vocab + 1))
        self.powers = np.stack([self.x, self.x**2])

    def _moments(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """log c, mean [2] and covariance [2,2] of (ln k, ln² k)."""
        exponent = theta @ self.powers
        top = exponent.max()
        p = np.exp(exponent - top)
        total = p.sum()
        p /= total
        mean = self.powers @ p
        return top + math.log(total), mean, (self.powers * p) @ self.powers.T - np.outer(mean, mean)

    def maximise(self, ranks: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, int, bool]:
        x = np.log(ranks)
        target = np.array([share @ x, share @ x**2])
        theta = np.array([-1.0, -0.05])
        log_c, mean, covariance = self._moments(theta)
        loss = log_c - theta @ target
        for iteration in range(1, 101):
            step = np.linalg.pinv(covariance) @ (target - mean)
            for _ in range(50):  # the loss is convex: halving always ends
                log_c, mean, covariance = self._moments(theta + step)
                new = log_c - (theta + step) @ target
                if new <= loss + 1e-13 * abs(loss):
                    break
                step /= 2
            theta, loss = theta + step, new
            if np.abs(step).max() < 1e-9:
                return theta, iteration, True
        return theta, iteration, False

    def shape(self, theta: np.ndarray) -> tuple[float, float] | None:
        if theta[1] >= 0:
            return None
        variance = -0.5 / theta[1]
        return float((theta[0] + 1) * variance), math.sqrt(variance)

    def shape_jacobian(self, theta: np.ndarray) -> np.ndarray:
        """d(μ, σ)/dθ [2,2]."""
        variance = -0.5 / theta[1]
        d_variance = 0.5 / theta[1] ** 2
        return np.array([[variance, (theta[0] + 1) * d_variance], [0.0, d_variance / (2 * math.sqrt(variance))]])

    def log_prob(self, theta: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        x = np.log(ranks)
        return theta[0] * x + theta[1] * x**2 - self._moments(theta)[0]

    def cumulative(self, theta: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        p = np.cumsum(np.exp(theta @ self.powers - self._moments(theta)[0]))
        return np.concatenate([[0.0], p])[np.maximum(ranks - self.first + 1, 0)]

    def scores(self, theta: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """d log p_k / dθ [m,2]."""
        x = np.log(ranks)
        return np.stack([x, x**2], axis=1) - self._moments(theta)[1]

    def information(self, theta: np.ndarray, ranks: np.ndarray, share: np.ndarray) -> np.ndarray:
        return self._moments(theta)[2]


class _Rounded:
    """p_k ∝ Φ(z_{k+½}) − Φ(z_{k−½}), z_q = (ln q − μ)/σ; θ = (log 1/σ, μ/σ²)."""

    def __init__(self, xmin: int, vocab: int | None) -> None:
        self.low = np.log(np.array([xmin - 0.5]))
        self.high = None if vocab is None else np.log(np.array([vocab + 0.5]))

    @staticmethod
    def _z(theta: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z at q = ln(rank ± ½) [m] and dz/dθ [2,m]."""
        u = math.exp(theta[0])
        return q * u - theta[1] / u, np.stack([q * u + theta[1] / u, np.full(len(q), -1 / u)])

    def _interval(self, theta: np.ndarray, a: np.ndarray, b: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """log[Φ(z_b) − Φ(z_a)] [m] and its gradient [2,m]; b None stands for infinity."""
        za, da = self._z(theta, a)
        if b is None:
            log_p = log_ndtr(-za)
            return log_p, -np.exp(_log_density(za) - log_p) * da
        zb, db = self._z(theta, b)
        # in the upper tail differences of Φ cancel; by symmetry they can be taken in the lower one
        flip = za + zb > 0
        hi, lo = np.where(flip, -za, zb), np.where(flip, -zb, za)
        log_hi = log_ndtr(hi)
        log_p = log_hi + np.log(-np.expm1(np.minimum(log_ndtr(lo) - log_hi, -1e-300)))
        return log_p, np.exp(_log_density(zb) - log_p) * db - np.exp(_log_density(za) - log_p) * da

    @staticmethod
    def _cell(theta: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As ``_interval`` for narrow cells, by Gauss–Legendre in ln q: ten times faster, and exact to 1e-9."""
        u, v = math.exp(theta[0]), theta[1]
        node = (low + high) / 2 + GAUSS_NODES[:, None] * (high - low) / 2
        z = node * u - v / u
        log_density = _log_density(z) + GAUSS_LOG_WEIGHTS[:, None]
        top = log_density.max(axis=0)
        part = np.exp(log_density - top)
        total = part.sum(axis=0)
        pull = part / total * z
        gradient = np.stack([1 - (pull * (node * u + v / u)).sum(axis=0), pull.sum(axis=0) / u])
        return theta[0] + np.log((high - low) / 2 * total) + top, gradient

    def _log_prob(self, theta: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.log(ranks - 0.5), np.log(ranks + 0.5)
        cut = int(np.searchsorted(ranks, NARROW))  # ranks rise
        parts = self._interval(theta, low[:cut], high[:cut]), self._cell(theta, low[cut:], high[cut:])
        log_p, gradient = (np.concatenate(pair, axis=-1) for pair in zip(*parts, strict=True))
        log_total, total_gradient = self._interval(theta, self.low, self.high)
        return log_p - log_total, gradient - total_gradient

    def maximise(self, ranks: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, int, bool]:
        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            log_p, gradient = self._log_prob(theta, ranks)
            value = -float(share @ log_p)
            return (value, -(gradient @ share)) if math.isfinite(value) else (1e10, np.zeros(2))

        # ln of the ranks gives a first σ; the μ/σ² of published models lies between 0.1 and −0.5
        x = np.log(ranks)
        sigma = max(1.0, 1.6 * math.sqrt(float(share @ x**2 - (share @ x) ** 2)))
        bounds = [(-6.0, 4.0), (-40.0, 40.0)]
        found = optimize.minimize(
            loss, np.array([-math.log(sigma), -0.1]), jac=True, method="L-BFGS-B", bounds=bounds,
            options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 200},
        )  # fmt: skip
        theta, steps = found.x, int(found.nfev)
        for _ in range(6):  # Newton polish: quasi-Newton stops where the loss is flat to 1e-15, θ is not yet
            gradient = loss(theta)[1]
            step = -np.linalg.pinv(self.information(theta, ranks, share)) @ gradient
            steps += 1
            if not np.isfinite(step).all() or np.abs(step).max() > 1 or loss(theta + step)[0] > loss(theta)[0] + 1e-13:
                break
            theta = theta + step
            if np.abs(step).max() < 1e-10:
                break
        inside = all(low < t < high for t, (low, high) in zip(theta, bounds, strict=True))
        return theta, steps, inside and float(np.abs(loss(theta)[1]).max()) < 1e-6

    def shape(self, theta: np.ndarray) -> tuple[float, float]:
        sigma = math.exp(-theta[0])
        return float(theta[1] * sigma**2), sigma

    def shape_jacobian(self, theta: np.ndarray) -> np.ndarray:
        """d(μ, σ)/dθ [2,2]."""
        mu, sigma = self.shape(theta)
        return np.array([[-2 * mu, sigma**2], [-sigma, 0.0]])

    def log_prob(self, theta: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        return self._log_prob(theta, ranks)[0]

    def cumulative(self, theta: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        top = np.maximum(np.log(ranks + 0.5), self.low)
        inside = np.where(top > self.low, self._interval(theta, np.broadcast_to(self.low, top.shape), top)[0], -np.inf)
        return np.exp(inside - self._interval(theta, self.low, self.high)[0])

    def scores(self, theta: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """d log p_k / dθ [m,2]."""
        return self._log_prob(theta, ranks)[1].T

    def information(self, theta: np.ndarray, ranks: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Minus the second derivative of the log-likelihood per token [2,2], by central differences of the gradient."""
        out = np.empty((2, 2))
        for i in range(2):
            step = np.zeros(2)
            step[i] = 1e-5
            up, down = (self._log_prob(theta + s, ranks)[1] @ share for s in (step, -step))
            out[i] = -(up - down) / 2e-5
        return (out + out.T) / 2


def _log_density(z: np.ndarray) -> np.ndarray:
    return -0.5 * z**2 - 0.9189385332046727


def _block_errors(
    law: _Pmf | _Rounded,
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
    return float(np.logaddexp(-math.log(2), math.log(sigma) + log_ndtr(a) - float(_log_density(np.array(a)))))


def rank_entropy(mu: float, sigma: float) -> float:
    """−Σ p_k log p_k of the pmf lognormal on 1…∞ in nats, as [RBP] appendix D approximates it.

    The appendix calls it cross-entropy; it is the Shannon entropy of the rank law (the error entropy of [EE]).
    """
    log_c = neg_log_p1(mu, sigma) - math.log(math.sqrt(2 * math.pi) * sigma) - mu**2 / (2 * sigma**2)
    mass, density = stats.norm.cdf(mu / sigma), stats.norm.pdf(mu / sigma)
    inner = mass * ((sigma**2 - mu**2) / (2 * sigma**2) + mu) + density * (sigma - mu / (2 * sigma))
    return float(math.log(math.sqrt(2 * math.pi) * sigma) + log_c + mu**2 / (2 * sigma**2) + inner / math.exp(log_c))
