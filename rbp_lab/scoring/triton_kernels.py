"""The Triton kernels: one fuses the output layer's product with its reduction, one merges its parts, one reads logits.

All keep the same state of a token: its target's logit t; top ≥ t, the largest logit so far; mass = Σ exp(z − top);
moment = Σ (z − top) exp(z − top); and integer counts over the candidates other than the target. The state starts at
top = t with no mass, so no step ever meets an infinity that is not in the logits. One that is there turns mass or
moment into NaN (∞ − ∞ or 0 · ∞), and so does NaN, and with them the entropy: nobody needs to look at each logit.

There are no atomics and no locks. Importing this module imports triton, which decides there and then (by
TRITON_INTERPRET) whether kernels are compiled or interpreted.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from triton.runtime.jit import JITFunction

__all__ = ["INTERPRETED", "fused_kernel", "merge_kernel", "on_device", "outputs", "row_kernel"]


@triton.jit
def _tanh(x):
    """tanh to a few units in the last place of float32, also near 0, where ties of capped logits would be invented.

    Below 0.55 an odd polynomial (least squares on the relative error), above it 1 − 2 / (exp 2|x| + 1). Every sum is
    an explicit fused multiply-add: nothing is left for a compiler to contract in one kernel and not in the other.
    """
    s = x * x
    p = tl.fma(s, -6.264324411e-03, 2.106410794e-02)
    p = tl.fma(p, s, -5.385028974e-02)
    p = tl.fma(p, s, 1.333256439e-01)
    p = tl.fma(p, s, -3.333331680e-01)
    small = tl.fma(x * s, p, x)
    size = tl.abs(x)
    large = tl.fma(1.0 / (tl.exp(2.0 * size) + 1.0), -2.0, 1.0)
    return tl.where(size < 0.55, small, tl.where(x < 0, -large, large))


# What the decorator made of a kernel is what decides, not the environment of a later moment.
INTERPRETED: bool = not isinstance(_tanh, JITFunction)
_EMULATED = tl.constexpr(INTERPRETED)
# exp(−_FAR) is 0 in float32; _LOWEST is almost the most negative float32
_FAR = tl.constexpr(1e4)
_LOWEST = tl.constexpr(-3.4e38)


@triton.jit
def _rounded(z, ROUND: tl.constexpr):
    """z rounded to the dtype ROUND, in float32."""
    if _EMULATED and tl.bfloat16 == ROUND:
        # the interpreter rounds halves up instead of to even
        bits = z.to(tl.int32, bitcast=True)
        even = ((bits + 0x7FFF + ((bits >> 16) & 1)) & -65536).to(tl.float32, bitcast=True)
        z = tl.where(z == z, even, z)
    else:
        z = z.to(ROUND).to(tl.float32)
    return z


@triton.jit
def _finished(z, bias, scale, cap, ROUND: tl.constexpr):
    """cap · tanh(scale · (z + bias) / cap), rounded to ROUND after each step as a model rounds; None leaves one out."""
    if bias is not None:
        z += bias
    z = _rounded(z, ROUND)
    if scale is not None:
        z = _rounded(z * scale, ROUND)
    if cap is not None:
        z = _rounded(z / cap, ROUND)
        z = _rounded(_tanh(z), ROUND)
        z = _rounded(z * cap, ROUND)
    return z


@triton.jit
def _count(where):
    """How many of each row of a mask are set, int32."""
    return tl.sum(where.to(tl.int32), axis=1)


@triton.jit(do_not_specialize=["n"])  # it differs from batch to batch: compiled once for all
def fused_kernel(
    hidden,
    weight,
    bias,
    targets,
    delta,
    target_logit,
    top_out,
    mass_out,
    moment_out,
    greater_out,
    equal_out,
    surely_out,
    maybe_out,
    n,
    candidates,
    width,
    scale,
    cap,
    tiles_per_split,
    hidden_n,
    hidden_d,
    weight_v,
    weight_d,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    OPERAND: tl.constexpr,
    ROUND: tl.constexpr,
):
    """State of TOKENS tokens over one split of the vocabulary; grid (blocks of tokens, splits).

    The first step of the loop multiplies by the rows of the tokens' own targets: its diagonal is t. It is the same
    code as every other step, instruction for instruction, so t has the bits that any equal column gets in its tile.
    Programs next to each other take the same split, so they find its rows in the second-level cache. bias, delta,
    scale and cap may be None. Partial results: [splits, n]; target_logit: [n], written by split 0.
    """
    split = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    live = row < n
    own = tl.load(targets + row, mask=live, other=-1).to(tl.int32)
    column = tl.arange(0, ROWS)
    column_row = tl.program_id(0).to(tl.int64) * TOKENS + column
    column_own = tl.load(targets + column_row, mask=(column < TOKENS) & (column_row < n), other=0).to(tl.int32)
    first = split * tiles_per_split
    last = tl.minimum(first + tiles_per_split, tl.cdiv(candidates, ROWS))
    t = tl.zeros((TOKENS,), tl.float32)
    low = tl.zeros((TOKENS,), tl.float32)
    high = tl.zeros((TOKENS,), tl.float32)
    top = tl.zeros((TOKENS,), tl.float32)
    mass = tl.zeros((TOKENS,), tl.float32)
    moment = tl.zeros((TOKENS,), tl.float32)
    greater = tl.zeros((TOKENS,), tl.int32)
    equal = tl.zeros((TOKENS,), tl.int32)
    surely = tl.zeros((TOKENS,), tl.int32)
    maybe = tl.zeros((TOKENS,), tl.int32)
    for step in range(first - 1, last):
        from_tile = step * ROWS
        vocab = tl.where(step < first, column_own, from_tile + column)
        known = vocab < candidates
        z = tl.zeros((TOKENS, ROWS), tl.float32)
        for start in range(0, width, DEPTH):
            unit = start + tl.arange(0, DEPTH)
            within = unit < width
            x = tl.load(
                hidden + row[:, None] * hidden_n + unit[None, :] * hidden_d,
                mask=live[:, None] & within[None, :],
                other=0.0,
            ).to(OPERAND)
            w = tl.load(
                weight + vocab[None, :].to(tl.int64) * weight_v + unit[:, None] * weight_d,
                mask=known[None, :] & within[:, None],
                other=0.0,
            ).to(OPERAND)
            if _EMULATED:  # the interpreter's dot multiplies the bit patterns of bfloat16
                x = x.to(tl.float32)
                w = w.to(tl.float32)
            z = tl.dot(x, w, z, input_precision="ieee")
        added = None
        if bias is not None:
            added = tl.load(bias + vocab, mask=known, other=0.0).to(ROUND).to(tl.float32)[None, :]
        z = _finished(z, added, scale, cap, ROUND)
        if step < first:
            diagonal = tl.arange(0, TOKENS)[:, None] == column[None, :]
            t = tl.sum(tl.where(diagonal, z, 0.0), axis=1)
            top = t
            if delta is not None:
                margin = tl.load(delta + row, mask=live, other=0.0)
                low = t - margin
                high = t + margin
        else:
            # by differences from the tile's first row, which need no register per column
            inside = column < candidates - from_tile
            other = inside[None, :] & (column[None, :] != (own - from_tile)[:, None])
            greater += _count(other & (z > t[:, None]))
            equal += _count(other & (z == t[:, None]))
            if delta is not None:
                surely += _count(other & (z > high[:, None]))
                maybe += _count(other & (z >= low[:, None]))
            # beyond the last candidate: far below the top, so nothing is added, and finite, so nothing looks wrong
            floor = tl.maximum(2.0 * tl.minimum(top, 0.0) - _FAR, _LOWEST)
            z = tl.where(inside[None, :], z, floor[:, None])
            new_top = tl.maximum(top, tl.max(z, axis=1))
            below = z - new_top[:, None]
            e = tl.exp(below)
            shift = top - new_top
            shrink = tl.exp(shift)
            moment = shrink * (moment + shift * mass) + tl.sum(below * e, axis=1)
            mass = shrink * mass + tl.sum(e, axis=1)
            top = new_top
    out = split.to(tl.int64) * n + row
    tl.store(top_out + out, top, mask=live)
    tl.store(mass_out + out, mass, mask=live)
    tl.store(moment_out + out, moment, mask=live)
    tl.store(greater_out + out, greater, mask=live)
    tl.store(equal_out + out, equal, mask=live)
    if delta is not None:
        tl.store(surely_out + out, surely, mask=live)
        tl.store(maybe_out + out, maybe, mask=live)
    if split == 0:
        tl.store(target_logit + row, t, mask=live)


@triton.jit(do_not_specialize=["n"])  # it differs from batch to batch: compiled once for all
def merge_kernel(
    target_logit,
    top_in,
    mass_in,
    moment_in,
    greater_in,
    equal_in,
    surely_in,
    maybe_in,
    nll_out,
    entropy_out,
    greater_out,
    equal_out,
    surely_out,
    maybe_out,
    n,
    splits,
    TOKENS: tl.constexpr,
):
    """Scores of TOKENS tokens from the states [splits, n] of fused_kernel, merged from split 0 upwards."""
    row = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    live = row < n
    t = tl.load(target_logit + row, mask=live, other=0.0)
    top = t
    mass = tl.zeros((TOKENS,), tl.float32)
    moment = tl.zeros((TOKENS,), tl.float32)
    greater = tl.zeros((TOKENS,), tl.int32)
    equal = tl.zeros((TOKENS,), tl.int32)
    surely = tl.zeros((TOKENS,), tl.int32)
    maybe = tl.zeros((TOKENS,), tl.int32)
    at = row
    for _ in range(0, splits):
        its_top = tl.load(top_in + at, mask=live, other=0.0)
        its_mass = tl.load(mass_in + at, mask=live, other=1.0)
        its_moment = tl.load(moment_in + at, mask=live, other=0.0)
        new_top = tl.maximum(top, its_top)
        shift = top - new_top
        its_shift = its_top - new_top
        shrink = tl.exp(shift)
        its_shrink = tl.exp(its_shift)
        moment = shrink * (moment + shift * mass) + its_shrink * (its_moment + its_shift * its_mass)
        mass = shrink * mass + its_shrink * its_mass
        top = new_top
        greater += tl.load(greater_in + at, mask=live, other=0)
        equal += tl.load(equal_in + at, mask=live, other=0)
        if surely_in is not None:
            surely += tl.load(surely_in + at, mask=live, other=0)
            maybe += tl.load(maybe_in + at, mask=live, other=0)
        at += n
    _store_values(nll_out + row, entropy_out + row, t, top, mass, moment, live)
    tl.store(greater_out + row, greater, mask=live)
    tl.store(equal_out + row, equal, mask=live)
    if surely_in is not None:
        tl.store(surely_out + row, surely, mask=live)
        tl.store(maybe_out + row, maybe, mask=live)


@triton.jit
def row_kernel(
    logits,
    bias,
    targets,
    delta,
    nll_out,
    entropy_out,
    greater_out,
    equal_out,
    surely_out,
    maybe_out,
    candidates,
    logits_n,
    scale,
    cap,
    BLOCK: tl.constexpr,
):
    """Scores of one token per program from its row of the head's product, each logit read once.

    Every lane of a block keeps a state of its own: one exponential per logit, and nothing crosses lanes before the
    end of the row. bias, scale and cap are applied in float32 (None leaves one out); delta may be None.
    """
    i = tl.program_id(0).to(tl.int64)
    own = tl.load(targets + i)
    own_bias = None
    if bias is not None:
        own_bias = tl.load(bias + own).to(tl.float32)
    t = _finished(tl.load(logits + i * logits_n + own).to(tl.float32), own_bias, scale, cap, tl.float32)
    top = tl.zeros((BLOCK,), tl.float32) + t
    mass = tl.zeros((BLOCK,), tl.float32)
    moment = tl.zeros((BLOCK,), tl.float32)
    greater = tl.zeros((BLOCK,), tl.int32)
    equal = tl.zeros((BLOCK,), tl.int32)
    if delta is not None:
        margin = tl.load(delta + i)
        surely = tl.zeros((BLOCK,), tl.int32)
        maybe = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, candidates, BLOCK):
        vocab = start + tl.arange(0, BLOCK)
        inside = vocab < candidates
        added = None
        if bias is not None:
            added = tl.load(bias + vocab, mask=inside, other=0.0).to(tl.float32)
        z = tl.load(logits + i * logits_n + vocab, mask=inside, other=0.0).to(tl.float32)
        z = _finished(z, added, scale, cap, tl.float32)
        other = inside & (vocab != own)
        greater += (other & (z > t)).to(tl.int32)
        equal += (other & (z == t)).to(tl.int32)
        if delta is not None:
            surely += (other & (z > t + margin)).to(tl.int32)
            maybe += (other & (z >= t - margin)).to(tl.int32)
        above = z - top
        e = tl.exp(-tl.abs(above))
        higher = above > 0
        new_moment = tl.where(higher, e * (moment - above * mass), moment + above * e)
        new_mass = tl.where(higher, e * mass + 1.0, mass + e)
        moment = tl.where(inside, new_moment, moment)
        mass = tl.where(inside, new_mass, mass)
        top = tl.where(inside & higher, z, top)
    best = tl.max(top, axis=0)
    shift = top - best
    shrink = tl.exp(shift)
    moment = tl.sum(shrink * (moment + shift * mass), axis=0)
    mass = tl.sum(shrink * mass, axis=0)
    _store_values(nll_out + i, entropy_out + i, t, best, mass, moment, None)
    tl.store(greater_out + i, tl.sum(greater, axis=0))
    tl.store(equal_out + i, tl.sum(equal, axis=0))
    if delta is not None:
        tl.store(surely_out + i, tl.sum(surely, axis=0))
        tl.store(maybe_out + i, tl.sum(maybe, axis=0))


@triton.jit
def _store_values(nll_out, entropy_out, t, top, mass, moment, live):
    """nll = top − t + log mass and entropy = log mass − moment / mass."""
    log_mass = tl.log(mass)
    tl.store(nll_out, top - t + log_mass, mask=live)
    tl.store(entropy_out, log_mass - moment / mass, mask=live)


def on_device(tensor: torch.Tensor) -> AbstractContextManager:
    """A context in which kernels launch on the tensor's device: Triton takes the current one, whatever it is given."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def outputs(like: torch.Tensor, shape: tuple[int, ...], count: int) -> list[torch.Tensor]:
    """``count`` uninitialised tensors of a shape on the device of ``like``: float32, or int32 where it holds integers.

    A tensor each: kernels are compiled for the alignment of their pointers, and rows of one table would have any.
    """
    dtype = torch.float32 if like.is_floating_point() else torch.int32
    return [torch.empty(shape, dtype=dtype, device=like.device) for _ in range(count)]
