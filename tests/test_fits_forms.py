"""Every registered form: its own parameters recovered, nesting, certified values, honest refusals."""

import math

import numpy as np
import pytest

from rbp_lab.errors import LabError
from rbp_lab.fits.fit import compare, fit
from rbp_lab.fits.floor import floor_of
from rbp_lab.fits.forms import FORMS, is_nested, predict
from rbp_lab.fits.points import FitPoints
from rbp_lab.fits.power import fit_power
from tests.fits_data import PYTHIA_K1, fit_points

SIZES = np.geomspace(1e6, 1e10, 14)

TRUTH = {
    "power": {"alpha": 0.3, "log_a": 1.0},
    "log_linear": {"level": 5.0, "slope": 0.2},
    "power_constant": {"alpha": 0.4, "log_a": 5.0, "E": 0.2},
    "rectified": {"beta": 0.5, "log_D": 8.0, "log_b": 8.5, "E": 0.1},
    "broken": {"c0": 0.1, "c1": 0.3, "log_d": math.log(1e8), "f": 0.3, "log_b": 2.0, "E": 0.01},
}
# NIST StRD, DanWood (Daniel and Wood 1980): y = b1·x^b2; certified values below.
DANWOOD = np.array([[2.138, 1.309], [3.421, 1.471], [3.597, 1.490], [4.340, 1.565], [4.882, 1.611], [5.660, 1.680]])


def exact(name):
    return FitPoints(SIZES, FORMS[name].evaluate(TRUTH[name], SIZES))


def test_every_form_has_a_truth_to_recover():
    assert set(TRUTH) == set(FORMS)


@pytest.mark.filterwarnings("error")
def test_values_beyond_every_float_are_infinite_without_a_warning():
    assert np.isinf(FORMS["power"].evaluate({"alpha": 0.1, "log_a": 1e4}, np.array([1e6, 1e9]))).all()


@pytest.mark.parametrize("name", FORMS)
def test_a_form_recovers_its_own_parameters(name):
    result = fit(name, exact(name))
    assert result.ok and set(result.params) == set(FORMS[name].parameters)
    tolerance = 1e-2 if name == "broken" else 1e-4
    for parameter, value in TRUTH[name].items():
        assert result.params[parameter] == pytest.approx(value, rel=tolerance), parameter
    assert predict(result, SIZES) == pytest.approx(exact(name).value, rel=1e-5)
    assert result.agree * 2 >= result.starts


@pytest.mark.parametrize("name", [name for name in FORMS if name != "power"])
def test_intervals_hold_the_truth_and_grow_with_noise(name):
    clean = exact(name)
    noise = np.random.default_rng(11).standard_normal(14)
    widths = []
    for scale in (1e-4, 2e-4):
        noisy = FitPoints(SIZES, clean.value * np.exp(scale * noise))
        result = fit(name, noisy, confidence=0.999)
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
    inner = fit(large, exact(small))
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


def test_a_floor_at_zero_is_a_bound_with_an_upper_end():
    """The points fall faster and faster, so the most likely floor is 0, where Wald's interval ends."""
    result = fit("power_constant", FitPoints(SIZES, 3 * SIZES**-0.2 * (1 - 1e-3 * np.log(SIZES / 1e8) ** 2)))
    assert result.params["E"] == pytest.approx(0, abs=1e-4)
    assert "ridge" in result.warnings and "alpha" in result.intervals
    low, high = result.intervals["E"]
    assert low == 0 and 0 < high < result.points.value.min()


def test_parameters_that_trade_off_are_a_ridge():
    """An untrained ladder: value does not depend on size, so floor and amplitude cannot be told apart."""
    sizes = np.array([9872, 21720, 59240, 150080, 393640, 928160.0])
    flat = FitPoints(sizes, np.array([3.3586, 3.4358, 3.4358, 3.4358, 3.2039, 3.4358]))
    assert "ridge" in fit("power_constant", flat).warnings
    assert "ridge" not in fit("power_constant", fit_points(PYTHIA_K1)).warnings


def test_published_points_exclude_a_line_in_log_size():
    """[RBP] figure 3, Pythia on Wikipedia: the power law is preferred to a line in ln S, a floor is undecided."""
    result = compare(fit_power(fit_points(PYTHIA_K1)))
    assert result.delta_aicc == {"log_linear": pytest.approx(13.6, abs=0.2)}
    assert "AICc prefers the power law to log_linear (level − slope·ln S) (difference 13.6)" in result.verdict
    assert "no support for a floor: E ≤ 0." in result.verdict and "at 95%" in result.verdict
    assert result.floor.high < 0.547339 and result.p_value["power_constant"] > 0.05
    row = result.to_frame().set_index("form").loc["power_constant"]
    assert (row["floor_low"], row["floor_high"]) == (0, result.floor.high)
    assert row["floor_share"] == pytest.approx(result.floor.high / 0.547339) and np.isnan(row["delta_aicc"])


@pytest.mark.parametrize("truth", ["power", "log_linear", "power_constant"])
def test_the_true_form_wins(truth):
    value = {
        "power": 5 * SIZES**-0.1, "log_linear": 3 - 0.11 * np.log(SIZES), "power_constant": 0.3 + 20 * SIZES**-0.3,
    }[truth]  # fmt: skip
    noisy = FitPoints(SIZES, value * np.exp(0.003 * np.random.default_rng(0).standard_normal(14)))
    result = compare(fit_power(noisy))
    assert result.floor.supported == (truth == "power_constant")
    assert (result.delta_aicc["log_linear"] < 0) == (truth == "log_linear")


def test_what_cannot_be_told_is_said():
    few = compare(fit_power(fit_points(dict(list(PYTHIA_K1.items())[:6]))))
    assert "not testable: 6 models" in few.verdict and few.delta_aicc == {}
    assert "same size" in compare(fit_power(FitPoints(np.ones(8), np.arange(1, 9)))).verdict


def test_refusals_and_mistakes():
    points = fit_points(dict(list(PYTHIA_K1.items())[:3]))
    assert "at least 4 models; got 3" in fit("power_constant", points).message
    with pytest.raises(LabError, match="unknown form 'cubic'; the forms are power"):
        fit("cubic", points)
    with pytest.raises(LabError, match="loss must be one of"):
        fit("power", points, loss="huber")


def test_leave_largest_out_predicts_the_largest():
    points = fit_points(PYTHIA_K1)
    rest = fit("power_constant", points.without_largest())
    expected = 100 * (predict(rest, points.x[-1]) / points.value[-1] - 1)
    assert fit("power_constant", points).leave_largest_out == pytest.approx(expected, rel=1e-3)


def with_a_floor(rng, n, share, noise):
    """n sizes of Pythia; the floor is that share of the smallest value, which is 1."""
    sizes = np.array([size for size, _ in PYTHIA_K1.values()], float)[-n:]
    falling = (sizes / sizes[-1]) ** -0.1
    return FitPoints(sizes, (share + (1 - share) * falling) * np.exp(noise * rng.standard_normal(n)))


def floors(replicates, n, share, noise):
    """Shares of replicates in which the interval holds the floor, and in which a floor is supported."""
    rng = np.random.default_rng(20261125)
    found = [floor_of(fit("power_constant", with_a_floor(rng, n, share, noise), starts=3)) for _ in range(replicates)]
    return np.mean([f.low <= share <= f.high for f in found]), np.mean([f.supported for f in found])


@pytest.mark.parametrize(("n", "share"), [(7, 0.38), (10, 0.0)])
def test_the_interval_of_a_floor_covers_quick(n, share):
    covered, supported = floors(40, n, share, 0.01)
    assert covered >= 0.87 and (supported <= 0.1 or share > 0)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.005, 0.02])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.38, 0.6])
@pytest.mark.parametrize("n", [7, 10])
def test_the_interval_of_a_floor_covers(n, share, noise):
    covered, supported = floors(600, n, share, noise)
    assert covered >= 0.93 and (supported <= 0.05 or share > 0)
    assert covered <= 0.985 or share < 0.38 or noise > 0.01  # near 0 the interval ends at 0 and covers more


def test_a_floor_is_never_excluded_by_the_number_of_models():
    """A floor of 38 % under noise that hides it: no support and a bound above it, where AICc spoke of exclusion."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        law = fit_power(with_a_floor(rng, 7, 0.38, 0.02))
        result = compare(law)
        assert fit("power_constant", law.points).aicc - law.aicc > 4  # what was read as exclusion
        assert "exclu" not in result.verdict and result.floor.sentence in result.verdict
        assert result.floor.high > 0.38


def test_a_clear_floor_is_found_and_bounded_on_both_sides():
    result = compare(fit_power(with_a_floor(np.random.default_rng(0), 10, 0.6, 0.002)))
    assert result.floor.supported and result.floor.low < 0.6 < result.floor.high
    assert result.verdict.count("a floor: E = 0.") == 1 and result.p_value["power_constant"] < 0.05
    narrow = compare(fit_power(result.fits["power"].points, confidence=0.5)).floor
    assert result.floor.low < narrow.low < narrow.high < result.floor.high and narrow.confidence == 0.5


def test_values_that_hardly_fall_bound_no_floor():
    sizes = np.geomspace(1e6, 1e9, 8)
    flat = FitPoints(sizes, 1 + 0.05 * np.cos(np.arange(8.0) ** 2))
    floor = compare(fit_power(flat)).floor
    assert floor.high == math.inf and floor.low == 0 and "E has no upper bound at 95%" in floor.sentence


def test_every_form_that_contains_the_power_law_is_judged_by_its_own_parameters():
    """What fits at least as well by construction is not judged by the number of its parameters."""
    nested = {name for name in FORMS if is_nested("power", name)}
    assert nested == set(FORMS) - {"power", "log_linear"}
    noisy = exact("power").value * np.exp(0.01 * np.random.default_rng(5).standard_normal(14))
    law = fit_power(FitPoints(SIZES, noisy))
    result = compare(law, tuple(FORMS))
    assert set(result.p_value) == nested and set(result.delta_aicc) == {"log_linear"}
    assert all(0 <= p <= 1 for p in result.p_value.values()) and "no support for rectified" in result.verdict
    broken = FORMS["broken"].evaluate(TRUTH["broken"], SIZES) * noisy / exact("power").value
    bent = compare(fit_power(FitPoints(SIZES, broken)), ("broken",))
    assert bent.p_value["broken"] < 1e-3 and bent.verdict.startswith("support for broken")


def test_slopes_that_are_not_above_zero_are_marked_in_every_form():
    rising = FitPoints(SIZES, SIZES**0.05 * np.exp(0.05 * np.cos(np.arange(14.0) ** 2)))
    assert "not_falling" in fit("log_linear", rising).warnings
    assert "not_falling" in fit("power", rising, loss="linear").warnings
    assert "not_falling" not in fit("log_linear", exact("log_linear")).warnings
