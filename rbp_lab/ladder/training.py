"""The training loop of the ladder: AdamW on fixed rows of tokens, one learning rate per kind of parameter.

Legend: B rows of a batch, T tokens of context, N steps. Which rates, how long and why is ``ladder``'s business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from rbp_lab.errors import LabError
from rbp_lab.ladder.hooks import StepHook

if TYPE_CHECKING:
    from rbp_lab.ladder.checkpoint import Checkpoints

# loss_of(logits [n, V], targets [n], step from 0) in nats per token.
Loss = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, step: int) -> torch.Tensor:
    """Mean −log p of the targets; the same at every step."""
    return functional.cross_entropy(logits, targets)


def batch_rows(tokens: np.ndarray, context: int, batch: int, steps: int, seed: int) -> np.ndarray:
    """Rows of a stream of token ids in training order, int64 [N, B, T+1]; neighbouring rows share one token.

    The order is a permutation by ``seed`` of all rows, then of all rows again until N·B are taken: it depends on
    nothing else, so every model of a ladder reads the same tokens in the same order.

    Raises:
        LabError: the stream is shorter than one row.
    """
    rows = (len(tokens) - 1) // context
    if rows < 1:
        raise LabError(f"the training text has {len(tokens)} tokens, fewer than one row of {context + 1}; add text")
    generator = np.random.default_rng(seed)
    order = np.concatenate([generator.permutation(rows) for _ in range(-(-steps * batch // rows))])[: steps * batch]
    return tokens[order[:, None] * context + np.arange(context + 1)].reshape(steps, batch, context + 1).astype(np.int64)


@dataclass(frozen=True)
class Schedule:
    """Factor on the peak learning rates: linear from 0 over ``warmup`` steps, then linear to 0 at the last step.

    Decay to zero takes the noise of the last steps out of the result, which a constant or a 10 % floor leaves in
    (arXiv 2502.15938: linear decay to zero is the best schedule at compute-optimal and longer durations).
    """

    steps: int
    warmup: int

    def __call__(self, step: int) -> float:
        """Factor in (0, 1] for step 0…N−1."""
        return min((step + 1) / self.warmup, (self.steps - step) / max(1, self.steps - self.warmup))


def train_loop(
    model: nn.Module,
    rows: np.ndarray,
    rates: Mapping[str, float],
    kind_of: Callable[[str], str],
    schedule: Schedule,
    hooks: tuple[StepHook, ...] = (),
    checkpoints: Checkpoints | None = None,
    loss_of: Loss = cross_entropy,
) -> np.ndarray:
    """Train ``model`` in place on rows [N, B, T+1]; the losses of the N steps in nats per token, float64 [N].

    rates: peak learning rate of each kind of parameter; kind_of: a parameter's kind by its name. checkpoints: where
    an earlier run of the same training is taken up, and what this one leaves for the next. loss_of: what is minimised;
    it depends on its arguments alone. Deterministic for given
    rows, weights and number of threads; no random number is drawn. Whatever a hook raises stops training and reaches
    the caller.

    Raises:
        LabError: the loss is not finite.
    """
    steps, batch, width = rows.shape
    groups: dict[str, list[nn.Parameter]] = {kind: [] for kind in rates}
    for name, parameter in model.named_parameters():
        groups[kind_of(name)].append(parameter)
    # No weight decay: less than one pass over the text leaves nothing to regularise.
    optimizer = torch.optim.AdamW(
        [{"params": group, "lr": rates[kind], "peak": rates[kind]} for kind, group in groups.items() if group],
        betas=(0.9, 0.98),
        eps=1e-9,
        weight_decay=0.0,
        fused=True,
    )
    losses = np.empty(steps)
    done = 0 if checkpoints is None else checkpoints.restore(model, optimizer, losses)
    model.train()
    begin = time.monotonic()
    for step in range(done, steps):
        factor = schedule(step)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        tokens = torch.from_numpy(rows[step])
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        loss = loss_of(logits.flatten(0, 1), tokens[:, 1:].flatten(), step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses[step] = loss.item()
        if not np.isfinite(losses[step]):
            raise LabError(f"training diverged at step {step + 1} of {steps} (loss {losses[step]}); lower the rate")
        speed = (step + 1 - done) * batch * (width - 1) / max(1e-9, time.monotonic() - begin)
        for hook in hooks:
            hook(step + 1, float(losses[step]), factor, speed)
        if checkpoints is not None and step + 1 < steps:
            checkpoints.after_step(step + 1, model, optimizer, losses[: step + 1])
    model.eval()
    return losses
