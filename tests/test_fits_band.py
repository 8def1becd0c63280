"""The band that holds for all k at once."""

import numpy as np
import pytest
from scipy import stats

from rbp_lab.fits.band import simultaneous_band, simultaneous_factors
from rbp_lab.fits.gls import DocumentErrors
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import fit_power
from tests.fits_data import PYTHIA_K1

SIZES = np.array([s for s, _ in PYTHIA_K1.values()], float)


def family(rng, ks=8, correlated=0.9, models=10, tilt=0.0):
    """Laws with the same exponent 0.1 at every k; tilt: by document, a move along ln S of its own for each k [G,ks]."""
    common, fits = rng.standard_normal(models), []
    sizes = SIZES[:models]
    x = np.log(sizes) - np.log(sizes).mean()
    for i in range(ks):
        noise = np.sqrt(correlated) * common + np.sqrt(1 - correlated) * rng.standard_normal(models)
        value = np.exp(1 - 0.1 * np.log(sizes) + 0.02 * noise)
        errors = None
        if np.ndim(tilt):
            errors = DocumentErrors(tilt[:, i : i + 1] * x, np.arange(len(tilt)), float(len(tilt)))
        points = FitPoints(sizes, value, tuple(PYTHIA_K1)[:models], errors=errors)
        fits.append(fit_power(points, Label("F", "D", "neg_log_rbp", i + 1)))
    return fits


def times_as_wide(ks, freedom):
    """The factor of ks independent exponents."""
    return stats.t.ppf((1 + 0.95 ** (1 / ks)) / 2, freedom) / stats.t.ppf(0.975, freedom)


def test_band_lies_between_one_interval_and_independent_ones():
    fits = family(np.random.default_rng(1), ks=12, correlated=0.0)
    factors = simultaneous_factors(fits)
    assert (factors == factors[0]).all() and 0.9 * times_as_wide(12, 8) < factors[0] < 1.03 * times_as_wide(12, 8)
    assert simultaneous_factors([fits[0], fits[0], fits[0]]) == pytest.approx(1, abs=1e-6)
    band = simultaneous_band(fits)
    assert (band["simultaneous_low"] < band["low"]).all() and (band["high"] < band["simultaneous_high"]).all()
    assert band["k"].tolist() == list(range(1, 13))
    assert simultaneous_band(fits[:1]).empty and simultaneous_band([]).empty


def test_three_models_do_not_tell_how_exponents_go_together():
    """One residual of each k is parallel to every other, whatever the truth."""
    fits = family(np.random.default_rng(1), ks=3, models=3)
    assert simultaneous_factors(fits) == pytest.approx(times_as_wide(3, 1), rel=0.25)


def test_documents_that_carry_the_error_tell_how_it_goes_together():
    """400 documents tilt the laws, those of two k alike and that of the third by itself."""
    rng = np.random.default_rng(2)
    one, other = rng.standard_normal((2, 400, 1)) * 0.02
    alike = simultaneous_factors(family(rng, ks=3, models=4, tilt=np.hstack([one, one, one])))
    apart = simultaneous_factors(family(rng, ks=3, models=4, tilt=np.hstack([one, one, other])))
    assert alike == pytest.approx(1, abs=0.01) and apart == pytest.approx(times_as_wide(2, 400), rel=0.03)


def band_covers(replicates, correlated, **what):
    rng, inside = np.random.default_rng(20261122), 0
    for _ in range(replicates):
        band = simultaneous_band(family(rng, correlated=correlated, **what))
        inside += ((band["simultaneous_low"] <= 0.1) & (band["simultaneous_high"] >= 0.1)).all()
    return inside / replicates


def test_two_residuals_of_each_exponent_are_not_taken_at_their_word():
    """In a plane, 40 lines lie close together however independent; as they are, they would give 2/3 of the factor."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        factors = simultaneous_factors(family(rng, ks=40, correlated=0.0, models=4))
        assert factors == pytest.approx(times_as_wide(40, 2), rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("models", [4, 10])
@pytest.mark.parametrize("correlated", [0.3, 0.9])
def test_band_coverage(correlated, models):
    assert 0.93 <= band_covers(1000, correlated, models=models) <= 0.98
