"""Weights rounded when a model is loaded (int8, int4, fp8), the products taken in the format of the activations."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rbp_lab.errors import LabError
from rbp_lab.hub.errors import quiet
from rbp_lab.models.opening import HEAD, lacks_torchao
from rbp_lab.text import count, number

GROUP = 32  # weights that share a scale in int4


def round_weights(network: nn.Module, kind: str, what: str) -> str:
    """Round the weights of every linear layer, in place; returns a sentence of what was rounded.

    int8: symmetric, a scale for each output. int4: symmetric, a scale for each group of GROUP weights. fp8: e4m3, a
    scale for each output. The scales and the rounding are torchao's; activations stay as they are. Embeddings, norms
    and layers that are not linear keep their format, and so does the output layer unless ``kind`` ends in HEAD. Then
    it has the rounded values in the format that it had, which is what the scores are computed from; embeddings that
    share its weights keep theirs. So do layers that the model never calls, because it takes their weights itself.

    LabError, beginning with ``what``, without torchao and when there is nothing to round.
    """
    with_head, kind = kind.endswith(HEAD), kind.removesuffix(HEAD)
    head = network.get_output_embeddings()
    if with_head and head is None:
        raise LabError(f"{what}: it has no output layer of its own to round; choose model.quantisation={kind}")
    every = sum(weight.numel() for weight in network.parameters())
    last = {"the output layer": head} if with_head else {}
    if any(m.weight.is_meta for m in (_linear(network, head) | last).values()):
        raise LabError(
            f"{what}: weights that lie in a slower place than they are used in cannot be rounded; choose "
            "launch.placement=single"
        )
    _plain(network)
    layers = _linear(network, head)
    if not layers:
        others = [m for m in network.modules() if getattr(m, "weight", None) is not None and m is not head]
        kinds = ", ".join(sorted({type(m).__name__ for m in others}))
        raise LabError(f"{what}: no layer can be rounded to {kind}, as none is a linear layer ({kinds})")
    rounded = sum(layer.weight.numel() for layer in layers.values())
    asked = layers | last
    odd = next((name for name, m in asked.items() if m.weight.shape[1] % GROUP), None)
    if kind == "int4" and odd is not None:
        raise LabError(
            f"{what}: int4 needs layers of {GROUP} inputs or a multiple, but {odd} has {asked[odd].weight.shape[1]}"
        )
    if lacks := lacks_torchao(kind):
        raise LabError(f"{what}: {lacks}")
    never_called = _never_called(network, layers)
    with quiet():
        from torchao.quantization import quantize_

        quantize_(network, _config(kind), filter_fn=lambda module, name: name in layers)
        for layer in never_called.values():
            _unpack(layer)
        if with_head:
            alone = nn.ModuleDict({"head": nn.Linear(*head.weight.shape[::-1], bias=False, device="meta")})
            alone["head"].weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
            quantize_(alone, _config(kind))
            _unpack(alone["head"])
            head.weight = alone["head"].weight
    share = f"{number(100 * rounded / every, 0)}% of its {count(every)} weights"
    head_too = ", and the output layer," if with_head else ""
    return f"{share}{head_too} are rounded to {kind} by torchao {version('torchao')}"


def _linear(network: nn.Module, head: nn.Module | None) -> dict[str, nn.Module]:
    """The linear layers but the output layer, by name; GPT-2's are Conv1D, with their weights transposed."""
    return {name: m for name, m in network.named_modules() if type(m) in (nn.Linear, Conv1D) and m is not head}


def _never_called(network: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Those layers that a pass over two tokens does not call: Mamba multiplies by a layer's weights itself, for which
    packed ones have no product. Experts that the two tokens do not reach are among them, which costs memory alone."""
    called: set[str] = set()
    hooks = [m.register_forward_pre_hook(lambda *_, name=name: called.add(name)) for name, m in layers.items()]
    try:
        ids = torch.zeros((1, 2), dtype=torch.long, device=network.get_input_embeddings().weight.device)
        with torch.inference_mode(), suppress(Exception):  # what does not run is refused when the head is probed
            network(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: layer for name, layer in layers.items() if name not in called}


def _unpack(layer: nn.Module) -> None:
    """Give a rounded layer its values in the format that they had."""
    weight = layer.weight
    layer.weight = nn.Parameter(weight.dequantize().to(weight.dtype), requires_grad=False)


def _plain(network: nn.Module) -> None:
    """Put an ``nn.Linear`` of the same weights in the place of every Conv1D, which torchao does not know."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is Conv1D:
                plain = nn.Linear(layer.nx, layer.nf, device="meta")
                plain.weight = nn.Parameter(layer.weight.detach().t().contiguous(), requires_grad=False)
                plain.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
                setattr(parent, name, plain.train(layer.training))


def _config(kind: str) -> Any:
    from torchao.quantization import Float8WeightOnlyConfig, IntxWeightOnlyConfig, PerAxis, PerGroup

    if kind == "fp8":
        return Float8WeightOnlyConfig()
    if kind == "int8":
        return IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    return IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(GROUP))
