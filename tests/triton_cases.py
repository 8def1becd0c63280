"""What every Triton implementation must do, on any device: `python -m tests.triton_cases` runs it interpreted.

TRITON_INTERPRET must be set before triton is first imported, so the tests run this module in a process of its own. It
prints one line of JSON: the name of each case and what it raised, or null.
"""

from __future__ import annotations

import json
import math
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from rbp_lab.errors import LabError
from rbp_lab.scoring import LMHead, NonFiniteLogits, check_finite, score_tokens
from rbp_lab.scoring.error_bounds import rounding_bound
from rbp_lab.scoring.reference import reference_logits, score_logits
from rbp_lab.scoring.triton_chunked import score_triton_chunked
from rbp_lab.scoring.triton_fused import score_triton_fused
from rbp_lab.scoring.triton_kernels import _tanh
from rbp_lab.scoring.triton_tiles import Tile
from rbp_lab.scoring.types import TokenScores
from tests.test_scoring import assert_matches_reference, assert_ranks_ties_and_values_by_hand, random_case

SCORE = {"triton-chunked": score_triton_chunked, "triton-fused": score_triton_fused}
IMPLS = tuple(SCORE)
SMALL = Tile(16, 32, 32, 4, 2)
# what a failing case raises: pytest's own failures are no Exception
FAILURES = (Exception, pytest.fail.Exception)
CASES: dict[str, Callable[[str], None]] = {}


def case(**variants):
    """Registers a function of (device, **variant) under its name once per value of its one variant, or once."""

    def register(function):
        name = function.__name__
        if not variants:
            CASES[name] = function
        for key, values in variants.items():
            for value in values:
                CASES[f"{name}[{value}]"] = partial(function, **{key: value})
        return function

    return register


def on(device, hidden, head, targets):
    """The same case with its tensors on a device."""
    bias = None if head.bias is None else head.bias.to(device)
    head = LMHead(head.weight.to(device), bias, head.scale, head.softcap, head.num_candidates)
    return hidden.to(device), head, targets.to(device)


def run(impl, hidden, head, targets, **options) -> TokenScores:
    """An implementation called directly; in small tiles where the kernel is interpreted."""
    if impl == "triton-fused" and not hidden.is_cuda:
        options.setdefault("tile", SMALL)
    with torch.inference_mode():
        return check_finite(SCORE[impl](hidden, head, targets, **options))


def assert_same(one: TokenScores, other: TokenScores, names=("nll", "num_greater", "num_equal", "entropy")):
    for name in names:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def whole_numbers(tokens, vocab, width, device, most=2, dtype=torch.float32, **head):
    """A case of whole numbers up to ``most``: products exact in any order, and the smaller they are the more ties."""
    g = torch.Generator().manual_seed(0)
    hidden = torch.randint(-most, most + 1, (tokens, width), generator=g).to(dtype)
    weight = torch.randint(-most, most + 1, (vocab, width), generator=g).to(dtype)
    bias = torch.randint(-3, 4, (vocab,), generator=g).to(dtype) if head.pop("bias", False) else None
    targets = torch.randint(0, head.get("num_candidates") or vocab, (tokens,), generator=g)
    targets[:2] = torch.tensor([0, (head.get("num_candidates") or vocab) - 1])
    return on(device, hidden, LMHead(weight, bias, **head), targets)


OPTIONS = ({}, {"bias": True}, {"scale": 0.0625}, {"softcap": 3.0}, {"num_candidates": 70})
OPTIONS += ({"bias": True, "scale": 2.0, "softcap": 5.0, "num_candidates": 61},)


@case(options=OPTIONS)
def matches_the_reference(device, options):
    for impl in IMPLS:
        for i, shape in enumerate(((17, 75, 33), (3, 96, 32))):
            hidden, head, targets = on(device, *random_case(*shape, seed=i, **options))
            assert_matches_reference(run(impl, hidden, head, targets), hidden, head, targets)


@case(impl=IMPLS)
def many_blocks_of_the_vocabulary(device, impl):
    """Rows that rise, fall and stay level from block to block, so that a running maximum moves in all ways."""
    hidden, head, targets = on(device, *random_case(5, 2100, 8, bias=True))
    wave = torch.arange(2100, device=device) / 2100
    for slope in (20.0, -20.0, 0.0):
        tilted = LMHead(head.weight, head.bias + slope * wave)
        options = {"tile": Tile(16, 128, 16, 4, 2), "splits": 3} if impl == "triton-fused" else {}
        assert_matches_reference(run(impl, hidden, tilted, targets, **options), hidden, tilted, targets)


@case(dtype=(torch.bfloat16, torch.float16))
def low_precision_is_multiplied_and_kept_in_float32(device, dtype):
    for impl in IMPLS:
        hidden, head, targets = on(device, *random_case(17, 150, 40, dtype, bias=True))
        assert_matches_reference(run(impl, hidden, head, targets), hidden, head, targets)


@case(impl=IMPLS)
def operands_of_two_dtypes(device, impl):
    hidden, head, targets = on(device, *random_case(20, 100, 24))
    for one, other in ((torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)):
        mixed = hidden.to(one), LMHead(head.weight.to(other)), targets
        assert_matches_reference(run(impl, *mixed), *mixed)


@case(impl=IMPLS)
def ranks_ties_and_values_by_hand(device, impl):
    assert_ranks_ties_and_values_by_hand(partial(run, impl), device)


TILINGS = [
    ("triton-fused", {"tile": Tile(16, 16, 16, 4, 2), "splits": 1}),
    ("triton-fused", {"tile": Tile(16, 64, 32, 4, 2), "splits": 3}),
    ("triton-fused", {"tile": Tile(64, 64, 16, 8, 2), "splits": 8}),
    ("triton-fused", {"tile": Tile(32, 32, 64, 4, 2), "splits": 100}),
    ("triton-fused", {"tile": SMALL, "budget": 16 * 4 * (7 * 8 + 1)}),  # one block of tokens a launch
    ("triton-chunked", {}),
    ("triton-chunked", {"budget": 4 * 160}),  # one token a chunk
    ("triton-chunked", {"budget": 4 * 160 * 7}),
]


@case()
def counts_are_exact_whatever_the_tiling(device):
    """Products of small whole numbers are exact: every count, ties and bracket included, has one right value."""
    hidden, head, targets = whole_numbers(18, 157, 20, device, bias=True, num_candidates=141)
    rows = head.candidates
    z = hidden @ head.weight[:rows].T + head.bias[:rows]
    delta = torch.arange(18, device=device) % 4 * 0.5  # also 0, and values that fall on other logits
    exact = score_logits(z, targets, delta)
    assert exact.num_equal.float().mean() > 2 and (exact.surely_greater < exact.num_greater).any()
    for impl, how in TILINGS:
        scores = run(impl, hidden, head, targets, delta=delta, **how)
        assert_same(scores, exact, ("num_greater", "num_equal", "surely_greater", "maybe_greater"))
        assert torch.allclose(scores.nll, exact.nll, rtol=1e-6, atol=1e-6), (impl, how)
        assert torch.allclose(scores.entropy, exact.entropy, rtol=1e-5, atol=1e-5), (impl, how)
    for impl in IMPLS:
        scores = run(impl, hidden, head, targets)
        assert_same(scores, exact, ("num_greater", "num_equal"))
        assert scores.surely_greater is None


@case(impl=IMPLS)
def the_bracket_is_the_dispatchers(device, impl):
    hidden, head, targets = on(device, *random_case(24, 150, 16, torch.bfloat16, scale=0.5))
    scores, exact = (score_tokens(hidden, head, targets, name, bracket=True) for name in (impl, "reference"))
    for count in (scores.num_greater, exact.num_greater):
        assert (scores.surely_greater <= count).all() and (count <= scores.maybe_greater).all()
    assert (scores.maybe_greater - scores.surely_greater).float().mean() < 1


@case(impl=IMPLS)
def non_finite_logits_are_an_error_with_their_position(device, impl):
    """Wherever they stand: first or last candidate, the target's own logit, the bias, and both infinities and NaN."""
    vocab, n, spoilt = (33, 17, 16) if impl == "triton-fused" else (33, 3, 2)
    targets = torch.full((n,), 2, device=device)
    head, zeros = torch.eye(vocab, device=device), torch.zeros(n, vocab, device=device)
    for bad in (math.nan, math.inf, -math.inf):
        for column in (0, 2, vocab - 1):
            if column == 2:
                hidden = zeros.clone()
                hidden[spoilt, column] = bad
                with pytest.raises(NonFiniteLogits) as error:
                    run(impl, hidden, LMHead(head), targets)
                assert error.value.index == spoilt, bad
            # through the bias, so that NaN · 0 and ∞ · 0 of the product do not spread over the row first
            bias = torch.zeros(vocab, device=device)
            bias[column] = bad
            with pytest.raises(NonFiniteLogits) as error:
                run(impl, zeros, LMHead(head, bias), targets)
            assert error.value.index == 0, (bad, column)


@case(impl=IMPLS)
def what_is_no_candidate_or_is_capped_may_be_infinite(device, impl):
    hidden, head, targets = on(device, *random_case(20, 90, 16, num_candidates=70))
    expected = run(impl, hidden, head, targets)
    head.weight[70:] = math.nan
    assert_same(run(impl, hidden, head, targets), expected)
    bias = torch.zeros(70, device=device)
    bias[5], bias[6] = math.inf, -math.inf
    capped = LMHead(head.weight[:70], bias, softcap=3.0)
    assert_matches_reference(run(impl, hidden, capped, targets), hidden, capped, targets)


@case(scale=(1e30, 1e13, 1e4, 1e-6, 0.0))
def extreme_logits(device, scale):
    for impl in IMPLS:
        hidden, head, targets = on(device, *random_case(8, 75, 16, seed=1))
        shifted = LMHead(head.weight, torch.full((75,), -2 * scale, device=device))  # all of them negative, too
        for lm_head in (head, shifted):
            # a target that leads: whatever is wrongly added beside the last candidate would show
            targets[::2] = reference_logits(hidden * scale, lm_head).argmax(1)[::2]
            scores = run(impl, hidden * scale, lm_head, targets)
            assert_matches_reference(scores, hidden * scale, lm_head, targets)
        if scale == 0.0:
            assert (scores.num_equal == 74).all() and (scores.num_greater == 0).all()


@case(impl=IMPLS)
def any_strides(device, impl):
    hidden, head, targets = on(device, *random_case(24, 100, 20, bias=True))
    expected = run(impl, hidden, head, targets)
    wide = torch.zeros(48, 40, device=device)
    wide[::2, ::2] = hidden
    strided = LMHead(head.weight.T.contiguous().T, head.bias.repeat_interleave(2)[::2])
    scores = run(impl, wide[::2, ::2], strided, targets.repeat_interleave(2)[::2])
    assert_matches_reference(scores, hidden, head, targets)
    assert (scores.num_greater == expected.num_greater).float().mean() > 0.9
    assert_matches_reference(run(impl, hidden.T.contiguous().T, head, targets), hidden, head, targets)


@case(dtype=(torch.bfloat16, torch.float16))
def model_logits_round_after_every_step(device, dtype):
    """Products exact in float32, so that the model's rounding is all there is: the same logits, hence the same ties."""
    for options in ({"scale": 0.3}, {"bias": True, "scale": 0.3, "softcap": 5.0}):
        hidden, head, targets = whole_numbers(17, 60, 16, device, most=40, dtype=dtype, **options)
        hidden = hidden / 1024
        own = head.transform(F.linear(hidden, head.weight, head.bias)).float()
        exact, wide = score_logits(own, targets), run("triton-fused", hidden, head, targets)
        assert (wide.nll != exact.nll).float().mean() > 0.5  # or the case would say nothing
        for impl in IMPLS:
            scores = run(impl, hidden, head, targets, logits="model")
            # a tanh may round to the neighbour, and one logit then moves by one
            share = 1.0 if impl == "triton-chunked" or "softcap" not in options else 0.9
            assert torch.allclose(scores.nll, exact.nll, atol=1e-5 if share == 1.0 else 0.02), (impl, options)
            for name in ("num_greater", "num_equal"):
                same = (getattr(scores, name) == getattr(exact, name)).float().mean()
                assert same >= share, (impl, options, name, same)


@case(impl=IMPLS)
def model_logits_of_float32_round_no_further(device, impl):
    hidden, head, targets = on(device, *random_case(20, 100, 24, bias=True, scale=0.3, softcap=4.0))
    assert_matches_reference(run(impl, hidden, head, targets, logits="model"), hidden, head, targets)


PARTS = (slice(5, 6), slice(7, 20), slice(19, 20))


@case(impl=IMPLS)
def scores_are_batch_invariant(device, impl):
    """The same bits alone, in part of a batch and in all of it, where products are exact or made by the kernel itself.

    The interpreter multiplies by numpy's BLAS, which may round a row by where it stands in its block.
    """
    cases = [whole_numbers(20, 60, 128, device, bias=True)]
    if device != "cpu":
        cases.append(on(device, *random_case(20, 60, 128)))
    for hidden, head, targets in cases:
        whole = run(impl, hidden, head, targets)
        assert whole.entropy.mean() > 0.1  # or the sums would say nothing
        assert_same(run(impl, hidden, head, targets), whole)
        for part in PARTS:
            some = run(impl, hidden[part], head, targets[part])
            assert_same(some, whole.map(lambda values, part=part: values[part]))


@case(impl=IMPLS)
def scores_of_every_batch_are_within_rounding(device, impl):
    hidden, head, targets = on(device, *random_case(20, 60, 128))
    exact = score_logits(reference_logits(hidden, head), targets, rounding_bound(hidden, head))
    for part in (slice(0, 20), *PARTS):
        some = run(impl, hidden[part], head, targets[part])
        assert (some.nll - exact.nll[part]).abs().max() < 2e-5
        assert (exact.surely_greater[part] <= some.num_greater).all()
        assert (some.num_greater + some.num_equal <= exact.maybe_greater[part]).all()


@case(impl=IMPLS)
def the_targets_own_column_never_counts(device, impl):
    """Equal rows: every other candidate ties with the target, and the target with nobody."""
    hidden, weight = torch.ones(20, 31, device=device), torch.ones(1, 31, device=device)
    targets = torch.arange(20, device=device) * 3
    scores = run(impl, hidden, LMHead(weight.repeat(59, 1)), targets)
    assert (scores.num_equal == 58).all() and (scores.num_greater == 0).all()
    alone = run(impl, hidden, LMHead(weight), targets * 0)
    assert (alone.num_equal == 0).all() and (alone.num_greater == 0).all()
    assert (alone.nll == 0).all() and (alone.entropy == 0).all()


@case(impl=IMPLS)
def mistakes_are_named(device, impl):
    hidden, head, targets = on(device, *random_case(4, 100, 8))
    with pytest.raises(LabError, match="byte budget"):
        run(impl, hidden, head, targets, budget=100)
    if impl == "triton-fused":
        with pytest.raises(LabError, match="float64"):
            run(impl, hidden.double(), head, targets)


@triton.jit
def _tanh_kernel(x, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(out + at, _tanh(tl.load(x + at)))


@case()
def tanh_is_exact_to_a_few_units(device):
    """Relative to the value, so that small logits keep their order under a soft-cap."""
    size = torch.logspace(-30, 1.4, 2048, dtype=torch.float64)
    x = torch.cat([size, -size]).float().to(device)
    x[0], x[1], x[2] = 0.0, math.inf, -math.inf
    out = torch.empty_like(x)
    _tanh_kernel[(1,)](x, out, SIZE=4096)
    exact = x.double().tanh()
    error = (out.double() - exact).abs() / exact.abs().clamp_min(1e-300)
    assert error.max() < 4 * 2.0**-24, error.max() * 2**24
    assert out[0] == 0 and out[1] == 1 and out[2] == -1


def main() -> None:
    torch.set_num_threads(1)
    result, seconds = {}, {}
    for name, function in CASES.items():
        start = time.process_time()
        try:
            function("cpu")
            result[name] = None
        except FAILURES:
            result[name] = traceback.format_exc(limit=-4)
        seconds[name] = round(time.process_time() - start, 2)
    print(json.dumps({"cases": result, "seconds": seconds}))


if __name__ == "__main__":
    sys.exit(main())
