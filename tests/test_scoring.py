"""Scores against hand-built logits and the float64 reference, with ranks bracketed where rounding may decide."""

import importlib
import math
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from rbp_lab.errors import LabError
from rbp_lab.scoring import LMHead, NonFiniteLogits, choose, missing, product, score_tokens
from rbp_lab.scoring.product import linear_for, onednn_linear, tile_for, tile_shape
from rbp_lab.scoring.reference import reference_logits, score_logits
from rbp_lab.scoring.rounding import rounding_bound
from rbp_lab.scoring.threads import _pool, apart
from rbp_lab.scoring.tiled import score_tiled

TILES = tuple(impl for impl in ("tiled", "native") if not missing(impl, "cpu"))
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


@pytest.mark.parametrize("impl", IMPLS)
def test_hand_built_ranks_ties_and_values(impl):
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 5.0, -5.0]])
    scores = score_tokens(logits, identity_head(4), torch.tensor([1, 3, 3]), impl)
    assert scores.num_greater.tolist() == [0, 0, 3]
    assert scores.num_equal.tolist() == [1, 3, 0]
    expected = [math.log(2 + math.exp(-2) + math.exp(-3)), math.log(4), math.log(2 * math.e**5 + math.e**10 + 1)]
    assert scores.nll.tolist() == pytest.approx(expected, rel=1e-6)
    assert scores.entropy[1].item() == pytest.approx(math.log(4), rel=1e-6)
    assert scores.num_greater.dtype == scores.num_equal.dtype == torch.int32
    assert scores.nll.dtype == scores.entropy.dtype == torch.float32


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
    monkeypatch.setattr(product, "CONVERTED_BYTES", 300 * (256 * 10 + 64 * 4))
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
    assert_matches_reference(score_tiled(hidden, head, targets, tile=tile), hidden, head, targets)


@pytest.mark.parametrize("threads", [1, 2, 3], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("impl", TILES)
def test_scores_do_not_depend_on_company(impl, dtype, threads):
    """A token alone, in part of the batch and in the whole batch has the same bits."""
    hidden, head, targets = random_case(700, 3000, 96, dtype)
    whole = score_tokens(hidden, head, targets, impl)
    assert torch.get_num_threads() == threads
    torch.set_num_threads(1)
    assert torch.equal(score_tokens(hidden, head, targets, impl).nll, whole.nll)
    torch.set_num_threads(threads)
    assert [_pool(threads).submit(torch.get_num_threads).result() for _ in range(2 * threads)] == [1] * 2 * threads
    with ThreadPoolExecutor(1) as later:  # the threads of the scores are of one each, others must not become so
        assert later.submit(torch.get_num_threads).result() == threads
    for part in (slice(0, 1), slice(5, 6), slice(100, 401), slice(699, 700)):
        some = score_tokens(hidden[part], head, targets[part], impl)
        for name in ("nll", "num_greater", "num_equal", "entropy"):
            assert torch.equal(getattr(some, name), getattr(whole, name)[part]), name


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
    with pytest.raises(LabError, match="auto, reference, tiled"):
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
    real = product.target_logits
    module = importlib.import_module(f"rbp_lab.scoring.{impl}")
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
    parts = [score_tokens(torch.eye(64)[i : i + 1], ones, targets[i : i + 1], impl) for i in range(64)]
    for name in ("nll", "entropy"):
        true = getattr(exact, name)
        ours, theirs = (
            (values - true).abs() for values in (torch.cat([getattr(p, name) for p in parts]), getattr(plain, name))
        )
        assert (ours <= theirs.max() + 1e-6 * true.abs()).all(), (name, ours.max(), theirs.max())
    assert all(torch.equal(getattr(p, n)[0], getattr(exact, n)[i]) for i, p in enumerate(parts)
               for n in ("num_greater", "num_equal"))  # fmt: skip


def test_the_power_of_two_is_right_to_the_last_bits():
    native = pytest.importorskip("rbp_lab.scoring.native")
    d = np.linspace(-87, 88, 20_001, dtype=np.float32)
    e = np.array([native._power_sums(d[i : i + 1], np.float32(0))[0] for i in range(len(d))])
    assert np.abs(e / np.exp(d.astype(np.float64)) - 1).max() < 2.5e-7
    s, q = native._power_sums(np.array([-200.0, 0.0, 60.5], np.float32), np.float32(0))
    assert s == pytest.approx(math.exp(60.5) + 1, rel=1e-6) and q == pytest.approx(60.5 * math.exp(60.5), rel=1e-6)


SCORE_TWO_FORMATS = """
import torch
from rbp_lab.scoring import LMHead, score_tokens
torch.set_num_threads(1)
for dtype in (torch.float32, torch.bfloat16):
    g = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 32, generator=g).to(dtype) for n in (300, 9000))
    scores = score_tokens(hidden, LMHead(weight), torch.arange(300), "native")
    print(scores.nll.double().sum().item(), scores.entropy.double().sum().item())
"""


@pytest.mark.skipif(bool(missing("native", "cpu")), reason=missing("native", "cpu"))
def test_code_from_numbas_cache_gives_the_bits_of_code_just_compiled(tmp_path):
    command, environment = [sys.executable, "-c", SCORE_TWO_FORMATS], os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    compiled, cached = (subprocess.run(command, env=environment, capture_output=True, check=True).stdout for _ in "12")
    assert list(tmp_path.rglob("*.nbc")) and compiled.count(b"\n") == 2
    assert cached == compiled


@pytest.fixture
def forget_choices():
    """Forget which product was chosen; call it to forget again, and once more at the end."""

    forget = product._first_of_the_fast.cache_clear
    forget()
    yield forget
    forget()


def test_the_product_is_chosen_by_its_speed(monkeypatch, forget_choices):
    assert linear_for("cuda", torch.float32, 8, onednn_linear) is torch.nn.functional.linear
    assert linear_for("cpu", torch.bfloat16, 8, onednn_linear) is torch.nn.functional.linear
    default, calls = torch.nn.functional.linear, []

    def slowed(linear, seconds=0.0055):
        def sluggish(*a):
            calls.append(linear)
            until = time.thread_time() + seconds
            while time.thread_time() < until:
                pass
            return linear(*a)

        return sluggish

    slow_default, slow_onednn = slowed(default, 0.005), slowed(onednn_linear)

    def interrupted(*a):
        """Nearly as fast as the default, on a machine whose other processes take turns with this one."""
        time.sleep(0.005)
        return slow_onednn(*a)

    def own(*a):
        return default(*a)

    slow_own = slowed(own)
    cases = [
        ({"F.linear": slow_default}, None, onednn_linear),
        ({"onednn_linear": slow_onednn}, None, default),
        ({"F.linear": slow_default, "onednn_linear": slow_onednn}, None, slow_onednn),  # close: never left to noise
        ({"F.linear": slow_default, "onednn_linear": interrupted}, None, interrupted),
        ({"F.linear": slow_default, "onednn_linear": slow_onednn}, slow_own, slow_own),
        ({"F.linear": slow_default, "onednn_linear": slow_onednn}, own, own),
        ({"F.linear": slow_default}, slow_own, onednn_linear),
        ({"onednn_linear": slow_onednn}, slow_own, default),
        ({"_has_onednn": lambda: False}, None, default),
        ({"_has_onednn": lambda: False, "F.linear": slow_default}, own, own),
    ]
    for patches, given, expected in cases:
        forget_choices()
        with monkeypatch.context() as patched:
            for name, value in patches.items():
                patched.setattr(f"rbp_lab.scoring.product.{name}", value)
            assert linear_for("cpu", torch.float32, 8, given) is expected
    assert set(calls) == {default, onednn_linear, own}


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_products_are_compared_on_one_thread(threads, forget_choices):
    seen = []

    def own(*_):
        seen.append(torch.get_num_threads())

    for _ in range(2):
        linear_for("cpu", torch.float32, 8, own)
    assert set(seen) == {1} and len(seen) == 1 + product.TIMES  # and once


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_products_are_compared_by_one_thread_for_all(threads, forget_choices):
    seen, together = [], threading.Barrier(2)

    def own(*_):
        seen.append(threading.get_ident())
        time.sleep(0.001)

    def choose_at_once():
        together.wait()
        return linear_for("cpu", torch.float32, 8, own)

    assert len(set(apart([choose_at_once] * 2))) == 1
    assert len(set(seen)) == 1 and len(seen) == 1 + product.TIMES


def test_what_cannot_run_here_says_what_it_needs(monkeypatch):
    hidden, head, targets = random_case(4, 100, 8)
    for impl in ("chunked", "fused"):
        with pytest.raises(LabError, match=f"'{impl}'.*(GPU|triton)"):
            score_tokens(hidden, head, targets, impl)
    monkeypatch.setattr(importlib.import_module("rbp_lab.scoring"), "find_spec", lambda name: None)
    missing.cache_clear()
    assert "rbp-lab[fast]" in missing("native", "cpu") and choose("cpu", 64) == "tiled" == choose("cuda", 64)
    assert "triton" in missing("fused", "cuda")
    monkeypatch.undo()
    missing.cache_clear()


def test_what_auto_means_on_a_gpu(monkeypatch):
    monkeypatch.setattr(importlib.import_module("rbp_lab.scoring"), "missing", lambda impl, device: "")
    assert [choose("cuda", 512, 16), choose("cuda", 512, 32), choose("cuda", 4096, 16)] == ["fused", *["chunked"] * 2]


def test_products_are_exact_only_while_they_must_be():
    torch.set_float32_matmul_precision("high")
    try:
        before = torch.backends.cuda.matmul.fp32_precision
        with product.ieee_products():
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == before != "ieee"
    finally:
        torch.set_float32_matmul_precision("highest")
