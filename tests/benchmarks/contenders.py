"""Who is compared: the floor, ours, and what others do, each a function of a case.

Written here from published descriptions where they are not ours; no code of others is run (that is ``peers``).
Legend: B rows, T tokens, n = B·(T−1) scored positions, V vocabulary rows, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from rbp_lab.models.head import full_logits, intercept
from rbp_lab.models.scorer import Scorer
from rbp_lab.scoring import IMPLEMENTATIONS, TokenScores, missing, score_tokens
from tests.benchmarks.case import CHECKED, Answer, Call, Case

# Tokens of a chunk of the bare product, and of a chunk of the ways that hold full logits of what they are given.
PRODUCT_CHUNK = 256
ROW_CHUNK = 512


@dataclass(frozen=True)
class Contender:
    """One line of a table. what: a few words. prepare: from a case to the call that is timed.

    answer: from what the call returned to what is checked, None where there is nothing to check. rounding: see
    ``judge``. group: floor, ours, other or peer.
    """

    name: str
    what: str
    group: str
    prepare: Callable[[Case], Call]
    answer: Callable[[Any, Case], Answer] | None = None
    rounding: str = "float32"


def implementations(device: str) -> tuple[list[str], dict[str, str]]:
    """Our implementations that can be timed on a device type, and why each of the others cannot."""
    can: list[str] = []
    cannot: dict[str, str] = {}
    for impl in IMPLEMENTATIONS:
        if impl == "reference":
            continue
        why = missing(impl, device)
        if not why and device != "cuda" and impl.startswith("triton"):
            why = "runs here in Triton's interpreter only, which is for tests"
        if why:
            cannot[impl] = why
        else:
            can.append(impl)
    return can, cannot


# ── end to end: from token ids to scores ──────────────────────────────────────────────────────────────────────────


def end_to_end(case: Case) -> list[Contender]:
    """The contenders of the first table; the second, "bare", is what the others are measured against."""
    found = []
    if case.plan.kind == "head":
        found.append(Contender("body", "the model without its output layer", "floor", _body))
        names = implementations(torch.device(case.device).type)[0]
    else:
        names = ["auto"]  # the model's own logits, whatever the implementation
    found.append(Contender("bare", "model(input_ids).logits and nothing else", "floor", _bare, _bare_answer, "model"))
    found += [
        Contender(f"ours: {name}", "nll, rank, ties, entropy", "ours", _scorer(name), _ours, "float32")
        for name in names
    ]
    found += [
        Contender("naive", "float32 logits, logsumexp, two comparisons", "other", _naive, _counts, "model"),
        Contender("the paper's way", "softmax, full sort, position of the token", "other", _paper, _sorted, "model"),
        Contender("lm-eval's operations", "log_softmax, gather, argmax", "other", _lm_eval, _greedy, "log_probs"),
    ]
    return found


def _body(case: Case) -> Call:
    def call() -> None:
        with intercept(case.model, case.plan, lambda hidden, head: None):
            case.model(input_ids=case.ids, use_cache=False)

    return call


def _bare(case: Case) -> Call:
    return lambda: full_logits(case.model, case.ids)


def _bare_answer(logits: torch.Tensor, case: Case) -> Answer:
    last = min(CHECKED, case.ids.shape[1] - 1)
    return Answer(logits=logits[-1, -1 - last : -1])


def _scorer(name: str) -> Callable[[Case], Call]:
    def prepare(case: Case) -> Call:
        scorer = Scorer(case.model, case.device, logits=case.logits, implementation=name)
        return lambda: scorer(case.batch)

    return prepare


def _ours(scores: TokenScores, case: Case) -> Answer:
    return Answer(scores.nll, scores.num_greater, scores.num_greater + scores.num_equal)


def _naive(case: Case) -> Call:
    return lambda: naive_scores(full_logits(case.model, case.ids)[:, :-1].flatten(0, 1).float(), case.targets)


def naive_scores(z: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(nll, num_greater, num_equal) [n] of full logits [n,V], as one would write it down."""
    t = z.gather(-1, targets[:, None])
    return z.logsumexp(-1) - t[:, 0], (z > t).sum(-1), (z == t).sum(-1) - 1


def _counts(found: tuple[torch.Tensor, ...], case: Case) -> Answer:
    nll, greater, equal = found
    return Answer(nll, greater, greater + equal)


def _paper(case: Case) -> Call:
    def call() -> tuple[torch.Tensor, torch.Tensor]:
        logits = full_logits(case.model, case.ids)
        return _joined(sorted_ranks(z[:-1], row[1:]) for z, row in zip(logits, case.ids, strict=True))

    return call


def sorted_ranks(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(nll, rank − 1) [n] of full logits [n,V]: all tokens sorted by probability, and where the right one stands.

    From the definition of [RBP] arXiv 2510.20387, the rank of the ground-truth token among the vocabulary sorted by
    predicted probability. Ties fall as the sort leaves them.
    """
    p = torch.softmax(logits.float(), -1)
    order = torch.argsort(p, -1, descending=True)
    position = (order == targets[:, None]).nonzero()[:, 1]
    return -p.gather(-1, targets[:, None])[:, 0].log(), position


def _joined(parts: Any) -> tuple[torch.Tensor, ...]:
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _sorted(found: tuple[torch.Tensor, ...], case: Case) -> Answer:
    nll, position = found
    return Answer(nll, position, position)


def _lm_eval(case: Case) -> Call:
    def call() -> tuple[torch.Tensor, torch.Tensor]:
        log_p = F.log_softmax(full_logits(case.model, case.ids), -1)
        return _joined(_one_request(p[:-1], row[1:]) for p, row in zip(log_p, case.ids, strict=True))

    return call


def _one_request(log_p: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return log_p.gather(-1, targets[:, None])[:, 0], log_p.argmax(-1) == targets


def _greedy(found: tuple[torch.Tensor, ...], case: Case) -> Answer:
    log_p, greedy = found
    return Answer(nll=-log_p, greedy=greedy)


# ── the head alone: from hidden states to scores ──────────────────────────────────────────────────────────────────


def head_stage(case: Case) -> list[Contender]:
    """The contenders of the second table; the first, "product", is what the others are measured against."""
    if case.head is None:
        return []
    what = f"hidden · weightᵀ and nothing else, {PRODUCT_CHUNK} tokens at a time"
    found = [Contender("product", what, "floor", _product, _product_answer, "model")]
    found += [
        Contender(f"ours: {name}", "nll, rank, ties, entropy", "ours", _impl(name), _ours, "float32")
        for name in implementations(torch.device(case.device).type)[0]
    ]
    if hasattr(F, "linear_cross_entropy") and case.head.scale == 1.0 and case.head.softcap is None:
        words = "torch's own, nll only"
        found.append(Contender("F.linear_cross_entropy", words, "other", _linear_cross_entropy, _nll, "log_probs"))
    found += [
        Contender("naive", "float32 logits, logsumexp, two comparisons", "other", _naive_head, _counts, "model"),
        Contender("the paper's way", "softmax, full sort, position", "other", _paper_head, _sorted, "model"),
    ]
    return found


def _product(case: Case) -> Call:
    weight, bias = case.head.weight.T, case.head.bias
    buffer = case.hidden.new_empty(min(PRODUCT_CHUNK, len(case.hidden)), weight.shape[1])

    def call() -> torch.Tensor:
        for part in case.hidden.split(PRODUCT_CHUNK):
            out = buffer[: len(part)]
            torch.mm(part, weight, out=out) if bias is None else torch.addmm(bias, part, weight, out=out)
        return out

    return call


def _product_answer(last: torch.Tensor, case: Case) -> Answer:
    return Answer(logits=case.head.transform(last[-CHECKED:].clone()))


def _impl(name: str) -> Callable[[Case], Call]:
    def prepare(case: Case) -> Call:
        return lambda: score_tokens(case.hidden, case.head, case.targets, name, logits=case.logits)

    return prepare


def _linear_cross_entropy(case: Case) -> Call:
    # Its own choice of chunks ("auto") was ten times slower here (torch 2.13, CPU) than chunks of our product's size.
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=PRODUCT_CHUNK)
    head = case.head

    def call() -> torch.Tensor:
        return F.linear_cross_entropy(
            case.hidden, head.weight, case.targets, linear_bias=head.bias, reduction="none", options=options
        )

    return call


def _nll(nll: torch.Tensor, case: Case) -> Answer:
    return Answer(nll=nll)


def _logits(case: Case, hidden: torch.Tensor) -> torch.Tensor:
    return case.head.transform(F.linear(hidden, case.head.weight, case.head.bias))


def _naive_head(case: Case) -> Call:
    return lambda: naive_scores(_logits(case, case.hidden).float(), case.targets)


def _paper_head(case: Case) -> Call:
    def call() -> tuple[torch.Tensor, ...]:
        logits = _logits(case, case.hidden)
        return _joined(map(sorted_ranks, logits.split(ROW_CHUNK), case.targets.split(ROW_CHUNK)))

    return call
