"""Checkpoints of a training that stay: each an ordinary model in a directory of its own, beside that of the last.

Which steps they are of is a rule; they are saved by a hook of the training loop, which changes no number of it. What a
killed training goes on from is another thing (``checkpoint``), which goes when the training is finished.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbp_lab.hub.errors import quiet
from rbp_lab.models.trajectory import log_spaced
from rbp_lab.store.atomic import atomic_directory
from rbp_lab.store.layout import TRAINING_FILE

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from rbp_lab.ladder.model import LadderModel


def kept_steps(steps: int, warmup: int, count: int) -> list[int]:
    """Steps of at most ``count`` checkpoints of a training of so many steps: log-spaced from the end of its warm-up.

    The last is the end. Fewer where the steps between are fewer.
    """
    return log_spaced(range(min(max(1, warmup), steps), steps + 1), count)


def save_model(
    network: nn.Module, tokenizer: PreTrainedTokenizerBase, record: Mapping[str, Any], directory: str | Path
) -> None:
    """Write a model, its tokenizer and its ``training.json``; the directory is complete, or as it was before."""
    with quiet(), atomic_directory(directory) as temporary:
        network.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / TRAINING_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


class KeptCheckpoints:
    """A ``StepHook`` that saves the checkpoints that stay, each as soon as its step is done."""

    def __init__(
        self, members: Sequence[LadderModel], network: nn.Module, tokenizer: PreTrainedTokenizerBase,
        describe: Callable[[LadderModel], Mapping[str, Any]],
    ):  # fmt: skip
        """members: the checkpoints, without the end of the training. describe: what ``training.json`` says of one."""
        self._members = {member.step: member for member in members}
        self._network, self._tokenizer, self._describe = network, tokenizer, describe

    def __call__(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        if (member := self._members.get(step)) is not None:
            record = {**self._describe(member), "loss": [round(loss, 4)]}
            save_model(self._network, self._tokenizer, record, member.directory)
