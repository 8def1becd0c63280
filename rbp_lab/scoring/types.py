"""The two values of scoring: what goes in (LMHead) and what comes out (TokenScores).

Legend: n scored positions (any leading shape), V vocabulary rows of the head, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch


@dataclass(frozen=True, eq=False)
class LMHead:
    """A linear output layer and what follows it: logits = cap(scale · (hidden · weightᵀ + bias)).

    weight: [V,D]. bias: [V] or None. scale: factor on the logits (Cohere, Granite). softcap: c in c·tanh(z/c)
    (Gemma-2), None for none. num_candidates: rows that compete for a rank, counted from row 0; None for all V
    (fewer masks the padded rows of a vocabulary).
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    num_candidates: int | None = None

    @property
    def candidates(self) -> int:
        return self.weight.shape[0] if self.num_candidates is None else self.num_candidates

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> LMHead:
        """The layer with ``change`` applied to its weight and bias."""
        return replace(self, weight=change(self.weight), bias=None if self.bias is None else change(self.bias))

    def transform(self, logits: torch.Tensor) -> torch.Tensor:
        """Scale and soft-cap applied to raw logits (in place where it can)."""
        if self.scale != 1.0:
            logits = logits.mul_(self.scale)
        if self.softcap is not None:
            logits = logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Scores of positions, each in the shape of the targets they belong to.

    nll: logsumexp(z) − z_t in nats, float32. num_greater, num_equal: candidates v ≠ t with z_v > z_t and z_v = z_t,
    int32 (the target is left out by its index, never by its value). entropy: −Σ p log p in nats, float32.
    A position one of whose logits is NaN or infinite has nll NaN until ``check_finite`` turns it into an error.
    surely_greater, maybe_greater: None, or the certified bracket of num_greater in exact arithmetic, int32: candidates
    v ≠ t with z_v > z_t + δ and with z_v ≥ z_t − δ, where δ bounds the rounding of the difference of two logits.
    """

    nll: torch.Tensor
    num_greater: torch.Tensor
    num_equal: torch.Tensor
    entropy: torch.Tensor
    surely_greater: torch.Tensor | None = None
    maybe_greater: torch.Tensor | None = None

    @classmethod
    def of(cls, nll: torch.Tensor, entropy: torch.Tensor, counts: Sequence[torch.Tensor]) -> TokenScores:
        """The scores from their parts, with the mark of non-finite logits: whatever spoils an entropy spoils the nll.

        counts: num_greater, num_equal and, or not, the two of the bracket.
        """
        greater, equal, *bracket = counts
        fine = torch.isfinite(nll) & torch.isfinite(entropy)
        return cls(torch.where(fine, nll, torch.nan), greater, equal, entropy.clamp(min=0.0), *bracket)

    @property
    def device(self) -> torch.device:
        return self.nll.device

    def check_finite(self) -> None:
        """See ``check_finite``."""
        check_finite(self)

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> TokenScores:
        """The scores with ``change`` applied to each of their tensors."""
        return TokenScores(*(None if value is None else change(value) for value in self._values()))

    @staticmethod
    def join(parts: Sequence[TokenScores]) -> TokenScores:
        """The scores of several runs of positions, one after the other (each [n_i])."""
        columns = zip(*(part._values() for part in parts), strict=True)
        return TokenScores(*(None if column[0] is None else torch.cat(column) for column in columns))

    def _values(self) -> list[torch.Tensor | None]:
        return [getattr(self, field.name) for field in fields(self)]


class NonFiniteLogits(ValueError):
    """A logit is NaN or infinite. ``index``: the first position, in the flattened order of the targets."""

    def __init__(self, index: int):
        super().__init__(f"non-finite logits at scored position {index}")
        self.index = index


def check_finite(scores: TokenScores) -> TokenScores:
    """The scores themselves; NonFiniteLogits with the first marked position when there is one. Waits for the device."""
    bad = torch.isnan(scores.nll).reshape(-1)
    if bad.any():
        raise NonFiniteLogits(int(bad.nonzero()[0]))
    return scores
