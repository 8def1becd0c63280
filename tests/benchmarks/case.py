"""What all contenders work on, the reference for a slice of it, and when an answer is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from rbp_lab.data.windows import TokenBatch
from rbp_lab.models.head import HeadPlan, full_logits, intercept, probe_head
from rbp_lab.scoring import LMHead, TokenScores
from rbp_lab.scoring.error_bounds import rounding_bound
from rbp_lab.scoring.reference import reference_logits, score_logits

Call = Callable[[], object]
# Positions that are checked, spread over the batch; the reference holds so many rows of float64 logits.
CHECKED = 64
# What float32 sums, exponentials and their logarithms may add to the rounding of the logits themselves.
SLACK = 1e-5
# TF32 keeps 11 of float32's 24 bits; the bound for float32 grows with D and has room of its own, so 64 is enough.
TF32_FACTOR = 64


@dataclass(frozen=True)
class Answer:
    """What a contender found at the n scored positions, in row-major order; None for what it does not give.

    nll [n]; num_greater and num_not_less [n]: the candidates above the target, and those above or equal, between
    which a rank − 1 must lie; greedy bool [n]: whether the target has the largest logit. logits [g,V]: those of the
    last g positions. row_nll [B]: sums over rows, from a contender with a forward pass of its own.
    """

    nll: torch.Tensor | None = None
    num_greater: torch.Tensor | None = None
    num_not_less: torch.Tensor | None = None
    greedy: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    row_nll: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """A batch and a model: ids int64 [B,T], batch (the same on the host), hidden [n,D] and head where they can be had.

    n = B·(T−1) scored positions, targets [n]. logits: "float32" or "model", as in Precision. model is None where only
    the head's table is made.
    """

    model: torch.nn.Module | None
    device: str
    ids: torch.Tensor
    batch: TokenBatch
    targets: torch.Tensor
    plan: HeadPlan
    hidden: torch.Tensor | None
    head: LMHead | None
    logits: str = "float32"
    tf32: bool = False

    @property
    def num_tokens(self) -> int:
        """B·T, the tokens that went in."""
        return self.ids.numel()

    @property
    def rows(self) -> int:
        """V."""
        return self.head.weight.shape[0] if self.head else self.model.get_input_embeddings().weight.shape[0]

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    @cached_property
    def reference(self) -> tuple[Reference, Reference]:
        """The float64 answer at positions spread over the batch, and at the last ones."""
        n = len(self.targets)
        spread = torch.linspace(0, n - 1, min(CHECKED, n)).long()
        last = torch.arange(max(0, n - CHECKED), n)
        return self._reference(spread.unique()), self._reference(last)

    def _reference(self, positions: torch.Tensor) -> Reference:
        at = positions.to(self.device)
        with torch.inference_mode():
            if self.hidden is None:
                z = full_logits(self.model, self.ids)[:, :-1].flatten(0, 1)[at].double()
                delta = torch.zeros(len(at), device=self.device)
                rounded = delta
            else:
                z = reference_logits(self.hidden[at], self.head)
                delta = rounding_bound(self.hidden[at], self.head)
                if self.tf32 and self.device.startswith("cuda"):
                    delta = delta * TF32_FACTOR
                eps = torch.finfo(self.hidden.dtype).eps
                # as in models.head: product, bias, scale and cap each round once in the model's own dtype
                rounded = delta + (8 * eps * z.abs().amax(-1)).float() * (self.hidden.dtype != torch.float32)
        return Reference(at, z, self.targets[at], delta, rounded)


@dataclass(frozen=True, eq=False)
class Reference:
    """Float64 logits [g,V] at positions [g], and how far the difference of two computed ones may lie from theirs.

    delta [g]: for products in float32. rounded [g]: for logits that the model rounded to its own dtype.
    """

    positions: torch.Tensor
    logits: torch.Tensor
    targets: torch.Tensor
    delta: torch.Tensor
    rounded: torch.Tensor

    def scores(self, delta: torch.Tensor) -> TokenScores:
        return score_logits(self.logits, self.targets, delta)


def make_case(
    model: torch.nn.Module, device: str, ids: np.ndarray, *, logits: str = "float32", tf32: bool = False
) -> Case:
    """The case of a model and token ids int64 [B,T]: its output layer probed, its hidden states caught once."""
    on_device = torch.from_numpy(ids).to(device)
    plan = probe_head(model, on_device[:1, :8])
    caught: list[tuple[torch.Tensor, LMHead]] = []
    if plan.kind == "head":
        with torch.inference_mode(), intercept(model, plan, lambda hidden, head: caught.append((hidden, head))):
            full_logits(model, on_device)
    hidden, head = caught[0] if caught else (None, None)
    return Case(
        model=model,
        device=device,
        ids=on_device,
        batch=batch_of(ids),
        targets=on_device[:, 1:].reshape(-1),
        plan=plan,
        hidden=None if hidden is None else hidden[:, :-1].reshape(-1, hidden.shape[-1]).contiguous(),
        head=head,
        logits=logits,
        tf32=tf32,
    )


def batch_of(ids: np.ndarray) -> TokenBatch:
    """Token ids [B,T] as one batch of the measuring loop, every prediction scored, every row a document."""
    rows, tokens = ids.shape
    scored = np.ones((rows, tokens - 1), bool)
    return TokenBatch(ids, scored, np.arange(rows), np.zeros(rows, np.int64))


def random_ids(rows: int, tokens: int, vocabulary: int, seed: int) -> np.ndarray:
    """Token ids int64 [rows, tokens], uniform over the vocabulary."""
    return np.random.default_rng(seed).integers(0, vocabulary, (rows, tokens), dtype=np.int64)


def judge(case: Case, answer: Answer | None, rounding: str) -> str:
    """Why an answer is wrong, as a sentence; "" when everything it gives agrees with float64.

    rounding: "float32" (logits of a float32 product), "model" (the model's own), or "log_probs" (log-probabilities
    that are themselves in the model's dtype). nll may be off by what the logits may be off; a rank must lie within
    the bracket that the rounding leaves open (``surely_greater`` … ``maybe_greater`` of TokenScores).
    """
    if answer is None:
        return ""
    spread, last = case.reference
    ours = rounding == "float32" and case.logits == "float32"
    delta = (spread.delta if ours else spread.rounded) + (0.0 if ours else SLACK)
    truth, at = spread.scores(delta), spread.positions
    checks: list[tuple[str, torch.Tensor]] = []
    if answer.nll is not None:
        allowed = delta + SLACK * (1 + truth.nll)
        if rounding == "log_probs":
            allowed = allowed + 4 * torch.finfo(_dtype(case)).eps * truth.nll
        checks.append(("nll", (answer.nll[at].float() - truth.nll).abs() <= allowed))
    if answer.num_greater is not None:
        greater, not_less = answer.num_greater[at], answer.num_not_less[at]
        checks.append(("rank", (truth.surely_greater <= greater) & (greater <= not_less)))
        checks.append(("rank", not_less <= truth.maybe_greater))
    if answer.greedy is not None:
        lead = torch.where(answer.greedy[at], truth.surely_greater == 0, truth.maybe_greater > 0)
        checks.append(("greedy choice", lead))
    if answer.logits is not None:
        g = len(answer.logits)
        off = (answer.logits.double() - last.logits[-g:]).abs().amax(-1)
        checks.append(("logits", off <= last.rounded[-g:] + SLACK))
    for what, good in checks:
        if not bool(good.all()):
            where = int((~good).nonzero()[0])
            return f"its {what} is wrong at {int((~good).sum())} of {len(good)} positions checked, first at {where}"
    return _judge_rows(case, answer)


def _judge_rows(case: Case, answer: Answer) -> str:
    """Sums over rows come from a forward pass of the contender's own, which may round otherwise at every step."""
    if answer.row_nll is None:
        return ""
    with torch.inference_mode():
        parts = [full_logits(case.model, row[None])[0, :-1].float().log_softmax(-1) for row in case.ids]
        mine = torch.stack([-p.gather(-1, r[1:, None]).sum() for p, r in zip(parts, case.ids, strict=True)])
    per_token = ((answer.row_nll.to(mine) - mine) / (case.ids.shape[1] - 1)).abs()
    allowed = 1e-3 if _dtype(case) == torch.float32 else 5e-2
    worst = float(per_token.max())
    return "" if worst <= allowed else f"its nll is off by {worst:.2g} nats a token (allowed: {allowed:g})"


def _dtype(case: Case) -> torch.dtype:
    return case.hidden.dtype if case.hidden is not None else next(case.model.parameters()).dtype


def smaller(case: Case, tokens: int = 8) -> Case:
    """The same case with one short row: what a first call loads and compiles, without what a batch takes."""
    ids = case.ids[:1, :tokens]
    n = ids.shape[1] - 1
    hidden = None if case.hidden is None else case.hidden[:n]
    return replace(case, ids=ids, batch=batch_of(ids.cpu().numpy()), targets=ids[:, 1:].reshape(-1), hidden=hidden)
