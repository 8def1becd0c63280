"""Our scores beside those of transformers' own logits, on the same tokens of the same loaded model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from rbp_lab.data.windows import WindowPlan
from rbp_lab.models.scorer import Scorer
from rbp_lab.text import count, number, significant

# Two fp32 products of a head agree to about 1e-6 of the largest logits, which are below 100.
DELTA = 1e-4


@dataclass(frozen=True)
class Beside:
    """What both say of the documents.

    same_tokens: whether the tokens are transformers' own. ours, plain: cross-entropy in nats per token. different,
    outside: ranks that are not equal, and those outside of what a change of every logit by DELTA allows. ratio: our
    time over that of ``model(ids).logits`` alone, the median over documents.
    """

    documents: int
    tokens: int
    ours: float
    plain: float
    different: int
    outside: int
    ratio: float
    same_tokens: bool

    def line(self) -> str:
        """What both say, for a terminal."""
        same = "the same tokens" if self.same_tokens else "other tokens"
        return (
            f"{self.documents} documents, {count(self.tokens)} tokens ({same}): cross-entropy {number(self.ours)}, "
            f"{significant(abs(self.ours - self.plain), 2)} apart; {self.different} ranks differ, {self.outside} of "
            f"them by more than rounding; {number(self.ratio)} times the time of model(ids).logits"
        )

    def wrong(self) -> list[str]:
        """What differs by more than rounding."""
        say = [] if self.same_tokens else ["the tokens are not those of transformers"]
        if not abs(self.ours - self.plain) <= 1e-5:
            say.append(f"cross-entropy {self.ours} is not transformers' {self.plain}")
        if self.outside:
            say.append(f"{self.outside} of {self.tokens} ranks are not within what rounding of the logits allows")
        return say


@torch.inference_mode()
def beside_plain(network: torch.nn.Module, plan: WindowPlan, documents: int, same_tokens: bool) -> Beside:
    """Score the first rows of a plan both ways, in turn; every row is a document."""
    scorer = Scorer(network, "cpu")
    nll, plain_nll, different, outside, ratios, tokens = 0.0, 0.0, 0, 0, [], 0
    for row in range(-1, documents):
        batch = plan.batch(np.array([max(row, 0)]))
        begin = time.perf_counter()
        scores = scorer(batch)
        middle = time.perf_counter()
        logits = network(input_ids=torch.from_numpy(batch.tokens), use_cache=False).logits
        end = time.perf_counter()
        if row < 0:  # the first call of each pays for what the others find ready
            continue
        keep = torch.from_numpy(batch.scored[0])
        rows, targets = logits[0, :-1][keep].double(), torch.from_numpy(batch.targets)
        own = rows.gather(1, targets[:, None])
        rank = (rows >= own).sum(1)
        # Every logit may be off by DELTA, the target's as well.
        low, high = 1 + (rows > own + 2 * DELTA).sum(1), (rows >= own - 2 * DELTA).sum(1)
        ours = 1 + scores.num_greater + scores.num_equal
        nll += float(scores.nll.double().sum())
        plain_nll += float((rows.logsumexp(1) - own[:, 0]).sum())
        different += int((ours != rank).sum())
        outside += int(((ours < low) | (ours > high)).sum())
        tokens += len(targets)
        ratios.append((middle - begin) / (end - middle))
    return Beside(documents, tokens, nll / tokens, plain_nll / tokens, different, outside, median(ratios), same_tokens)
