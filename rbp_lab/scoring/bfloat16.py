"""The product of bfloat16 operands with float32 sums and results on a CPU, which torch has for GPUs only.

torch's own takes half the time of a float32 product and rounds every logit to 8 bits, so that ranks are decided by
ties; converting the operands gives up that half. Processors with AVX512-BF16 sum pairs of products in float32, and
numba reaches that instruction through its intrinsics. Legend: m tokens, n vocabulary rows, D width; a word is two
neighbouring bfloat16 in 32 bits, P = D/2 of them in a row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from llvmlite import binding, ir
from numba import njit, types
from numba.core import config
from numba.extending import intrinsic

# A block of logits is summed in registers: TOKENS × COLUMNS / 16 = 24 of the 32, and VECTORS more for the weights.
TOKENS, VECTORS, LANES = 6, 4, 16
COLUMNS = VECTORS * LANES
# Words summed one after the other before they are added to the sum of those before: at D = 768 logits of variance 1 are
# off by at most 7e-7 so, and by 4e-6 in one sum.
CHAIN = 64
BYTES = 4  # of a word, and of a float32

WORD, FLOAT, SIZE = ir.IntType(32), ir.FloatType(), ir.IntType(64)
WORDS, FLOATS = ir.VectorType(WORD, LANES), ir.VectorType(FLOAT, LANES)


def multiplies(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether ``linear`` can take these: all bfloat16, D even and at least 32, and a processor with the instruction."""
    width = hidden.shape[-1]
    operands = (hidden, weight) if bias is None else (hidden, weight, bias)
    return all(x.dtype is torch.bfloat16 for x in operands) and width % 2 == 0 and width >= 2 * LANES and _runs_here()


@cache
def _runs_here() -> bool:
    # Compiling the instruction for a processor without it ends the process: numba's target must be this one.
    if config.DISABLE_JIT or config.CPU_NAME or config.CPU_FEATURES or not config.ENABLE_AVX:
        return False
    try:
        return bool(binding.get_host_cpu_features().get("avx512bf16"))
    except RuntimeError:  # LLVM cannot tell
        return False


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x · weightᵀ + bias [m,n] float32 of x [m,D], weight [n,D] and bias [n], all bfloat16.

    Products are exact and sums are rounded to float32, in an order that depends on D alone. One thread. ValueError
    for operands that ``multiplies`` refuses or whose widths differ: addresses are not checked further down.
    """
    if not multiplies(x, weight, bias) or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"bfloat16 operands of one even width ≥ {2 * LANES} expected; got {x.dtype} {list(x.shape)} "
            f"and {weight.dtype} {list(weight.shape)}"
        )
    m, n = len(x), len(weight)
    # Blocks overlap at the edges, so one whole block is the least.
    x, weight = _at_least(x, TOKENS), _at_least(weight, COLUMNS)
    out = torch.empty(len(x), len(weight))
    packed = np.empty((x.shape[1] // 2, COLUMNS), np.int32)
    _multiply(_words(x), _words(weight), packed, out.numpy())
    if out.shape != (m, n):
        out = out[:m, :n].contiguous()
    return out if bias is None else out.add_(bias)


def _at_least(x: torch.Tensor, rows: int) -> torch.Tensor:
    return F.pad(x, (0, 0, 0, rows - len(x))) if len(x) < rows else x


def _words(x: torch.Tensor) -> np.ndarray:
    return x.detach().contiguous().view(torch.int32).numpy()


def _address(builder: Any, base: Any, stride: Any, steps: int, kind: ir.Type) -> Any:
    """base + steps · stride bytes, as a pointer to ``kind``."""
    return builder.inttoptr(builder.add(base, builder.mul(stride, SIZE(steps))), kind.as_pointer())


def _block(adds: bool) -> Callable[..., Any]:
    """The intrinsic that writes, or adds, the sums of a block over some words to the logits.

    Its arguments are whole numbers: addresses of the block's first word of x, of the packed weights and of the first
    logit, the number of words (at least 1), and the bytes from one row to the next of x and of the logits.
    """

    @intrinsic
    def block(_typing, x, packed, out, words, x_stride, out_stride):  # type: ignore[no-untyped-def]
        def code(context, builder, _signature, args):  # type: ignore[no-untyped-def]
            x, packed, out, words, x_stride, out_stride = args
            # Declared with vectors of words, as LLVM 15 had it; later ones, which take bfloat, still read this.
            kind = ir.FunctionType(FLOATS, [FLOATS, WORDS, WORDS])
            name = "llvm.x86.avx512bf16.dpbf16ps.512"
            multiply_add = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)

            builder.position_at_end(loop)
            k = builder.phi(SIZE)
            sums = [[builder.phi(FLOATS) for _ in range(VECTORS)] for _ in range(TOKENS)]
            x_k = builder.add(x, builder.mul(k, SIZE(BYTES)))
            packed_k = builder.add(packed, builder.mul(k, SIZE(BYTES * COLUMNS)))
            weights = [
                builder.load(_address(builder, packed_k, SIZE(BYTES * LANES), i, WORDS), align=4)
                for i in range(VECTORS)
            ]
            updated = []
            for token in range(TOKENS):
                word = builder.load(_address(builder, x_k, x_stride, token, WORD), align=4)
                first = builder.insert_element(WORDS(ir.Undefined), word, WORD(0))
                spread = builder.shuffle_vector(first, WORDS(ir.Undefined), WORDS(None))
                updated.append(
                    [builder.call(multiply_add, [s, spread, w]) for s, w in zip(sums[token], weights, strict=True)]
                )
            next_k = builder.add(k, SIZE(1))
            k.add_incoming(SIZE(0), before)
            k.add_incoming(next_k, loop)
            for row, new_row in zip(sums, updated, strict=True):
                for s, new in zip(row, new_row, strict=True):
                    s.add_incoming(FLOATS(None), before)
                    s.add_incoming(new, loop)
            builder.cbranch(builder.icmp_signed("<", next_k, words), loop, after)

            builder.position_at_end(after)
            for token, row in enumerate(updated):
                logits = builder.add(out, builder.mul(out_stride, SIZE(token)))
                for i, new in enumerate(row):
                    place = _address(builder, logits, SIZE(BYTES * LANES), i, FLOATS)
                    builder.store(builder.fadd(builder.load(place, align=4), new) if adds else new, place, align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6), code

    return block


_write_block, _add_block = _block(adds=False), _block(adds=True)


@intrinsic
def _transpose(_typing, source, target, source_stride, target_stride):  # type: ignore[no-untyped-def]
    """Transpose 16 × 16 words, given the addresses of their first and the bytes from one row to the next."""

    def code(context, builder, _signature, args):  # type: ignore[no-untyped-def]
        source, target, source_stride, target_stride = args
        rows = [builder.load(_address(builder, source, source_stride, i, WORDS), align=4) for i in range(LANES)]
        # Quarters change places, at every size: lanes with bit s of one row and without it of the row s below.
        for s in (8, 4, 2, 1):
            upper = WORDS([LANES + j - s if j & s else j for j in range(LANES)])
            lower = WORDS([LANES + j if j & s else j + s for j in range(LANES)])
            for i in range(LANES):
                if not i & s:
                    pair = rows[i], rows[i + s]
                    rows[i], rows[i + s] = (builder.shuffle_vector(*pair, lanes) for lanes in (upper, lower))
        for i, row in enumerate(rows):
            builder.store(row, _address(builder, target, target_stride, i, WORDS), align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), code


@njit(nogil=True, cache=True)
def _multiply(x, weight, packed, out):  # type: ignore[no-untyped-def]
    """out [m,n] float32 from the words of x [m,P] and weight [n,P]; packed [P,COLUMNS] is overwritten.

    At the edges blocks overlap: what is computed twice is computed alike.
    """
    m, pairs = x.shape
    n = weight.shape[0]
    row, packed_row, out_row = BYTES * pairs, BYTES * COLUMNS, BYTES * n
    for column in range(0, n, COLUMNS):
        column = min(column, n - COLUMNS)
        for k in range(0, pairs, LANES):
            k = min(k, pairs - LANES)
            for c in range(0, COLUMNS, LANES):
                source = weight.ctypes.data + (column + c) * row + BYTES * k
                _transpose(source, packed.ctypes.data + k * packed_row + BYTES * c, row, packed_row)
        for token in range(0, m, TOKENS):
            token = min(token, m - TOKENS)
            logits = out.ctypes.data + token * out_row + BYTES * column
            _write_block(x.ctypes.data + token * row, packed.ctypes.data, logits, min(CHAIN, pairs), row, out_row)
            for k in range(CHAIN, pairs, CHAIN):
                words = min(CHAIN, pairs - k)
                at, weights = x.ctypes.data + token * row + BYTES * k, packed.ctypes.data + k * packed_row
                _add_block(at, weights, logits, words, row, out_row)
