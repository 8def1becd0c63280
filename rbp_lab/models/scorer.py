"""From a loaded model and a batch to TokenScores: the forward pass with its output layer intercepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F

from rbp_lab.data.windows import TokenBatch
from rbp_lab.errors import LabError, note, out_of_memory
from rbp_lab.models.head import HeadPlan, intercept, probe_head, response
from rbp_lab.models.placement import enough_memory
from rbp_lab.models.state import check_repeats, keep_state, relative_distance
from rbp_lab.models.weights import coarsest_eps
from rbp_lab.scoring import LMHead, TokenScores, choose, missing, product_of, score_tokens
from rbp_lab.scoring.reference import score_logits

GATHERED_BYTES = 4 << 20  # of hidden states held a second time on a CPU


class Scorer:
    """Scores batches with one model; ``plan`` says how its output layer is handled.

    The hidden states are caught where they enter the output layer and scored there, tile by tile, so that the logits
    of a batch never exist. A model whose output layer is not understood falls back to its own logits, a row at a time;
    ``plan.reason`` says why. On a CPU each row has a forward pass of its own: how a product rounds depends on its
    shape, and so a row's scores do not depend on its batch. On a GPU a batch is one forward pass: there scores from
    different batches agree to rounding. A batch for which memory is not enough is split in two and tried again, and
    later ones are split beforehand; LabError when it is not enough for one row.

    lengths: of rows that are to be scored, ascending, so that the output layer is tried on them too. implementation:
    what "auto" came to. product: whose product computes the logits ("onednn", "torch", "triton"). reset: puts the
    model back into the state in which it came; nothing that is tried here changes that. LabError when the
    implementation asked for cannot run here, when the model does not run on such rows, when it is not causal, and
    when it is changed by being called in a way that cannot be undone.
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
        lengths: Sequence[int] = (),
    ):
        self._model, self.device = model, device
        self._num_candidates, self.logits = num_candidates, logits
        self._budget = budget
        self._most_tokens: int | None = None  # of a batch, padding included, once memory was not enough for more
        self._rows = model.get_input_embeddings().weight.shape[0]
        self.reset = keep_state(model)
        self.plan = self._probe(lengths)
        self.implementation, self.product = "full logits", "torch"
        if self.plan.kind == "head":
            weight = model.get_output_embeddings().weight
            self.implementation = _chosen(implementation, weight, device)
            self.product = product_of(self.implementation, torch.device(device).type, weight.dtype, logits)

    def _probe(self, lengths: Sequence[int]) -> HeadPlan:
        """The plan of the head. The longest row is computed first, by the model as it came, and last again."""
        ids = _probe_ids(2, 9, self._rows).to(self.device)
        rows = [_probe_ids(1, length, self._rows).to(self.device) for length in lengths]
        before = response(self._model, rows[-1]) if rows else []
        self.reset()
        plan = probe_head(self._model, ids, rows, self.reset)
        self.reset()
        after = response(self._model, rows[-1]) if rows else []
        check_repeats(
            relative_distance(before, after),
            lambda: relative_distance(after, response(self._model, rows[-1])),
            4 * coarsest_eps(self._model),
        )
        self.reset()
        return plan

    def __call__(self, batch: TokenBatch) -> TokenScores:
        """Scores of the batch's scored positions in row-major order [n], on the device and not yet checked.

        A GPU is not waited for. ``check_finite`` is the caller's to call; the index it raises counts in that order.
        """
        targets, rows = batch.targets, self._num_candidates or self._rows
        if len(targets) and not targets.max() < rows:
            raise ValueError(f"token id {targets.max()} is no candidate: the head has {rows} of them")
        with torch.inference_mode():
            return self._score(torch.from_numpy(batch.tokens), torch.from_numpy(batch.scored))

    def _score(self, tokens: torch.Tensor, scored: torch.Tensor) -> TokenScores:
        rows, width = tokens.shape
        most = rows if self._most_tokens is None else max(1, self._most_tokens // width)
        if rows <= most:
            score = self._score_head if self.plan.kind == "head" else self._score_logits
            if rows == 1:
                with enough_memory(f"to score a row of {width} tokens"):
                    return score(tokens, scored)
            try:
                return score(tokens, scored)
            except Exception as error:
                if not out_of_memory(error):
                    raise
            torch.cuda.empty_cache()  # only here, where the error no longer holds the tensors of the attempt
            most = rows // 2
            self._most_tokens = most * width
            note(f"memory is not enough to score {rows * width} tokens at once; going on with {most * width}")
        parts = zip(tokens.split(most), scored.split(most), strict=True)
        return TokenScores.join([self._score(*part) for part in parts])

    def _score_head(self, tokens: torch.Tensor, scored: torch.Tensor) -> TokenScores:
        """tokens [B,T] and scored [B,T−1] are on the host: what is to be picked is known without asking the device."""
        targets = tokens[:, 1:][scored]
        waiting: list[torch.Tensor] = []  # hidden states of scored positions that are not scored yet
        found: list[TokenScores] = []

        def at_head(hidden: torch.Tensor, head: LMHead, keep: torch.Tensor, last: bool) -> None:
            limited = replace(head, num_candidates=self._num_candidates)
            waiting.append(_picked(hidden, keep))
            states = torch.cat(waiting)
            step = _positions_at_once(states)
            while len(states) >= step or (last and (len(states) or not found)):
                done = sum(len(scores.nll) for scores in found)
                now, states = states[:step], states[step:]
                labels = _to(targets[done : done + len(now)], hidden.device)
                found.append(
                    score_tokens(now, limited, labels, self.implementation, self._budget, self.logits, check=False)
                )
            waiting[:] = [states]

        # No attention mask: rows are padded on the right and attention is causal, so no scored position sees padding,
        # and the mask-free kernels are faster and the same for every batch.
        rows = len(tokens) if torch.device(self.device).type != "cpu" else 1  # of a forward pass
        for first in range(0, len(tokens), rows):
            at = slice(first, first + rows)
            last = at.stop >= len(tokens)
            with intercept(self._model, self.plan, partial(at_head, keep=scored[at], last=last)):
                self._model(input_ids=_to(tokens[at], self.device), use_cache=False)
        return TokenScores.join(found)

    def states(self, tokens: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
        """Hidden states [n,D] of the scored positions of rows, tokens [B,T] and scored [B,T−1] on the host, as they
        enter the output layer in one forward pass."""
        found: list[torch.Tensor] = []
        with intercept(self._model, self.plan, lambda hidden, head: found.append(_picked(hidden, scored))):
            self._model(input_ids=_to(tokens, self.device), use_cache=False)
        return found[0]

    def head(self) -> LMHead:
        """The output layer; a copy of one that lies elsewhere between passes."""
        layer = self._model.get_output_embeddings()
        head = LMHead(layer.weight, layer.bias, self.plan.scale, self.plan.softcap, self._num_candidates)
        if not layer.weight.is_meta:
            return head
        copied: list[LMHead] = []

        def copy(hidden: torch.Tensor, there: LMHead) -> None:
            copied.append(there.map(torch.clone))

        with torch.inference_mode(), intercept(self._model, self.plan, copy):
            self._model(input_ids=_probe_ids(1, 9, self._rows).to(self.device), use_cache=False)
        self.reset()
        return replace(head, weight=copied[0].weight, bias=copied[0].bias)

    def _score_logits(self, tokens: torch.Tensor, scored: torch.Tensor) -> TokenScores:
        parts: list[TokenScores] = []
        for row, keep in zip(tokens, scored, strict=True):  # one row at a time: its logits are the least one can hold
            logits = self._model(input_ids=_to(row[None], self.device), use_cache=False).logits[0, :-1]
            kept = logits.index_select(0, _to(keep.nonzero()[:, 0], logits.device))
            parts.append(score_logits(kept[:, : self._num_candidates].float(), _to(row[1:][keep], logits.device)))
        return TokenScores.join(parts)


def _picked(hidden: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """The states [n,D] of the positions of hidden [B,T,D] that keep [B,T−1] marks; the last of a row predicts none."""
    picked = F.pad(keep, (0, 1)).reshape(-1).nonzero()[:, 0]
    return hidden.reshape(-1, hidden.shape[-1]).index_select(0, _to(picked, hidden.device))


def _chosen(implementation: str, weight: torch.Tensor, device: str) -> str:
    kind = torch.device(device).type
    if implementation == "auto":
        return choose(kind, weight.shape[1], weight.element_size() * 8)
    if why := missing(implementation, kind):
        raise LabError(f"scoring.implementation={implementation} {why}")
    return implementation


def _to(values: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """A copy on the device that the host need not wait for."""
    if torch.device(device).type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _positions_at_once(states: torch.Tensor) -> int:
    """Hidden states scored in one call: on a CPU a few megabytes of them, as many tiles for each thread."""
    if states.device.type != "cpu":
        return max(1, len(states))
    tiles = 256 * torch.get_num_threads()
    return max(1, GATHERED_BYTES // (tiles * states.shape[-1] * states.element_size())) * tiles


def _probe_ids(rows: int, length: int, vocabulary: int) -> torch.Tensor:
    """A fixed batch of token ids [rows, length] spread over the vocabulary."""
    return (torch.arange(rows * length) * 7919 % vocabulary).reshape(rows, length)


def describe_head(plan: HeadPlan) -> str:
    """One line for a log: how the output layer is handled."""
    return "output layer intercepted" if plan.kind == "head" else f"falls back to full logits: {plan.reason}"
