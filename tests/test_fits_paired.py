"""Differences of exponents over the same models."""

import numpy as np
import pytest
from scipy import stats

from rbp_lab.fits.paired import exponent_difference
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import fit_power
from tests.fits_data import PYTHIA_K1

SIZES = np.array([s for s, _ in PYTHIA_K1.values()], float)


def laws(rng, shared=0.02, own=0.005, difference=0.008, n=10):
    common = shared * rng.standard_normal(n)
    out = []
    for i, (log_a, alpha) in enumerate(((1.9, 0.079 + difference), (1.0, 0.079))):
        value = np.exp(log_a - alpha * np.log(SIZES[:n]) + common + own * rng.standard_normal(n))
        label = Label("F", "D", "ce") if i == 0 else Label("F", "D", "neg_log_rbp", 1)
        out.append(fit_power(FitPoints(SIZES[:n], value, tuple(PYTHIA_K1)[:n]), label))
    return out


def test_the_difference_is_that_of_the_exponents_and_narrower():
    first, second = laws(np.random.default_rng(0))
    result = exponent_difference(first, second)
    assert result.difference == pytest.approx(first.params["alpha"] - second.params["alpha"])
    independent = np.hypot(first.se["alpha"], second.se["alpha"]) * 2 * stats.t.ppf(0.975, 8)
    assert (result.high - result.low) * 3 < independent
    assert result.differs and result.models == 10
    assert exponent_difference(second, first).difference == pytest.approx(-result.difference)
    assert result.to_frame().iloc[0]["first"] == "CE (F, D)"


def test_only_common_models_count_and_refusals_are_words():
    first, second = laws(np.random.default_rng(0))
    fewer = fit_power(FitPoints(SIZES[2:7], second.points.value[2:7], second.points.names[2:7]))
    assert exponent_difference(first, fewer).models == 5
    alone = exponent_difference(first, fit_power(FitPoints(SIZES[:3], np.array([3, 2, 1.0]))))
    assert alone.difference is None and alone.differs is None and "got 0" in alone.message
    zero = fit_power(FitPoints(SIZES, np.zeros(10), second.points.names))
    assert "value of 0" in exponent_difference(first, zero).message
    assert exponent_difference(first, first).message.startswith("the value is 1 for every model")


@pytest.mark.parametrize(("shared", "own", "low", "high"), [(0.02, 0.002, 4, 40), (0.0, 0.01, 0.6, 1.7)])
def test_the_gain_of_pairing_is_measured(shared, own, low, high):
    """Much shared noise makes pairing worth a lot; independent noise makes it worth nothing."""
    first, second = laws(np.random.default_rng(2), shared=shared, own=own)
    result = exponent_difference(first, second)
    half = (result.high - result.low) / 2
    apart = np.hypot(first.se["alpha"], second.se["alpha"]) * stats.t.ppf(0.975, 8)
    assert result.gain == pytest.approx(apart / half) and low < result.gain < high
    assert result.to_frame().iloc[0]["gain"] == result.gain
    fewer = fit_power(second.points.without_largest(4), second.label)
    six = fit_power(first.points.without_largest(4), first.label)
    assert exponent_difference(first, fewer).gain == pytest.approx(exponent_difference(six, fewer).gain)


def test_a_difference_of_laws_that_do_not_fall_is_marked():
    first, second = laws(np.random.default_rng(2))
    rising = fit_power(FitPoints(SIZES, 1 / second.points.value, second.points.names), second.label)
    assert exponent_difference(first, second).warnings == ()
    assert exponent_difference(first, rising).warnings == ("not_falling",)


def covered(replicates):
    rng, inside = np.random.default_rng(20261122), 0
    for _ in range(replicates):
        result = exponent_difference(*laws(rng))
        inside += result.low <= 0.008 <= result.high
    return inside / replicates


def test_coverage_quick():
    assert 0.92 <= covered(300) <= 0.98


@pytest.mark.slow
def test_coverage():
    assert 0.93 <= covered(4000) <= 0.97
