"""A token's scores depend on its row and on nothing else: batches, order, threads, tiles, implementations.

Bits are promised where a product's shape is the row's own: tiles of logits, and forward passes on a CPU. Elsewhere
(threads inside torch's operations, another processor) ranks must lie in the bracket that the rounding of logits leaves
open around the float64 answer, and nll within that rounding.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from rbp_lab.data.windows import TokenBatch
from rbp_lab.models.head import HeadPlan
from rbp_lab.models.scorer import Scorer
from rbp_lab.scoring import IMPLEMENTATIONS, missing, score_tokens
from rbp_lab.scoring.error_bounds import rounding_bound
from rbp_lab.scoring.reference import reference_logits, score_logits
from tests.benchmarks.case import batch_of, random_ids
from tests.conftest import TINY_MODELS, TINY_VOCAB, build_tiny_model
from tests.test_scoring import random_case

HERE = [name for name in IMPLEMENTATIONS if not missing(name, "cpu")]
TILES = [name for name in HERE if name != "reference"]
NAMES = ("nll", "num_greater", "num_equal", "entropy")
VOCAB, WIDTH = 1000, 128


def assert_same(one, other):
    for name in NAMES:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def assert_within_rounding(scores, exact, nll=2e-5):
    """exact: with the bracket."""
    assert (scores.nll - exact.nll).abs().max() < nll
    assert (exact.surely_greater <= scores.num_greater).all()
    assert (scores.num_greater + scores.num_equal <= exact.maybe_greater).all()


# ── from hidden states ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("threads", [1, 2, 3, 4], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("impl", HERE)
def test_scoring_is_batch_invariant(impl, dtype, threads):
    """The same bits alone, in a batch of 8, in all of it, in any order, and on one thread."""
    hidden, head, targets = random_case(530, 1200, WIDTH, dtype)
    whole = score_tokens(hidden, head, targets, impl)
    for part in (slice(0, 1), slice(5, 6), slice(100, 108), slice(3, 401), slice(529, 530)):
        some = score_tokens(hidden[part], head, targets[part], impl)
        if impl != "reference":
            assert_same(some, whole.map(lambda values, part=part: values[part]))
        assert torch.equal(some.num_greater, whole.num_greater[part])
    order = torch.randperm(530, generator=torch.Generator().manual_seed(1))
    shuffled = score_tokens(hidden[order], head, targets[order], impl)
    exact = score_logits(reference_logits(hidden, head), targets, rounding_bound(hidden, head))
    assert_within_rounding(shuffled, exact.map(lambda values: values[order]))
    torch.set_num_threads(1)
    alone = score_tokens(hidden, head, targets, impl)
    torch.set_num_threads(threads)
    if impl != "reference":
        assert_same(alone, whole)
    assert_within_rounding(whole, exact)


@pytest.mark.parametrize("head", [{}, {"softcap": 5.0}, {"num_candidates": 45}], ids=str)
@pytest.mark.parametrize("impl", TILES)
def test_the_last_position_of_a_batch_is_scored_as_any_other(impl, head):
    """Libraries work by vectors from the first element on; what does not fill one at the end takes another way."""
    hidden, lm_head, targets = random_case(300, 77, 16, **head)
    whole = score_tokens(hidden, lm_head, targets, impl)
    for n in range(1, 300, 3):
        some = score_tokens(hidden[:n], lm_head, targets[:n], impl)
        assert_same(some, whole.map(lambda values, n=n: values[:n]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_implementations_count_alike(dtype):
    """Those that work by tiles reduce the same logits; the reference lies within their rounding."""
    hidden, head, targets = random_case(300, 3000, WIDTH, dtype, bias=True)
    first, *others = (score_tokens(hidden, head, targets, impl) for impl in TILES)
    for other in others:
        assert torch.equal(first.num_greater, other.num_greater) and torch.equal(first.num_equal, other.num_equal)
        assert (first.nll - other.nll).abs().max() < 4e-6
    exact = score_logits(reference_logits(hidden, head), targets, rounding_bound(hidden, head))
    assert_within_rounding(first, exact)


@pytest.mark.parametrize("impl", TILES)
def test_the_byte_budget_changes_nothing_but_rounding(impl):
    hidden, head, targets = random_case(300, 3000, WIDTH)
    exact = score_logits(reference_logits(hidden, head), targets, rounding_bound(hidden, head))
    for budget in (1 << 17, 1 << 20, 64 << 20):
        assert_within_rounding(score_tokens(hidden, head, targets, impl, budget), exact)


# ── from token ids ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=["gpt_neox", "llama"])
def wide_model(request):
    """A random model with D = 128 and V = 1000."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        request.param, vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=4 * WIDTH, max_position_embeddings=1024, bos_token_id=0, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    model.get_output_embeddings().weight.normal_(0.0, 2.5 * WIDTH**-0.5)
    return model


def bracket(model, ids):
    """The float64 answer of a model, with room for what its float32 body rounds."""
    double = copy.deepcopy(model).double()
    with torch.inference_mode():
        z = torch.cat([double(input_ids=torch.from_numpy(row[None])).logits[0, :-1] for row in ids])
    targets = torch.from_numpy(ids[:, 1:]).reshape(-1)
    return score_logits(z, targets, torch.full((len(z),), 2e-5))


def rows_of(batch: TokenBatch, rows) -> TokenBatch:
    return TokenBatch(batch.tokens[rows], batch.scored[rows], batch.document_id[rows], batch.num_bytes[rows])


def by_row(scores, batch):
    """The scores of each row of a batch: [row][name]."""
    columns = [torch.split(getattr(scores, name), batch.scored.sum(1).tolist()) for name in NAMES]
    return list(zip(*columns, strict=True))


def assert_batch_invariant(scorer, batch):
    """Batches of 1, of 8 and of all rows, and the rows in another order, give every row the same bits."""
    whole = by_row(scorer(batch), batch)
    rows = np.arange(len(whole))
    shuffled = np.random.default_rng(0).permutation(rows)
    for chosen in (*np.split(rows, rows[1:]), rows[:8], rows[8:], shuffled):
        if not len(chosen):
            continue
        some = rows_of(batch, chosen)
        for row, scores in zip(chosen, by_row(scorer(some), some), strict=True):
            for name, one, other in zip(NAMES, scores, whole[row], strict=True):
                assert torch.equal(one, other), (name, row, len(chosen))


@pytest.mark.parametrize("tokens", [32, 100, 300])
@pytest.mark.parametrize("impl", TILES)
def test_measuring_is_batch_invariant(wide_model, impl, tokens):
    batch = batch_of(random_ids(11, tokens, VOCAB, seed=0))
    batch.scored[3, : tokens // 2] = False  # context
    batch.scored[5] = False
    assert_batch_invariant(Scorer(wide_model, "cpu", implementation=impl), batch)


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_measuring_every_architecture_is_batch_invariant(name):
    assert_batch_invariant(Scorer(build_tiny_model(name), "cpu"), batch_of(random_ids(4, 40, TINY_VOCAB, seed=2)))


def test_products_that_round_by_the_size_of_the_batch_do_not_show(wide_model):
    """Libraries choose their kernels by shape; here a layer that adds a rounding for every row beside the first."""
    layer = wide_model.get_submodule(next(name for name, _ in wide_model.named_modules() if name.endswith("mlp")))
    hook = layer.register_forward_hook(lambda module, given, out: out * (1 + 1e-6 * (len(out) - 1)))
    try:
        assert_batch_invariant(Scorer(wide_model, "cpu"), batch_of(random_ids(9, 40, VOCAB, seed=3)))
    finally:
        hook.remove()


def test_measuring_by_full_logits_is_batch_invariant(wide_model):
    """As for a model whose output layer is not understood."""
    scorer = Scorer(wide_model, "cpu")
    scorer.plan = HeadPlan("fallback", reason="for this test")
    assert_batch_invariant(scorer, batch_of(random_ids(4, 40, VOCAB, seed=2)))


@pytest.mark.parametrize("threads", [1, 2, 3, 4], indirect=True)
@pytest.mark.parametrize("impl", TILES)
def test_measuring_with_any_number_of_threads_is_within_rounding(wide_model, impl, threads):
    ids = random_ids(5, 64, VOCAB, seed=1)
    scores = Scorer(wide_model, "cpu", implementation=impl)(batch_of(ids))
    assert torch.get_num_threads() == threads
    assert_within_rounding(scores, bracket(wide_model, ids))


def test_a_batch_without_scored_positions_has_no_scores(wide_model):
    batch = batch_of(random_ids(3, 40, VOCAB, seed=0))
    batch.scored[:] = False
    assert Scorer(wide_model, "cpu")(batch).nll.shape == (0,)
