"""The two lognormal laws of ranks ([RBP] section 5.2, appendix D): their probabilities, gradients and optima.

* "pmf": p_k = ψ(k)/Σψ on k = xmin…V, ψ the lognormal density. A two-parameter exponential family in ln k and ln² k,
  log p_k = θ1·ln k + θ2·ln² k − log c with θ1 = μ/σ² − 1 and θ2 = −1/(2σ²): concave, solved by Newton's method.
* "rounded": the continuous lognormal rounded to integers, p_k ∝ Φ(z_{k+½}) − Φ(z_{k−½}), k ≥ xmin. What the powerlaw
  package fits with discrete=True, and with xmin = 2 what the paper published. Optimised over log(1/σ) and μ/σ², which
  stay finite on the ridge μ → −∞.

Both have the same methods. maximise(ranks, share): (θ [2], iterations, whether an optimum was found), of distinct
rising ranks; shape(θ): (μ, σ), None where θ is no lognormal; log_prob and cumulative: per rank [m], nats and shares;
scores: d log p_k / dθ [m,2]; information: minus the second derivative of the log-likelihood per token [2,2];
shape_jacobian: d(μ, σ)/dθ [2,2].

Written by hand because powerlaw takes expanded samples (slower) and gives no intervals. ``fits.lognormal`` fits them.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize
from scipy.special import log_ndtr

NARROW = 64  # from this rank on, the cell [ln(k − ½), ln(k + ½)] is narrow enough for quadrature
GAUSS_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(3)
GAUSS_LOG_WEIGHTS = np.log(_WEIGHTS)


class Pmf:
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


class Rounded:
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
            return log_p, -np.exp(log_density(za) - log_p) * da
        zb, db = self._z(theta, b)
        # in the upper tail differences of Φ cancel; by symmetry they can be taken in the lower one
        flip = za + zb > 0
        hi, lo = np.where(flip, -za, zb), np.where(flip, -zb, za)
        log_hi = log_ndtr(hi)
        log_p = log_hi + np.log(-np.expm1(np.minimum(log_ndtr(lo) - log_hi, -1e-300)))
        return log_p, np.exp(log_density(zb) - log_p) * db - np.exp(log_density(za) - log_p) * da

    @staticmethod
    def _cell(theta: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As ``_interval`` for narrow cells, by Gauss–Legendre in ln q: ten times faster, and exact to 1e-9."""
        u, v = math.exp(theta[0]), theta[1]
        node = (low + high) / 2 + GAUSS_NODES[:, None] * (high - low) / 2
        z = node * u - v / u
        log_part = log_density(z) + GAUSS_LOG_WEIGHTS[:, None]
        top = log_part.max(axis=0)
        part = np.exp(log_part - top)
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


def log_density(z: np.ndarray) -> np.ndarray:
    """ln of the standard normal density at z."""
    return -0.5 * z**2 - 0.9189385332046727
