"""What laws are fitted to: one entry per quantity, with its value, its standard error and its names in print."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rbp_lab import metrics
from rbp_lab.metrics import Estimate
from rbp_lab.stats import UNIT, DocumentTable, RankStats


@dataclass(frozen=True)
class Quantity:
    """A number of one run that is fitted against model size.

    name: in tables. value: (statistics, k, N) → number ≥ 0, +inf for the logarithm of 0, None where it does
    not exist. sums: (documents, k, N) → by document, the numerator and the denominator of the ratio of sums that it is
    (or is −log of), None where documents do not keep them. label, tex: in print and in TeX, with {k} and {N}. of_k,
    of_windows: whether it has a threshold k, a window length N. probability: the value is −log of one.
    """

    name: str
    label: str
    tex: str
    value: Callable[[RankStats, int | None, int], float | None]
    sums: Callable[[DocumentTable, int | None, int], tuple[np.ndarray, np.ndarray] | None]
    of_k: bool = False
    of_windows: bool = False
    probability: bool = False

    def over_documents(self, documents: DocumentTable, k: int | None, window: int) -> Estimate | None:
        """The value with its uncertainty over documents, None when unknown."""
        sums = self.sums(documents, k, window)
        return None if sums is None else metrics.ratio_estimate(*sums, scale=self._scale)

    def influence(self, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray | None:
        """What each document moves ln value by [M], from its ``sums`` (``metrics.ratio_influence``)."""
        return metrics.ratio_influence(numerator, denominator, scale=self._scale)

    @property
    def _scale(self) -> str:
        return "neg_log" if self.probability else "log"

    def printed(self, k: int | None, window: int = 1) -> str:
        """The quantity in print: "−log RBP_10"."""
        return self.label.format(k=k, N=window)

    def in_tex(self, k: int | None, window: int) -> str:
        """The quantity in TeX, without dollars."""
        return self.tex.format(k=k, N=window)


def neg_log(probability: float | None) -> float | None:
    """−log of a probability in nats: 0 for 1, +inf for 0, None for None."""
    if probability is None:
        return None
    return abs(math.log(probability)) if probability > 0 else math.inf


def _windows(documents: DocumentTable, k: int | None, window: int) -> tuple[np.ndarray, np.ndarray] | None:
    return (documents.window_hits(window, k), documents.windows(window)) if k in documents.thresholds else None


CE = Quantity(
    "ce", "CE", r"\mathrm{{CE}}",
    value=lambda stats, k, window: metrics.cross_entropy(stats),
    sums=lambda documents, k, window: (documents.nll_units * UNIT, documents.num_scored),
)  # fmt: skip
RBP = Quantity(
    "neg_log_rbp", "−log RBP_{k}", r"-\log\,\mathrm{{RBP}}_{{{k}}}", of_k=True, probability=True,
    value=lambda stats, k, window: neg_log(metrics.rbp(stats, k)),
    sums=lambda documents, k, window: (documents.hits(k), documents.num_scored),
)  # fmt: skip
WINDOW_RBP = Quantity(
    "neg_log_p", "−log p_{{{N},{k}}}", r"-\log\,p_{{{N},{k}}}", of_k=True, of_windows=True, probability=True,
    value=lambda stats, k, window: neg_log(metrics.window_rbp(stats, window, k)),
    sums=_windows,
)  # fmt: skip

QUANTITIES = {quantity.name: quantity for quantity in (CE, RBP, WINDOW_RBP)}
PER_TOKEN = tuple(quantity for quantity in QUANTITIES.values() if not quantity.of_windows)
