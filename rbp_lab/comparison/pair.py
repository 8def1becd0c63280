"""Two models over one vocabulary as they are scored together, wherever their hidden states come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from rbp_lab.comparison.job import PairIdentity, PairJob
from rbp_lab.comparison.sums import TokenPairs
from rbp_lab.data.windows import TokenBatch, WindowPlan
from rbp_lab.errors import LabError
from rbp_lab.measurement.devices import Runtime
from rbp_lab.measurement.instrument import InFormat, load_instrument
from rbp_lab.measurement.job import Identity
from rbp_lab.measurement.loop import NonFiniteScores, scored
from rbp_lab.models.pair_scorer import PairScorer, Side
from rbp_lab.models.row_probe import RowRules
from rbp_lab.models.weights import not_finite, why_not_finite
from rbp_lab.scoring.pairs import PairScores


@dataclass(frozen=True)
class Half:
    """One of the two models: what is scored of it, its rules for rows, and how it ran, as plain JSON for a record.

    why_not_finite: why its logits are not, as the rest of a sentence.
    """

    name: str
    side: Side
    rules: RowRules
    ran: Mapping[str, Any]
    why_not_finite: Callable[[], str]


class Pair:
    """Both models, and how their rows are scored. ran: that as plain JSON, for the record's provenance."""

    def __init__(self, a: Half, b: Half, ks: Sequence[int], perturbation: str | None = None, states: str = "memory"):
        """states: where those of a come from, of ``config.schemas.STATES``."""
        self._both, self._scorer = (a, b), PairScorer(a.side, b.side, ks, perturbation)
        self.rules = rules_of_both(a.rules, b.rules)
        self.ran = {"rows": vars(self.rules), "device": a.ran["device"], "implementation": self._scorer.implementation,
                    "states": states, "a": a.ran, "b": b.ran}  # fmt: skip

    def tokens(self, plan: WindowPlan, batch_tokens: int) -> Iterator[tuple[TokenBatch, TokenPairs]]:
        """Every batch of a plan with its scored tokens; LabError when a logit is not finite."""
        try:
            for batch, scores in scored(batches(plan, self.rules, batch_tokens), self._scorer):
                yield batch, token_pairs(batch, scores)
        except NonFiniteScores as error:
            why = dict.fromkeys(f"{one.name}: {one.why_not_finite()}" for one in self._both)
            raise LabError(f"models {' and '.join(why)}: {error}") from None


def rules_of_both(a: RowRules, b: RowRules) -> RowRules:
    """Under which the rows of both models may be computed."""
    return RowRules(a.padded and b.padded, a.together and b.together)


def batches(plan: WindowPlan, rules: RowRules, batch_tokens: int) -> Iterator[TokenBatch]:
    """The rows of a plan as the rules allow them to be computed."""
    return (plan if rules.padded else plan.unpadded()).batches(batch_tokens if rules.together else 1)


def load_half(
    identity: Identity, plan: WindowPlan, job: PairJob, runtime: Runtime, beside: Sequence[InFormat] = ()
) -> Half:
    """A model on this process's device, tried on rows of the plan; LabError when it cannot be compared in one pass.

    beside: as of ``load_instrument``.
    """
    name = identity.header.model.name
    loaded = load_instrument(identity.opened, identity.header.scoring, plan, job, runtime, beside)
    network = loaded.loaded.network
    if loaded.scorer.plan.kind != "head" and (why := not_finite(network)):
        raise LabError(f"model {name}: {why}")
    return Half(name, Side.of(name, loaded.scorer), loaded.rules, loaded.ran, partial(why_not_finite, network))


def load_pair(identity: PairIdentity, plan: WindowPlan, job: PairJob, runtime: Runtime) -> Pair:
    """Both models, side by side; the same one where both are to be the same. Errors as of ``load_half``."""
    a = load_half(identity.a, plan, job, runtime, identity.in_formats)
    b = a if identity.is_of_one else load_half(identity.b, plan, job, runtime, identity.in_formats)
    return Pair(a, b, identity.header.ks, identity.header.perturbation)


def token_pairs(batch: TokenBatch, scores: PairScores) -> TokenPairs:
    """The scored tokens of a batch as arrays."""
    a, b = scores.a, scores.b

    def both(name: str) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(getattr(a, name)), np.asarray(getattr(b, name))

    return TokenPairs(
        document=np.repeat(batch.document_id, batch.scored.sum(1)),
        nll=both("nll"),
        entropy=both("entropy"),
        rank=tuple(1 + np.asarray(s.num_greater) + np.asarray(s.num_equal) for s in (a, b)),
        confidence=(np.asarray(scores.confidence_a), np.asarray(scores.confidence_b)),
        kl=(np.asarray(scores.kl_ab), np.asarray(scores.kl_ba)),
        variation=np.asarray(scores.variation),
        agree=np.asarray(scores.agree),
        overlap=np.asarray(scores.overlap),
    )
