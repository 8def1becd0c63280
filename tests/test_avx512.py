"""Products of our own: exact where they can be, close elsewhere, and used where they can run."""

import math

import pytest
import torch

from rbp_lab.scoring import LMHead, NonFiniteLogits, missing, score_tokens
from rbp_lab.scoring.reference import reference_logits, score_logits

if missing("native", "cpu"):
    pytest.skip(missing("native", "cpu"), allow_module_level=True)

from rbp_lab.scoring import avx512, native

DTYPES = [
    pytest.param(dtype, marks=pytest.mark.skipif(not avx512._runs(dtype), reason=f"the processor has no {needs}"))
    for dtype, needs in avx512.NEEDS.items()
]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
bfloat16_here = pytest.mark.skipif(not avx512._runs(torch.bfloat16), reason="the processor has no AVX512-BF16")
float32_here = pytest.mark.skipif(not avx512._runs(torch.float32), reason="the processor has no AVX-512")


@pytest.fixture
def elsewhere(monkeypatch):
    """A processor without the instructions."""
    monkeypatch.setattr(avx512, "_runs", lambda dtype: False)


@pytest.fixture
def ours(monkeypatch):
    """Our product is chosen, however fast others are."""
    monkeypatch.setattr(native, "linear_for", lambda device, operands, width, own: own)


def operands(tokens, rows, width, dtype=torch.bfloat16, bias=False):
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(tokens, width, generator=g), torch.randn(rows, width, generator=g) / width**0.5
    return x.to(dtype), w.to(dtype), torch.randn(rows, generator=g).to(dtype) if bias else None


@each_dtype
@pytest.mark.parametrize("tokens", [1, 5, 6, 7, 64, 131])
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 300])
@pytest.mark.parametrize("width", [2, 30, 32, 34, 62, 128, 130, 258, 770])
def test_whole_numbers_are_multiplied_exactly(tokens, rows, width, dtype):
    """Every sum of these is a whole number below 2^24: one term lost, doubled or misplaced would show."""
    g = torch.Generator().manual_seed(tokens * rows + width)
    x, w = (torch.randint(-9, 10, (n, width), generator=g).to(dtype) for n in (tokens, rows))
    b = torch.randint(-99, 100, (rows,), generator=g).to(dtype)
    exact = x.double() @ w.double().T
    for bias in (None, b):
        got = avx512.linear(x, w, bias)
        assert got.dtype is torch.float32 and got.is_contiguous()
        assert torch.equal(got.double(), exact if bias is None else exact + bias.double())


@float32_here
@pytest.mark.parametrize("width", [1, 3, 17, 31])
def test_odd_widths_in_float32(width):
    x, w, _ = operands(7, 70, width, torch.float32)
    assert torch.allclose(avx512.linear(x, w, None), x @ w.T, atol=1e-6)


@each_dtype
@pytest.mark.parametrize("width", [128, 768, 4096])
def test_sums_are_no_worse_than_torchs_in_float32(width, dtype):
    x, w, b = operands(256, 512, width, dtype, bias=True)
    exact = x.double() @ w.double().T + b.double()
    off = [
        (z.double() - exact).square().mean().sqrt()
        for z in (avx512.linear(x, w, b), torch.nn.functional.linear(x.float(), w.float(), b.float()))
    ]
    assert off[0] <= (1.05 if dtype is torch.float32 else 1.2) * off[1] and off[0] < 4e-7


@each_dtype
def test_slices_and_parameters_are_taken_as_they_are(dtype):
    x, w, b = operands(40, 400, 64, dtype, bias=True)
    whole = avx512.linear(x, w, b)
    assert torch.equal(avx512.linear(x[3:30], torch.nn.Parameter(w)[100:333], b[100:333]), whole[3:30, 100:333])
    assert torch.equal(avx512.linear(x.T.contiguous().T, w, b), whole)
    assert torch.equal(torch.cat([avx512.linear(each, w, b) for each in x.split([1, 5, 8, 26])]), whole)


@bfloat16_here
def test_what_it_takes():
    assert avx512.multiplies(torch.float32, 1) and avx512.multiplies(torch.bfloat16, 2)
    assert not avx512.multiplies(torch.bfloat16, 33) and not avx512.multiplies(torch.float16, 64)
    x, w, b = operands(8, 100, 64, bias=True)
    wrong = [
        operands(8, 100, 33),
        operands(8, 100, 64, torch.float16),
        (x, w[:, :62], b),
        (x, w, b[:99]),
        (x, w, b.float()),
        (x.float(), w, None),
        (x[None], w, None),
    ]
    for each in wrong:  # nothing is read beyond an operand
        with pytest.raises(ValueError, match="that go together; got torch"):
            avx512.linear(*each)
    with pytest.raises(ValueError, match="go together"):
        score_tokens(x, LMHead(operands(1, 100, 96)[1]), torch.zeros(8, dtype=torch.long), "native")


@pytest.mark.parametrize(
    ("name", "value"), [("CPU_NAME", "generic"), ("CPU_FEATURES", "+avx2"), ("ENABLE_AVX", 0), ("DISABLE_JIT", 1)]
)
def test_not_when_numba_compiles_for_another_processor(monkeypatch, name, value):
    monkeypatch.setattr(avx512.config, name, value)
    avx512._runs.cache_clear()
    assert not any(avx512._runs(dtype) for dtype in avx512.NEEDS)
    monkeypatch.undo()
    avx512._runs.cache_clear()


@pytest.mark.parametrize("features", ["avx512f", "avx512bf16", "avx512f avx512bf16", "sse2 mmx avx2"])
def test_each_dtype_needs_its_instruction(monkeypatch, features):
    has = dict.fromkeys(features.split(), True)
    monkeypatch.setattr(avx512.binding, "get_host_cpu_features", lambda: has)
    avx512._runs.cache_clear()
    runs = [avx512.multiplies(dtype, 32) for dtype in (torch.float32, torch.bfloat16)]
    monkeypatch.undo()
    avx512._runs.cache_clear()
    assert runs == ["avx512f" in has, "avx512bf16" in has]


@each_dtype
@pytest.mark.parametrize("head", [{}, {"scale": 0.5, "softcap": 6.0}, {"num_candidates": 333}], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_native_scores_are_those_of_its_logits(ours, head, bias, dtype):
    x, w, b = operands(300, 2500, 192, dtype, bias=bias)
    lm_head, targets = LMHead(w, b, **head), torch.arange(300)
    scores = score_tokens(x, lm_head, targets, "native")
    own = score_logits(lm_head.transform(avx512.linear(x, w, b))[:, : lm_head.candidates].contiguous(), targets)
    assert torch.equal(scores.num_greater, own.num_greater) and torch.equal(scores.num_equal, own.num_equal)
    exact = score_logits(reference_logits(x, lm_head), targets)
    for name in ("nll", "entropy"):
        assert torch.allclose(getattr(scores, name), getattr(exact, name), atol=4e-6, rtol=1e-6)


@each_dtype
@pytest.mark.parametrize("threads", [1, 2, 3], indirect=True)
@pytest.mark.parametrize("tokens", [1, 7, 600])
def test_its_bits_do_not_depend_on_threads_or_on_the_batch(ours, threads, tokens, dtype):
    x, w, _ = operands(600, 1500, 64, dtype)
    whole = score_tokens(x, LMHead(w), torch.arange(600), "native", bracket=True)
    part = score_tokens(x[:tokens], LMHead(w), torch.arange(tokens), "native", bracket=True)
    for name, values in vars(part).items():
        assert torch.equal(values, getattr(whole, name)[:tokens]), name


def test_elsewhere_native_takes_what_torch_has(monkeypatch, elsewhere):
    monkeypatch.setattr(avx512, "linear", lambda *_: pytest.fail("the processor has no such product"))
    for dtype in avx512.NEEDS:
        x, w, b = operands(100, 900, 64, dtype, bias=True)
        scores = score_tokens(x, LMHead(w, b), torch.arange(100), "native")
        exact = score_logits(reference_logits(x, LMHead(w, b)), torch.arange(100))
        assert torch.allclose(scores.nll, exact.nll, atol=4e-6)


@float32_here
@pytest.mark.parametrize("mixed", [(torch.float16,) * 3, (torch.bfloat16, torch.float16, torch.float32)], ids=str)
def test_other_formats_are_converted_and_multiplied_in_float32(ours, monkeypatch, mixed):
    seen, real = set(), avx512.linear
    monkeypatch.setattr(avx512, "linear", lambda *a: seen.update(x.dtype for x in a) or real(*a))
    x, w, b = (x.to(dtype) for x, dtype in zip(operands(100, 900, 64, bias=True), mixed, strict=True))
    scores = score_tokens(x, LMHead(w, b), torch.arange(100), "native")
    exact = score_logits(reference_logits(x, LMHead(w, b)), torch.arange(100))
    assert torch.allclose(scores.nll, exact.nll, atol=4e-6) and seen == {torch.float32}


@bfloat16_here
def test_the_models_own_rounding_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(avx512, "linear", lambda *_: pytest.fail("the model's logits are rounded by torch"))
    x, w, _ = operands(100, 900, 64)
    scores = score_tokens(x, LMHead(w), torch.arange(100), "native", logits="model")
    assert (scores.num_equal > 0).any()


@each_dtype
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_operands_are_found(ours, bad, dtype):
    x, w, _ = operands(100, 900, 64, dtype)
    x[37, 5] = bad
    with pytest.raises(NonFiniteLogits) as error:
        score_tokens(x, LMHead(w), torch.arange(100), "native")
    assert error.value.index == 37


@bfloat16_here
def test_no_tile_is_cut_for_weights_that_are_not_converted(monkeypatch):
    seen, real = [], native._score
    monkeypatch.setattr(native, "_score", lambda *a, **k: seen.append(k["tile"]) or real(*a, **k))
    x, w, _ = operands(8, 300, 2048)
    score_tokens(x, LMHead(w), torch.arange(8), "native")
    assert set(seen) == {(512, 1024)}
