"""Parameter counts against published ones; every config is built from its published hyper-parameters."""

from __future__ import annotations

import pytest

from rbp_lab.errors import LabError
from rbp_lab.models.params import count_parameters, count_params, empty_model
from tests.conftest import TINY_MODELS, build_tiny_model


def gpt2(width, layers, heads):
    return "gpt2", {"n_embd": width, "n_layer": layers, "n_head": heads}


def opt(width, layers, heads, **more):
    return "opt", {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
                   "ffn_dim": 4 * width, "word_embed_proj_dim": width, "vocab_size": 50272} | more  # fmt: skip


def pythia(width, layers, heads, rows=50304):
    return "gpt_neox", {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
                        "intermediate_size": 4 * width, "vocab_size": rows,
                        "tie_word_embeddings": False}  # fmt: skip


def qwen(width, layers, heads, kv_heads, inner, rows, tied):
    return "qwen2", {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
                     "num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": rows,
                     "tie_word_embeddings": tied}  # fmt: skip


# Sizes S of [RBP] (arXiv 2510.20387, section 4); those of Pythia 160m and 12b also in arXiv 2304.01373.
PUBLISHED = {
    "gpt2": (gpt2(768, 12, 12), 85_056_000),
    "gpt2-medium": (gpt2(1024, 24, 16), 302_311_424),
    "gpt2-large": (gpt2(1280, 36, 20), 708_390_400),
    "gpt2-xl": (gpt2(1600, 48, 25), 1_475_561_600),
    "opt-125m": (opt(768, 12, 12), 85_056_000),
    "opt-350m": (opt(1024, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False), 303_357_952),
    "opt-1.3b": (opt(2048, 24, 32), 1_208_602_624),
    "pythia-14m": (pythia(128, 6, 4), 1_189_888),
    "pythia-160m": (pythia(768, 12, 12), 85_056_000),
    "pythia-12b": (pythia(5120, 36, 40, 50688), 11_327_027_200),
    "qwen2.5-0.5b": (qwen(896, 24, 14, 2, 4864, 151936, True), 357_898_112),
    "qwen2.5-7b": (qwen(3584, 28, 28, 4, 18944, 152064, False), 6_525_621_760),
}


def config_of(kind, settings):
    from transformers import AutoConfig

    return AutoConfig.for_model(kind, **settings)


@pytest.mark.parametrize("name", PUBLISHED)
def test_non_embedding_parameters_are_the_published_counts(name):
    (kind, settings), published = PUBLISHED[name]
    assert count_params(config_of(kind, settings)).non_embedding == published


def test_gpt2_total_is_published_and_its_tied_head_counts_once():
    params = count_params(config_of(*gpt2(768, 12, 12)))
    assert params.total == 124_439_808
    assert params.embedding == 50257 * 768 + 1024 * 768
    assert params.head == 0


def test_untied_head_is_counted_apart_with_its_bias():
    phi = count_params(build_tiny_model("phi").config)
    assert phi.head == 384 * 32 + 384
    assert phi.embedding == 384 * 32


_TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 64, "vocab_size": 384, "head_dim": 8}  # fmt: skip
_SIGHT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
# Model type → its settings, and the type and settings of the same text model alone.
WITH_OTHER_SENSES = {
    "gemma3": ({"text_config": _TEXT, "vision_config": _SIGHT}, ("gemma3_text", _TEXT)),
    "got_ocr2": (
        {"text_config": _TEXT | {"model_type": "qwen2"}, "vision_config": _SIGHT | {"mlp_dim": 32}},
        ("qwen2", _TEXT | {"tie_word_embeddings": True}),
    ),
    "fuyu": ({"text_config": _TEXT | {"model_type": "persimmon"}}, ("persimmon", _TEXT)),
    "moss_transcribe_diarize": (
        {"text_config": _TEXT | {"model_type": "qwen3"}, "audio_config": {"d_model": 16, "encoder_layers": 1,
         "encoder_attention_heads": 2, "encoder_ffn_dim": 32}},
        ("qwen3", _TEXT | {"tie_word_embeddings": True}),
    ),
    "phi4_multimodal": (_TEXT | {"vision_config": _SIGHT, "pad_token_id": 0}, ("phi3", _TEXT | {"pad_token_id": 0})),
}  # fmt: skip


@pytest.mark.parametrize("kind", WITH_OTHER_SENSES)
def test_only_the_text_model_counts(kind):
    settings, (text_kind, text_settings) = WITH_OTHER_SENSES[kind]
    model = empty_model(config_of(kind, settings))
    counted, text = count_parameters(model), count_params(config_of(text_kind, text_settings))
    assert counted.non_embedding == text.non_embedding > 0
    assert (counted.embedding, counted.head) == (text.embedding, text.head)
    assert counted.total < sum(one.numel() for one in model.parameters()), "there is nothing to leave out"


def test_a_picture_encoder_inside_a_flat_text_model_does_not_count():
    git = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
           "vocab_size": 384, "max_position_embeddings": 40}  # fmt: skip
    sizes = {count_params(config_of("git", git | {"vision_config": _SIGHT | {"hidden_size": d}})) for d in (16, 48)}
    assert len(sizes) == 1


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_counts_from_the_config_equal_counts_of_the_built_model(name):
    model = build_tiny_model(name)
    from_config = count_params(model.config)
    assert from_config == count_parameters(model)
    shared_once = {weight.data_ptr(): weight.numel() for weight in model.parameters()}
    assert from_config.total == sum(shared_once.values())
    assert 0 < from_config.non_embedding < from_config.total


def test_the_empty_model_holds_no_memory():
    model = empty_model(config_of(*qwen(3584, 28, 28, 4, 18944, 152064, False)))
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


def test_a_config_that_is_no_causal_lm_is_a_sentence():
    with pytest.raises(LabError, match="no causal LM from this 'vit' config"):
        count_params(config_of("vit", {}))
