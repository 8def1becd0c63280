"""What a model holds besides its weights, so that a probe can leave it as it was loaded.

Some models are changed by being called: a short row switches an attention for good (BigBird), a long one stretches the
positions of all that follow (dynamic rotary scaling), a table is grown and kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from rbp_lab.errors import LabError

KEPT_BYTES = 16 << 20  # a larger tensor is not copied: quantised weights are buffers too
REPEATED = 1e-4  # distance of scores that needs no explanation: a repetition has the same shapes and kernels
_PARTS = ("_buffers", "_modules")  # the dicts of nn.Module that a pass may change; its hooks belong to others
_ELSEWHERE = set(nn.Module().__dict__) - {*_PARTS, "training"}


def keep_state(model: nn.Module) -> Callable[[], None]:
    """A function that puts the model back into its present state, as often as it is called.

    The state is what its modules and their configs hold: attributes, buffers, submodules, and the entries of lists,
    dicts and sets among them. Weights, tensors of more than KEPT_BYTES and anything that other objects hold stay
    as they are.
    """
    undo: list[Callable[[], None]] = []
    seen: set[int] = set()
    for module in model.modules():
        undo += _kept(module, seen)

    def restore() -> None:
        with torch.inference_mode():
            for one in undo:
                one()

    return restore


def _kept(owner: Any, seen: set[int]) -> list[Callable[[], None]]:
    """What puts back the attributes of a module or config, and of the configs among them, each object once."""
    from transformers import PreTrainedConfig

    if id(owner) in seen:
        return []
    seen.add(id(owner))
    left_alone = _ELSEWHERE if isinstance(owner, nn.Module) else set()
    had = {name: value for name, value in owner.__dict__.items() if name not in left_alone}

    def attributes() -> None:
        for name in owner.__dict__.keys() - had.keys() - left_alone:
            del owner.__dict__[name]
        owner.__dict__.update(had)

    undo = [attributes]
    for value in had.values():
        undo += _kept(value, seen) if isinstance(value, PreTrainedConfig) else _contents(value)
    return undo


def _contents(value: Any) -> list[Callable[[], None]]:
    """What puts back the contents of a value that can be changed in place."""
    if isinstance(value, torch.Tensor):
        if isinstance(value, nn.Parameter) or value.is_meta or value.nbytes > KEPT_BYTES:
            return []
        copy = value.detach().clone()
        return [lambda: value.copy_(copy)]
    if isinstance(value, (dict, set)):
        entries = value.copy()

        def put_back() -> None:
            value.clear()
            value.update(entries)
    elif isinstance(value, list):
        items = list(value)

        def put_back() -> None:
            value[:] = items
    else:
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [put_back, *(undo for one in inner for undo in _contents(one))]


def relative_distance(some: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """The largest mean |Δ| between tensors of two lists, relative to the mean size of the first."""
    return max(
        (float((a - b).abs().mean() / a.abs().mean().clamp_min(1e-30)) for a, b in zip(some, others, strict=True)),
        default=0.0,
    )


def check_repeats(distance: float, noise: Callable[[], float], tolerance: float) -> None:
    """Raise LabError when the same rows had other scores after other rows were computed.

    distance: between their scores before and after. noise: the distance that a mere repetition makes; it is asked for
    only when there is something to explain. tolerance: what kernels that add in any order may make of it.
    """
    if distance <= REPEATED:
        return
    drawn = noise()
    if distance <= max(REPEATED, 4 * drawn) and drawn <= tolerance:
        return
    if drawn > tolerance:
        cause = "it draws random numbers in its forward pass; turn that off in its config"
    else:
        cause = (
            "it is changed by the rows that it computes (dynamic position scaling keeps the longest, a short row may "
            "switch an attention); choose dataset.protocol.max_tokens within the positions it was trained for, or an "
            "attention without a switch in its config"
        )
    raise LabError(f"the model gives the same row other scores each time, so no record could be repeated: {cause}")
