"""From two loaded models and a batch to PairScores: both bodies, and one reading of both output layers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rbp_lab.data.windows import TokenBatch
from rbp_lab.errors import LabError
from rbp_lab.models.scorer import Scorer
from rbp_lab.scoring.pairs import PairScores, implementation, positions_at_once, score_pairs

NOISE = 2.0**-9  # relative, of bf16's rounding


@dataclass(frozen=True)
class PairScorer:
    """Scores batches with two models over one vocabulary, ``Scorer`` in all else.

    a, b: the models; b may be a itself. ks: of the overlap of first choices. perturbation: what b's states differ by
    from a's where they are one model, of ``comparison.record.PERTURBATIONS``. Raises LabError when the output layer of
    one is not understood, for then there are no hidden states that its logits follow from, and when they lie on several
    devices.
    """

    a: Scorer
    b: Scorer
    ks: Sequence[int]
    perturbation: str | None = None

    def __post_init__(self) -> None:
        for name, scorer in (("a", self.a), ("b", self.b)):
            if scorer.plan.kind != "head":
                raise LabError(
                    f"model {name} cannot be compared in one pass, because its output layer is not understood "
                    f"({scorer.plan.reason}); measure both models and compare the records: rbp-lab compare A B"
                )
        places = {str(scorer.head().weight.device) for scorer in (self.a, self.b)}
        if len(places) > 1 or "meta" in places:
            raise LabError(
                f"both models must lie on one device, side by side, but their output layers are on "
                f"{' and '.join(sorted(places)).replace('meta', 'a disk or another device')}; free memory, choose a "
                "smaller precision, or measure both models and compare the records: rbp-lab compare A B"
            )

    @property
    def implementation(self) -> str:
        """Of the comparison."""
        return implementation(torch.device(self.a.device).type)

    def __call__(self, batch: TokenBatch) -> PairScores:
        """Scores of the batch's scored positions in row-major order [n], on a's device and not yet checked."""
        tokens, scored = torch.from_numpy(batch.tokens), torch.from_numpy(batch.scored)
        kind = torch.device(self.a.device).type
        rows = len(tokens) if kind != "cpu" else 1  # of a forward pass, as in a measurement
        labels = tokens[:, 1:][scored]
        found: list[PairScores] = []
        waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
        with torch.inference_mode():
            for first in range(0, len(tokens), rows):
                at = slice(first, first + rows)
                waiting.append(self._states(tokens[at], scored[at]))
                states = tuple(torch.cat(one) for one in zip(*waiting, strict=True))
                heads = (self.a.head(), self.b.head())
                step, last = positions_at_once(kind, heads[0].candidates), at.stop >= len(tokens)
                ready = len(states[0]) if last else len(states[0]) // step * step
                if ready or (last and not found):
                    done = sum(len(scores.kl_ab) for scores in found)
                    targets = labels[done : done + ready].to(states[0].device)
                    now = tuple(one[:ready] for one in states)
                    found.append(score_pairs(now, heads, targets, self.ks, "auto", (self.a.logits, self.b.logits)))
                waiting = [tuple(one[ready:] for one in states)]
        return PairScores.join(found)

    def _states(self, tokens: torch.Tensor, scored: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states of the scored positions of some rows, of a and of b, on a's device."""
        own = self.a.states(tokens, scored)
        if self.perturbation == "noise":
            return own, own.float() * _noise(tokens, scored, own)
        if self.perturbation == "batch":
            return own, _in_company(self.a.states, tokens, scored)
        return own, self.b.states(tokens, scored).to(own.device)


def _noise(tokens: torch.Tensor, scored: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """1 + NOISE · u for every state, u uniform in [−1, 1], drawn for each row from its tokens alone."""
    parts = []
    for row, keep in zip(tokens, scored, strict=True):
        generator = torch.Generator().manual_seed(zlib.crc32(row.numpy().tobytes()))
        parts.append(torch.rand(int(keep.sum()), states.shape[1], generator=generator) * 2 - 1)
    return (1 + NOISE * torch.cat(parts)).to(states.device)


def _in_company(
    states: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], tokens: torch.Tensor, scored: torch.Tensor
) -> torch.Tensor:
    """The states of each row computed in a batch with itself reversed."""
    parts = []
    for row, keep in zip(tokens, scored, strict=True):
        parts.append(states(torch.stack([row, row.flip(0)]), torch.stack([keep, torch.zeros_like(keep)])))
    return torch.cat(parts)
