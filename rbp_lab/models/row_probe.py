"""Whether a row's scores depend on the row alone, tried on rows of the measurement itself before it begins.

Padding rows to common widths and scoring them in batches assume that a model's logits do not depend on how long the
padded row is, on what else is in the batch, or on what was computed before. Some models break that: a position scaling
that switches at a length, relative positions counted over the padded row, an attention that a short row switches for
good. Architectures are not named; parts of one row decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rbp_lab.data.windows import TokenBatch, WindowPlan
from rbp_lab.errors import LabError
from rbp_lab.models.state import check_repeats
from rbp_lab.scoring.types import TokenScores

# Mean of |Δ nll| in nats over a row that rounding may cause: this many times the machine epsilon of weights and
# products, and no less than FLOOR, since kernels for other shapes add in another order.
ROUNDINGS, FLOOR = 4, 1e-4
ENOUGH = 8  # tokens of a row whose scores show its positions


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


def probe_rows(
    plan: WindowPlan, score: Callable[[TokenBatch], TokenScores], eps: float, reset: Callable[[], None] = lambda: None
) -> RowRules:
    """Find the rules under which a row of ``plan`` has the same scores wherever and whenever it is computed.

    Cuts the longest row at lengths that rows of the plan have. Each part must have the scores by itself, and in one
    padded batch with the others, that its tokens have in the whole row, and the same ones after all the others as
    before them. eps: machine epsilon of the coarsest numbers in a pass. reset: puts the model into the state in which
    it was loaded; it is also left so. Raises LabError when the same part does not have the same scores again (the
    model draws random numbers, or is changed by what it computes), and when later tokens change the scores of earlier
    ones.
    """
    try:
        return _rules(plan, score, max(FLOOR, ROUNDINGS * eps), reset)
    finally:
        reset()


def _rules(
    plan: WindowPlan, score: Callable[[TokenBatch], TokenScores], tolerance: float, reset: Callable[[], None]
) -> RowRules:
    longest = int(np.argmax(plan.length))
    start, length, width = int(plan.start[longest]), int(plan.length[longest]), int(plan.width.max())
    lengths = row_lengths(plan)
    # Rows of one length may never be padded; a part of one still shows what later tokens do.
    cuts = lengths if len(lengths) > 1 else sorted({max(2, length // 2), length})

    def kept(starts: list[int], lengths: list[int], width: int) -> list[np.ndarray]:
        return _nll(score, _batch(plan, starts, lengths, width))

    def scores(starts: list[int], lengths: list[int], width: int) -> list[np.ndarray]:
        reset()
        return kept(starts, lengths, width)

    def alone(lengths: list[int], width: int | None = None) -> list[np.ndarray]:
        return [scores([start], [one], width or one)[0] for one in lengths]

    def differ(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
        return not _distance(some, others) <= tolerance

    own = alone(lengths)
    if not all(np.isfinite(nll).all() for nll in own):
        return RowRules()  # the loop names the document and the position
    # Shorter rows after the longest, then the longest after them.
    *shorter, last = [kept([start], [one], one)[0] for one in (*lengths[::-1], length)]
    check_repeats(
        _distance([*own[::-1], own[-1]], [*shorter, last]),
        lambda: _distance([last], kept([start], [length], length)),
        tolerance,
    )
    padded = not differ(own, _beginnings(own[-1], lengths))
    together = True
    if not padded or differ(scores([start] * len(cuts), cuts, width), _beginnings(own[-1], cuts)):
        within = alone(cuts, length)
        if not all(np.isfinite(nll).all() for nll in within):
            return RowRules(padded=False, together=False)  # what pads a row overflows; the row by itself does not
        if differ(within, _beginnings(within[-1], cuts)):
            raise LabError(
                f"the model is not causal in rows of {length} tokens: later tokens change its predictions of earlier "
                "ones, so its ranks would mean nothing; use a decoder, or shorter rows (dataset.protocol.max_tokens)"
            )
        padded = padded and not differ([own[-1]], alone([length], width))
        second = int(np.argsort(-plan.length, kind="stable")[min(1, len(plan) - 1)])
        shared = int(plan.length[second])
        beside = scores([start, int(plan.start[second])], [shared, shared], shared)[0]
        together = not differ(alone([shared]), [beside])
    return RowRules(padded, together)


def _beginnings(nll: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
    """The scores of the first tokens of a row, for parts of ``lengths`` tokens: a token fewer is predicted."""
    return [nll[: length - 1] for length in lengths]


def _distance(some: list[np.ndarray], others: list[np.ndarray]) -> float:
    """The largest mean |Δ nll| in nats between rows; NaN when one is not finite."""
    return float(np.max([np.abs(a - b).mean() for a, b in zip(some, others, strict=True)]))


def row_lengths(plan: WindowPlan) -> list[int]:
    """Some lengths that rows have, ascending: the shortest, the longest, some between; none for a plan without rows.

    The shortest of at least ENOUGH tokens is among them: the first predictions hardly depend on positions.
    """
    length = plan.length
    shortest, longest = int(length.min()), int(length.max())
    wanted = [shortest + share * (longest - shortest) for share in (0, 0.5, 0.75, 1)]
    found = {int(length[np.argmin(np.abs(length - one))]) for one in wanted}
    return sorted(found | {int(length[length >= min(ENOUGH, longest)].min())})


def _batch(plan: WindowPlan, starts: list[int], lengths: list[int], width: int) -> TokenBatch:
    """Rows of ``lengths`` tokens that begin at ``starts``, padded to ``width``, with all of their tokens scored."""
    tokens = np.zeros((len(starts), width), np.int64)
    for row, start, length in zip(tokens, starts, lengths, strict=True):
        row[:length] = plan.tokens[start : start + length]
    scored = np.arange(1, width) < np.array(lengths)[:, None]
    rows = np.arange(len(starts))
    return TokenBatch(tokens, scored, rows, np.zeros_like(rows))


def _nll(score: Callable[[TokenBatch], TokenScores], batch: TokenBatch) -> list[np.ndarray]:
    """nll in nats of the scored positions of each row, float64."""
    nll = score(batch).nll.double().cpu().numpy()
    return np.split(nll, np.cumsum(batch.scored.sum(1))[:-1])
