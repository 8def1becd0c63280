"""The size and the training tokens that reach a value with the least compute (arXiv 2203.15556, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

LARGEST_LOG = 600.0  # e to that is a float still
OPERATIONS = 6.0  # of a parameter and token: two forwards, four backwards (arXiv 2001.08361, section 2.1)


@dataclass(frozen=True)
class Optimum:
    """size, tokens: N and D. operations: C = 6·N·D, without those of embedding and head when N is without them."""

    size: float
    tokens: float

    @property
    def operations(self) -> float:
        return OPERATIONS * self.size * self.tokens


UNREACHABLE = Optimum(math.nan, math.nan)


def optimum(params: Mapping[str, float], target: float) -> Optimum:
    """The N and D of least C with E + A·N^−a + B·D^−b = target; NaN when the target is not above E.

    With m = target − E, at the optimum a·A·N^−a = b·B·D^−b (the gradients of the value and of C are parallel in ln N
    and ln D), so A·N^−a = m·b/(a + b) and B·D^−b = m·a/(a + b).
    """
    a, b, rest = params["a"], params["b"], target - params.get("E", 0.0)
    if not rest > 0:
        return UNREACHABLE
    size = (math.log(params["A"]) + math.log((a + b) / (rest * b))) / a
    tokens = (math.log(params["B"]) + math.log((a + b) / (rest * a))) / b
    return _from_logs(size, tokens)


def best_for(params: Mapping[str, float], operations: float) -> Optimum:
    """The N and D of least value with 6·N·D = operations: N = G·(C/6)^(b/(a + b)), G = (a·A/(b·B))^(1/(a + b))."""
    a, b = params["a"], params["b"]
    share = math.log(operations / OPERATIONS)
    size = (math.log(a / b) + math.log(params["A"]) - math.log(params["B"]) + b * share) / (a + b)
    return _from_logs(size, share - size)


def _from_logs(size: float, tokens: float) -> Optimum:
    """The optimum at ln N and ln D; NaN for less than a parameter or a token, or no float: a flat power has none."""
    if min(size, tokens) < 0 or size + tokens > LARGEST_LOG:
        return UNREACHABLE
    return Optimum(math.exp(size), math.exp(tokens))
