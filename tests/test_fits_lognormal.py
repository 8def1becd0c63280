"""The lognormal of ranks: both models, published parameters, powerlaw, ridges, clustered intervals, the appendix."""

import contextlib
import io
import math

import numpy as np
import pytest
from scipy import stats
from scipy.stats import norm

from rbp_lab.errors import LabError
from rbp_lab.fits.lognormal import MODELS, fit_lognormal, neg_log_p1, rank_entropy, rank_pairs
from tests.fits_data import synthetic_record

V = 50304
# (μ, σ) of the Pythia models, [RBP] appendix D.
PUBLISHED = {"14m": (1.19, 3.69), "160m": (-3.49, 4.43), "1.4b": (-9.32, 5.18), "12b": (-14.29, 5.76)}


def rounded(mu, sigma, first=1, last=V):
    k = np.arange(first, last + 1)
    edge = norm.sf((np.log(np.arange(first, last + 2) - 0.5) - mu) / sigma)
    p = edge[:-1] - edge[1:]
    return k, p / p.sum()


def pmf(mu, sigma, first=1, last=V):
    k = np.arange(first, last + 1)
    log_p = -np.log(k) - 0.5 * ((np.log(k) - mu) / sigma) ** 2
    p = np.exp(log_p - log_p.max())
    return k, p / p.sum()


def pairs(law, n, seed):
    k, p = law
    counts = np.random.default_rng(seed).multinomial(n, p)
    return k[counts > 0], counts[counts > 0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters_come_back_with_xmin_2(name):
    mu, sigma = PUBLISHED[name]
    fit = fit_lognormal(*pairs(rounded(mu, sigma), 500_000, 0), "rounded", xmin=2, vocab=V)
    assert fit.status == "ok" and fit.xmin == 2 and fit.vocab == V
    assert fit.mu == pytest.approx(mu, abs=0.35) and fit.sigma == pytest.approx(sigma, abs=0.06)
    assert fit.ratio == pytest.approx(mu / sigma, abs=0.06)
    assert fit.ks < 0.002 and fit.p1_fit == pytest.approx(fit.p1_observed, abs=0.002)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("xmin", [1, 2])
def test_exact_shares_give_the_exact_parameters(model, xmin):
    law = (rounded if model == "rounded" else pmf)(-3.49, 4.43)
    fit = fit_lognormal(law[0], np.round(law[1] * 1e15), model, xmin, V)
    assert (fit.mu, fit.sigma) == pytest.approx((-3.49, 4.43), rel=1e-5)
    assert fit.ks < 1e-8


def test_a_narrow_law_is_exact_in_its_first_cells():
    """Where a cell is wide against σ, its probability must be a difference of Φ, not a quadrature."""
    k, p = rounded(1.2, 0.3, last=60)
    fit = fit_lognormal(k, np.round(p * 1e15), "rounded", 1, V)
    assert (fit.mu, fit.sigma) == pytest.approx((1.2, 0.3), rel=1e-9)


def test_likelihood_is_at_its_maximum():
    ranks, counts = pairs(rounded(1.0, 2.0), 20_000, 1)
    fit = fit_lognormal(ranks, counts, "rounded", 1, V)
    k, _ = rounded(1.0, 2.0)

    def likelihood(mu, sigma):
        p = dict(zip(*rounded(mu, sigma), strict=True))
        return sum(c * math.log(p[r]) for r, c in zip(ranks.tolist(), counts.tolist(), strict=True)) / counts.sum()

    assert fit.log_likelihood == pytest.approx(likelihood(fit.mu, fit.sigma), rel=1e-9)
    for d_mu, d_sigma in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert likelihood(fit.mu + d_mu, fit.sigma + d_sigma) < fit.log_likelihood
    assert len(k) == V


def test_equals_the_powerlaw_package():
    powerlaw = pytest.importorskip("powerlaw")
    ranks, counts = pairs(rounded(1.0, 2.0, last=5000), 4000, 2)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        theirs = powerlaw.Fit(np.repeat(ranks, counts), discrete=True, xmin=2, verbose=False).lognormal
    ours = fit_lognormal(ranks, counts, "rounded", xmin=2)
    assert (ours.mu, ours.sigma) == pytest.approx((theirs.mu, theirs.sigma), abs=2e-3)
    assert (
        ours.log_likelihood * ours.n
        >= theirs.loglikelihoods(np.repeat(ranks, counts)[np.repeat(ranks, counts) > 1]).sum() - 1e-6
    )


def test_a_fit_takes_pairs_not_tokens():
    """A million times the tokens in the same pairs: the same parameters after as many steps."""
    ranks, counts = pairs(rounded(-3.49, 4.43), 500_000, 3)
    few, many = (fit_lognormal(ranks, counts * factor, "rounded", xmin=2, vocab=V) for factor in (1, 10**6))
    assert (many.mu, many.sigma, many.iterations) == pytest.approx((few.mu, few.sigma, few.iterations))
    assert many.n == 10**6 * few.n and few.iterations < 100


def test_order_and_splitting_of_pairs_do_not_matter():
    ranks, counts = pairs(rounded(0.0, 3.0), 3000, 4)
    whole = fit_lognormal(ranks, counts * 2)
    split = fit_lognormal(np.concatenate([ranks, ranks])[::-1], np.concatenate([counts, counts])[::-1])
    assert (split.mu, split.sigma, split.n) == pytest.approx((whole.mu, whole.sigma, whole.n))


def test_a_power_law_is_a_ridge_or_refused():
    k = np.arange(1, V + 1)
    counts = np.round(1e9 * ((k - 0.5) ** -0.5 - (k + 0.5) ** -0.5))
    ridge = fit_lognormal(k, counts, "rounded", xmin=1, vocab=V)
    assert ridge.status == "ridge" and "power law" in ridge.message
    heavier = np.round(1e9 * k**-1.5 * np.exp(0.02 * np.log(k) ** 2))
    refused = fit_lognormal(k, heavier, "pmf", 1, V)
    assert refused.status == "refused" and refused.mu is None and "more slowly than any lognormal" in refused.message


def test_refusals_and_mistakes():
    one = fit_lognormal(np.array([1, 2]), np.array([5, 5]))
    assert one.status == "refused" and "3 distinct ranks from 2 on; got 1" in one.message and one.ratio is None
    assert len(one.to_frame()) == 1
    with pytest.raises(LabError, match="model must be one of"):
        fit_lognormal(np.array([1]), np.array([1]), "gamma")
    with pytest.raises(LabError, match="give vocab"):
        fit_lognormal(np.array([1]), np.array([1]), "pmf")
    with pytest.raises(LabError, match=r"ranks must lie in 1…10; got 1…11"):
        fit_lognormal(np.array([1, 11]), np.array([1, 1]), vocab=10)


def clustered(rng, documents=200, tokens=150):
    """Ranks whose median varies by document, as in real corpora."""
    z = 0.25 * rng.standard_normal((documents, 1)) + math.sqrt(1 - 0.25**2) * rng.standard_normal((documents, tokens))
    ranks = np.clip(np.rint(np.exp(1.0 + 2.0 * z)), 1, V).astype(int)
    return ranks.ravel(), np.ones(ranks.size, int), np.repeat(np.arange(documents), tokens)


def block_coverage(replicates, model, xmin, documents=200, tokens=150):
    rng = np.random.default_rng(20261122)
    many = [fit_lognormal(*clustered(rng, 5000)[:2], model, xmin, V) for _ in range(3)]
    truth = np.mean([fit.mu for fit in many]), np.mean([fit.sigma for fit in many])
    inside = np.zeros(2)
    for _ in range(replicates):
        ranks, counts, block = clustered(rng, documents, tokens)
        fit = fit_lognormal(ranks, counts, model, xmin, V, block)
        inside += [low <= true <= high for true, (low, high) in zip(truth, fit.intervals.values(), strict=False)]
    return inside / replicates


def test_interval_of_blocks_covers_quick():
    assert (block_coverage(100, "rounded", 2) >= 0.88).all()


@pytest.mark.slow
def test_few_blocks_have_wide_intervals():
    """Student's intervals hold the truth with 5 documents; normal ones do in four of five cases."""
    assert (block_coverage(300, "pmf", 1, documents=5, tokens=400) >= 0.89).all()


def test_intervals_are_students_with_one_degree_of_freedom_less_than_blocks():
    ranks, counts, block = clustered(np.random.default_rng(5), 6, 300)
    for confidence in (0.5, 0.95):
        fit = fit_lognormal(ranks, counts, "rounded", 2, V, block, confidence)
        row = fit.to_frame().iloc[0]
        t = stats.t.ppf(0.5 + confidence / 2, 5)
        for name in ("mu", "sigma", "ratio"):
            value, se = getattr(fit, name), getattr(fit, f"se_{name}")
            assert fit.intervals[name] == pytest.approx((value - t * se, value + t * se))
            assert (row[f"{name}_low"], row[f"{name}_high"]) == fit.intervals[name]
        assert fit.blocks == 6 and fit.confidence == confidence
    assert fit_lognormal(ranks, counts, "rounded", 2, V).intervals == {}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_interval_of_blocks_covers(model):
    covered = block_coverage(1000, model, 1 if model == "pmf" else 2)
    assert (covered >= 0.92).all() and (covered <= 0.985).all()


@pytest.mark.parametrize("model", MODELS)
def test_standard_errors_are_the_jackknife(model):
    ranks, counts, block = clustered(np.random.default_rng(5), 40, 200)
    fit = fit_lognormal(ranks, counts, model, 1, V, block)
    left = [fit_lognormal(ranks[block != b], counts[block != b], model, 1, V) for b in range(40)]
    for name in ("mu", "sigma", "ratio"):
        values = np.array([getattr(f, name) for f in left])
        jackknife = math.sqrt(39 / 40 * ((values - values.mean()) ** 2).sum())
        assert getattr(fit, f"se_{name}") == pytest.approx(jackknife, rel=0.1)


def test_pairs_of_a_run():
    record = synthetic_record("m", 10000, 0, documents=100)
    ranks, counts, block = rank_pairs(record.documents)
    assert counts.sum() == 100 * 120 and len(np.unique(block)) <= 64
    assert np.bincount(ranks, counts, 513)[1:].tolist() == record.stats.counts.tolist()
    few = rank_pairs(synthetic_record("m", 10000, 0, documents=5).documents)
    assert len(np.unique(few[2])) == 5
    real = synthetic_record("m", 10**6, 0, vocab=4000, sigma=2.0)
    fit = fit_lognormal(*rank_pairs(real.documents)[:2], "rounded", 2, 4000, rank_pairs(real.documents)[2])
    assert fit.status == "ok" and 0 < fit.se_mu < abs(fit.mu)


@pytest.mark.parametrize("name", PUBLISHED)
def test_closed_forms_of_the_appendix(name):
    """−log p_1 and the entropy of the rank law, against sums to 10^7; c ≈ ψ(1)/2 + P is good to some percent."""
    mu, sigma = PUBLISHED[name]
    _, p = pmf(mu, sigma, last=10**7)
    assert neg_log_p1(mu, sigma) == pytest.approx(-math.log(p[0]), abs=0.05)
    assert rank_entropy(mu, sigma) == pytest.approx(-(p * np.log(p)).sum(), abs=0.12)


def test_simulated_slopes_are_those_of_the_appendix():
    """[RBP] appendix D: slopes −0.061 (its "CE") and −0.080 (−log p_1) over Pythia, four of which are published."""
    sizes = np.log([1189888, 85056000, 1208602624, 11327027200])
    entropy = np.polyfit(sizes, np.log([rank_entropy(*p) for p in PUBLISHED.values()]), 1)[0]
    first = np.polyfit(sizes, np.log([neg_log_p1(*p) for p in PUBLISHED.values()]), 1)[0]
    assert entropy == pytest.approx(-0.061, abs=0.004) and first == pytest.approx(-0.080, abs=0.004)
    assert math.isfinite(neg_log_p1(-400.0, 8.0))
