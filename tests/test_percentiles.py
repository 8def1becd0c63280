"""Percentiles of the right token's change: those of the tokens, by confidence, with intervals that hold."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from rbp_lab.comparison.findings import WHOLE
from rbp_lab.comparison.percentiles import (
    PERCENTILES,
    all_percentiles,
    independent_tokens,
    percentiles,
    shares_between,
)
from rbp_lab.comparison.sums import STEPS, PairSums, Tally, confidence_cell, move_bin, octave_of
from tests.test_pair_scores import token_pairs


def sums_of(document, delta, confidence=None):
    """PairSums with what percentiles need, from Δp and a's confidence at each token."""
    cell = 0 * document if confidence is None else confidence_cell(confidence)
    one, step = [np.ones(len(delta), np.int64)], move_bin(delta)
    moves, spread = Tally.of((cell, cell, step), one), Tally.of((document, cell, cell, octave_of(step)), one)
    return replace(PairSums.zeros((1,)), moves=moves, spread=spread)


def made_up(rng, documents, tokens=200, unlike=0.5):
    """Documents of unlike lengths, each with a scale and a shift of Δp of its own: (document, Δp) of tokens."""
    n = np.maximum(5, np.exp(rng.normal(0, 0.5, documents)) * tokens).astype(int)
    document = np.repeat(np.arange(documents), n)
    scale, shift = np.exp(rng.normal(0, unlike, documents)), rng.normal(0, 0.003 * unlike, documents)
    delta = 0.05 * scale[document] * rng.standard_t(3, len(document)) * np.abs(rng.normal(size=len(document)))
    return document, np.clip(delta + shift[document], -1, 1)


def test_percentiles_are_those_of_the_tokens_of_every_confidence():
    rng = np.random.default_rng(0)
    document, delta = made_up(rng, 40)
    sure = rng.random(len(delta))
    found = all_percentiles(sums_of(document, delta, sure))
    cells = {f.cell: confidence_cell(sure) == i - 1 for i, f in enumerate(found[:: len(PERCENTILES)])}
    cells[WHOLE] = np.ones(len(delta), bool)
    assert list(cells) == [WHOLE, "0 to 0.25", "0.25 to 0.5", "0.5 to 0.75", "0.75 to 0.9", "0.9 to 0.95", "0.95 to 1"]
    for f in found:
        mine = delta[cells[f.cell]]
        assert f.value == pytest.approx(np.quantile(mine, f.percent / 100, method="inverted_cdf"), rel=1 / STEPS)
        assert f.low <= f.value <= f.high and (f.tokens, f.documents) == (len(mine), 40)
    assert len(found) == len(cells) * len(PERCENTILES)


def test_swapping_the_models_turns_them_around():
    tokens = token_pairs()
    sums = PairSums.zeros((1,))
    p_a, p_b = (np.exp(-nll.astype(float)) for nll in tokens.nll)
    cells = [confidence_cell(one) for one in tokens.confidence]
    step, one = move_bin(p_b - p_a), [np.ones(len(p_a), np.int64)]
    sums = replace(sums, moves=Tally.of((*cells, step), one),
                   spread=Tally.of((tokens.document, *cells, octave_of(step)), one))  # fmt: skip
    there, back = percentiles(sums, wanted=(10, 30)), percentiles(sums.mirrored(), wanted=(70, 90))
    for f, turned in zip(there, back[::-1], strict=True):
        assert (f.value, f.low, f.high) == pytest.approx((-turned.value, -turned.high, -turned.low), rel=1e-6)
    (one,) = percentiles(sums.mirrored(), cell=2, wanted=(50,))
    mine = cells[1] == 2
    (alone,) = percentiles(sums_of(tokens.document[mine], (p_a - p_b)[mine]), wanted=(50,))
    assert replace(one, cell=WHOLE) == alone and one.tokens == mine.sum()


def test_documents_of_one_token_tell_as_much_as_independent_tokens():
    """The exact interval of a share of M independent tokens, but for the degrees of freedom, which hardly matter."""
    rng, shares = np.random.default_rng(1), np.array([0.02, 0.5, 0.9])
    counts = np.eye(20)[rng.integers(0, 20, 4000)]
    low, high = shares_between(shares, counts, 0.95)
    np.testing.assert_allclose(low, special.betaincinv(4000 * shares, 4000 * (1 - shares) + 1, 0.025), rtol=0.01)
    np.testing.assert_allclose(high, special.betaincinv(4000 * shares + 1, 4000 * (1 - shares), 0.975), rtol=0.01)


def test_tokens_that_are_alike_within_documents_tell_as_much_as_one_of_each():
    rng = np.random.default_rng(2)
    one = np.eye(20)[rng.integers(0, 20, 500)]
    for copies in (1, 7):
        told = independent_tokens(np.array([0.3, 0.7]), copies * one, 0.95)
        np.testing.assert_allclose(told, 500, rtol=0.02)
    assert independent_tokens(np.array([0.5]), np.full((9, 1), 100.0), 0.95).tolist() == [9.0]


def test_few_documents_tell_less_by_the_degrees_of_freedom():
    """Ten documents of a token, four of them below: the jackknife's variance is that of nine, with t of 9 degrees."""
    counts = np.repeat(np.eye(2), [4, 6], axis=0)
    t = stats.t.ppf(0.975, 9)
    assert independent_tokens(np.array([0.4]), counts, 0.95) == pytest.approx(9 * (special.ndtri(0.975) / t) ** 2)


def test_between_ends_of_bins_the_logarithm_follows_the_logit_of_the_share():
    counts = np.random.default_rng(4).integers(0, 30, (12, 3)) * [1, 5, 20]
    ends = np.cumsum(counts.sum(0))[:-1] / counts.sum()
    middle = special.expit(special.logit(ends).mean())
    first, last, between = independent_tokens(np.array([*ends, middle]), counts, 0.95)
    assert first != pytest.approx(last, rel=0.1) and between == pytest.approx(np.sqrt(first * last))


def test_a_share_at_the_end_of_a_bin_is_that_end():
    half, whole = percentiles(sums_of(np.zeros(2, int), np.array([-0.5, 0.25])), wanted=(50, 100))
    assert (half.value, whole.value) == pytest.approx((-0.5, 0.25 * (1 + 1 / STEPS)))


def test_one_document_has_no_interval():
    delta = np.linspace(-0.1, 0.1, 50)
    (one,) = percentiles(sums_of(np.zeros(50, np.int64), delta), wanted=(50,))
    assert one.low is one.high is None and math.isclose(one.value, 0, abs_tol=0.01) and one.documents == 1
    (two,) = percentiles(sums_of(np.arange(50) % 2, delta), wanted=(50,))
    assert two.low < two.value < two.high and two.documents == 2


def test_equal_models_move_nothing():
    found = percentiles(sums_of(np.arange(60) % 6, np.zeros(60)))
    assert all(f.value == f.low == f.high == 0 for f in found)


def coverage(number, documents, tokens):
    """Share of replicates whose intervals hold the percentile of all documents, by percentile."""
    rng = np.random.default_rng(documents)
    truth = np.quantile(made_up(np.random.default_rng(99), 100_000, 60)[1], np.array(PERCENTILES) / 100)
    held = np.zeros(len(PERCENTILES))
    for _ in range(number):
        found = percentiles(sums_of(*made_up(rng, documents, tokens)))
        held += [f.low <= true <= f.high for f, true in zip(found, truth, strict=True)]
    return held / number


def test_intervals_hold():
    held = coverage(150, 40, 100)
    assert (held > 0.88).all() and 0.92 <= held.mean() <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("documents", [20, 100, 1000])
def test_coverage_of_two_thousand_replicates(documents):
    held = coverage(2000, documents, 200 if documents < 1000 else 60)
    print(f"\n{documents}:", held)
    assert ((held >= 0.93) & (held <= 0.97)).all()
