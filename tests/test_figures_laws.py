"""Figures of the laws beyond scaling in S: they draw the numbers of their results, and say what a point is."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.errors import LabError
from rbp_lab.figures.against_k import curves_figure, iso_figure
from rbp_lab.figures.calibration import calibration_figure
from rbp_lab.figures.decomposition import checkpoints_figure, error_curves_figure, shares_figure
from rbp_lab.figures.forecast import backtest_figure, forecast_figure
from rbp_lab.figures.lognormal import implied_figure, parameters_figure
from rbp_lab.figures.over_k import over_k_figure
from rbp_lab.figures.paired import differences_figure
from rbp_lab.figures.scaling import scaling_figure
from rbp_lab.figures.style import point_titles
from rbp_lab.fits.against_k import fit_against_k
from rbp_lab.fits.decomposition import error_curves
from rbp_lab.fits.forecast import forecast
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import fit_power
from rbp_lab.laws import registry
from rbp_lab.laws.base import Inputs
from rbp_lab.points import points_from_records
from tests.fits_data import ladder, synthetic_record

KS = [1, 2, 5, 10, 50, 100]


@pytest.fixture(scope="module")
def runs():
    other = [synthetic_record(f"x{i}", 3000 * 4**i, 90 + i, family="x", vocab=2000, sigma=2.2) for i in range(4)]
    return ladder(5, documents=20, vocab=2000, sigma=2.0) + other


@pytest.fixture(scope="module")
def points(runs):
    return points_from_records(runs, KS)


@pytest.fixture(scope="module")
def fits(points):
    return fit_all(points)


@pytest.fixture(scope="module")
def tables(runs, points, fits):
    return registry.tables(registry.compute(registry.LAWS, Inputs(points, fits, runs)))


def titles(figure):
    return [text for texts in point_titles(figure).values() for text in texts]


def by_label(fits, family, metric, k=None):
    return next(f for f in fits if (f.label.family, f.label.metric, f.label.k) == (family, metric, k))


def test_curves_against_k_draw_values_and_law(points):
    laws = {"x": [(r, fit_against_k(points, f"x{i}", "stdlib")) for i, r in enumerate((3e3, 1.2e4, 4.8e4, 1.92e5))]}
    ax = curves_figure(laws, "t").axes[0]
    dots, line = ax.lines[:2]
    law = laws["x"][0][1]
    assert dots.get_ydata().tolist() == law.points.value.tolist()
    assert line.get_ydata()[0] == pytest.approx(np.exp(law.params["log_a"]))  # at k = 1
    assert [t.get_text() for t in ax.texts] == ["S = 3k", "S = 192k"]
    assert f"x0, S = 3k\nk = 1: {law.points.value[0]:.4f}" in titles(ax.figure)
    nothing = fit_against_k(points[points["k"] == 999], "x0", "stdlib")
    with pytest.raises(LabError, match="nothing to draw"):
        curves_figure({"x": [(3e3, nothing)]}, "t")


def test_equal_rbp_is_solid_only_within_the_sizes_measured(tables):
    figure = iso_figure(tables["iso_rbp"], "t")
    assert len(figure.axes) == 2
    rows = tables["iso_rbp"].query("family == 'ladder'")
    solid = [line for line in figure.axes[0].lines if line.get_linestyle() == "-"]
    drawn = np.concatenate([line.get_ydata() for line in solid]).astype(float)
    inside = rows.loc[~rows["extrapolates"].astype(bool), "size"].astype(float)
    assert np.isnan(drawn).any() and sorted(drawn[np.isfinite(drawn)]) == pytest.approx(sorted(inside))
    outside = tables["iso_rbp"].assign(extrapolates=True)
    with pytest.raises(LabError, match="no level of RBP"):
        iso_figure(outside, "t")


def test_differences_draw_ratio_and_paired_intervals(fits, tables):
    pairs = {f: (by_label(fits, f, "ce"), by_label(fits, f, "neg_log_rbp", 1)) for f in ("ladder", "x")}
    left, right = differences_figure(pairs, tables["differences"], "t").axes
    ce, rbp = pairs["ladder"]
    assert left.lines[0].get_ydata() == pytest.approx(ce.points.value / rbp.points.value)
    row = tables["differences"].query("family == 'ladder'").sort_values("k").iloc[0]
    bar = right.containers[0][2][0].get_segments()[0]
    assert bar[:, 1].tolist() == pytest.approx([row["low"], row["high"]])
    assert right.containers[0][0].get_ydata()[0] == pytest.approx(row["difference"])
    below = differences_figure(pairs, tables["differences"].assign(difference=-0.25, low=-0.5, high=-0.00001), "t")
    assert any("α_CE − α_k = −0.2500 [−0.5000, 0.0000]" in title for title in titles(below))
    with pytest.raises(LabError, match="no difference"):
        differences_figure(pairs, tables["differences"].assign(difference=None), "t")


def test_lognormal_parameters_leave_out_what_did_not_converge(tables):
    table = tables["lognormal"]
    figure = parameters_figure(table, "t")
    drawn = table[(table["status"] == "ok") & (table["model"] == "rounded") & (table["family"] == "ladder")]
    mu = figure.axes[0].containers[0][0]
    assert mu.get_ydata() == pytest.approx(drawn.sort_values("size")["mu"].astype(float).to_numpy())
    broken = table.assign(status=table["status"].mask(table["name"] == "ladder-2", "refused"))
    assert len(parameters_figure(broken, "t").axes[0].containers[0][0].get_ydata()) == len(mu.get_ydata()) - 1
    with pytest.raises(LabError, match="converged"):
        parameters_figure(table.assign(status="ridge"), "t")


def test_implied_values_stand_beside_the_measured(tables):
    table = tables["lognormal"]
    rows = table[(table["model"] == "pmf") & (table["family"] == "ladder") & table["implied_neg_log_p1"].notna()]
    left, right = implied_figure(table, "t").axes
    measured, implied = left.lines[:2]
    assert measured.get_ydata() == pytest.approx(-np.log(rows.sort_values("size")["measured_rbp_1"].astype(float)))
    assert implied.get_ydata() == pytest.approx(rows.sort_values("size")["implied_neg_log_p1"].astype(float))
    assert implied.get_linestyle() == "--" and "rank entropy" in right.get_title(loc="left")
    with pytest.raises(LabError, match="pmf"):
        implied_figure(table[table["model"] == "rounded"], "t")


def test_error_curves_keep_the_mass(runs):
    table = error_curves(runs[0].stats)
    figure = error_curves_figure([("m", 1e4, table)], "t")
    dots, line = figure.axes[0].lines
    assert dots.get_ydata()[0] == pytest.approx(table["p"][0]) and line.get_ydata()[0] == pytest.approx(table["q"][0])
    assert np.all(np.diff(dots.get_xdata()) > 0)
    with pytest.raises(LabError, match="no run"):
        error_curves_figure([], "t")


def test_shares_and_calibration_draw_their_tables(tables):
    left, right = shares_figure(tables["decomposition"], "t").axes
    mine = tables["decomposition"].query("family == 'ladder'").sort_values("size")
    assert left.lines[0].get_ydata().tolist() == mine["share_of_ce"].tolist()
    assert right.lines[0].get_ydata().tolist() == mine["share_of_parts"].tolist()
    ax = calibration_figure(tables["calibration"], "t").axes[0]
    gap = tables["calibration"].query("family == 'ladder'").sort_values("size")
    assert ax.containers[0][0].get_ydata().tolist() == gap["gap"].tolist()
    bar = ax.containers[0][2][0].get_segments()[0]
    assert bar[:, 1].tolist() == pytest.approx(gap[["low", "high"]].iloc[0].tolist())
    for draw in (shares_figure, calibration_figure):
        with pytest.raises(LabError, match="no run"):
            draw(tables["decomposition"].iloc[:0], "t")


def test_checkpoints_need_two_lengths_of_training(tables):
    table = tables["decomposition"].iloc[:4].assign(training_tokens=[1e6, 2e6, 1e6, 2e6], size=[1e4, 1e4, 1e5, 1e5])
    figure = checkpoints_figure(table, "t")
    assert len(figure.axes) == 4 and len(figure.axes[0].lines) == 2
    assert figure.axes[1].lines[0].get_ydata().tolist() == table["error_entropy"].iloc[:2].tolist()
    with pytest.raises(LabError, match="two points of its training"):
        checkpoints_figure(table.iloc[[0, 2]], "t")


def test_forecasts_are_dashed_beyond_the_largest_model(fits):
    law = by_label(fits, "ladder", "ce")
    ax = forecast_figure([law], "t").axes[0]
    solid, dashed = ax.lines[:2]
    largest = law.points.x.max()
    assert solid.get_xdata().max() <= largest < dashed.get_xdata().min() and dashed.get_xdata().max() == 10 * largest
    ahead = forecast(law, [10 * largest])
    assert dashed.get_ydata()[-1] == pytest.approx(ahead["value"][0])
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(forecast(law, [law.points.x.min()])["high"][0], rel=1e-6)
    refused = fit_power(FitPoints(np.array([1e6]), np.array([1.0])), Label("f", "d", "ce"))
    with pytest.raises(LabError, match="every law was refused"):
        forecast_figure([refused], "t")


def test_backtest_shows_errors_and_intervals(tables):
    table = tables["backtest"].query("metric == 'ce' and family == 'ladder'").assign(quantity="CE", tex=r"\mathrm{CE}")
    ax = backtest_figure(table, "t").axes[0]
    bars = ax.containers[0]
    assert bars[0].get_ydata() == pytest.approx(table["error_percent"].astype(float).to_numpy())
    low = 100 * (float(table["low"].iloc[0]) / float(table["actual"].iloc[0]) - 1)
    assert bars[2][0].get_segments()[0][0, 1] == pytest.approx(low)
    with pytest.raises(LabError, match="held out"):
        backtest_figure(table.iloc[:0], "t")


def test_the_simultaneous_band_is_drawn_around_the_single_ones(fits, tables):
    mine = [f for f in fits if f.label.family == "ladder"]
    plain, with_band = over_k_figure(mine, "t"), over_k_figure(mine, "t", bands=tables["bands"])
    dashed = [line for line in with_band.axes[1].lines if line.get_linestyle() == "--"]
    band = tables["bands"].query("family == 'ladder'").sort_values("k")
    assert dashed[0].get_ydata().tolist() == band["simultaneous_low"].tolist()
    assert (band["simultaneous_low"] < band["low"]).all()
    assert len(with_band.axes[1].lines) == len(plain.axes[1].lines) + 2


def test_several_data_sets_have_panels_of_their_own(fits):
    law = by_label(fits, "ladder", "neg_log_rbp", 1)
    other = dataclasses.replace(law, label=dataclasses.replace(law.label, dataset="other"))
    figure = scaling_figure([law, other], "t")
    names = [ax.get_title(loc="left").split(":")[0] for ax in figure.axes]
    assert names == ["stdlib", "other"]
    assert pd.Series(titles(figure)).str.startswith("ladder-").all()
