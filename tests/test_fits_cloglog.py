"""Exponents from counts: agreement with least squares, coverage with rare and absent misses, refusals."""

import numpy as np
import pytest

from rbp_lab import metrics
from rbp_lab.errors import LabError
from rbp_lab.fits.cloglog import CountPoints, counts_from_records, fit_cloglog, scatter, zero_bound
from rbp_lab.fits.power import fit_power
from tests.fits_data import PYTHIA_K1, ladder

SIZES = np.array([s for s, _ in PYTHIA_K1.values()], float)
NAMES = tuple(PYTHIA_K1)


def counts(misses, total=1e6, effect=1.0, sizes=SIZES):
    n = len(misses)
    return CountPoints(sizes[:n], np.array(misses), np.full(n, total), np.full(n, effect), NAMES[:n])


def draw(rng, tokens, effect, log_a, alpha, between):
    rate = np.exp(log_a - alpha * np.log(SIZES) + between * rng.standard_normal(10))
    trials = int(tokens / effect)
    return counts(rng.binomial(trials, -np.expm1(-rate)) * effect, trials * effect, effect)


def test_with_many_misses_it_is_least_squares():
    value = np.array([v for _, v in PYTHIA_K1.values()])
    data = counts(-np.expm1(-value) * 5e5, 5e5, 10.0)
    ours, plain = fit_cloglog(data), fit_power(data.points)
    assert ours.params["alpha"] == pytest.approx(plain.params["alpha"], rel=2e-3)
    assert ours.intervals["alpha"] == pytest.approx(plain.intervals["alpha"], rel=1e-2)
    assert ours.params["log_a"] == pytest.approx(plain.params["log_a"], rel=2e-3)
    assert ours.r2 == pytest.approx(plain.r2, abs=1e-3)


def test_models_weigh_by_what_they_tell():
    """Four events in the largest model say little: losing three of them moves a plain line far more."""
    misses = np.round(-np.expm1(-50 * SIZES**-0.4) * 1000)
    moved = misses.copy()
    moved[-1] -= 3
    assert misses[-1] == 5
    before, after = counts(misses, 1e3), counts(moved, 1e3)
    ours = fit_cloglog(after).params["alpha"] - fit_cloglog(before).params["alpha"]
    plain = fit_power(after.points).params["alpha"] - fit_power(before.points).params["alpha"]
    assert 0 < ours < 0.4 * plain


def test_a_model_without_a_miss_is_legal_and_marked():
    rate = 200 * SIZES**-0.5
    misses = np.round(-np.expm1(-rate) * 500)
    misses[-1] = 0  # 0.9 expected
    fit = fit_cloglog(counts(misses, 500))
    assert misses[-1] == 0 and fit.points.value[-1] == 0
    assert fit.ok and fit.warnings == ("zero_counts",)
    assert fit.params["alpha"] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("misses", [[40, 4, 3, 0, 0], [1e6 - 2] * 3 + [500, 400]])
def test_saturation_is_refused(misses):
    fit = fit_cloglog(counts(misses))
    assert fit.status == "refused" and fit.warnings == ("saturated",) and "effective events" in fit.message
    assert fit_cloglog(counts([500, 400, 300])).ok
    assert not fit_cloglog(counts([500, 400, 300], effect=80.0)).ok
    same = fit_cloglog(counts([500, 400, 300], sizes=np.ones(3)))
    assert "same size" in same.message


def test_counts_that_do_not_fall_are_marked():
    assert "not_falling" not in fit_cloglog(counts([900, 600, 400])).warnings
    assert "not_falling" in fit_cloglog(counts([400, 700, 450])).warnings


def test_counts_of_runs():
    records = ladder(3)
    one = counts_from_records(records, 10)
    assert one.misses[0] == 3600 * (1 - metrics.rbp(records[0].stats, 10)) and one.total.tolist() == [3600] * 3
    assert one.design_effect[0] == max(1, metrics.neg_log_rbp(records[0].documents, 10).design_effect)
    # a model without a miss takes the largest design effect of the others
    all_hit = counts_from_records([*records, *ladder(1, vocab=10)], 10)
    assert all_hit.misses.min() == 0 and np.isfinite(all_hit.design_effect).all()
    with pytest.raises(LabError, match="0 ≤ misses"):
        counts([5], total=4)


def test_scatter_between_models_in_its_limits():
    rng = np.random.default_rng(4)
    design = np.column_stack([np.ones(12), np.linspace(-1, 1, 12)])
    y = design @ [1.0, 2.0] + 0.3 * rng.standard_normal(12)
    plain, *_ = np.linalg.lstsq(design, y, rcond=None)
    spread = ((y - design @ plain) ** 2).sum() / 10
    # REML of equal variances is the unbiased one; what they explain by themselves is no scatter
    assert scatter(design, y, np.full(12, 1e-8)) == pytest.approx(spread, rel=1e-3)
    assert scatter(design, y, np.full(12, 0.4 * spread)) == pytest.approx(0.6 * spread, rel=1e-3)
    assert scatter(design, y, np.full(12, 10.0)) < 1e-2


def test_bound_of_nothing_seen():
    assert zero_bound(100) == pytest.approx(1 - 0.05**0.01)
    assert zero_bound(1e6) == pytest.approx(3.0e-6, rel=2e-3)  # the rule of three


def simulate(replicates, tokens, effect, log_a, alpha, between):
    """(coverage, mean α, share of models with no miss or no hit) over the replicates that were fitted."""
    rng = np.random.default_rng(20261122)
    inside, alphas, empty = 0, [], 0.0
    for _ in range(replicates):
        data = draw(rng, tokens, effect, log_a, alpha, between)
        empty += ((data.misses == 0) | (data.misses == data.total)).mean() / replicates
        fit = fit_cloglog(data)
        if fit.ok:
            low, high = fit.intervals["alpha"]
            inside += low <= alpha <= high
            alphas.append(fit.params["alpha"])
    return inside / len(alphas), float(np.mean(alphas)), empty


RARE = {"tokens": 5e5, "effect": 4.0, "log_a": 2.2, "alpha": 0.30, "between": 0.05}
WITH_ZEROS = {"tokens": 5e4, "effect": 2.0, "log_a": 1.173 + np.log(10), "alpha": 0.079, "between": 0.02}


def test_coverage_quick():
    covered, mean, empty = simulate(120, **WITH_ZEROS)
    assert covered >= 0.92 and mean == pytest.approx(0.079, abs=0.003) and 0.05 < empty < 0.10


@pytest.mark.slow
@pytest.mark.parametrize("design", [RARE, WITH_ZEROS])
def test_coverage(design):
    covered, mean, _ = simulate(2000, **design)
    assert 0.93 <= covered <= 0.98 and mean == pytest.approx(design["alpha"], rel=0.02)


def test_counts_are_sorted_together():
    data = CountPoints(
        np.array([3, 1, 2]), np.array([30, 10, 20]), np.full(3, 99), np.array([3, 1, 2]), ("c", "a", "b")
    )
    assert (
        data.names == ("a", "b", "c")
        and data.misses.tolist() == [10, 20, 30]
        and data.design_effect.tolist() == [1, 2, 3]
    )
