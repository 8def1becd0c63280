"""From two models and a batch to PairScores: both bodies, and one reading of both output layers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from rbp_lab.data.windows import TokenBatch
from rbp_lab.errors import LabError
from rbp_lab.models.scorer import Scorer
from rbp_lab.scoring.pairs import PairScores, held_bytes, implementation, positions_at_once, score_pairs
from rbp_lab.scoring.types import LMHead

GATHERED_BYTES = 2 << 20  # the most that hidden states of both models take which wait to be scored in one call
NOISE = 2.0**-9  # relative, of bf16's rounding
States = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Side:
    """What a comparison needs of one of its models.

    states: the hidden states [n,D] of the scored positions of some rows, tokens [B,T] and scored [B,T−1] on the host.
    head: the output layer that they enter. logits: as of ``score_tokens``. device: on which the model computes.
    """

    states: States
    head: LMHead
    logits: str
    device: str

    @classmethod
    def of(cls, name: str, scorer: Scorer) -> Side:
        """Take a loaded model, called ``name`` in errors. An output layer that is elsewhere between passes is copied.

        Raises LabError when it is not understood, for then there are no hidden states that the logits follow from.
        """
        if scorer.plan.kind != "head":
            raise LabError(
                f"model {name} cannot be compared in one pass, because its output layer is not understood "
                f"({scorer.plan.reason}); measure both models and compare the records: rbp-lab compare A B"
            )
        return cls(scorer.states, scorer.head(), scorer.logits, scorer.device)

    def on(self, device: torch.device) -> Side:
        """The same with states and output layer on a device."""
        if self.head.weight.device == device:
            return self
        return replace(
            self,
            head=self.head.map(lambda weights: weights.to(device)),
            states=lambda tokens, scored: self.states(tokens, scored).to(device),
        )


def passes(rows: int, *devices: str) -> Iterator[slice]:
    """The rows of a batch that have a forward pass together, as in a measurement: one on a CPU, else all."""
    step = 1 if any(torch.device(device).type == "cpu" for device in devices) else max(1, rows)
    return (slice(first, first + step) for first in range(0, rows, step))


class PairScorer:
    """Scores batches with two models over one vocabulary, ``Scorer`` in all else.

    a, b: the models; b may be a itself. Where their output layers are on different devices, those of b are used. ks: of
    the overlap of first choices. perturbation: what b's states differ by from a's where they are one model, of
    ``comparison.record.PERTURBATIONS``.
    """

    def __init__(self, a: Side, b: Side, ks: Sequence[int], perturbation: str | None = None):
        self._place = b.head.weight.device
        self._a, self._b, self._ks, self._perturbation = a.on(self._place), b, ks, perturbation

    @property
    def implementation(self) -> str:
        """What computes the scores of the two models, as records name it."""
        return implementation(self._place.type)

    def __call__(self, batch: TokenBatch) -> PairScores:
        """Scores of the batch's scored positions in row-major order [n], on a's device and not yet checked."""
        tokens, scored = torch.from_numpy(batch.tokens), torch.from_numpy(batch.scored)
        labels = tokens[:, 1:][scored]
        heads = (self._a.head, self._b.head)
        found: list[PairScores] = []
        waiting: list[tuple[torch.Tensor, torch.Tensor]] = []  # states of positions that are not scored yet
        with torch.inference_mode():
            for at in passes(len(tokens), self._a.device, self._b.device):
                waiting.append(self._states(tokens[at], scored[at]))
                count, last = sum(len(own) for own, _ in waiting), at.stop >= len(tokens)
                step = _positions_together(waiting[0], heads[0].candidates)
                if count < step and not last:
                    continue
                states = tuple(torch.cat(one) for one in zip(*waiting, strict=True))
                ready = count if last else count // step * step
                done = sum(len(scores.kl_ab) for scores in found)
                targets = labels[done : done + ready].to(self._place)
                now = tuple(one[:ready] for one in states)
                logits = (self._a.logits, self._b.logits)
                found.append(score_pairs(now, heads, targets, self._ks, "auto", logits))
                waiting = [tuple(one[ready:] for one in states)]
        return PairScores.join(found)

    def _states(self, tokens: torch.Tensor, scored: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states of the scored positions of some rows, of a and of b, where the output layers are."""
        own = self._a.states(tokens, scored)
        if self._perturbation == "noise":
            return own, own.float() * _noise(tokens, scored, own)
        if self._perturbation == "batch":
            return own, _in_company(self._a.states, tokens, scored)
        return own, self._b.states(tokens, scored).to(self._place)


def _positions_together(states: tuple[torch.Tensor, torch.Tensor], candidates: int) -> int:
    """Positions that are scored in one call, whole blocks of them: their states wait in the memory that held logits
    leave. Calls of one block each would cost small models more than a tenth."""
    device = states[0].device.type
    block, width = positions_at_once(device, candidates), sum(one.shape[-1] * one.element_size() for one in states)
    room = min(GATHERED_BYTES, held_bytes(device) - 8 * candidates * block)
    return max(1, room // (block * width)) * block


def _noise(tokens: torch.Tensor, scored: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """1 + NOISE · u for every state, u uniform in [−1, 1], drawn for each row from its tokens alone."""
    parts = []
    for row, keep in zip(tokens, scored, strict=True):
        generator = torch.Generator().manual_seed(zlib.crc32(row.numpy().tobytes()))
        parts.append(torch.rand(int(keep.sum()), states.shape[1], generator=generator) * 2 - 1)
    return (1 + NOISE * torch.cat(parts)).to(states.device)


def _in_company(states: States, tokens: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    """The states of each row computed in a batch with itself reversed."""
    parts = []
    for row, keep in zip(tokens, scored, strict=True):
        parts.append(states(torch.stack([row, row.flip(0)]), torch.stack([keep, torch.zeros_like(keep)])))
    return torch.cat(parts)
