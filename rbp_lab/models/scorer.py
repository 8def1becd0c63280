"""From a loaded model and a batch to TokenScores: the forward pass with its output layer intercepted."""

from __future__ import annotations

from typing import Any

import torch

from rbp_lab.blocks import TokenBlocks
from rbp_lab.models.head import HeadPlan, intercept, probe_head
from rbp_lab.scoring import LMHead, NonFiniteLogits, TokenScores, score_tokens
from rbp_lab.scoring.reference import score_logits


class Scorer:
    """Scores batches with one model; ``plan`` says how its output layer is handled.

    The hidden states are caught where they enter the output layer and scored there, tile by tile, so that the logits
    of a batch never exist. A model whose output layer is not understood falls back to its own logits, a few rows at
    a time; ``plan.reason`` says why. When a batch does not fit the device's memory it is split in two and tried
    again.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        device: str,
        *,
        num_candidates: int | None = None,
        logits: str = "float32",
        budget: int | None = None,
        implementation: str = "auto",
    ):
        self._model, self._device = model, device
        self._num_candidates, self._logits = num_candidates, logits
        self._budget, self._implementation = budget, implementation
        rows = model.get_input_embeddings().weight.shape[0]
        self.plan: HeadPlan = probe_head(model, _probe_ids(rows).to(device))

    def __call__(self, blocks: TokenBlocks) -> TokenScores:
        """Scores of the batch's scored positions in row-major order [n]; NonFiniteLogits counts in that order."""
        with torch.inference_mode():
            return self._score(torch.from_numpy(blocks.tokens), torch.from_numpy(blocks.scored))

    def _score(self, tokens: torch.Tensor, scored: torch.Tensor) -> TokenScores:
        try:
            if self.plan.kind == "head":
                return self._score_head(tokens.to(self._device), scored.to(self._device))
            return self._score_logits(tokens.to(self._device), scored.to(self._device))
        except torch.OutOfMemoryError:
            if len(tokens) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(tokens) // 2
        first = self._score(tokens[:half], scored[:half])
        try:
            second = self._score(tokens[half:], scored[half:])
        except NonFiniteLogits as error:
            raise NonFiniteLogits(error.index + int(scored[:half].sum())) from None
        return TokenScores.join([first, second])

    def _score_head(self, tokens: torch.Tensor, scored: torch.Tensor) -> TokenScores:
        targets = tokens[:, 1:][scored]
        caught: list[TokenScores] = []

        def at_head(hidden: torch.Tensor, head: LMHead) -> None:
            limited = LMHead(head.weight, head.bias, head.scale, head.softcap, self._num_candidates)
            caught.append(
                score_tokens(
                    hidden[:, :-1][scored.to(hidden.device)],
                    limited,
                    targets.to(hidden.device),
                    self._implementation,
                    self._budget,
                    self._logits,
                )
            )

        # No attention mask: rows are padded on the right and attention is causal, so no scored position sees padding,
        # and the mask-free kernels are faster and the same for every batch.
        with intercept(self._model, self.plan, at_head):
            self._model(input_ids=tokens, use_cache=False)
        (scores,) = caught
        return scores

    def _score_logits(self, tokens: torch.Tensor, scored: torch.Tensor) -> TokenScores:
        parts: list[TokenScores] = []
        done = 0
        for row, keep in zip(tokens, scored, strict=True):  # one row at a time: its logits are the least one can hold
            logits = self._model(input_ids=row[None], use_cache=False).logits[0, :-1][keep.to(tokens.device)]
            targets = row[1:][keep]
            try:
                parts.append(score_logits(logits[:, : self._num_candidates].float(), targets))
            except NonFiniteLogits as error:
                raise NonFiniteLogits(done + error.index) from None
            done += len(targets)
        return TokenScores.join(parts)


def _probe_ids(rows: int) -> torch.Tensor:
    """A small fixed batch of token ids [2,9] spread over the vocabulary."""
    return (torch.arange(18) * 7919 % rows).reshape(2, 9)


def describe_head(plan: Any) -> str:
    """One line for a log: how the output layer is handled."""
    return "output layer intercepted" if plan.kind == "head" else f"falls back to full logits: {plan.reason}"
