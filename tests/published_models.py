"""The packaged models as published: hub ids, and what of their config.json decides how many parameters they have.

``MODELS`` maps the name of a YAML file of conf/model to ``Published``. ``TOTALS`` are numbers of parameters as
remembered from the hub's model pages: a second opinion on the settings, not a source. Sources of the settings: the
config.json files and model cards of those repositories, and published copies of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """family: as in the YAML file. kind, settings: model type of transformers and what config.json sets of it."""

    path: str
    family: str
    kind: str
    settings: dict[str, Any]


MODELS: dict[str, Published] = {}


def _gpt2(family: str, owner: str, positions: int, sizes: dict[str, tuple[str, int, int, int]]) -> None:
    for name, (repo, width, layers, heads) in sizes.items():
        MODELS[name] = Published(f"{owner}/{repo}", family, "gpt2", {
            "n_embd": width, "n_layer": layers, "n_head": heads, "n_positions": positions, "vocab_size": 50257,
        })  # fmt: skip


_gpt2("gpt2", "openai-community", 1024, {
    "gpt2": ("gpt2", 768, 12, 12), "gpt2-medium": ("gpt2-medium", 1024, 24, 16),
    "gpt2-large": ("gpt2-large", 1280, 36, 20), "gpt2-xl": ("gpt2-xl", 1600, 48, 25),
})  # fmt: skip
_gpt2("distilgpt2", "distilbert", 1024, {"distilgpt2": ("distilgpt2", 768, 6, 12)})
_gpt2("cerebras-gpt", "cerebras", 2048, {
    f"cerebras-gpt-{size.lower()}": (f"Cerebras-GPT-{size}", width, layers, heads)
    for size, width, layers, heads in (
        ("111M", 768, 10, 12), ("256M", 1088, 14, 17), ("590M", 1536, 18, 12), ("1.3B", 2048, 24, 16),
        ("2.7B", 2560, 32, 32), ("6.7B", 4096, 32, 32), ("13B", 5120, 40, 40),
    )
})  # fmt: skip

for _size, _width, _layers, _heads, _more in (
    ("125m", 768, 12, 12, {}), ("350m", 1024, 24, 16, {"word_embed_proj_dim": 512, "do_layer_norm_before": False}),
    ("1.3b", 2048, 24, 32, {}), ("2.7b", 2560, 32, 32, {}), ("6.7b", 4096, 32, 32, {}), ("13b", 5120, 40, 40, {}),
    ("30b", 7168, 48, 56, {}), ("66b", 9216, 64, 72, {}),
):  # fmt: skip
    MODELS[f"opt-{_size}"] = Published(f"facebook/opt-{_size}", "opt", "opt", {
        "hidden_size": _width, "num_hidden_layers": _layers, "num_attention_heads": _heads, "ffn_dim": 4 * _width,
        "word_embed_proj_dim": _width, "vocab_size": 50272, "max_position_embeddings": 2048, **_more,
    })  # fmt: skip

for _size, _width, _layers, _heads, _rows in (
    ("14m", 128, 6, 4, 50304), ("31m", 256, 6, 8, 50304), ("70m", 512, 6, 8, 50304), ("160m", 768, 12, 12, 50304),
    ("410m", 1024, 24, 16, 50304), ("1b", 2048, 16, 8, 50304), ("1.4b", 2048, 24, 16, 50304),
    ("2.8b", 2560, 32, 32, 50304), ("6.9b", 4096, 32, 32, 50432), ("12b", 5120, 36, 40, 50688),
):  # fmt: skip
    for _suffix in ("", "-deduped"):
        MODELS[f"pythia-{_size}{_suffix}"] = Published(
            f"EleutherAI/pythia-{_size}{_suffix}", f"pythia{_suffix}", "gpt_neox", {
                "hidden_size": _width, "num_hidden_layers": _layers, "num_attention_heads": _heads,
                "intermediate_size": 4 * _width, "vocab_size": _rows, "tie_word_embeddings": False,
                "max_position_embeddings": 512 if _size == "14m" else 2048,
            },
        )  # fmt: skip
MODELS["gpt-neox-20b"] = Published("EleutherAI/gpt-neox-20b", "gpt-neox", "gpt_neox", {
    "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64, "intermediate_size": 24576,
    "vocab_size": 50432, "tie_word_embeddings": False, "max_position_embeddings": 2048,
})  # fmt: skip

for _name, _path, _family, _width, _layers, _heads in (
    ("gpt-neo-125m", "EleutherAI/gpt-neo-125m", "gpt-neo", 768, 12, 12),
    ("gpt-neo-1.3b", "EleutherAI/gpt-neo-1.3B", "gpt-neo", 2048, 24, 16),
    ("gpt-neo-2.7b", "EleutherAI/gpt-neo-2.7B", "gpt-neo", 2560, 32, 20),
    ("tinystories-1m", "roneneldan/TinyStories-1M", "tinystories", 64, 8, 16),
    ("tinystories-3m", "roneneldan/TinyStories-3M", "tinystories", 128, 8, 16),
    ("tinystories-8m", "roneneldan/TinyStories-8M", "tinystories", 256, 8, 16),
    ("tinystories-28m", "roneneldan/TinyStories-28M", "tinystories", 512, 8, 16),
    ("tinystories-33m", "roneneldan/TinyStories-33M", "tinystories", 768, 4, 16),
):
    MODELS[_name] = Published(_path, _family, "gpt_neo", {
        "hidden_size": _width, "num_layers": _layers, "num_heads": _heads, "vocab_size": 50257,
        "attention_types": [[["global", "local"], _layers // 2]], "max_position_embeddings": 2048,
    })  # fmt: skip
MODELS["gpt-j-6b"] = Published(
    "EleutherAI/gpt-j-6b", "gpt-j", "gptj", {"n_embd": 4096, "n_layer": 28, "n_head": 16, "vocab_size": 50400,
                                             "n_positions": 2048, "tie_word_embeddings": False},
)  # fmt: skip

for _size, _width, _layers, _heads in (
    ("560m", 1024, 24, 16), ("1b1", 1536, 24, 16), ("1b7", 2048, 24, 16), ("3b", 2560, 30, 32), ("7b1", 4096, 30, 32),
):  # fmt: skip
    MODELS[f"bloom-{_size}"] = Published(f"bigscience/bloom-{_size}", "bloom", "bloom", {
        "hidden_size": _width, "n_layer": _layers, "n_head": _heads, "vocab_size": 250880,
    })  # fmt: skip

# name: hub id, family, model type, width, layers, heads, heads of keys and values, feed-forward width, rows, tied
_MODERN = {
    "llama-2-7b": ("meta-llama/Llama-2-7b-hf", "llama-2", "llama", 4096, 32, 32, 32, 11008, 32000, False),
    "llama-2-13b": ("meta-llama/Llama-2-13b-hf", "llama-2", "llama", 5120, 40, 40, 40, 13824, 32000, False),
    "llama-2-70b": ("meta-llama/Llama-2-70b-hf", "llama-2", "llama", 8192, 80, 64, 8, 28672, 32000, False),
    "llama-3.1-8b": ("meta-llama/Llama-3.1-8B", "llama-3.1", "llama", 4096, 32, 32, 8, 14336, 128256, False),
    "llama-3.1-70b": ("meta-llama/Llama-3.1-70B", "llama-3.1", "llama", 8192, 80, 64, 8, 28672, 128256, False),
    "llama-3.1-405b": ("meta-llama/Llama-3.1-405B", "llama-3.1", "llama", 16384, 126, 128, 8, 53248, 128256, False),
    "llama-3.2-1b": ("meta-llama/Llama-3.2-1B", "llama-3.2", "llama", 2048, 16, 32, 8, 8192, 128256, True),
    "llama-3.2-3b": ("meta-llama/Llama-3.2-3B", "llama-3.2", "llama", 3072, 28, 24, 8, 8192, 128256, True),
    "mistral-7b-v0.1": ("mistralai/Mistral-7B-v0.1", "mistral", "mistral", 4096, 32, 32, 8, 14336, 32000, False),
    "mistral-7b-v0.3": ("mistralai/Mistral-7B-v0.3", "mistral", "mistral", 4096, 32, 32, 8, 14336, 32768, False),
    "smollm2-135m": ("HuggingFaceTB/SmolLM2-135M", "smollm2", "llama", 576, 30, 9, 3, 1536, 49152, True),
    "smollm2-360m": ("HuggingFaceTB/SmolLM2-360M", "smollm2", "llama", 960, 32, 15, 5, 2560, 49152, True),
    "smollm2-1.7b": ("HuggingFaceTB/SmolLM2-1.7B", "smollm2", "llama", 2048, 24, 32, 32, 8192, 49152, True),
    "olmo-2-1b": ("allenai/OLMo-2-0425-1B", "olmo-2", "olmo2", 2048, 16, 16, 16, 8192, 100352, False),
    "olmo-2-7b": ("allenai/OLMo-2-1124-7B", "olmo-2", "olmo2", 4096, 32, 32, 32, 11008, 100352, False),
    "olmo-2-13b": ("allenai/OLMo-2-1124-13B", "olmo-2", "olmo2", 5120, 40, 40, 40, 13824, 100352, False),
    "olmo-2-32b": ("allenai/OLMo-2-0325-32B", "olmo-2", "olmo2", 5120, 64, 40, 8, 27648, 100352, False),
    "qwen2.5-0.5b": ("Qwen/Qwen2.5-0.5B", "qwen2.5", "qwen2", 896, 24, 14, 2, 4864, 151936, True),
    "qwen2.5-1.5b": ("Qwen/Qwen2.5-1.5B", "qwen2.5", "qwen2", 1536, 28, 12, 2, 8960, 151936, True),
    "qwen2.5-3b": ("Qwen/Qwen2.5-3B", "qwen2.5", "qwen2", 2048, 36, 16, 2, 11008, 151936, True),
    "qwen2.5-7b": ("Qwen/Qwen2.5-7B", "qwen2.5", "qwen2", 3584, 28, 28, 4, 18944, 152064, False),
    "qwen2.5-14b": ("Qwen/Qwen2.5-14B", "qwen2.5", "qwen2", 5120, 48, 40, 8, 13824, 152064, False),
    "qwen2.5-32b": ("Qwen/Qwen2.5-32B", "qwen2.5", "qwen2", 5120, 64, 40, 8, 27648, 152064, False),
    "qwen2.5-72b": ("Qwen/Qwen2.5-72B", "qwen2.5", "qwen2", 8192, 80, 64, 8, 29568, 152064, False),
    "qwen3-0.6b": ("Qwen/Qwen3-0.6B-Base", "qwen3", "qwen3", 1024, 28, 16, 8, 3072, 151936, True),
    "qwen3-1.7b": ("Qwen/Qwen3-1.7B-Base", "qwen3", "qwen3", 2048, 28, 16, 8, 6144, 151936, True),
    "qwen3-4b": ("Qwen/Qwen3-4B-Base", "qwen3", "qwen3", 2560, 36, 32, 8, 9728, 151936, True),
    "qwen3-8b": ("Qwen/Qwen3-8B-Base", "qwen3", "qwen3", 4096, 36, 32, 8, 12288, 151936, False),
    "qwen3-14b": ("Qwen/Qwen3-14B-Base", "qwen3", "qwen3", 5120, 40, 40, 8, 17408, 151936, False),
    "qwen3-32b": ("Qwen/Qwen3-32B", "qwen3-post-trained", "qwen3", 5120, 64, 64, 8, 25600, 151936, False),
    "gemma-2-2b": ("google/gemma-2-2b", "gemma-2", "gemma2", 2304, 26, 8, 4, 9216, 256000, True),
    "gemma-2-9b": ("google/gemma-2-9b", "gemma-2", "gemma2", 3584, 42, 16, 8, 14336, 256000, True),
    "gemma-2-27b": ("google/gemma-2-27b", "gemma-2", "gemma2", 4608, 46, 32, 16, 36864, 256000, True),
    "gemma-3-270m": ("google/gemma-3-270m", "gemma-3", "gemma3_text", 640, 18, 4, 1, 2048, 262144, True),
    "gemma-3-1b": ("google/gemma-3-1b-pt", "gemma-3", "gemma3_text", 1152, 26, 4, 1, 6912, 262144, True),
    "gemma-3-4b": ("google/gemma-3-4b-pt", "gemma-3", "gemma3", 2560, 34, 8, 4, 10240, 262208, True),
    "gemma-3-12b": ("google/gemma-3-12b-pt", "gemma-3", "gemma3", 3840, 48, 16, 8, 15360, 262208, True),
    "gemma-3-27b": ("google/gemma-3-27b-pt", "gemma-3", "gemma3", 5376, 62, 32, 16, 21504, 262208, True),
}
_HEAD_DIM = {"qwen3": 128, "gemma2": 256, "gemma3": 256, "gemma3_text": 256}
for _name, (_path, _family, _kind, _width, _layers, _heads, _shared, _inner, _rows, _tied) in _MODERN.items():
    _settings: dict[str, Any] = {
        "hidden_size": _width, "num_hidden_layers": _layers, "num_attention_heads": _heads,
        "num_key_value_heads": _shared, "intermediate_size": _inner, "vocab_size": _rows, "tie_word_embeddings": _tied,
    }  # fmt: skip
    if _kind in _HEAD_DIM:
        _settings["head_dim"] = 128 if _name.endswith("27b") else _HEAD_DIM[_kind]
    MODELS[_name] = Published(_path, _family, _kind, {"text_config": _settings} if _kind == "gemma3" else _settings)

for _size, _width, _layers in (
    ("130m", 768, 24), ("370m", 1024, 48), ("790m", 1536, 48), ("1.4b", 2048, 48), ("2.8b", 2560, 64),
):  # fmt: skip
    MODELS[f"mamba-{_size}"] = Published(f"state-spaces/mamba-{_size}-hf", "mamba", "mamba", {
        "hidden_size": _width, "num_hidden_layers": _layers, "state_size": 16, "time_step_rank": _width // 16,
        "vocab_size": 50280, "expand": 2, "conv_kernel": 4,
    })  # fmt: skip
for _size, _width, _layers in (
    ("130m", 768, 24), ("370m", 1024, 48), ("780m", 1536, 48), ("1.3b", 2048, 48), ("2.7b", 2560, 64),
):  # fmt: skip
    MODELS[f"mamba2-{_size}"] = Published(f"AntonV/mamba2-{_size}-hf", "mamba2", "mamba2", {
        "hidden_size": _width, "num_hidden_layers": _layers, "state_size": 128, "num_heads": _width // 32,
        "head_dim": 64, "n_groups": 1, "vocab_size": 50288, "expand": 2, "conv_kernel": 4, "tie_word_embeddings": True,
    })  # fmt: skip

TOTALS = {
    "gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200,
    "distilgpt2": 81_912_576, "opt-125m": 125_239_296, "opt-350m": 331_196_416, "opt-1.3b": 1_315_758_080,
    "pythia-14m": 14_067_712, "pythia-70m": 70_426_624, "pythia-160m": 162_322_944, "pythia-410m": 405_334_016,
    "pythia-1b": 1_011_781_632, "pythia-1.4b": 1_414_647_808, "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016, "pythia-12b": 11_846_072_320, "gpt-neox-20b": 20_554_567_680,
    "gpt-neo-125m": 125_198_592, "gpt-neo-1.3b": 1_315_575_808, "gpt-neo-2.7b": 2_651_307_520,
    "gpt-j-6b": 6_050_882_784, "bloom-560m": 559_214_592, "bloom-1b1": 1_065_314_304, "bloom-1b7": 1_722_408_960,
    "bloom-3b": 3_002_557_440, "bloom-7b1": 7_069_016_064, "llama-2-7b": 6_738_415_616, "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192, "llama-3.1-8b": 8_030_261_248, "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800, "llama-3.2-1b": 1_235_814_400, "llama-3.2-3b": 3_212_749_824,
    "mistral-7b-v0.1": 7_241_732_096, "mistral-7b-v0.3": 7_248_023_552, "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120, "smollm2-1.7b": 1_711_376_384, "olmo-2-1b": 1_484_916_736,
    "olmo-2-7b": 7_298_617_344, "olmo-2-13b": 13_716_198_400, "olmo-2-32b": 32_234_279_936,
    "qwen2.5-0.5b": 494_032_768, "qwen2.5-1.5b": 1_543_714_304, "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512, "qwen2.5-14b": 14_770_033_664, "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648, "qwen3-0.6b": 596_049_920, "qwen3-1.7b": 1_720_574_976, "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360, "qwen3-14b": 14_768_307_200, "qwen3-32b": 32_762_123_264, "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984, "gemma-2-27b": 27_227_128_320, "gemma-3-270m": 268_098_176,
    "gemma-3-1b": 999_885_952, "mamba-130m": 129_135_360, "mamba-370m": 371_516_416, "mamba-790m": 793_204_224,
    "mamba-1.4b": 1_372_178_432, "mamba-2.8b": 2_768_345_600,
}  # fmt: skip
