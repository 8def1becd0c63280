"""Fixtures that several test modules share: tiny random models of many architectures, one saved with its tokenizer."""

from __future__ import annotations

import gc
import os
from functools import cache
from pathlib import Path

# Before any hub library is imported: a test never asks the network, and tokenizers must not fork with threads.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A test tracks only where it says so, whatever key the machine has.
os.environ["WANDB_MODE"] = "disabled"

import pytest


def pytest_collection_finish():
    """What is imported by now stays to the end: garbage collection need not look through it again each time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()  # else what triton's bindings find at the end counts as leaked, and they say so


TINY_VOCAB = 384
_WIDTHS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": TINY_VOCAB,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
# Name → (model type, what differs from _WIDTHS). The head of each is followed by something else, or is not plain.
TINY_MODELS: dict[str, tuple[str, dict]] = {
    "gpt2": ("gpt2", _GPT2),
    "gpt_neox": ("gpt_neox", {}),
    "opt": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "opt-350m": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "qwen2": ("qwen2", {}),
    "llama": ("llama", {}),
    "mistral": ("mistral", {}),
    "gemma2": ("gemma2", {"head_dim": 8, "final_logit_softcapping": 30.0}),
    "cohere": ("cohere", {"logit_scale": 0.0625}),
    "granite": ("granite", {"logits_scaling": 8.0}),
    "phi": ("phi", {}),
    "mamba": ("mamba", {"state_size": 8, "time_step_rank": 32}),
}

TINY_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "def add(left, right):\n    return left + right\n",
    "It was the best of times, it was the worst of times, it was the age of wisdom.",
    "for index in range(10):\n    print(index, index ** 2)\n",
    "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer.",
)


@cache
def build_tiny_model(name: str):
    """A random causal LM in float32 and eval mode, the same on every call; see ``TINY_MODELS``."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, extra = TINY_MODELS[name]
    config = AutoConfig.for_model(kind, **{**_WIDTHS, **extra})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    for label, weight in model.named_parameters():
        # Large enough that logits spread, also where an architecture starts its weights at 0 (biases) or near it.
        if weight.ndim > 1 or label.endswith("bias"):
            weight.normal_(0.0, 0.2)
    return model


@pytest.fixture(params=sorted(TINY_MODELS))
def tiny_model(request):
    """One tiny random model per architecture."""
    return build_tiny_model(request.param)


def build_tiny_tokenizer(vocab_size: int = 300):
    """A byte-level BPE tokenizer trained on TINY_TEXTS, one special token <|endoftext|> (id 0), nothing added."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TINY_TEXTS, trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end)


def save_tiny_model(directory: Path, name: str) -> Path:
    """Save a tiny model and the tiny tokenizer as ``save_pretrained`` does; returns the directory."""
    build_tiny_model(name).save_pretrained(directory)
    build_tiny_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture
def threads(request):
    """So many threads of torch (asked for with ``indirect=True``), and as many as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread():
    """One thread of torch in the tests of a module that take it, and as many as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory) -> Path:
    """Directory of a tiny GPT-NeoX (2 layers, width 32, 384 rows) and its tokenizer (300 ids). Do not write into it."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-neox", "gpt_neox")


@pytest.fixture(scope="session")
def tiny_near_dir(tmp_path_factory) -> Path:
    """As tiny_model_dir, with every weight moved by about 2 %."""
    import torch

    directory, model = tmp_path_factory.mktemp("models") / "tiny-near", build_tiny_model("gpt_neox")
    generator = torch.Generator().manual_seed(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    moved = {n: v * (1 + 0.02 * torch.randn(v.shape, generator=generator)) for n, v in before.items()}
    try:
        model.load_state_dict(moved)
        model.save_pretrained(directory)
    finally:
        model.load_state_dict(before)
    build_tiny_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_gpt2_dir(tmp_path_factory) -> Path:
    """As tiny_model_dir, a GPT-2 (tied head, learned positions)."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-gpt2", "gpt2")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A loopback W&B server that the environment leads to."""
    from tests.wandb_server import WandbServer

    with WandbServer() as server:
        for name, value in server.environment(tmp_path / "wandb-places").items():
            monkeypatch.setenv(name, value)
        yield server
    assert server.errors == []
