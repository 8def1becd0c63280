"""From a loaded model and a batch to TokenScores: the forward pass with its output layer intercepted."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from rbp_lab.data.windows import TokenBlocks
from rbp_lab.errors import LabError
from rbp_lab.models.copies import copy_of, may_be_copied
from rbp_lab.models.head import HeadPlan, intercept, probe_head
from rbp_lab.scoring import LMHead, TokenScores, choose, missing, score_tokens
from rbp_lab.scoring.product import Linear
from rbp_lab.scoring.reference import score_logits
from rbp_lab.scoring.threads import apart

GATHERED_BYTES = 4 << 20  # of hidden states held a second time on a CPU
# Tokens of a thread's rows, from which on threads take rows of their own: fewer do not fill a tile of the logits.
ROWS_APART = 256
# Tokens that such a thread takes through the model at a time. Of 16 rows of 512 on two threads a 160m model's
# activations took 151 MB so and 398 MB all at once, and no more time; with half as many 14m was 6 % slower.
PIECE = 1024


class Scorer:
    """Scores batches with one model; ``plan`` says how its output layer is handled.

    The hidden states are caught where they enter the output layer and scored there, tile by tile, so that the logits
    of a batch never exist. A model whose output layer is not understood falls back to its own logits, a few rows at
    a time; ``plan.reason`` says why. On a CPU each of torch's threads takes rows of its own through the whole model
    where there are enough of them and the model allows it. When a batch does not fit a GPU's memory it is split in two
    and tried again. ``implementation`` is what "auto" came to. LabError when the one asked for cannot run here.
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
        self._copies: list[torch.nn.Module] = []  # one for each thread, once they are needed
        self._num_candidates, self._logits = num_candidates, logits
        self._budget = budget
        self._may_copy = torch.device(device).type == "cpu" and may_be_copied(model)
        self._rows = model.get_input_embeddings().weight.shape[0]
        self.plan: HeadPlan = probe_head(model, _probe_ids(self._rows).to(device))
        self.implementation = _chosen(implementation, model, device) if self.plan.kind == "head" else "full logits"

    def __call__(self, blocks: TokenBlocks) -> TokenScores:
        """Scores of the batch's scored positions in row-major order [n], on the device and not yet checked.

        A GPU is not waited for. ``check_finite`` is the caller's to call; the index it raises counts in that order.
        """
        targets, rows = blocks.targets, self._num_candidates or self._rows
        if len(targets) and not targets.max() < rows:
            raise ValueError(f"token id {targets.max()} is no candidate: the head has {rows} of them")
        with torch.inference_mode():
            return self._score(torch.from_numpy(blocks.tokens), torch.from_numpy(blocks.scored))

    def _score(self, tokens: torch.Tensor, scored: torch.Tensor) -> TokenScores:
        try:
            return self._score_rows(tokens, scored) if self.plan.kind == "head" else self._score_logits(tokens, scored)
        except torch.OutOfMemoryError:
            if len(tokens) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(tokens) // 2
        return TokenScores.join([self._score(tokens[:half], scored[:half]), self._score(tokens[half:], scored[half:])])

    def _score_rows(self, tokens: torch.Tensor, scored: torch.Tensor) -> TokenScores:
        """As many rows for each of torch's threads; those left over, or all, by the threads inside torch's operations.

        On two threads 14m and 160m models took 0.91 to 0.94 of the time apart, in float32 and bfloat16.
        """
        threads = torch.get_num_threads()
        share = len(tokens) // threads
        if not self._may_copy or share * tokens.shape[1] < ROWS_APART:
            return self._score_head(self._model, tokens, scored)
        if len(self._copies) < threads:
            linear = _layer_product(self._model, self.implementation)
            self._copies = [copy_of(self._model, linear) for _ in range(threads)]
        rest = share * threads
        found = apart(
            [
                partial(self._score_share, model, tokens[first : first + share], scored[first : first + share])
                for model, first in zip(self._copies[:threads], range(0, rest, share), strict=True)
            ]
        )
        if rest < len(tokens):
            found.append(self._score_head(self._model, tokens[rest:], scored[rest:]))
        return TokenScores.join(found)

    def _score_share(self, model: torch.nn.Module, tokens: torch.Tensor, scored: torch.Tensor) -> TokenScores:
        rows = max(1, PIECE // tokens.shape[1])
        pieces = zip(tokens.split(rows), scored.split(rows), strict=True)
        return TokenScores.join([self._score_head(model, *piece) for piece in pieces])

    def _score_head(self, model: torch.nn.Module, tokens: torch.Tensor, scored: torch.Tensor) -> TokenScores:
        """tokens [B,T] and scored [B,T−1] are on the host: what is to be picked is known without asking the device."""
        row, column = scored.nonzero(as_tuple=True)
        picked = row * tokens.shape[1] + column  # of the hidden states [B·T,D]
        targets = tokens[row, column + 1]
        caught: list[TokenScores] = []

        def at_head(hidden: torch.Tensor, head: LMHead) -> None:
            limited = LMHead(head.weight, head.bias, head.scale, head.softcap, self._num_candidates)
            states = hidden.reshape(-1, hidden.shape[-1])
            step = _gathered(states)
            for i in range(0, max(1, len(picked)), step):
                index, wanted = (_to(values[i : i + step], hidden.device) for values in (picked, targets))
                caught.append(
                    score_tokens(
                        states.index_select(0, index), limited, wanted, self.implementation, self._budget,
                        self._logits, check=False,
                    )
                )  # fmt: skip

        # No attention mask: rows are padded on the right and attention is causal, so no scored position sees padding,
        # and the mask-free kernels are faster and the same for every batch.
        with intercept(model, self.plan, at_head):
            model(input_ids=_to(tokens, self._device), use_cache=False)
        return TokenScores.join(caught)

    def _score_logits(self, tokens: torch.Tensor, scored: torch.Tensor) -> TokenScores:
        parts: list[TokenScores] = []
        for row, keep in zip(tokens, scored, strict=True):  # one row at a time: its logits are the least one can hold
            logits = self._model(input_ids=_to(row[None], self._device), use_cache=False).logits[0, :-1]
            kept = logits.index_select(0, _to(keep.nonzero()[:, 0], logits.device))
            parts.append(score_logits(kept[:, : self._num_candidates].float(), _to(row[1:][keep], logits.device)))
        return TokenScores.join(parts)


def _chosen(implementation: str, model: torch.nn.Module, device: str) -> str:
    kind = torch.device(device).type
    if implementation == "auto":
        weight = model.get_output_embeddings().weight
        return choose(kind, weight.shape[1], weight.element_size() * 8)
    if why := missing(implementation, kind):
        raise LabError(f"scoring.implementation={implementation} {why}")
    return implementation


def _layer_product(model: torch.nn.Module, implementation: str) -> Linear | None:
    """What multiplies in the layers of a thread's copy, None for torch's default.

    A product that is closer to the exact sums as well as faster; oneDNN's, faster too, is further from them.
    """
    weight = model.get_output_embeddings().weight
    if implementation != "native" or weight.dtype is not torch.float32:
        return None
    from rbp_lab.scoring import avx512, native

    return avx512.linear if native.float32_linear(weight.shape[1]) is avx512.linear else None


def _to(values: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """A copy on the device that the host need not wait for."""
    if torch.device(device).type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _gathered(states: torch.Tensor) -> int:
    """How many hidden states are picked at a time: on a CPU a few megabytes of them, as many tiles for each thread."""
    if states.device.type != "cpu":
        return len(states)
    tiles = 256 * torch.get_num_threads()
    return max(1, GATHERED_BYTES // (tiles * states.shape[-1] * states.element_size())) * tiles


def _probe_ids(rows: int) -> torch.Tensor:
    """A small fixed batch of token ids [2,9] spread over the vocabulary."""
    return (torch.arange(18) * 7919 % rows).reshape(2, 9)


def describe_head(plan: Any) -> str:
    """One line for a log: how the output layer is handled."""
    return "output layer intercepted" if plan.kind == "head" else f"falls back to full logits: {plan.reason}"
