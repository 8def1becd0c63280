"""Weights rounded when a model is loaded (int8, int4, fp8), the products taken in the format of the activations."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from torch import nn

from rbp_lab.errors import LabError
from rbp_lab.text import count, number

GROUP = 32  # weights that share a scale in int4


def round_weights(network: nn.Module, kind: str, what: str) -> str:
    """Round the weights of every linear layer but the output layer, in place; returns a sentence of what was rounded.

    int8: symmetric, a scale for each output. int4: symmetric, a scale for each group of GROUP weights. fp8: e4m3, a
    scale for each output. The scales and the rounding are torchao's; activations stay as they are. Embeddings, norms,
    the output layer and layers that are no ``nn.Linear`` keep their format.

    LabError, beginning with ``what``, without torchao and when there is nothing to round.
    """
    head = network.get_output_embeddings()
    layers = {name: m for name, m in network.named_modules() if type(m) is nn.Linear and m is not head}
    every = sum(weight.numel() for weight in network.parameters())
    rounded = sum(layer.weight.numel() for layer in layers.values())
    if not layers:
        others = [m for m in network.modules() if getattr(m, "weight", None) is not None and m is not head]
        kinds = ", ".join(sorted({type(m).__name__ for m in others}))
        raise LabError(f"{what}: no layer can be rounded to {kind}, as none is a plain linear layer ({kinds})")
    wrong = next((name for name, m in layers.items() if m.weight.is_meta or m.weight.shape[1] % GROUP), None)
    if wrong is not None and layers[wrong].weight.is_meta:
        raise LabError(
            f"{what}: weights that lie in a slower place than they are used in cannot be rounded; choose "
            "launch.placement=single"
        )
    if wrong is not None and kind == "int4":
        raise LabError(
            f"{what}: int4 needs layers of {GROUP} inputs or a multiple, but {wrong} has {layers[wrong].in_features}"
        )
    if find_spec("torchao") is None:
        raise LabError(f"{what}: rounding weights to {kind} needs torchao: pip install 'rbp-lab[torchao]'")
    with _quiet():
        from torchao.quantization import quantize_

        quantize_(network, _config(kind), filter_fn=lambda module, name: name in layers)
    share = f"{number(100 * rounded / every, 0)}% of its {count(every)} weights"
    return f"{share} are rounded to {kind} by torchao {version('torchao')}"


def _config(kind: str) -> Any:
    import torch
    from torchao.quantization import Float8WeightOnlyConfig, IntxWeightOnlyConfig, PerAxis, PerGroup

    if kind == "fp8":
        return Float8WeightOnlyConfig()
    if kind == "int8":
        return IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    return IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(GROUP))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torchao's warnings at its import about kernels for other machines, which are not used here."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
