"""What documents do to a fitted law in size and tokens (``fits.tokens``), beside what trainings do.

Leaving out one training at a time shows what each training adds by itself, and with it what documents do to one
training alone. What documents do to all trainings alike leaves no trace there, so that it is added: the variance of a
number over documents, less what of it the trainings left out show already on average. Both are linear in what each
document moves ln value by (the delta method), with the weights of the loss at the solution.

Legend: n points, p free params, R trainings, G documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from rbp_lab.fits.gls import DocumentErrors, LineError

STEP = 1e-4  # of a param, for the slope of a number in it


@dataclass(frozen=True, eq=False)
class DocumentMoves:
    """What each document moves the params by, A and B on their logarithm.

    names: of the params that were free [p]. whole: moves of all points' fit [G,p]. without: of those without one
    training each [R,G,p]. ids, effective: as of ``DocumentErrors``.
    """

    names: tuple[str, ...]
    whole: np.ndarray
    without: np.ndarray
    ids: np.ndarray
    effective: float

    def of(self, gradient: Mapping[str, float]) -> DocumentMoves:
        """Moves of one number with this slope in each param."""
        slope = np.array([gradient.get(name, 0.0) for name in self.names])
        return replace(
            self, names=("",), whole=(self.whole @ slope)[:, None], without=(self.without @ slope)[..., None]
        )

    def minus(self, other: DocumentMoves) -> DocumentMoves | None:
        """Moves of a difference of two such numbers of the same trainings; None for other documents."""
        if not np.array_equal(self.ids, other.ids):
            return None
        whole, without = self.whole - other.whole, self.without - other.without
        return replace(self, whole=whole, without=without, effective=min(self.effective, other.effective))

    @property
    def variance(self) -> float:
        """What documents add, of one number, to the variance that the trainings left out show."""
        count = len(self.without)
        apart = self.without - self.without.mean(axis=0)
        shown = (count - 1) / count * float((apart**2).sum())
        return max(float((self.whole**2).sum()) - shown, 0.0)


def document_moves(
    errors: DocumentErrors, run: np.ndarray, slopes: Mapping[str, np.ndarray], weight: np.ndarray
) -> DocumentMoves:
    """What documents move the params by.

    errors: of documents in ln value of the points. run: their trainings [n]. slopes: of the fitted ln value in each
    free param [n]. weight: of each point in the loss [n].
    """
    jacobian = np.stack(list(slopes.values()), axis=1)

    def moves(keep: np.ndarray) -> np.ndarray:
        root = np.sqrt(weight[keep])
        return errors.values[:, keep] @ (np.linalg.pinv(jacobian[keep] * root[:, None]) * root).T

    without = np.stack([moves(run != r) for r in dict.fromkeys(run.tolist())])
    return DocumentMoves(tuple(slopes), moves(np.ones(len(run), bool)), without, errors.ids, errors.effective)


def slopes_of_value(
    params: Mapping[str, float], size: np.ndarray, tokens: np.ndarray, value: np.ndarray
) -> dict[str, np.ndarray]:
    """The slope of the fitted ln value in each param, A and B on their logarithm [n]; value: fitted."""
    slopes = {"E": 1 / value} if "E" in params else {}
    for amplitude, exponent, x in (("A", "a", size), ("B", "b", tokens)):
        if exponent in params:
            share = params[amplitude] * x ** -params[exponent] / value
            slopes |= {amplitude: share, exponent: -share * np.log(x)}
    return slopes


def slope_of(what: Callable[[Mapping[str, float]], float], params: Mapping[str, float]) -> dict[str, float]:
    """The slope of ln what(params) in each param, A and B on their logarithm."""
    slopes = {}
    for name, value in params.items():
        step = STEP * (1.0 if name in "AB" else max(abs(value), STEP))
        sides = [value * math.exp(side * step) if name in "AB" else value + side * step for side in (1, -1)]
        up, down = (math.log(what({**params, name: side})) for side in sides)
        slopes[name] = (up - down) / (2 * step)
    return slopes


def half_width(values: np.ndarray, moves: DocumentMoves | None, confidence: float) -> float:
    """Half of the interval of a number from its values without one training each [R], and its moves by documents."""
    count = len(values)
    trainings = (count - 1) / count * float(((values - values.mean()) ** 2).sum())
    documents, freedom = (0.0, math.nan) if moves is None else (moves.variance, max(moves.effective - 1, 1.0))
    error = LineError(np.array([[documents]]), np.array([[trainings]]), freedom, count - 1.0, 0.0)
    return error.half((1,), confidence)
