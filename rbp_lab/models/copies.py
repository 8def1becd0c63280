"""Copies of a model for threads: the weights once, everything a forward pass might write of their own.

Some models keep what they computed for a length in their modules (rotary tables that grow, recurrent states), and the
output layer is replaced in the module while a batch is scored. With a module tree for each thread none of that is
shared. A copy may also multiply otherwise than the model does.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from rbp_lab.scoring.product import Linear


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


class _Layer(nn.Linear):
    """A float32 layer of a copy, multiplied by ``multiply``."""

    multiply: Linear

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        product = self.multiply(input.reshape(-1, self.in_features), self.weight, self.bias)
        return product.view(*input.shape[:-1], self.out_features)


def copy_of(model: nn.Module, linear: Linear | None = None) -> nn.Module:
    """The model once more: the same parameters in memory, modules and buffers of its own.

    linear: what multiplies in those of its layers that are plain nn.Linear in float32, in place of torch's default.
    """
    copy = deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    for layer in copy.modules() if linear else ():
        if type(layer) is nn.Linear and all(p.dtype is torch.float32 for p in layer.parameters()):
            layer.__class__ = _Layer
            layer.multiply = linear
    return copy
