"""RBP against k: recovered exponents, the trade-off, curves of equal RBP."""

import math

import numpy as np
import pandas as pd
import pytest

from rbp_lab.errors import LabError
from rbp_lab.fits.against_k import TABLE1_KS, fit_against_k, iso_rbp, table1, trade_off
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import fit_power
from rbp_lab.points import series, validate

ALPHA_S, ALPHA_K, AMPLITUDE = 0.08, 0.4, 3.0


def surface():
    """−log RBP_k = 3·S^−0.08·k^−0.4 exactly, beyond k = 100 something else."""
    rows = []
    for i, size in enumerate((1e6, 1e7, 1e8, 1e9)):
        for k in (*TABLE1_KS, 1000):
            value = AMPLITUDE * size**-ALPHA_S * k**-ALPHA_K if k <= 100 else 1e-3
            at = {"model": f"m{i}", "family": "F", "size": size, "dataset": "D", "metric": "neg_log_rbp", "k": k}
            rows.append(at | {"window": 1, "value": value, "se_log": np.nan, "n": pd.NA, "key": ""})
    return validate(pd.DataFrame(rows))


def by_k(points):
    return [fit_power(series(points, label), label) for label in (Label("F", "D", "neg_log_rbp", k) for k in (1, 10))]


def test_exponent_in_k_uses_the_paper_grid_only():
    fit = fit_against_k(surface(), "m1", "D")
    assert fit.params["alpha"] == pytest.approx(ALPHA_K) and fit.n == 11 and fit.r2 == pytest.approx(1)
    points = surface()
    table = table1(points, {(m, "D"): fit_against_k(points, m, "D") for m in points["model"].unique()})
    assert table["slope"].tolist() == pytest.approx([-ALPHA_K] * 4)
    assert table["model"].tolist() == ["m0", "m1", "m2", "m3"]
    few = points[points["k"].isin([1, 2])]
    assert "at least 3" in fit_against_k(few, "m1", "D").message


def test_trade_off_keeps_rbp():
    points = surface()
    law = by_k(points)[1]
    trade = trade_off(law, fit_against_k(points, "m1", "D"), 1e7)
    assert trade.exponent == pytest.approx(ALPHA_K / ALPHA_S) and (trade.k, trade.size) == (10, 1e7)
    assert trade.low <= trade.exponent <= trade.high
    larger_k = 2.0
    smaller = 1e7 * larger_k**-trade.exponent
    assert smaller < 1e7
    value = [AMPLITUDE * s**-ALPHA_S * k**-ALPHA_K for s, k in ((1e7, 10.0), (smaller, 10.0 * larger_k))]
    assert value[0] == pytest.approx(value[1])
    rising = fit_power(FitPoints(np.array([1, 10, 100.0]), np.array([1, 2, 3.0])))
    with pytest.raises(LabError, match="does not clearly fall"):
        trade_off(law, rising, 1e7)
    with pytest.raises(LabError, match="without both laws"):
        trade_off(law, fit_against_k(points[points["k"] == 1], "m1", "D"), 1e7)


def test_interval_of_the_trade_off_is_the_spread_of_the_ratio():
    rng = np.random.default_rng(0)
    sizes, ks = np.geomspace(1e6, 1e9, 8), np.array(TABLE1_KS, float)
    inside = 0
    for _ in range(300):
        law = fit_power(FitPoints(sizes, sizes**-ALPHA_S * np.exp(0.03 * rng.standard_normal(8))))
        in_k = fit_power(FitPoints(ks, ks**-ALPHA_K * np.exp(0.03 * rng.standard_normal(11))))
        trade = trade_off(law, in_k, 1e7)
        inside += trade.low <= ALPHA_K / ALPHA_S <= trade.high
    assert 0.92 <= inside / 300 <= 0.99


def test_curves_of_equal_rbp():
    table = iso_rbp(by_k(surface()), [0.5])
    for row in table.itertuples():
        assert AMPLITUDE * row.size**-ALPHA_S * row.k**-ALPHA_K == pytest.approx(-math.log(0.5))
        assert row.extrapolates == (not 1e6 <= row.size <= 1e9)
    with pytest.raises(LabError, match="between 0 and 1"):
        iso_rbp(by_k(surface()), [1.0])


def test_a_law_that_does_not_fall_gives_no_curve():
    size = np.geomspace(1e4, 1e6, 6)
    flat = fit_power(FitPoints(size, np.array([3.355, 3.435, 3.436, 3.435, 3.204, 3.435])), Label("F", "D", "m", 1))
    assert flat.ok and iso_rbp([flat], [0.3, 0.9]).empty
    steep = fit_power(FitPoints(size, 3 * size**-0.01), Label("F", "D", "m", 1))
    assert iso_rbp([steep], [0.9]).empty  # 10^140 parameters is no prediction
    with pytest.raises(LabError, match="does not clearly fall"):
        trade_off(flat, fit_against_k(surface(), "m1", "D"), 1e5)
