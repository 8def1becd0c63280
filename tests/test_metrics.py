"""Metrics against hand-computed values and their defining identities."""

import math

import numpy as np
import pytest
from scipy import stats as distributions

from rbp_lab import metrics
from rbp_lab.counting import DocumentScores, document_table, rank_stats
from rbp_lab.errors import LabError
from rbp_lab.stats import UNIT, RankStats

V = 20


def scores(greater, equal=None, nll=None, sizes=None):
    n = len(greater)
    sizes = [n] if sizes is None else sizes
    return DocumentScores(
        np.arange(len(sizes)),
        np.array(sizes),
        np.array(sizes) * 2,
        np.float32(np.ones(n) if nll is None else nll),
        np.int32(greater),
        np.int32(np.zeros(n) if equal is None else equal),
        np.full(n, 0.5, np.float32),
    )


def make_stats(*args, windows=(1, 2), **kwargs):
    return rank_stats(scores(*args, **kwargs), V, windows)


def test_rbp_by_hand_with_ties_on_either_side():
    stats = make_stats([0, 0, 1, 4], equal=[0, 1, 0, 3])
    assert [metrics.rbp(stats, k) for k in (1, 2, 7, 8, V, 10 * V)] == [0.25, 0.75, 0.75, 1.0, 1.0, 1.0]
    assert [metrics.rbp(stats, k, "optimistic") for k in (1, 2, 5)] == [0.5, 0.75, 1.0]
    assert metrics.tie_rate(stats) == 0.5


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_a_threshold_is_a_positive_integer(k):
    with pytest.raises(LabError, match="integer of at least 1"):
        metrics.rbp(make_stats([0, 1]), k)


def test_unknown_tie_rule_and_unrecorded_window():
    with pytest.raises(LabError, match="pessimistic, optimistic"):
        metrics.rbp(make_stats([0]), 1, "random")
    with pytest.raises(LabError, match=r"recorded are \[1, 2\]"):
        metrics.window_rbp(make_stats([0, 1]), 3, 1)


def test_nothing_scored_is_a_sentence_not_nan():
    empty = RankStats.zeros(V)
    for metric in (metrics.cross_entropy, metrics.tie_rate, metrics.decomposition, metrics.predictive_entropy):
        with pytest.raises(LabError, match="no token was scored"):
            metric(empty)


def test_cross_entropy_perplexity_and_bits_per_byte():
    stats = make_stats([0, 1, 2, 3], nll=[0.5, 1.0, 1.5, 2.0])
    assert metrics.cross_entropy(stats) == pytest.approx(1.25)
    assert metrics.perplexity(stats) == pytest.approx(math.exp(1.25))
    assert metrics.bits_per_byte(stats) == pytest.approx(5.0 / math.log(2) / 8)
    assert metrics.entropy_gap(stats) == pytest.approx(0.5 - 1.25)


def test_window_rbp_by_hand():
    stats = make_stats([0, 0, 2, 0, 0, 0], sizes=[4, 2])
    assert metrics.window_rbp(stats, 2, 1) == pytest.approx(2 / 4)
    assert metrics.window_rbp(stats, 2, 3) == 1.0
    assert metrics.window_rbp(make_stats([0], windows=(1, 9)), 9, 1) is None


def test_decomposition_is_exact_and_by_hand():
    rng = np.random.default_rng(0)
    greater = np.minimum(rng.geometric(0.4, 500) - 1, V - 1)
    nll = rng.exponential(1.0, 500) + greater
    stats = make_stats(greater, nll=nll)
    parts = metrics.decomposition(stats)
    assert parts.cross_entropy == pytest.approx(metrics.cross_entropy(stats), rel=1e-14)
    assert parts.self_alignment >= 0
    p, log_q = [], []
    for e in np.unique(greater):
        mine = nll[greater == e].astype(np.float32).astype(float)
        p.append(len(mine) / 500)
        log_q.append(-mine.mean())
    assert parts.error_entropy == pytest.approx(-sum(x * math.log(x) for x in p), rel=1e-12)
    assert parts.confidence == pytest.approx(math.log(sum(math.exp(q) for q in log_q)), rel=1e-6)


def test_estimates_resample_documents():
    rng = np.random.default_rng(1)
    sizes = rng.integers(5, 60, 80)
    difficulty = np.repeat(rng.beta(2, 3, 80), sizes)
    s = scores(np.where(rng.random(sizes.sum()) < difficulty, 0, 5), sizes=sizes)
    table = document_table(s, (1,))
    estimate = metrics.neg_log_rbp(table, 1)
    p = table.hits(1).sum() / sizes.sum()
    assert estimate.value == pytest.approx(-math.log(p))
    # the linearised variance, written out
    residual = table.hits(1) - p * sizes
    se = math.sqrt(80 / 79 * (residual**2).sum()) / sizes.sum() / (p * -math.log(p))
    assert estimate.se_log == pytest.approx(se)
    t = distributions.t.ppf(0.975, 79)
    assert estimate.lower == pytest.approx(estimate.value * math.exp(-t * se))
    assert estimate.upper == pytest.approx(estimate.value * math.exp(t * se))
    assert estimate.design_effect > 3  # tokens of one document are alike here
    assert metrics.neg_log_window_rbp(table, 1, 1) == estimate
    ce = metrics.cross_entropy_estimate(table)
    assert ce.value == pytest.approx(table.nll_units.sum() * UNIT / sizes.sum())


@pytest.mark.parametrize("hits", [[0, 0, 0], [4, 4, 4]])
def test_no_interval_where_the_scale_ends(hits):
    assert metrics.ratio_estimate(np.array(hits), np.array([4, 4, 4]), scale="neg_log") is None
    assert metrics.ratio_estimate(np.array([1]), np.array([4]), scale="neg_log") is None


def test_interval_covers_under_clustering():
    """400 corpora of 60 correlated documents: the nominal 95 % interval covers, token-wise ones would not."""
    rng = np.random.default_rng(7)
    covered = 0
    truth = -math.log(0.4)  # mean of beta(2, 3)
    for _ in range(400):
        sizes = np.full(60, 40)
        hits = rng.binomial(sizes, rng.beta(2, 3, 60))
        e = metrics.ratio_estimate(hits, sizes, scale="neg_log")
        covered += e.lower <= truth <= e.upper
    assert 0.92 <= covered / 400 <= 0.98
