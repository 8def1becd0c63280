"""Every registered form: its own parameters recovered, nesting, certified values, honest refusals."""

import math

import numpy as np
import pytest

from rbp_lab.errors import LabError
from rbp_lab.fits.fit import compare, fit
from rbp_lab.fits.forms import FORMS, predict
from rbp_lab.fits.result import FitPoints
from tests.fits_data import PYTHIA_K1, fit_points

SIZES = np.geomspace(1e6, 1e10, 14)
TOKENS = np.geomspace(1e9, 1e11, 14)[np.random.default_rng(3).permutation(14)]
TRUTH = {
    "power": {"alpha": 0.3, "log_a": 1.0},
    "log_linear": {"level": 5.0, "slope": 0.2},
    "power_constant": {"alpha": 0.4, "log_a": 5.0, "E": 0.2},
    "rectified": {"beta": 0.5, "log_D": 8.0, "log_b": 8.5, "E": 0.1},
    "broken": {"c0": 0.1, "c1": 0.3, "log_d": math.log(1e8), "f": 0.3, "log_b": 2.0, "E": 0.01},
    "two_term": {"alpha": 0.34, "beta": 0.28, "log_a": math.log(406.0), "log_b": math.log(410.0), "E": 1.69},
}
# NIST StRD, DanWood (Daniel and Wood 1980): y = b1·x^b2; certified values below.
DANWOOD = np.array([[2.138, 1.309], [3.421, 1.471], [3.597, 1.490], [4.340, 1.565], [4.882, 1.611], [5.660, 1.680]])


def exact(name):
    form = FORMS[name]
    return FitPoints(SIZES, form.evaluate(TRUTH[name], SIZES, TOKENS), tokens=TOKENS)


def test_every_form_has_a_truth_to_recover():
    assert set(TRUTH) == set(FORMS)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_recovers_its_own_parameters(name):
    result = fit(name, exact(name), leave_out=False)
    assert result.ok and set(result.params) == set(FORMS[name].parameters)
    tolerance = 1e-2 if name == "broken" else 1e-4
    for parameter, value in TRUTH[name].items():
        assert result.params[parameter] == pytest.approx(value, rel=tolerance), parameter
    assert predict(result, SIZES, TOKENS) == pytest.approx(exact(name).value, rel=1e-5)
    assert result.agree * 2 >= result.starts


@pytest.mark.parametrize("name", [name for name in FORMS if name != "power"])
def test_intervals_hold_the_truth_and_grow_with_noise(name):
    clean = exact(name)
    noise = np.random.default_rng(11).standard_normal(14)
    widths = []
    for scale in (1e-4, 2e-4):
        noisy = FitPoints(SIZES, clean.value * np.exp(scale * noise), tokens=TOKENS)
        result = fit(name, noisy, leave_out=False, confidence=0.999)
        widths.append(np.array([high - low for low, high in result.intervals.values()]))
        for parameter, (low, high) in result.intervals.items():
            assert low <= TRUTH[name][parameter] <= high
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.2)


@pytest.mark.parametrize(
    ("small", "large", "extra"),
    [("power", "power_constant", {"E": 0}), ("power_constant", "broken", {}), ("power_constant", "rectified", {})],
)
def test_forms_nest(small, large, extra):
    """The larger form fits the smaller one's law exactly, and noisy points at least as well."""
    inner = fit(large, exact(small), leave_out=False)
    assert predict(inner, SIZES) == pytest.approx(exact(small).value, rel=1e-4)
    for name, value in extra.items():
        assert inner.params[name] == pytest.approx(value, abs=1e-4)
    noisy = fit_points(PYTHIA_K1)
    assert fit(large, noisy).rmse_percent <= fit(small, noisy).rmse_percent * (1 + 1e-3)


def test_nist_danwood():
    result = fit("power", FitPoints(DANWOOD[:, 1], DANWOOD[:, 0]), loss="linear")
    assert math.exp(result.params["log_a"]) == pytest.approx(7.6886226176e-01, rel=1e-6)
    assert result.params["alpha"] == pytest.approx(-3.8604055871, rel=1e-6)
    assert result.se["alpha"] == pytest.approx(5.1726610913e-02, rel=1e-4)
    assert math.exp(result.params["log_a"]) * result.se["log_a"] == pytest.approx(1.8281973860e-02, rel=1e-4)
    rss = float(((DANWOOD[:, 0] - predict(result, DANWOOD[:, 1])) ** 2).sum())
    assert rss == pytest.approx(4.3173084083e-03, rel=1e-6)
    assert result.r2_space == "linear"


def test_a_floor_at_zero_is_a_bound_without_an_interval():
    result = fit("power_constant", FitPoints(SIZES, 3 * SIZES**-0.2 * (1 + 2e-3 * np.log(SIZES / 1e8))))
    assert result.params["E"] == pytest.approx(0, abs=1e-4)
    assert "ridge" in result.warnings and "E" not in result.intervals and "alpha" in result.intervals


def test_parameters_that_trade_off_are_a_ridge():
    """An untrained ladder: value does not depend on size, so floor and amplitude cannot be told apart."""
    sizes = np.array([9872, 21720, 59240, 150080, 393640, 928160.0])
    flat = FitPoints(sizes, np.array([3.3586, 3.4358, 3.4358, 3.4358, 3.2039, 3.4358]))
    assert "ridge" in fit("power_constant", flat).warnings
    assert "ridge" not in fit("power_constant", fit_points(PYTHIA_K1)).warnings


def test_published_points_exclude_a_line_in_log_size():
    """[RBP] figure 3, Pythia on Wikipedia: log-linear is excluded, a floor is undecided."""
    result = compare(fit_points(PYTHIA_K1))
    assert result.delta_aicc["log_linear"] == pytest.approx(13.6, abs=0.2)
    assert abs(result.delta_aicc["power_constant"]) < 1
    assert "log_linear (level − slope·ln S) is excluded" in result.verdict
    assert "power_constant (E + a·S^−α) cannot be told" in result.verdict
    assert len(result.to_frame()) == 3


@pytest.mark.parametrize("truth", ["power", "log_linear", "power_constant"])
def test_the_true_form_wins(truth):
    value = {
        "power": 5 * SIZES**-0.1, "log_linear": 3 - 0.11 * np.log(SIZES), "power_constant": 0.3 + 20 * SIZES**-0.3,
    }[truth]  # fmt: skip
    noisy = FitPoints(SIZES, value * np.exp(0.003 * np.random.default_rng(0).standard_normal(14)))
    delta = {"power": 0.0} | compare(noisy).delta_aicc
    assert delta[truth] <= min(delta.values()) + 4


def test_what_cannot_be_told_is_said():
    few = compare(fit_points(dict(list(PYTHIA_K1.items())[:6])))
    assert "not testable: 6 models" in few.verdict and few.delta_aicc == {}
    assert "same size" in compare(FitPoints(np.ones(8), np.arange(1, 9))).verdict


def test_refusals_and_mistakes():
    points = fit_points(dict(list(PYTHIA_K1.items())[:3]))
    assert "at least 4 models; got 3" in fit("power_constant", points).message
    assert "needs the training tokens" in fit("two_term", fit_points(PYTHIA_K1)).message
    alike = FitPoints(SIZES, exact("two_term").value, tokens=np.full(14, 1e9))
    assert "same number of training tokens" in fit("two_term", alike).message
    with pytest.raises(LabError, match="unknown form 'cubic'; the forms are power"):
        fit("cubic", points)
    with pytest.raises(LabError, match="loss must be one of"):
        fit("power", points, loss="huber")
    with pytest.raises(LabError, match="needs the training tokens beside"):
        predict(fit("two_term", exact("two_term"), leave_out=False), 1e6)


def test_leave_largest_out_predicts_the_largest():
    points = fit_points(PYTHIA_K1)
    rest = fit("power_constant", points.without_largest())
    expected = 100 * (predict(rest, points.size[-1]) / points.value[-1] - 1)
    assert fit("power_constant", points).leave_largest_out == pytest.approx(expected, rel=1e-3)
