"""Synthetic families whose laws are known: documents that all models share, and scatter between models.

One draw is what an analysis sees of one quantity: sums over each document for each model. A document's difficulty moves
all models ("exchangeable" error: each by an amount of its own as well; "coherent": by an amount that runs along ln S,
which leaves no residual). Sums of hits are binomial around it, so models with few misses may have none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIZES = {
    4: np.array([85056000, 302311424, 708390400, 1475561600.0]),
    5: np.array([3.579e8, 1.3103e9, 2.7748e9, 6.5256e9, 13.2e9]),
    8: np.geomspace(1e6, 1e10, 8),
    10: np.array([1189888, 4739072, 18915328, 85056000, 302311424, 805736448, 1208602624, 2517652480, 6444163072,
                  11327027200.0]),
}  # fmt: skip
BETA = 0.8
# name → (exponent α, value at the centre of ln S); those of N windows follow −log p = value·N^BETA
LAWS = {"ce": (0.05, 3.0), "k1": (0.079, 0.75), "k10": (0.1, 0.35), "k100": (0.15, 0.08)}
WINDOWS = (2, 5)
TOKENS = 300  # of a typical document
RARE_ALPHA, RARE_MISSES = 0.3, 2.0  # misses expected in the largest model at a k near V
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class World:
    """A design. scatter: standard deviation of ln value between models. error: "coherent" or "exchangeable"."""

    documents: int
    models: int
    error: str
    scatter: float = 0.02

    @property
    def sizes(self) -> np.ndarray:
        return SIZES[self.models]

    @property
    def centred(self) -> np.ndarray:
        """ln S − its mean."""
        return np.log(self.sizes) - np.log(self.sizes).mean()


def draw(world: World, rng: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """One study in this world: by quantity, numerator and denominator by document and model [G,n]."""
    g, n, x = world.documents, world.models, world.centred
    tokens = np.maximum(np.exp(0.5 * rng.standard_normal(g)) * TOKENS, 20).astype(np.int64)
    across = x / np.abs(x).max()
    lift, tilt, own = (0.4, 0.25, 0.05) if world.error == "coherent" else (0.4, 0.0, 0.3)
    spread = np.sqrt(lift**2 + (tilt * across) ** 2 + own**2)  # of a document's difficulty, by model
    shared = rng.standard_normal((g, n + 2))

    def difficulty() -> np.ndarray:
        """Mostly common to the quantities, partly of each one's own [G,n]."""
        mixed = np.sqrt(0.7) * shared + np.sqrt(0.3) * rng.standard_normal((g, n + 2))
        return lift * mixed[:, :1] + tilt * mixed[:, 1:2] * across + own * mixed[:, 2:]

    common = rng.standard_normal(n)

    def value(alpha: float, level: float) -> np.ndarray:
        between = world.scatter * (np.sqrt(0.8) * common + np.sqrt(0.2) * rng.standard_normal(n))
        return level * np.exp(-alpha * x + between)

    def hits(rate: np.ndarray, trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        share = 1 / (1 + np.exp(_logit_of_mean(-np.expm1(-rate), spread) + difficulty()))  # of hits
        return rng.binomial(trials[:, None], share), np.broadcast_to(trials[:, None], share.shape)

    alpha, level = LAWS["ce"]
    ease = np.exp(0.3 * difficulty() - (0.3 * spread) ** 2 / 2)
    sums = {"ce": (tokens[:, None] * value(alpha, level) * ease, np.broadcast_to(tokens[:, None], (g, n)))}
    for name in ("k1", "k10", "k100"):
        sums[name] = hits(value(*LAWS[name]), tokens)
    for length in WINDOWS:  # windows overlap: as many tell as fit side by side
        alpha, level = LAWS["k10"]
        found, tried = hits(value(alpha, level * length**BETA), tokens // length)
        sums[f"N{length}"] = found * length, tried * length
    rare = RARE_MISSES / (TOKENS * 1.13 * g) * np.exp(-RARE_ALPHA * (x - x.max()))
    sums["rare"] = hits(rare * np.exp(world.scatter * rng.standard_normal(n)), tokens)
    return sums


def _logit_of_mean(miss: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """a [n] with E 1/(1 + exp(−a − spread·z)) = miss [n] for standard normal z, by Newton's method on the logit."""
    target = np.log(miss / (1 - miss))
    a = target.copy()
    for _ in range(6):
        p = 1 / (1 + np.exp(-a[:, None] - spread[:, None] * _NODES))
        mean = p @ _WEIGHTS
        slope = (p * (1 - p)) @ _WEIGHTS / (mean * (1 - mean))  # of the logit of the mean
        a += (target - np.log(mean / (1 - mean))) / slope
    return a
