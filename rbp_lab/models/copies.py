"""Copies of a model for threads: the weights once, everything a forward pass might write of their own.

Some models keep what they computed for a length in their modules (rotary tables that grow, recurrent states), and the
output layer is replaced in the module while a batch is scored. With a module tree for each thread none of that is
shared.
"""

from __future__ import annotations

from copy import deepcopy

from torch import nn


def may_be_copied(model: nn.Module) -> bool:
    """Whether a copy's forward pass is sure to be the model's own: a class of transformers, used as it comes.

    A forward or a hook that was put on a module (offloading does) holds on to that module; quantised weights and code
    from a repository may hold anything.
    """
    return (
        type(model).__module__.startswith("transformers.")
        and getattr(model, "hf_quantizer", None) is None
        and not any("forward" in vars(m) or m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    )


def copy_of(model: nn.Module) -> nn.Module:
    """The model once more: the same parameters in memory, modules and buffers of its own."""
    return deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
