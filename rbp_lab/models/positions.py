"""How many positions an architecture has: what its config states, and what its table of positions holds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# In the order of preference; architectures have one of them.
_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_seq_length", "max_sequence_length", "n_ctx",
          "max_target_positions")  # fmt: skip
_TEXT_PARTS = ("text_config", "llm_config", "language_config", "decoder")


def position_limit(model: nn.Module, config: Any) -> int | None:
    """The longest input a causal LM takes, None when it states none.

    model: the built model, weights not needed. A learned table of positions limits the input too; where it starts
    after the padding id (RoBERTa) or at an offset (OPT, BART), those rows are not positions.
    """
    limits = [_stated(config), *(_positions(module) for name, module in model.named_modules() if _is_table(name))]
    return min((limit for limit in limits if limit is not None), default=None)


def _stated(config: Any) -> int | None:
    parts = [getattr(config, part, None) for part in _TEXT_PARTS]
    for part in (*(one for one in parts if one is not None), config):
        for name in _NAMES:
            value = part.get(name) if isinstance(part, dict) else getattr(part, name, None)
            if isinstance(value, int) and value > 0:
                return value
    return None


def _is_table(name: str) -> bool:
    """Whether a module's name is that of a position table of the text model."""
    path, _, last = name.rpartition(".")
    return bool(re.search(r"position|^wpe$|^pos_emb", last)) and not re.search(r"vision|visual|image|audio", path)


def _positions(module: nn.Module) -> int | None:
    from torch import nn

    if not isinstance(module, nn.Embedding):
        return None
    if isinstance(offset := getattr(module, "offset", None), int):
        return module.num_embeddings - offset
    return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
