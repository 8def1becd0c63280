"""Models by their shape alone: random weights from a configuration, so that a benchmark needs no download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rbp_lab.errors import LabError

if TYPE_CHECKING:
    import torch
    from torch import nn

KINDS = ("gpt_neox", "qwen2")
# Standard deviation of the logits: about what trained models have. Weights as initialised give a tenth of it, and
# nearly equal logits would make every comparison of ranks a matter of rounding.
LOGIT_SPREAD = 2.5


@dataclass(frozen=True)
class Shape:
    """The sizes of a causal LM (group ``shape``).

    kind: gpt_neox or qwen2. vocabulary V, width D, layers, heads, kv_heads (None: as many as heads), mlp (None: 4 D):
    as in the published configuration of that name. tied: head and embedding share their weights. layers=0 leaves
    only embedding and head, for the head's table alone.
    """

    name: str
    kind: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int | None = None
    mlp: int | None = None
    tied: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise LabError(f"shape.kind must be one of {', '.join(KINDS)}; got {self.kind!r}")
        for name, least in (("vocabulary", 256), ("width", 2), ("layers", 0), ("heads", 1)):
            if getattr(self, name) < least:
                raise LabError(f"shape.{name} must be at least {least}; got {getattr(self, name)}")
        if self.width % (2 * self.heads):
            raise LabError(f"shape.width must be heads of an even size: a multiple of {2 * self.heads}")

    def config(self, positions: int) -> Any:
        """The transformers configuration for rows of up to ``positions`` tokens."""
        from transformers import AutoConfig

        more = {"num_key_value_heads": self.kv_heads or self.heads} if self.kind == "qwen2" else {}
        return AutoConfig.for_model(
            self.kind,
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.mlp or 4 * self.width,
            max_position_embeddings=positions,
            tie_word_embeddings=self.tied,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=None,
            **more,
        )

    def load(self, dtype: torch.dtype, device: str, positions: int = 2048, seed: int = 0) -> nn.Module:
        """A model of this shape with random weights, in eval mode; the same for the same seed and device."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.random.fork_rng(devices=[device] if device.startswith("cuda:") else []), torch.device(device):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(self.config(positions), dtype=dtype)
            with torch.no_grad():
                model.get_output_embeddings().weight.normal_(0.0, LOGIT_SPREAD * self.width**-0.5)
        return model.eval().requires_grad_(False)
