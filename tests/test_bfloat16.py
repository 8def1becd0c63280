"""The product of bfloat16 operands in float32: exact where it can be, close elsewhere, and used where it can run."""

import math

import pytest
import torch

from rbp_lab.scoring import LMHead, NonFiniteLogits, missing, score_tokens
from rbp_lab.scoring.reference import reference_logits, score_logits

if missing("native", "cpu"):
    pytest.skip(missing("native", "cpu"), allow_module_level=True)

from rbp_lab.scoring import bfloat16, native, product

here = pytest.mark.skipif(not bfloat16._runs_here(), reason="the processor has no AVX512-BF16")


@pytest.fixture
def elsewhere(monkeypatch):
    """A processor without the instruction."""
    monkeypatch.setattr(bfloat16, "_runs_here", lambda: False)


def operands(tokens, rows, width, seed=0, bias=False):
    g = torch.Generator().manual_seed(seed)
    x, w = torch.randn(tokens, width, generator=g), torch.randn(rows, width, generator=g) / width**0.5
    return x.bfloat16(), w.bfloat16(), torch.randn(rows, generator=g).bfloat16() if bias else None


@here
@pytest.mark.parametrize("tokens", [1, 5, 6, 7, 64, 131])
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 300])
@pytest.mark.parametrize("width", [32, 34, 62, 128, 130, 258, 770])
def test_whole_numbers_are_multiplied_exactly(tokens, rows, width):
    """Every sum of these is a whole number below 2^24: one term lost, doubled or misplaced would show."""
    g = torch.Generator().manual_seed(tokens * rows + width)
    x, w = (torch.randint(-9, 10, (n, width), generator=g).bfloat16() for n in (tokens, rows))
    b = torch.randint(-99, 100, (rows,), generator=g).bfloat16()
    exact = x.double() @ w.double().T
    for bias in (None, b):
        got = bfloat16.linear(x, w, bias)
        assert got.dtype is torch.float32 and got.is_contiguous()
        assert torch.equal(got.double(), exact if bias is None else exact + bias.double())


@here
@pytest.mark.parametrize("width", [128, 768, 4096])
def test_sums_are_no_worse_than_torchs_in_float32(width):
    x, w, _ = operands(256, 512, width)
    exact = x.double() @ w.double().T
    off = [(z.double() - exact).square().mean().sqrt() for z in (bfloat16.linear(x, w, None), x.float() @ w.float().T)]
    assert off[0] <= 1.2 * off[1] and off[0] < 3e-7


@here
def test_slices_and_parameters_are_taken_as_they_are():
    x, w, _ = operands(40, 400, 64)
    part = bfloat16.linear(x[3:30], torch.nn.Parameter(w)[100:333], None)
    assert torch.equal(part, bfloat16.linear(x, w, None)[3:30, 100:333])
    assert torch.equal(bfloat16.linear(x.T.contiguous().T, w, None), bfloat16.linear(x, w, None))


@here
def test_what_it_takes():
    x, w, b = operands(8, 100, 64, bias=True)
    assert bfloat16.multiplies(x, w, None) and bfloat16.multiplies(x, w, b)
    assert not bfloat16.multiplies(x.float(), w, None)
    assert not bfloat16.multiplies(x, w.half(), None)
    assert not bfloat16.multiplies(x, w, b.float())  # its last bits would be lost
    for width in (30, 33):
        assert not bfloat16.multiplies(*operands(8, 100, width))
        with pytest.raises(ValueError, match=rf"≥ 32 expected.*\[8, {width}\]"):
            bfloat16.linear(*operands(8, 100, width))
    with pytest.raises(ValueError, match="one even width"):  # never read beyond an operand
        score_tokens(x, LMHead(operands(1, 100, 96)[1]), torch.zeros(8, dtype=torch.long), "native")


@pytest.mark.parametrize(
    ("name", "value"), [("CPU_NAME", "generic"), ("CPU_FEATURES", "+avx2"), ("ENABLE_AVX", 0), ("DISABLE_JIT", 1)]
)
def test_not_when_numba_compiles_for_another_processor(monkeypatch, name, value):
    monkeypatch.setattr(bfloat16.config, name, value)
    bfloat16._runs_here.cache_clear()
    assert not bfloat16._runs_here()
    monkeypatch.undo()
    bfloat16._runs_here.cache_clear()


@here
@pytest.mark.parametrize("head", [{}, {"scale": 0.5, "softcap": 6.0}, {"num_candidates": 333}], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_native_scores_are_those_of_its_logits(monkeypatch, head, bias):
    monkeypatch.setattr(product, "linear_for", lambda *_: pytest.fail("torch's product was asked for"))
    x, w, b = operands(300, 2500, 192, bias=bias)
    lm_head, targets = LMHead(w, b, **head), torch.arange(300)
    scores = score_tokens(x, lm_head, targets, "native")
    own = score_logits(lm_head.transform(bfloat16.linear(x, w, b))[:, : lm_head.candidates].contiguous(), targets)
    assert torch.equal(scores.num_greater, own.num_greater) and torch.equal(scores.num_equal, own.num_equal)
    exact = score_logits(reference_logits(x, lm_head), targets)
    for name in ("nll", "entropy"):
        assert torch.allclose(getattr(scores, name), getattr(exact, name), atol=4e-6, rtol=1e-6)


def test_elsewhere_native_converts(monkeypatch, elsewhere):
    monkeypatch.setattr(bfloat16, "linear", lambda *_: pytest.fail("the processor has no such product"))
    x, w, b = operands(100, 900, 64, bias=True)
    scores = score_tokens(x, LMHead(w, b), torch.arange(100), "native")
    assert torch.allclose(scores.nll, score_logits(reference_logits(x, LMHead(w, b)), torch.arange(100)).nll, atol=4e-6)


@here
def test_the_models_own_rounding_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(bfloat16, "linear", lambda *_: pytest.fail("the model's logits are rounded by torch"))
    x, w, _ = operands(100, 900, 64)
    scores = score_tokens(x, LMHead(w), torch.arange(100), "native", logits="model")
    assert (scores.num_equal > 0).any()


@here
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_operands_are_found(bad):
    x, w, _ = operands(100, 900, 64)
    x[37, 5] = bad
    with pytest.raises(NonFiniteLogits) as error:
        score_tokens(x, LMHead(w), torch.arange(100), "native")
    assert error.value.index == 37


@here
def test_no_tile_is_cut_for_weights_that_are_not_converted(monkeypatch):
    seen = []
    real = native._score
    monkeypatch.setattr(native, "_score", lambda *a, **k: seen.append(k["tile"]) or real(*a, **k))
    x, w, _ = operands(8, 300, 2048)
    score_tokens(x, LMHead(w), torch.arange(8), "native")
    assert {tile[1] for tile in seen} == {2048}
