"""The paper's least squares: oracle, published values, coverage, refusals."""

import numpy as np
import pytest
from scipy import stats

from rbp_lab.errors import LabError
from rbp_lab.fits.forms import predict
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import aicc, fit_power, implied_interval
from rbp_lab.fits.result import WARNINGS, FitResult, fits_to_frame
from tests.fits_data import GPT2_K1, PYTHIA_K1, fit_points

SIZES = {
    4: np.array([85056000, 302311424, 708390400, 1475561600.0]),
    5: np.array([3.579e8, 1.3103e9, 2.7748e9, 6.5256e9, 13.2e9]),
    10: np.array([s for s, _ in PYTHIA_K1.values()], float),
}


def noisy(rng, n, alpha=0.079, scatter=0.02):
    value = np.exp(1.5 - alpha * np.log(SIZES[n]) + scatter * rng.standard_normal(n))
    return FitPoints(SIZES[n], value)


def test_agrees_with_scipy_linregress():
    points = noisy(np.random.default_rng(1), 10)
    fit = fit_power(points)
    oracle = stats.linregress(np.log10(points.x), np.log10(points.value))
    t = stats.t.ppf(0.975, 8)
    assert fit.params["alpha"] == pytest.approx(-oracle.slope, rel=1e-10)
    assert fit.params["log_a"] == pytest.approx(oracle.intercept * np.log(10), rel=1e-10)
    assert fit.r2 == pytest.approx(oracle.rvalue**2, rel=1e-10)
    assert fit.intervals["alpha"] == pytest.approx(
        (-oracle.slope - t * oracle.stderr, -oracle.slope + t * oracle.stderr), rel=1e-9
    )
    at_centre = np.array([-np.log(points.x).mean(), 1.0])  # d ln value / d (alpha, log_a) at the centre of log S
    rest = np.log(points.value) - np.log(predict(fit, points.x))
    assert at_centre @ fit.covariance @ at_centre == pytest.approx(rest @ rest / 8 / 10)
    half = t * oracle.intercept_stderr * np.log(10)
    assert np.diff(fit.intervals["log_a"])[0] / 2 == pytest.approx(half, rel=1e-9)
    assert predict(fit, points.x) == pytest.approx(10 ** (oracle.intercept + oracle.slope * np.log10(points.x)))


@pytest.mark.parametrize(("table", "slope", "r2"), [(GPT2_K1, -0.056, 0.983), (PYTHIA_K1, -0.079, 0.992)])
def test_published_exponents(table, slope, r2):
    """[RBP] Table 2, Wikipedia, k = 1."""
    fit = fit_power(fit_points(table))
    assert -fit.params["alpha"] == pytest.approx(slope, abs=0.001)
    assert fit.r2 == pytest.approx(r2, abs=0.001)
    assert fit.r2_space == "log10-log10"


def test_reports_error_and_scatter_in_percent():
    sizes = np.array([1e6, 1e7, 1e8, 1e9])
    law = 3 * sizes**-0.1
    fit = fit_power(FitPoints(sizes, law * np.array([1, 1, 1, 1.10])))
    assert fit.leave_largest_out == pytest.approx(100 * (1 / 1.10 - 1))
    residual = np.log(law * np.array([1, 1, 1, 1.10])) - np.log(predict(fit, sizes))
    assert fit.rmse_percent == pytest.approx(100 * np.sqrt(np.mean(residual**2)))


@pytest.mark.parametrize(
    ("size", "value", "said"),
    [
        ([1e6], [0.5], "at least 3 models; got 1"),
        ([1e6, 1e6, 1e6], [0.5, 0.4, 0.3], "same size"),
        ([1e6, 1e7, 1e8], [0.0, 0.0, 0.0], "0 for every model"),
        ([1e6, 1e7, 1e8], [0.5, 0.4, 0.0], "0 for model 3"),
        ([1e6, 1e7, 1e8], [0.5, 0.5, 0.5], "no variation"),
        ([1e6, 1e7, 1e8], [np.inf, 0.5, 0.5], "never seen for model 1"),
        ([], [], "got 0"),
    ],
)
def test_degenerate_points_are_refused_with_a_sentence(size, value, said):
    fit = fit_power(FitPoints(np.array(size), np.array(value)))
    assert fit.status == "refused" and said in fit.message
    assert not fit.params and fit.r2 is None and "nan" not in repr(fit).lower()
    with pytest.raises(LabError, match="no law to predict"):
        predict(fit, 1e6)


def test_impossible_points_are_errors():
    with pytest.raises(LabError, match="b has S = 0"):
        FitPoints(np.array([1, 0]), np.array([1, 1]), ("a", "b"))
    with pytest.raises(LabError, match="no value"):
        FitPoints(np.array([1, 2]), np.array([1, np.nan]))
    with pytest.raises(LabError, match="as many points"):
        FitPoints(np.array([1, 2]), np.array([1]))


def test_points_are_sorted_and_named_by_content():
    a = FitPoints(np.array([3, 1, 2.0]), np.array([30, 10, 20.0]), ("c", "a", "b"))
    b = FitPoints(np.array([1, 2, 3.0]), np.array([10, 20, 30.0]), ("a", "b", "c"))
    assert a.names == ("a", "b", "c") and a.value.tolist() == [10, 20, 30] and a.hash == b.hash
    assert FitPoints(b.x, b.value * (1 + 1e-9), b.names).hash != b.hash


def test_warnings():
    assert fit_power(fit_points(GPT2_K1)).warnings == ("few_models",)
    sizes = np.geomspace(1e6, 1e10, 8)
    noise = 0.003 * np.random.default_rng(2).standard_normal(8)
    straight = np.exp(-0.1 * np.log(sizes) + noise)
    bent = straight * np.exp(-0.004 * np.log(sizes / 1e8) ** 2)
    assert fit_power(FitPoints(sizes, straight)).warnings == ()
    assert fit_power(FitPoints(sizes, bent)).warnings == ("curvature",)
    with pytest.raises(ValueError, match="unknown warning"):
        FitResult("power", FitPoints(sizes, bent), "ok", "", warnings=("odd",))
    assert all(WARNINGS.values())


def test_an_exponent_that_is_not_above_zero_is_marked():
    sizes = np.geomspace(1e6, 1e9, 8)
    wobble = np.exp(0.05 * np.cos(np.arange(8.0) ** 2))
    assert "not_falling" not in fit_power(FitPoints(sizes, sizes**-0.1 * wobble)).warnings
    flat, rising = fit_power(FitPoints(sizes, sizes**-0.001 * wobble)), fit_power(FitPoints(sizes, sizes**0.1 * wobble))
    assert flat.params["alpha"] > 0 > flat.intervals["alpha"][0] and "not_falling" in flat.warnings
    assert rising.intervals["alpha"][1] < 0 and "not_falling" in rising.warnings


def test_one_row_frame_and_repr():
    fit = fit_power(fit_points(PYTHIA_K1), Label("Pythia", "Wikipedia", "neg_log_rbp", 1))
    row = fit.to_frame().iloc[0]
    assert (row["family"], row["k"], row["n"], row["dof"]) == ("Pythia", 1, 10, 8)
    assert row["alpha_low"] < row["alpha"] < row["alpha_high"]
    assert "−log RBP_1 (Pythia, Wikipedia)" in repr(fit) and "alpha = 0.0794" in repr(fit)
    both = fits_to_frame([fit, fit_power(FitPoints(np.array([1.0]), np.array([1.0])))])
    assert both["status"].tolist() == ["ok", "refused"] and both["alpha"].isna().tolist() == [False, True]


def test_aicc_counts_the_scatter_and_is_undefined_for_few_points():
    residual = np.array([0.1, -0.1, 0.1, -0.1, 0.1])
    assert aicc(residual, 2) == pytest.approx(5 * np.log(0.01) + 6 + 2 * 3 * 4 / 1)
    assert aicc(residual, 3) is None
    assert np.isfinite(aicc(np.zeros(8), 2))


def test_interval_implied_by_published_numbers():
    """The interval from (slope, R², n) alone is the interval of the fit that gave them."""
    fit = fit_power(fit_points(PYTHIA_K1))
    assert implied_interval(-fit.params["alpha"], fit.r2, 10) == pytest.approx(fit.intervals["alpha"], rel=1e-9)
    assert implied_interval(-0.1, 0.9, 2) is None and implied_interval(-0.1, 0.0, 5) is None


def coverage(n, replicates, seed):
    rng = np.random.default_rng(seed)
    inside = 0
    for _ in range(replicates):
        low, high = fit_power(noisy(rng, n)).intervals["alpha"]
        inside += low <= 0.079 <= high
    return inside / replicates


def test_interval_covers_quick():
    # 400 replicates: standard error 1.1 %
    assert 0.92 <= coverage(10, 400, 20261122) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, 5, 10])
def test_interval_covers(n):
    assert 0.93 <= coverage(n, 4000, 20261122) <= 0.97
