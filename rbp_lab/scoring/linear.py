"""The product of hidden states and weights that tiles of logits are made of: oneDNN's where torch has it, else torch's.

Which one runs follows from the device, the dtype and the installed torch alone, never from a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
import torch.nn.functional as F

Linear = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]


def product_for(device: str, operands: torch.dtype) -> str:
    """ "onednn" or "torch": whose product multiplies operands of a dtype on a device type ("cpu", "cuda").

    torch multiplies 16-bit operands on a CPU by oneDNN already; in float32 its default is another library.
    """
    return "onednn" if device == "cpu" and operands is torch.float32 and has_onednn() else "torch"


def linear_for(device: str, operands: torch.dtype) -> Linear:
    """The function (x [m,D], weight [n,D], bias [n] or None) → x · weightᵀ + bias [m,n] of ``product_for``."""
    return onednn_linear if product_for(device, operands) == "onednn" else F.linear


def onednn_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x · weightᵀ + bias by oneDNN, which torch reaches through a private operator only."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@cache
def has_onednn() -> bool:
    """Whether this build of torch has oneDNN's product and calls it as ``onednn_linear`` does."""
    try:
        if not torch.backends.mkldnn.is_available():
            return False
        return onednn_linear(torch.ones(2, 3), torch.ones(4, 3), torch.ones(4)).tolist() == [[4.0] * 4] * 2
    except (RuntimeError, AttributeError, TypeError):  # a torch that names or calls it otherwise
        return False


@contextmanager
def ieee_products() -> Iterator[None]:
    """While open, float32 products on a GPU are not shortened to TF32, whatever the model's body may do."""
    matmul = torch.backends.cuda.matmul
    # torch refuses to read the old switch once the new one has been set
    name, exact = ("fp32_precision", "ieee") if hasattr(matmul, "fp32_precision") else ("allow_tf32", False)
    before = getattr(matmul, name)
    setattr(matmul, name, exact)
    try:
        yield
    finally:
        setattr(matmul, name, before)
