"""Parameter counts against published ones; every config is built from its published hyper-parameters."""

from __future__ import annotations

from functools import cache

import pytest

from rbp_lab.errors import LabError, out_of_memory
from rbp_lab.jobs.failures import Failures
from rbp_lab.models.params import count_parameters, empty_model
from tests.conftest import TINY_MODELS, build_tiny_model
from tests.published_models import MODELS, TOTALS

# Sizes S of [RBP] (arXiv 2510.20387, section 4); those of Pythia 160m and 12b also in arXiv 2304.01373.
PUBLISHED = {
    "gpt2": 85_056_000, "gpt2-medium": 302_311_424, "gpt2-large": 708_390_400, "gpt2-xl": 1_475_561_600,
    "opt-125m": 85_056_000, "opt-350m": 303_357_952, "opt-1.3b": 1_208_602_624,
    "pythia-14m": 1_189_888, "pythia-160m": 85_056_000, "pythia-12b": 11_327_027_200,
    "qwen2.5-0.5b": 357_898_112, "qwen2.5-7b": 6_525_621_760,
}  # fmt: skip


def config_of(kind, settings):
    from transformers import AutoConfig

    return AutoConfig.for_model(kind, **settings)


def counted(config):
    return count_parameters(empty_model(config))


@cache
def counts(name):
    return counted(config_of(MODELS[name].kind, MODELS[name].settings))


@pytest.mark.parametrize("name", PUBLISHED)
def test_non_embedding_parameters_are_the_published_counts(name):
    assert counts(name).non_embedding == PUBLISHED[name]


@pytest.mark.parametrize("name", TOTALS)
def test_totals_are_the_published_counts(name):
    assert counts(name).total == TOTALS[name]


def by_hand(kind, s):
    """S of a published model from the shapes of its layers, as its architecture's paper gives them."""
    s = s.get("text_config", s)
    d = s.get("hidden_size", s.get("n_embd"))
    layers = s.get("num_hidden_layers", s.get("n_layer", s.get("num_layers")))
    if kind in ("gpt2", "opt", "gpt_neox", "bloom", "gpt_neo", "gptj"):
        layer = 12 * d * d + 13 * d  # attention 4d² + 4d, feed-forward 8d² + 5d, two norms 4d
        around = {"bloom": 4 * d}.get(kind, 2 * d)  # the last norm, and BLOOM's after the embedding
        if kind == "gpt_neo":
            layer -= 3 * d  # no bias of query, key and value
        if kind == "gptj":
            layer -= 6 * d  # no bias of attention, one norm
        if s.get("word_embed_proj_dim", d) != d:
            around = 2 * d * s["word_embed_proj_dim"]  # projections in place of the last norm
        return layers * layer + around
    if kind in ("mamba", "mamba2"):
        inner, state = 2 * d, s["state_size"]
        if kind == "mamba":
            rank = s["time_step_rank"]
            mixer = 2 * d * inner + 5 * inner + inner * (rank + 2 * state) + rank * inner + inner * (state + 2)
        else:
            convolved, heads = inner + 2 * state, s["num_heads"]
            mixer = d * (inner + convolved + heads) + 5 * convolved + 3 * heads + inner
        return layers * (mixer + inner * d + d) + d
    heads, shared = s["num_attention_heads"], s["num_key_value_heads"]
    head = s.get("head_dim", d // heads)
    layer = 2 * d * head * (heads + shared) + 3 * d * s["intermediate_size"]
    layer += 4 * d if kind.startswith("gemma") else 2 * d
    layer += {"qwen2": head * (heads + 2 * shared), "olmo2": head * (heads + shared)}.get(kind, 0)
    layer += 2 * head if kind in ("qwen3", "gemma3", "gemma3_text") else 0
    return layers * layer + d


@pytest.mark.parametrize("name", MODELS)
def test_every_packaged_model_has_the_size_that_its_layers_add_up_to(name):
    model, found = MODELS[name], counts(name)
    s = model.settings.get("text_config", model.settings)
    width = s.get("word_embed_proj_dim", s.get("hidden_size", s.get("n_embd")))
    positions = {"gpt2": s.get("n_positions"), "gpt_neo": 2048, "opt": 2050}.get(model.kind, 0)
    tied = s.get("tie_word_embeddings", True)
    assert found.non_embedding == by_hand(model.kind, model.settings)
    assert found.embedding == s["vocab_size"] * width + positions * s.get("hidden_size", s.get("n_embd"))
    assert found.head == (0 if tied else s["vocab_size"] * (width + (model.kind == "gptj")))


def test_gpt2_total_is_published_and_its_tied_head_counts_once():
    params = counts("gpt2")
    assert params.total == 124_439_808
    assert params.embedding == 50257 * 768 + 1024 * 768
    assert params.head == 0


def test_untied_head_is_counted_apart_with_its_bias():
    phi = counted(build_tiny_model("phi").config)
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
    found, text = count_parameters(model), counted(config_of(text_kind, text_settings))
    assert found.non_embedding == text.non_embedding > 0
    assert (found.embedding, found.head) == (text.embedding, text.head)
    assert found.total < sum(one.numel() for one in model.parameters()), "there is nothing to leave out"


def test_a_picture_encoder_inside_a_flat_text_model_does_not_count():
    git = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
           "vocab_size": 384, "max_position_embeddings": 40}  # fmt: skip
    sizes = {counted(config_of("git", git | {"vision_config": _SIGHT | {"hidden_size": d}})) for d in (16, 48)}
    assert len(sizes) == 1


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_counts_from_the_config_equal_counts_of_the_built_model(name):
    model = build_tiny_model(name)
    from_config = counted(model.config)
    assert from_config == count_parameters(model)
    shared_once = {weight.data_ptr(): weight.numel() for weight in model.parameters()}
    assert from_config.total == sum(shared_once.values())
    assert 0 < from_config.non_embedding < from_config.total


def test_the_empty_model_holds_no_memory():
    model = empty_model(config_of(MODELS["qwen2.5-7b"].kind, MODELS["qwen2.5-7b"].settings))
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


def test_a_config_that_is_no_causal_lm_is_a_sentence():
    with pytest.raises(LabError, match="no causal LM from this 'vit' config"):
        counted(config_of("vit", {}))


@pytest.mark.parametrize(
    "lacking",
    [
        MemoryError("64 MiB"),
        OSError(12, "Cannot allocate memory"),
        ImportError("libx.so: failed to map segment from shared object"),
    ],
)
def test_a_lack_of_memory_is_no_defect_of_the_config(lacking, monkeypatch):
    import transformers

    def build(*_, **__):
        raise RuntimeError("Could not import module GPT2LMHeadModel") from lacking

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_config", build)
    with pytest.raises(RuntimeError) as caught:
        empty_model(config_of("gpt2", {}))
    assert Failures().add("", caught.value, None).startswith("memory is not enough (Could not import")
    assert not out_of_memory(LabError("x"))
