"""Equivalents on a reference curve, and means over seeds."""

import math

import numpy as np
import pytest

from rbp_lab.fits.equivalent import equivalent, geometric_mean_interval, mean_interval, null_width


def test_a_power_law_is_read_off_exactly_between_its_points():
    x = np.array([400.0, 100.0, 200.0])
    for at in (100, 150, 333, 400):
        assert equivalent(x, 3 * x**-0.2, 3 * at**-0.2) == pytest.approx(at, rel=1e-12)


@pytest.mark.parametrize("value", [0.99, 2.01, 0.0, math.inf, math.nan])
def test_nothing_is_extrapolated(value):
    assert math.isnan(equivalent([1, 2], [2.0, 1.0], value))


def test_a_single_point_is_no_curve_and_a_bump_does_not_make_two_answers():
    assert math.isnan(equivalent([1], [2.0], 2.0))
    # The value rises from 1.2 to 1.5 before it falls: 1.3 was reached before x = 2, 1.1 is reached after x = 3.
    assert 1 < equivalent([1, 2, 3, 4], [2.0, 1.2, 1.5, 1.0], 1.3) < 2
    assert equivalent([1, 2, 3, 4], [2.0, 1.2, 1.5, 1.0], 1.1) > 3


def test_intervals_over_seeds_by_hand():
    found = mean_interval([1.0, 2.0, 3.0, math.nan])
    assert (found.value, found.n) == (2.0, 3)
    assert found.high - found.value == pytest.approx(4.302652729911275 * 1 / math.sqrt(3))  # t(2) at 97.5 %
    assert math.isnan(mean_interval([1.0]).low) and math.isnan(mean_interval([]).value)
    ratios = geometric_mean_interval([1.0, 4.0])
    assert ratios.value == pytest.approx(2.0) and ratios.low * ratios.high == pytest.approx(4.0)


def test_the_null_width_is_the_spread_of_single_models():
    logs = np.array([-0.1, 0.0, 0.1])
    low, high = null_width([*np.exp(logs), math.nan])
    assert math.log(high) == pytest.approx(4.302652729911275 * 0.1) and low * high == pytest.approx(1)
    assert math.isnan(null_width([1.0, 1.1])[0])
