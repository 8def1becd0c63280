"""Whether a row's scores depend on the row alone, tried on rows of the measurement itself before it begins.

Padding rows to common widths and scoring them in batches assume that a model's logits do not depend on how long the
padded row is or on what else is in the batch. Some models break that: a position scaling that switches at a length,
relative positions counted over the padded row. Architectures are not named; four rows decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rbp_lab.data.windows import TokenBatch, WindowPlan
from rbp_lab.errors import LabError
from rbp_lab.scoring.types import TokenScores

# Mean of |Δ nll| in nats over a row that rounding may cause: this many times the machine epsilon of the weights, and no
# less than FLOOR, since kernels for other shapes add in another order.
ROUNDINGS, FLOOR = 4, 1e-4

DRAWS = "it draws random numbers in its forward pass; turn that off in its config"
REMEMBERS = (
    "it remembers the longest row so far (dynamic position scaling); choose dataset.protocol.max_tokens within the "
    "positions it was trained for"
)


@dataclass(frozen=True)
class RowRules:
    """How rows may be computed. padded: to common widths. together: several in a batch."""

    padded: bool = True
    together: bool = True

    def sentence(self) -> str:
        """What is restricted and why, as the rest of a sentence about the model; "" when nothing is."""
        why = [] if self.padded else ["on how far they are padded"]
        why += [] if self.together else ["on the rows beside them"]
        how = [] if self.padded else ["without padding"]
        how += [] if self.together else ["one at a time"]
        return f"gives rows scores that depend {' and '.join(why)}; they are computed {', '.join(how)}" if why else ""


def probe_rows(plan: WindowPlan, score: Callable[[TokenBatch], TokenScores], eps: float) -> RowRules:
    """Find the rules under which a row of ``plan`` has the same scores wherever it is computed.

    Scores the shortest row, the longest and two of lengths between, each by itself and then all in one padded batch.
    eps: machine epsilon of the coarsest weights. Raises LabError when a row scored by itself twice
    does not have the same scores: the model draws random numbers, or remembers what it computed before.
    """
    shortest, width = int(plan.length.min()), int(plan.length.max())
    wanted = [shortest + share * (width - shortest) for share in (0, 0.5, 0.75, 1)]
    rows = [int(np.argmin(np.abs(plan.length - length))) for length in wanted]
    tolerance = max(FLOOR, ROUNDINGS * eps)

    def alone(row: int, width: int) -> np.ndarray:
        return _nll(score, _padded(plan, [row], width))[0]

    def differ(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
        pairs = zip(some, others, strict=True)
        return any(len(a) and not np.abs(a - b).mean() <= tolerance for a, b in pairs)

    own = [alone(row, int(plan.length[row])) for row in rows]
    if any(np.isnan(nll).any() for nll in own):
        return RowRules()  # the loop names the document and the position
    if not differ(own, _nll(score, _padded(plan, rows, width))):
        return RowRules()
    again, once_more = ([alone(row, int(plan.length[row])) for row in rows[::-1]][::-1] for _ in range(2))
    if differ(own, again):  # in the other order: a longer row came before
        cause = DRAWS if differ(again, once_more) else REMEMBERS
        raise LabError(f"the model gives the same row other scores each time, so no record could be repeated: {cause}")
    padded = not differ(own, [alone(row, width) for row in rows])
    # Several rows in a batch, none of them padded: the longest is cut to the length of the one before it.
    length = int(plan.length[rows[-2]])
    together = not differ(own[-2:-1], _nll(score, _padded(plan, rows[-2:], length))[:1])
    return RowRules(padded, together)


def _padded(plan: WindowPlan, rows: list[int], width: int) -> TokenBatch:
    """A batch of ``rows``, each cut out of the plan and padded to ``width`` tokens, which hold all of them."""
    parts = [plan.batch(np.array([row])) for row in rows]

    def fit(values: np.ndarray, width: int) -> np.ndarray:
        return np.pad(values[:, :width], ((0, 0), (0, max(0, width - values.shape[1]))))

    return TokenBatch(
        tokens=np.concatenate([fit(b.tokens, width) for b in parts]),
        scored=np.concatenate([fit(b.scored, width - 1) for b in parts]),
        document_id=np.concatenate([b.document_id for b in parts]),
        num_bytes=np.concatenate([b.num_bytes for b in parts]),
    )


def _nll(score: Callable[[TokenBatch], TokenScores], batch: TokenBatch) -> list[np.ndarray]:
    """nll in nats of the scored positions of each row, float64."""
    nll = score(batch).nll.double().cpu().numpy()
    return np.split(nll, np.cumsum(batch.scored.sum(1))[:-1])
