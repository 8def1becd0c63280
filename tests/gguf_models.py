"""Tiny Llamas as GGUF files, written by the gguf package as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.conftest import build_tiny_model, build_tiny_tokenizer

_LAYER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_AROUND = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(path: Path, kind: str = "F32", *, architecture: str = "llama", tokenizer: bool = True, parts: int = 0):
    """Write the tiny Llama with its matrices rounded to a ggml type. parts: tensors of each file of a split model."""
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
    from gguf.quants import quantize

    model = build_tiny_model("llama")
    config = model.config
    writer = GGUFWriter(path, architecture, split_max_tensors=parts)
    writer.add_name("tiny")
    writer.add_file_type(getattr(LlamaFileType, "ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"))
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if tokenizer:
        _add_tokenizer(writer)
    for name, weight in model.state_dict().items():
        short, suffix = name.rsplit(".", 1)
        array = weight.numpy()
        if short in _AROUND:
            target = _AROUND[short]
        else:
            _, _, layer, short = short.split(".", 3)
            target = f"blk.{layer}.{_LAYER[short]}"
            if short.endswith(("q_proj", "k_proj")):
                heads = config.num_attention_heads if short.endswith("q_proj") else config.num_key_value_heads
                array = _interleaved(array, heads)
        if array.ndim == 1 or kind == "F32":
            writer.add_tensor(f"{target}.{suffix}", np.ascontiguousarray(array))
        else:
            ggml = getattr(GGMLQuantizationType, kind)
            writer.add_tensor(f"{target}.{suffix}", quantize(array, ggml), raw_dtype=ggml)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of query and key in the order of llama.cpp, which turns neighbours where transformers turns halves."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _add_tokenizer(writer) -> None:
    tokenizer = build_tiny_tokenizer()
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token == tokenizer.eos_token else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in state["model"]["merges"]])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id):
        add(0)
