"""Whether a row's scores depend on the row alone, tried on rows of the measurement itself before it begins.

Padding rows to common widths and scoring them in batches assume that a model's logits do not depend on how long the
padded row is or on what else is in the batch. Some models break that: a position scaling that switches at a length,
relative positions counted over the padded row. Architectures are not named; parts of one row decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rbp_lab.data.windows import TokenBatch, WindowPlan
from rbp_lab.errors import LabError
from rbp_lab.scoring.types import TokenScores

# Mean of |Δ nll| in nats over a row that rounding may cause: this many times the machine epsilon of the weights, and no
# less than FLOOR, since kernels for other shapes add in another order.
ROUNDINGS, FLOOR = 4, 1e-4
ENOUGH = 8  # tokens of a row whose scores show its positions

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

    Cuts the longest row at lengths that rows of the plan have. Each part must have the scores by itself, and in one
    padded batch with the others, that its tokens have in the whole row. eps: machine epsilon of the coarsest weights.
    Raises LabError when a part scored by itself twice does not have the same scores (the model draws random numbers,
    or remembers what it computed before), and when later tokens change the scores of earlier ones.
    """
    longest = int(np.argmax(plan.length))
    start, width = int(plan.start[longest]), int(plan.length[longest])
    lengths = _lengths(plan.length)
    # Rows of one length are never padded; a part of one still shows what later tokens do.
    cuts = lengths if len(lengths) > 1 else sorted({max(2, width // 2), width})
    tolerance = max(FLOOR, ROUNDINGS * eps)

    def scores(starts: list[int], lengths: list[int], width: int) -> list[np.ndarray]:
        return _nll(score, _batch(plan, starts, lengths, width))

    def by_itself(lengths: list[int]) -> list[np.ndarray]:
        return [scores([start], [length], length)[0] for length in lengths]

    def differ(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
        return any(not np.abs(a - b).mean() <= tolerance for a, b in zip(some, others, strict=True))

    own = by_itself(lengths)
    if not all(np.isfinite(nll).all() for nll in own):
        return RowRules()  # the loop names the document and the position
    in_whole, in_whole_cut = ([own[-1][: length - 1] for length in some] for some in (lengths, cuts))
    if not differ(own, in_whole) and not differ(scores([start] * len(cuts), cuts, width), in_whole_cut):
        return RowRules()
    again, once_more = (by_itself(lengths[::-1])[::-1] for _ in range(2))
    if differ(own, again):  # in the other order: a longer row came before
        cause = DRAWS if differ(again, once_more) else REMEMBERS
        raise LabError(f"the model gives the same row other scores each time, so no record could be repeated: {cause}")
    if differ([scores([start], [length], width)[0] for length in cuts], in_whole_cut):
        raise LabError(
            f"the model is not causal in rows of {width} tokens: later tokens change its predictions of earlier ones, "
            "so its ranks would mean nothing; use a decoder, or shorter rows (dataset.protocol.max_tokens)"
        )
    second = int(np.argsort(-plan.length, kind="stable")[min(1, len(plan) - 1)])
    shared = int(plan.length[second])
    beside = scores([start, int(plan.start[second])], [shared, shared], shared)[0]
    return RowRules(padded=not differ(own, in_whole), together=not differ(by_itself([shared]), [beside]))


def _lengths(length: np.ndarray) -> list[int]:
    """Some lengths that rows have, ascending: the shortest, the longest, some between.

    The shortest of at least ENOUGH tokens is among them: the first predictions hardly depend on positions.
    """
    shortest, longest = int(length.min()), int(length.max())
    wanted = [shortest + share * (longest - shortest) for share in (0, 0.5, 0.75, 1)]
    found = {int(length[np.argmin(np.abs(length - one))]) for one in wanted}
    return sorted(found | {int(length[length >= min(ENOUGH, longest)].min())})


def _batch(plan: WindowPlan, starts: list[int], lengths: list[int], width: int) -> TokenBatch:
    """Rows of ``lengths`` tokens that begin at ``starts``, padded to ``width``, with all of their tokens scored."""
    rows = np.arange(len(starts))
    parts = replace(
        plan, document_id=rows, start=np.array(starts), length=np.array(lengths), skip=np.zeros_like(rows),
        width=np.full_like(rows, width), mask_special=False,
    )  # fmt: skip
    return parts.batch(rows)


def _nll(score: Callable[[TokenBatch], TokenScores], batch: TokenBatch) -> list[np.ndarray]:
    """nll in nats of the scored positions of each row, float64."""
    nll = score(batch).nll.double().cpu().numpy()
    return np.split(nll, np.cumsum(batch.scored.sum(1))[:-1])
