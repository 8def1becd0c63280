"""Scores against hand-built logits and the float64 reference, with ranks bracketed where rounding may decide."""

import importlib
import math
import os
import sys

import numpy as np
import pytest
import torch

from rbp_lab.config import old_names
from rbp_lab.config.schemas import IMPLEMENTATIONS as CHOICES
from rbp_lab.errors import LabError
from rbp_lab.scoring import (
    IMPLEMENTATIONS,
    LMHead,
    NonFiniteLogits,
    choose,
    linear,
    missing,
    product_of,
    score_tokens,
    tiling,
)
from rbp_lab.scoring.error_bounds import rounding_bound
from rbp_lab.scoring.linear import has_onednn, ieee_products, linear_for, onednn_linear, product_for
from rbp_lab.scoring.reference import reference_logits, score_logits
from rbp_lab.scoring.tiling import tile_for, tile_shape
from rbp_lab.scoring.torch_tiles import score_torch
from tests import forked

TILES = tuple(impl for impl in ("torch", "numba") if not missing(impl, "cpu"))
IMPLS = (*TILES, "reference")


def identity_head(vocab):
    """A head whose logits are the hidden states themselves."""
    return LMHead(torch.eye(vocab))


def random_case(tokens, vocab, width, dtype=torch.float32, seed=0, **head):
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=g).to(dtype)
    weight = (torch.randn(vocab, width, generator=g) / width**0.5 * 3).to(dtype)
    bias = torch.randn(vocab, generator=g).to(dtype) if head.pop("bias", False) else None
    limit = head.get("num_candidates") or vocab
    return hidden, LMHead(weight, bias, **head), torch.randint(0, limit, (tokens,), generator=g)


def assert_matches_reference(scores, hidden, head, targets, bound=2e-5):
    """nll and entropy close; ranks inside the bracket that logits within ``bound`` of the target's leave open."""
    z = reference_logits(hidden, head)
    exact = score_logits(z, targets)
    assert torch.allclose(scores.nll, exact.nll, atol=2e-5, rtol=1e-5)
    assert torch.allclose(scores.entropy, exact.entropy, atol=2e-5, rtol=1e-5)
    t = z.gather(1, targets[:, None])
    delta = bound * z.abs().amax(1, keepdim=True)
    others = torch.ones_like(z, dtype=torch.bool).scatter_(1, targets[:, None], False)
    surely_greater = ((z > t + delta) & others).sum(1)
    maybe_greater_equal = ((z >= t - delta) & others).sum(1)
    assert (scores.num_greater >= surely_greater).all()
    assert (scores.num_greater + scores.num_equal <= maybe_greater_equal).all()
    assert (scores.num_greater == exact.num_greater).float().mean() > 0.98


def assert_ranks_ties_and_values_by_hand(score, device="cpu"):
    """score: (hidden, head, targets) → scores."""
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 5.0, -5.0]], device=device)
    scores = score(logits, LMHead(torch.eye(4, device=device)), torch.tensor([1, 3, 3], device=device))
    assert scores.num_greater.tolist() == [0, 0, 3]
    assert scores.num_equal.tolist() == [1, 3, 0]
    expected = [math.log(2 + math.exp(-2) + math.exp(-3)), math.log(4), math.log(2 * math.e**5 + math.e**10 + 1)]
    assert scores.nll.tolist() == pytest.approx(expected, rel=1e-6)
    assert scores.entropy[1].item() == pytest.approx(math.log(4), rel=1e-6)
    assert scores.num_greater.dtype == scores.num_equal.dtype == torch.int32
    assert scores.nll.dtype == scores.entropy.dtype == torch.float32


@pytest.mark.parametrize("impl", IMPLS)
def test_ranks_ties_and_values_by_hand(impl):
    assert_ranks_ties_and_values_by_hand(lambda *operands: score_tokens(*operands, impl))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [0, 2])
def test_non_finite_logits_are_an_error_with_their_position(impl, bad, column):
    """Also when the target's own logit (column 2) is the bad one, which a bare comparison would rank first."""
    logits = torch.zeros(5, 8)
    logits[3, column] = bad
    head = LMHead(torch.eye(8))
    targets = torch.full((5,), 2)
    # through the bias, so that NaN·0 of the product does not spread over the row first
    one = LMHead(head.weight, torch.where(torch.arange(8) == column, bad, 0.0))
    with pytest.raises(NonFiniteLogits) as error:
        score_tokens(torch.zeros(5, 8), one, targets, impl)
    assert error.value.index == 0
    with pytest.raises(NonFiniteLogits) as error:
        score_tokens(logits, head, targets, impl)
    assert error.value.index == 3


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("scale", [1e4, 1e-6, 0.0])
def test_extreme_logits(impl, scale):
    hidden, head, targets = random_case(40, 300, 16, seed=1)
    scores = score_tokens(hidden * scale, head, targets, impl)
    exact = score_logits(reference_logits(hidden * scale, head), targets)
    assert torch.allclose(scores.nll, exact.nll, rtol=1e-5, atol=1e-5)
    assert torch.allclose(scores.entropy, exact.entropy, rtol=1e-4, atol=1e-5)
    if scale == 0.0:
        assert (scores.num_equal == 299).all() and (scores.num_greater == 0).all()


@pytest.mark.parametrize("shape", [(1, 255, 7), (123, 507, 33), (257, 4097, 64), (64, 2048, 16), (3, 100, 5)])
@pytest.mark.parametrize(
    "head",
    [
        {},
        {"bias": True},
        {"scale": 0.0625},
        {"softcap": 3.0},
        {"bias": True, "scale": 2.0, "softcap": 5.0},
        {"num_candidates": 90},
    ],
    ids=str,
)
@pytest.mark.parametrize("impl", TILES)
def test_tiles_match_the_reference(shape, head, impl):
    hidden, lm_head, targets = random_case(*shape, **head)
    assert_matches_reference(score_tokens(hidden, lm_head, targets, impl), hidden, lm_head, targets)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("impl", TILES)
def test_low_precision_weights_are_multiplied_in_float32(dtype, impl):
    hidden, head, targets = random_case(200, 1000, 64, dtype)
    assert_matches_reference(score_tokens(hidden, head, targets, impl), hidden, head, targets)


@pytest.mark.parametrize("impl", TILES)
def test_wide_weights_are_converted_a_few_rows_at_a_time(impl, monkeypatch):
    monkeypatch.setattr(tiling, "CONVERTED_BYTES", 300 * (256 * 10 + 64 * 4))
    hidden, head, targets = random_case(200, 1000, 64, torch.float16, bias=True)
    assert tile_for(hidden, head, torch.float32, None) == (256, 256)
    assert tile_for(hidden, head, torch.float16, None)[1] > 256  # what is not converted is not held
    assert_matches_reference(score_tokens(hidden, head, targets, impl), hidden, head, targets)


@pytest.mark.parametrize("impl", TILES)
def test_model_logits_round_as_the_model_would(impl):
    hidden, head, targets = random_case(200, 1000, 64, torch.bfloat16)
    scores = score_tokens(hidden, head, targets, impl, logits="model")
    own = torch.nn.functional.linear(hidden, head.weight).float()
    expected = score_logits(own, targets)
    assert (scores.num_equal > 0).float().mean() > 0.2  # bf16 makes ties
    rank = (scores.num_greater + scores.num_equal, expected.num_greater + expected.num_equal)
    assert (rank[0] == rank[1]).float().mean() > 0.98
    assert torch.allclose(scores.nll, expected.nll, atol=0.05)


@pytest.mark.parametrize("tile", [(32, 256), (64, 300), (256, 2048), (512, 5000)])
def test_tile_shape_changes_nothing_but_rounding(tile):
    hidden, head, targets = random_case(300, 3000, 48, bias=True)
    assert_matches_reference(score_torch(hidden, head, targets, tile=tile), hidden, head, targets)


@pytest.mark.parametrize("impl", TILES)
def test_the_targets_own_column_never_counts(impl):
    """The target is left out by index: a head of equal rows ties with all others and is never above itself."""
    hidden = torch.randn(50, 31, generator=torch.Generator().manual_seed(3))
    head = LMHead(torch.randn(1, 31, generator=torch.Generator().manual_seed(4)).repeat(400, 1))
    scores = score_tokens(hidden, head, torch.arange(50) * 8, impl)
    assert ((scores.num_greater + scores.num_equal) <= 399).all()
    assert (scores.num_greater >= 0).all() and (scores.num_equal >= 0).all()


def test_any_leading_shape_and_no_token_at_all():
    hidden, head, targets = random_case(24, 100, 8)
    flat, shaped = (
        score_tokens(hidden, head, targets),
        score_tokens(hidden.view(2, 3, 4, 8), head, targets.view(2, 3, 4)),
    )
    assert torch.equal(shaped.nll.reshape(-1), flat.nll) and shaped.num_equal.shape == (2, 3, 4)
    for impl in IMPLS:
        assert score_tokens(hidden[:0], head, targets[:0], impl).nll.shape == (0,)


def test_mistakes_are_named():
    hidden, head, targets = random_case(4, 100, 8, num_candidates=50)
    with pytest.raises(LabError, match="auto, reference, torch"):
        score_tokens(hidden, head, targets, "fast")
    with pytest.raises(LabError, match="float32, model"):
        score_tokens(hidden, head, targets, logits="bf16")
    with pytest.raises(ValueError, match="0…49"):
        score_tokens(hidden, head, torch.full((4,), 50))
    with pytest.raises(LabError, match="byte budget"):
        tile_shape("cpu", 100, 1000)


@pytest.mark.parametrize("budget", [1 << 17, 1 << 20, 8 << 20, 64 << 20])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("vocab", [300, 50304, 256000])
def test_tiles_keep_the_byte_budget(budget, device, vocab):
    tokens, rows = tile_shape(device, vocab, budget)
    assert tokens * rows * 10 <= budget and tokens >= 32 and rows >= 1


def test_scale_and_softcap_by_hand():
    """logits = c·tanh(scale·(h·w + b)/c), written out."""
    head = LMHead(torch.tensor([[1.0], [2.0], [-3.0]]), torch.tensor([0.5, 0.0, 0.0]), scale=2.0, softcap=4.0)
    z = [4 * math.tanh(2 * (1.5 + 0.5) / 4), 4 * math.tanh(2 * 3.0 / 4), 4 * math.tanh(2 * -4.5 / 4)]
    for impl in IMPLS:
        scores = score_tokens(torch.tensor([[1.5]]), head, torch.tensor([0]), impl)
        assert scores.nll.item() == pytest.approx(math.log(sum(math.exp(v - z[0]) for v in z)), rel=1e-6)
        assert scores.num_greater.item() == 1


@pytest.mark.parametrize("off", [-1.0, 1.0])
@pytest.mark.parametrize("impl", TILES)
def test_a_target_that_rounds_otherwise_in_its_tile_is_not_its_own_rival(monkeypatch, off, impl):
    """On some machines the diagonal and the tile round differently; the target's column must not count either way."""
    hidden, head, targets = random_case(70, 500, 16)
    targets[:2] = torch.tensor([0, 499])
    real = tiling.target_logits
    module = importlib.import_module(f"rbp_lab.scoring.{IMPLEMENTATIONS[impl][0]}")
    monkeypatch.setattr(module, "target_logits", lambda *a: torch.nextafter(real(*a), torch.tensor(off * math.inf)))
    scores = score_tokens(hidden, head, targets, impl)
    assert_matches_reference(scores, hidden, head, targets)
    assert (scores.num_equal == 0).all()
    single = score_tokens(hidden, LMHead(head.weight[:1]), torch.zeros(70, dtype=torch.long), impl)
    assert (single.num_greater == 0).all() and (single.num_equal == 0).all()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("head", [{}, {"bias": True, "scale": 0.5, "softcap": 6.0}], ids=str)
def test_the_bracket_holds_the_exact_count(impl, dtype, head):
    """Rows of the head that differ from the target's by less than float32 can tell: only the bracket is sure."""
    hidden, lm_head, targets = random_case(120, 2500, 256, dtype, **head)
    near = lm_head.weight[targets[:40]].double() * (1 + 1e-9 * torch.arange(40, dtype=torch.float64)[:, None])
    lm_head.weight[1000:1040] = near.to(dtype)
    if lm_head.bias is not None:
        lm_head.bias[1000:1040] = lm_head.bias[targets[:40]]
    scores = score_tokens(hidden, lm_head, targets, impl, bracket=True)
    exact = score_logits(reference_logits(hidden, lm_head), targets).num_greater
    assert (scores.surely_greater <= exact).all() and (exact <= scores.maybe_greater).all()
    assert (scores.surely_greater <= scores.num_greater).all()
    assert (scores.num_greater + scores.num_equal <= scores.maybe_greater).all()
    assert (scores.maybe_greater[:40] > scores.surely_greater[:40]).all()  # the near twins are left open
    assert (scores.maybe_greater == scores.surely_greater).float().mean() > 0.2  # but most of the ranks are settled


def test_the_bracket_bounds_real_rounding_and_is_of_float32_only():
    hidden, head, targets = random_case(100, 400, 512, bias=True, scale=3.0)
    z, exact = product_logits(hidden, head), reference_logits(hidden, head)
    t, exact_t = (values.gather(1, targets[:, None]) for values in (z, exact))
    error = ((z - t) - (exact - exact_t)).abs().amax(1)
    delta = rounding_bound(hidden, head)
    assert (error <= delta).all() and error.max() > delta.max() / 1000  # a bound, and not an absurd one
    with pytest.raises(LabError, match="bracket"):
        score_tokens(hidden, head, targets, bracket=True, logits="model")


def product_logits(hidden, head):
    return head.transform(torch.nn.functional.linear(hidden, head.weight, head.bias)).double()


@pytest.mark.parametrize("impl", TILES)
def test_sums_are_as_good_as_plain_torch(impl):
    """Large vocabulary, logits far from zero: nll and entropy against float64 of the same float32 logits."""
    g = torch.Generator().manual_seed(5)
    logits = torch.randn(64, 50000, generator=g) * 3 - 60
    logits[:8] += torch.linspace(0, 100, 50000)  # a maximum that climbs from tile to tile
    logits[8:16] -= torch.linspace(0, 300, 50000)
    logits[16, 49_000] = 90.0  # one token takes all, far above what came before
    targets = torch.randint(0, 50000, (64,), generator=g)
    ones = LMHead(logits.T.contiguous())
    exact = score_logits(logits.double(), targets)
    plain = score_logits(logits, targets)
    scores = score_tokens(torch.eye(64), ones, targets, impl)  # products with one term, hence exact
    for name in ("nll", "entropy"):
        true = getattr(exact, name)
        ours, theirs = ((getattr(each, name) - true).abs() for each in (scores, plain))
        assert (ours <= theirs.max() + 1e-6 * true.abs()).all(), (name, ours.max(), theirs.max())
    assert torch.equal(scores.num_greater, exact.num_greater) and torch.equal(scores.num_equal, exact.num_equal)


@pytest.mark.skipif(bool(missing("numba", "cpu")), reason=missing("numba", "cpu"))
def test_the_power_of_two_is_right_to_the_last_bits():
    cpu_numba = importlib.import_module("rbp_lab.scoring.cpu_numba")
    d = np.linspace(-87, 88, 20_001, dtype=np.float32)
    e = np.array([cpu_numba._power_sums(d[i : i + 1], np.float32(0))[0] for i in range(len(d))])
    assert np.abs(e / np.exp(d.astype(np.float64)) - 1).max() < 2.5e-7
    s, q = cpu_numba._power_sums(np.array([-200.0, 0.0, 60.5], np.float32), np.float32(0))
    assert s == pytest.approx(math.exp(60.5) + 1, rel=1e-6) and q == pytest.approx(60.5 * math.exp(60.5), rel=1e-6)


SCORE = """
import torch
from rbp_lab.scoring import LMHead, score_tokens
torch.set_num_threads(1)
g = torch.Generator().manual_seed(0)
hidden, weight = (torch.randn(n, 32, generator=g) for n in (300, 9000))
scores = score_tokens(hidden, LMHead(weight), torch.arange(300), "numba")
print(scores.nll.double().sum().item(), scores.entropy.double().sum().item())
"""


@pytest.mark.skipif(bool(missing("numba", "cpu")), reason=missing("numba", "cpu"))
def test_code_from_numbas_cache_gives_the_bits_of_code_just_compiled(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    compiled, cached = (forked.output(SCORE, environment=environment) for _ in "12")
    assert list(tmp_path.rglob("*.nbc")) and compiled.count("\n") == 1
    assert cached == compiled


def test_every_choice_has_an_implementation_and_every_old_name_a_new_one():
    assert ("auto", *IMPLEMENTATIONS) == CHOICES
    former = old_names.IMPLEMENTATIONS
    assert not set(former) & set(CHOICES) and set(former.values()) < set(CHOICES)


def test_the_product_follows_from_what_torch_has(monkeypatch):
    known = "onednn" if has_onednn() else "torch"
    assert product_for("cpu", torch.float32) == known
    assert (linear_for("cpu", torch.float32) is onednn_linear) == (known == "onednn")
    assert product_for("cpu", torch.bfloat16) == product_for("cuda", torch.float32) == "torch"
    assert product_of("numba", "cpu", torch.bfloat16) == product_of("torch", "cpu", torch.float16) == known
    assert product_of("numba", "cpu", torch.bfloat16, "model") == "torch"
    assert product_of("triton-fused", "cuda", torch.float32) == "triton"
    assert product_of("triton-chunked", "cuda", torch.float32) == product_of("torch", "cuda", torch.float32) == "torch"
    monkeypatch.setattr(linear, "has_onednn", lambda: False)
    assert product_for("cpu", torch.float32) == "torch"
    assert linear_for("cpu", torch.float32) is torch.nn.functional.linear


@pytest.mark.parametrize("broken", ["not built in", "named otherwise", "called otherwise", "multiplies wrongly"])
def test_a_onednn_that_is_not_as_expected_is_not_used(monkeypatch, broken):
    def refuse(*_):
        raise {"named otherwise": AttributeError, "called otherwise": RuntimeError}[broken]("no such operator")

    if broken == "not built in":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    elif broken == "multiplies wrongly":
        monkeypatch.setattr(linear, "onednn_linear", lambda x, weight, bias: torch.zeros(2, 4))
    else:
        monkeypatch.setattr(linear, "onednn_linear", refuse)
    has_onednn.cache_clear()
    try:
        assert not has_onednn()
    finally:
        monkeypatch.undo()
        has_onednn.cache_clear()


@pytest.mark.parametrize("impl", TILES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_onednn_scores_agree_with_the_reference(monkeypatch, impl, dtype):
    monkeypatch.setattr(linear, "has_onednn", lambda: False)
    hidden, head, targets = random_case(130, 700, 128, dtype, bias=True)
    assert_matches_reference(score_tokens(hidden, head, targets, impl), hidden, head, targets)


def test_what_cannot_run_here_says_what_it_needs(monkeypatch):
    hidden, head, targets = random_case(4, 100, 8)
    for impl in ("triton-chunked", "triton-fused"):
        with pytest.raises(LabError, match=f"'{impl}'.*(GPU|triton)"):
            score_tokens(hidden, head, targets, impl)
    for package in ("numba", "triton"):
        monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed: its import fails
    missing.cache_clear()
    try:
        assert "rbp-lab[fast]" in missing("numba", "cpu") and choose("cpu", 64) == "torch" == choose("cuda", 64)
        assert "triton" in missing("triton-fused", "cuda")
        with pytest.raises(LabError, match=r"'numba' of the scores needs the package numba"):
            score_tokens(hidden, head, targets, "numba")
        assert score_tokens(hidden, head, targets).nll.isfinite().all()
    finally:
        monkeypatch.undo()
        missing.cache_clear()


def test_what_auto_means_on_a_gpu(monkeypatch):
    monkeypatch.setattr(importlib.import_module("rbp_lab.scoring"), "missing", lambda impl, device: "")
    cases = ((512, 16), (512, 32), (4096, 16))
    assert [choose("cuda", *case) for case in cases] == ["triton-fused", "triton-chunked", "triton-chunked"]


def test_products_are_exact_only_while_they_must_be():
    torch.set_float32_matmul_precision("high")
    try:
        before = torch.backends.cuda.matmul.fp32_precision
        with ieee_products():
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == before != "ieee"
    finally:
        torch.set_float32_matmul_precision("highest")
