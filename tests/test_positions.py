"""The longest input of an architecture, against what the built model takes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from rbp_lab.commands.measure import measure
from rbp_lab.errors import LabError
from rbp_lab.models.params import empty_model
from rbp_lab.models.positions import position_limit
from tests.conftest import build_tiny_tokenizer
from tests.sources import measure_config

LIMIT = 12
_ENCODER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
            "vocab_size": 64, "max_position_embeddings": LIMIT}  # fmt: skip
_DECODER = {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32,
            "vocab_size": 64, "max_position_embeddings": LIMIT}  # fmt: skip
_GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 64, "n_positions": LIMIT}
# Model type → its settings and how many of the LIMIT positions a text can use.
ARCHITECTURES = {
    "gpt2": (_GPT, LIMIT),
    "openai-gpt": (_GPT, LIMIT),
    "codegen": (_GPT | {"n_head": 4, "rotary_dim": 4}, LIMIT),
    "gpt_neo": ({"hidden_size": 16, "num_layers": 1, "num_heads": 2, "attention_types": [[["global"], 1]],
                 "vocab_size": 64, "max_position_embeddings": LIMIT}, LIMIT),
    "mpt": ({"d_model": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 64, "max_seq_len": LIMIT}, LIMIT),
    "whisper": ({k: v for k, v in _DECODER.items() if k != "max_position_embeddings"}
                | {"max_target_positions": LIMIT, "pad_token_id": 0}, LIMIT),
    "opt": ({"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32, "vocab_size": 64,
             "word_embed_proj_dim": 16, "max_position_embeddings": LIMIT}, LIMIT),
    "bart": (_DECODER | {"is_decoder": True}, LIMIT),
    "biogpt": (_ENCODER, LIMIT),
    "bert": (_ENCODER | {"is_decoder": True}, LIMIT),
    "roberta": (_ENCODER | {"is_decoder": True}, LIMIT - 2),
    "xlm-roberta": (_ENCODER | {"is_decoder": True, "pad_token_id": 4}, LIMIT - 5),
    "camembert": (_ENCODER | {"is_decoder": True}, LIMIT - 2),
    "data2vec-text": (_ENCODER | {"is_decoder": True}, LIMIT - 2),
}  # fmt: skip


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_input_of_the_limit_fits_and_one_more_token_does_not(kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    settings, usable = ARCHITECTURES[kind]
    config = AutoConfig.for_model(kind, **settings)
    assert position_limit(empty_model(config), config) == usable
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        assert model(input_ids=torch.arange(usable)[None] + 8, use_cache=False).logits.isfinite().all()
        with pytest.raises(Exception):  # noqa: B017 (each architecture fails in its own way)
            model(input_ids=torch.arange(usable + 1)[None] + 8, use_cache=False)


def test_a_window_longer_than_the_usable_positions_is_refused_before_loading(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("roberta", **_ENCODER | {"is_decoder": True, "vocab_size": 384})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    build_tiny_tokenizer().save_pretrained(tmp_path / "model")
    job = measure_config(tmp_path / "model", tmp_path / "store", dataset__protocol={"max_tokens": LIMIT - 1})
    with pytest.raises(LabError, match=rf"max_tokens={LIMIT - 1}, but model tiny has only {LIMIT - 2} positions"):
        measure(job)
    job["dataset"]["protocol"]["max_tokens"] = LIMIT - 2
    assert measure(job).record.model.max_positions == LIMIT - 2


@pytest.mark.parametrize(
    ("stated", "limit"),
    [
        ({"max_seq_length": 7}, 7),
        ({"n_ctx": 7}, 7),
        ({"max_position_embeddings": -1}, None),
        ({"max_position_embeddings": None, "n_ctx": 9}, 9),
        ({"max_position_embeddings": 9, "n_ctx": 7}, 9),
        ({"max_length": 20}, None),
        ({"max_position_embeddings": 9, "text_config": SimpleNamespace(max_position_embeddings=7)}, 7),
        ({"llm_config": {"max_position_embeddings": 7}}, 7),
        ({"vision_config": SimpleNamespace(max_position_embeddings=7)}, None),
    ],
)
def test_limits_are_read_under_every_name_and_of_the_text_part(stated, limit):
    assert position_limit(torch.nn.Linear(1, 1), SimpleNamespace(**stated)) == limit
