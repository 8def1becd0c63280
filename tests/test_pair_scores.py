"""Two distributions at every position: every number against numpy in float64, symmetric, exactly 0 for equal models."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from rbp_lab.comparison.sums import (
    OCTAVES,
    STEPS,
    PairSums,
    TokenPairs,
    agreements,
    columns,
    confidence_cell,
    ends_of_bin,
    move_bin,
    octave_of,
    pair_sums,
    rank_bin,
    unit_of,
)
from rbp_lab.models.pair_scorer import _positions_together
from rbp_lab.scoring import NonFiniteLogits, missing
from rbp_lab.scoring.pairs import (
    PairScores,
    compare_logits,
    first_choices,
    implementation,
    positions_at_once,
    score_pairs,
)
from rbp_lab.scoring.types import LMHead, TokenScores
from rbp_lab.stats import UNIT

KS = (1, 3, 20)
IMPLEMENTATIONS = ["torch", "reference", pytest.param("numba", marks=pytest.mark.skipif(
    bool(missing("numba", "cpu")), reason=f"numba {missing('numba', 'cpu')}"))]  # fmt: skip


def case(n=70, vocabulary=700, widths=(24, 40), seed=0, **head):
    """Hidden states of two models of different widths, the second near the first, and targets."""
    g = torch.Generator().manual_seed(seed)
    first = torch.randn(n, widths[0], generator=g)
    second = torch.cat([first, 0.2 * torch.randn(n, widths[1] - widths[0], generator=g)], 1)
    weight = torch.randn(vocabulary, widths[1], generator=g) * 0.6
    heads = LMHead(weight[:, : widths[0]].contiguous(), **head), LMHead(weight, **head)
    return (first, second), heads, torch.randint(0, heads[0].candidates, (n,), generator=g)


def oracle(hidden, heads, targets):
    """By numpy, in float64, one position at a time and in words of the definitions."""
    z = []
    for states, head in zip(hidden, heads, strict=True):
        one = states.double().numpy() @ head.weight[: head.candidates].double().numpy().T * head.scale
        z.append(one if head.softcap is None else head.softcap * np.tanh(one / head.softcap))
    rows = []
    for a, b, target in zip(*z, targets.numpy(), strict=True):
        log_a, log_b = log_softmax(a), log_softmax(b)
        p_a, p_b = np.exp(log_a), np.exp(log_b)
        order = [sorted(range(len(v)), key=lambda i, v=v: (-v[i], i)) for v in (a, b)]
        rows.append({
            "kl_ab": (p_a * (log_a - log_b)).sum(), "kl_ba": (p_b * (log_b - log_a)).sum(),
            "variation": np.abs(p_a - p_b).sum() / 2, "confidence_a": p_a.max(), "confidence_b": p_b.max(),
            "agree": set(np.flatnonzero(a == a.max())) == set(np.flatnonzero(b == b.max())),
            "overlap": [len(set(order[0][:k]) & set(order[1][:k])) for k in KS],
            "nll": (-log_a[target], -log_b[target]), "entropy": (-(p_a * log_a).sum(), -(p_b * log_b).sum()),
            "greater": ((a > a[target]).sum(), (b > b[target]).sum()),
        })  # fmt: skip
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("head", [{}, {"scale": 0.3, "softcap": 9.0, "num_candidates": 610}], ids=["plain", "capped"])
def test_every_number_is_that_of_float64(impl, head):
    hidden, heads, targets = case(**head)
    got, expected = score_pairs(hidden, heads, targets, KS, impl), oracle(hidden, heads, targets)
    for name in ("kl_ab", "kl_ba", "variation", "confidence_a", "confidence_b"):
        np.testing.assert_allclose(getattr(got, name), expected[name], rtol=2e-5, atol=3e-6)
    np.testing.assert_array_equal(got.overlap, expected["overlap"])
    np.testing.assert_array_equal(got.agree, expected["agree"])
    assert 0 < got.agree.float().mean() < 1
    for side, scores in enumerate((got.a, got.b)):
        np.testing.assert_allclose(scores.nll, expected["nll"][:, side], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(scores.entropy, expected["entropy"][:, side], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(scores.num_greater, expected["greater"][:, side])


def equal(a, b):
    """Whether two comparisons are the same to the last bit."""
    for field in fields(PairScores):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, TokenScores):
            assert torch.equal(one.nll, other.nll) and torch.equal(one.entropy, other.entropy)
            assert torch.equal(one.num_greater, other.num_greater) and torch.equal(one.num_equal, other.num_equal)
        else:
            assert torch.equal(one, other), field.name
    return True


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_equal_models_differ_by_exactly_nothing_and_swapping_mirrors(impl):
    hidden, heads, targets = case()
    copy = LMHead(heads[0].weight.clone())
    same = score_pairs((hidden[0], hidden[0].clone()), (heads[0], copy), targets, KS, impl)
    for name in ("kl_ab", "kl_ba", "variation"):
        assert not getattr(same, name).any(), name
    assert same.agree.all() and (same.overlap == torch.tensor(KS)).all()
    forth, back = (score_pairs(hidden[::s], heads[::s], targets, KS, impl) for s in (1, -1))
    assert equal(forth, back.mirrored()) and (forth.kl_ab >= 0).all() and (forth.kl_ba >= 0).all()


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_scores_of_a_position_do_not_depend_on_threads_or_on_the_positions_beside_it(impl):
    hidden, heads, targets = case(n=300, vocabulary=5000)
    whole, threads = score_pairs(hidden, heads, targets, KS, impl), torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            cuts = [slice(0, 1), slice(1, 130), slice(130, 300)]
            parts = [score_pairs(tuple(h[at] for h in hidden), heads, targets[at], KS, impl) for at in cuts]
            assert equal(whole, PairScores.join(parts)) or impl == "reference"
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_ties_are_taken_by_their_id_and_tied_first_choices_must_all_be_the_same(impl):
    z = torch.zeros(4, 12)
    z[0, [2, 5]] = 1.0  # the same two first
    z[1, 2] = 1.0
    z[2, [1, 2]] = 1.0
    other = z.clone()
    other[1, 7] = 1.0  # one first choice against two
    other[2, [1, 2, 3]] = torch.tensor([0.0, 1.0, 1.0])
    eye = LMHead(torch.eye(12))
    got = score_pairs((z, other), (eye, eye), torch.tensor([2, 2, 2, 3]), (1, 3), impl)
    assert got.agree.tolist() == [1, 0, 0, 1]
    # first three by (−z, id): [2 5 0], [2 0 1] against [2 7 0], [1 2 0] against [2 3 0], [0 1 2]
    assert got.overlap.tolist() == [[1, 3], [1, 2], [0, 2], [1, 3]]
    assert got.a.num_equal.tolist() == [1, 0, 1, 11]


@pytest.mark.parametrize("vocabulary", [12, 300, 2048, 5000])
@pytest.mark.parametrize("kinds", [1, 2, 40, 10**6])
def test_numba_finds_the_first_choices_that_sorting_finds(vocabulary, kinds):
    pairs_numba = pytest.importorskip("rbp_lab.scoring.pairs_numba")
    g = torch.Generator().manual_seed(kinds)
    z = torch.randint(0, kinds, (30, vocabulary), generator=g).float() * (8 / kinds) - 4
    other = torch.where(torch.rand(z.shape, generator=g) < 0.3, z.flip(0), z)
    targets = torch.randint(0, vocabulary, (30,), generator=g)
    for ks in ((1,), (1, 10, 100), (7, 3000), (5, 2, 9)):
        got, expected = (f(z, other, targets, ks) for f in (pairs_numba.compare_held, compare_logits))
        assert torch.equal(got.overlap, expected.overlap) and torch.equal(got.agree, expected.agree)
        assert torch.equal(got.a.num_equal, expected.a.num_equal)


def test_first_choices_are_those_of_a_stable_sort():
    z = torch.randint(0, 6, (50, 40), generator=torch.Generator().manual_seed(0)).float()
    values, ids = first_choices(z, 9)
    expected = z.sort(dim=-1, descending=True, stable=True)
    assert torch.equal(values, expected.values[:, :9]) and torch.equal(ids, expected.indices[:, :9])


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_logit_that_is_not_finite_is_marked_whichever_model_it_is_of(impl, side, value):
    hidden, heads, targets = case(n=9)
    hidden[side][5, 0] = value
    with pytest.raises(NonFiniteLogits, match="position 5"):
        score_pairs(hidden, heads, targets, KS, impl).check_finite()


def test_what_is_held_is_bounded_whatever_the_vocabulary():
    for candidates in (300, 50_304, 151_936, 262_144):
        assert positions_at_once("cpu", candidates) * candidates * 8 <= 25 << 20
        for width in (32, 4096):
            together = _positions_together((torch.empty(1, width),) * 2, candidates)
            block = positions_at_once("cpu", candidates)
            assert together % block == 0 and (
                together == block or 8 * (width * together + candidates * block) <= 25 << 20
            )
    assert positions_at_once("cpu", 50_304) == 64 and positions_at_once("cpu", 300) == 256
    assert _positions_together((torch.empty(1, 32),) * 2, 1024) == 8192  # a batch of a small model
    with pytest.raises(ValueError, match="candidates"):
        hidden, heads, targets = case()
        score_pairs(hidden, (heads[0], LMHead(heads[1].weight[:600])), targets, KS)


def token_pairs(seed=0, n=4000):
    rng = np.random.default_rng(seed)

    def two(draw):
        return draw().astype(np.float32), draw().astype(np.float32)

    return TokenPairs(
        document=rng.integers(0, 7, n),
        nll=two(lambda: rng.gamma(1, 2, n)),
        entropy=two(lambda: rng.gamma(2, 1, n)),
        rank=(rng.geometric(0.02, n), rng.geometric(0.02, n)),
        confidence=two(lambda: rng.random(n)),
        kl=two(lambda: rng.gamma(0.1, 0.1, n)),
        variation=rng.random(n).astype(np.float32),
        agree=rng.integers(0, 2, n),
        overlap=rng.integers(0, 2, (n, len(KS))),
    )


def taken(tokens, at):
    def cut(value):
        return tuple(v[at] for v in value) if isinstance(value, tuple) else value[at]

    return TokenPairs(**{f.name: cut(getattr(tokens, f.name)) for f in fields(TokenPairs)})


def test_sums_are_those_of_the_tokens_in_any_parts_and_order_and_mirror():
    tokens = token_pairs()
    whole, rng = pair_sums(tokens, KS), np.random.default_rng(1)
    order = rng.permutation(len(tokens.document))
    parts = [pair_sums(taken(tokens, at), KS) for at in np.array_split(order, 5)]
    assert sum(parts[::-1], PairSums.zeros(KS)) == whole
    assert whole.mirrored().mirrored() == whole != whole.mirrored()
    turned = {n: v if isinstance(v, np.ndarray) else v[::-1] for n, v in vars(tokens).items()}
    assert pair_sums(TokenPairs(**turned), KS) == whole.mirrored()
    delta = np.exp(-tokens.nll[1].astype(float)) - np.exp(-tokens.nll[0].astype(float))
    names = ("kl_b", "delta_p", "delta_p_square", "moved_up")
    sums = {name: whole.column(name).sum() * unit_of(name) for name in names}
    assert sums["kl_b"] == pytest.approx(tokens.kl[1].astype(float).sum(), abs=len(delta) * UNIT)
    assert sums["delta_p"] == pytest.approx(delta.sum(), abs=1e-3)
    assert sums["delta_p_square"] == pytest.approx((delta**2).sum(), rel=1e-9)
    assert sums["moved_up"] == (tokens.rank[1] < tokens.rank[0]).sum()
    sure = whole.cells.keys[:, 1] == 2
    inside = (tokens.confidence[0] >= 0.5) & (tokens.confidence[0] < 0.75)
    assert whole.column("tokens")[sure].sum() == inside.sum() > 0


def test_every_sum_is_that_of_its_definition():
    tokens = token_pairs()
    sums, n = pair_sums(tokens, KS), len(tokens.document)
    rank = [r.astype(np.int64) for r in tokens.rank]
    delta = np.exp(-tokens.nll[1].astype(float)) - np.exp(-tokens.nll[0].astype(float))
    expected = {
        "tokens": np.ones(n), "variation": tokens.variation, "agree": tokens.agree, "moved": rank[0] != rank[1],
        "moved_up": rank[1] < rank[0], "rank_move": np.abs(np.log(rank[1] / rank[0])), "delta_p": delta,
        "delta_p_square": delta**2, **{f"overlap_{k}": tokens.overlap[:, i] for i, k in enumerate(KS)},
    }  # fmt: skip
    for i, side in enumerate("ab"):
        expected |= {f"{name}_{side}": getattr(tokens, name)[i] for name in ("nll", "entropy", "confidence", "kl")}
        expected |= {f"correct_{side}": rank[i] == 1} | {f"hit_{side}_{k}": rank[i] <= k for k in KS}
    assert set(expected) == set(columns(KS))
    for name, values in expected.items():
        unit = unit_of(name)  # the roundings of n tokens add up to a few times √n / 12 units
        total = np.asarray(values, np.float64).sum()
        assert sums.column(name).sum() * unit == pytest.approx(total, abs=unit * n**0.5 if unit < 1 else 0, rel=1e-12)
    sure = [np.digitize(p, [0.25, 0.5, 0.75, 0.9, 0.95]) for p in tokens.confidence]
    bins = [np.digitize(r, [2, 6, 11, 101, 1001]) for r in rank]
    for tally, keys in (
        (sums.moves, (*sure, move_bin(delta))),
        (sums.spread, (tokens.document, *sure, octave_of(move_bin(delta)))),
        (sums.transitions, (tokens.document, *bins)),
    ):
        distinct, count = np.unique(np.stack(keys, 1), axis=0, return_counts=True)
        assert np.array_equal(tally.keys, distinct) and np.array_equal(tally.sums[:, 0], count)


def test_cells_and_bins_begin_with_their_first_value():
    assert confidence_cell(np.array([0, 0.25, 0.5, 0.9, 0.95, 1])).tolist() == [0, 1, 2, 4, 5, 5]
    ranks = np.array([1, 2, 5, 6, 10, 11, 100, 101, 1000, 1001, 10**6])
    assert rank_bin(ranks).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert move_bin(np.array([2**-24, -(2**-24), 1])).tolist() == [1, -1, 1 + STEPS * OCTAVES]


def test_no_tokens_add_nothing():
    tokens = token_pairs()
    none = taken(tokens, np.zeros(0, int))
    assert pair_sums(none, KS) == PairSums.zeros(KS)
    assert agreements(none.document, none.agree) == PairSums.zeros(KS).runs
    with pytest.raises(ValueError, match="cannot add sums of thresholds"):
        pair_sums(tokens, KS) + PairSums.zeros((1,))


def test_bins_of_moves_are_narrow_and_hold_what_is_in_them():
    delta = np.concatenate([np.geomspace(2**-23.9, 1, 997), [0.0, 2**-25]])
    for sign in (1, -1):
        low, high = ends_of_bin(move_bin(sign * delta))
        assert (low[:-2] <= sign * delta[:-2]).all() and (sign * delta[:-2] <= high[:-2]).all()
        assert (np.abs([low, high]) <= 1).all()
        assert (high - low <= delta / STEPS + 1e-15).all() and not (low[-2:].any() or high[-2:].any())
        np.testing.assert_array_equal(
            octave_of(move_bin(sign * delta))[:-2], sign * (1 + OCTAVES + np.floor(np.log2(delta[:-2])))
        )
    assert octave_of(move_bin(delta))[-2:].tolist() == [0, 0]


def test_what_runs_is_what_is_called_the_implementation():
    assert implementation("cuda") == "torch" and implementation("cpu") in ("torch", "numba")
