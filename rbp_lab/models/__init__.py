"""Model sources: what a model is (from its config), its tokenizer, its weights. Names load on first use, so that
importing this package imports neither torch nor transformers."""

from importlib import import_module

_HOMES = {"HFModel": "rbp_lab.models.hf", "GGUFModel": "rbp_lab.models.gguf", "LadderModel": "rbp_lab.ladder.model"}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
