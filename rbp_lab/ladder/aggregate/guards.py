"""What goes wrong when no label is seen: classes that share an output, outputs that stand for none, and their cure.

Legend: n instances, K classes and as many outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

# An output whose mean probability is below this share of its class's prior stands for no class.
EMPTY_SHARE = 0.35
# A reseeded output begins as its donor, apart from noise of this share of the donor's weights.
NOISE = 0.1


def empty_outputs(mass: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Outputs that stand for no class, as rising indices. mass: mean probability of each [K]; prior: of classes [K]."""
    return np.flatnonzero(mass < EMPTY_SHARE * prior)


@dataclass(frozen=True)
class Alignment:
    """Which output stands for which class.

    output: of each class [K]. margin: the least, over classes, of the mean probability of a class's own output minus
    that of the best other output, on labelled instances: 0 or less when a class has no output of its own. empty:
    outputs that stand for none.
    """

    output: tuple[int, ...]
    margin: float
    empty: tuple[int, ...]

    @property
    def merged(self) -> bool:
        """Whether classes share an output. The margin alone would miss a third of such models."""
        return self.margin <= 0 or bool(self.empty)


def align(probabilities: np.ndarray, labels: np.ndarray, mass: np.ndarray, prior: np.ndarray) -> Alignment:
    """The outputs of a model that knows classes only up to a permutation, matched to the classes of a few labels.

    probabilities [n, K] and labels [n] of the labelled instances; mass: mean probability of each output over all
    training instances [K]; prior: of the classes [K]. The match has the largest summed probability (Hungarian method).
    A class without a labelled instance takes the output that is left.
    """
    classes = len(prior)
    counts = np.bincount(labels, minlength=classes)
    mean = np.zeros((classes, classes))
    np.add.at(mean, labels, probabilities)
    mean /= np.maximum(counts, 1)[:, None]
    _, output = linear_sum_assignment(-mean)
    own = mean[np.arange(classes), output]
    others = mean.copy()
    others[np.arange(classes), output] = -np.inf
    margins = (own - others.max(1))[counts > 0]
    margin = float(margins.min()) if len(margins) else 0.0
    return Alignment(tuple(int(o) for o in output), margin, tuple(int(o) for o in empty_outputs(mass, prior)))


def reseed(
    weight: torch.Tensor, bias: torch.Tensor, mass: np.ndarray, prior: np.ndarray, generator: torch.Generator
) -> list[int]:
    """Let each empty output begin anew as half of the fullest one; returns the outputs that were changed.

    weight [features, K] and bias [K] of a member's output layer are changed in place.
    """
    mass, changed = mass.copy(), []
    for output in empty_outputs(mass, prior):
        donor = int(np.argmax(mass / prior))
        noise = torch.randn(weight.shape[0], generator=generator)
        weight[:, output] = weight[:, donor] + NOISE * weight[:, donor].std() * noise
        bias[output] = bias[donor]
        mass[donor] = mass[output] = (mass[donor] + mass[output]) / 2
        changed += [int(output), donor]
    return changed
