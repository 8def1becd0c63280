"""Figures are functions of results: what they draw, and that saving them repeats to the byte."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex

from rbp_lab import metrics
from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.errors import LabError
from rbp_lab.figures.over_k import over_k_figure
from rbp_lab.figures.scaling import scaling_figure
from rbp_lab.figures.style import family_styles, plain, save
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import fit_power
from rbp_lab.points import points_from_records
from tests.fits_data import GPT2_K1, PYTHIA_K1, fit_points, ladder


def published():
    tables = {"GPT2": GPT2_K1, "Pythia": PYTHIA_K1}
    return [fit_power(fit_points(t), Label(f, "Wikipedia", "neg_log_rbp", 1)) for f, t in tables.items()]


def test_scaling_figure_draws_points_lines_and_numbers():
    fits = published()
    figure = scaling_figure(fits, "title")
    ax = figure.axes[0]
    drawn = [line for line in ax.lines if line.get_linestyle() == "-"]
    assert len(drawn) == 2 and len(ax.containers) == 2
    assert np.allclose(drawn[0].get_ydata()[[0, -1]], [0.8727, 0.7439], atol=2e-3)
    assert ax.get_xscale() == ax.get_yscale() == "log"
    texts = [t.get_text() for t in ax.texts]
    assert any("α = 0.079 ± 0.006,  R² 0.992" in t for t in texts)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["GPT2", "Pythia"]


def test_error_bars_are_those_of_documents():
    fits = fit_all(points_from_records(ladder(), [10]))
    figure = scaling_figure([f for f in fits if f.label.k == 10], "title")
    bars = figure.axes[0].containers[0][2][0].get_segments()
    points = fits[1].points
    estimate = metrics.neg_log_rbp(ladder()[0].documents, 10)
    assert points.value[0] == estimate.value and points.documents[0] == estimate.documents < 100
    assert bars[0][:, 1] == pytest.approx([estimate.lower, estimate.upper])
    assert "documents" in figure.axes[0].get_title(loc="left")


def test_refused_fits_keep_their_points_and_draw_no_line():
    fit = fit_power(FitPoints(np.array([1e6, 1e7, 1e8]), np.array([0.5, 0.1, 0.0])), Label("F", "D", "neg_log_rbp", 1))
    figure = scaling_figure([fit], "title")
    assert len(figure.axes[0].containers[0][0].get_xdata()) == 2
    assert [t.get_text() for t in figure.axes[0].texts] == ["no fit"]
    nothing = fit_power(FitPoints(np.array([1e6]), np.array([0.0])), Label("F", "D", "neg_log_rbp", 1))
    with pytest.raises(LabError, match="nothing to draw"):
        scaling_figure([nothing], "title")


def test_against_k_shows_exponent_and_leaves_gaps():
    fits = fit_all(points_from_records(ladder(), [1, 10, 100, 512]))
    figure = over_k_figure(fits, "title")
    r2, alpha = figure.axes
    assert np.isnan(alpha.lines[0].get_ydata()[-1]) and np.isnan(r2.lines[0].get_ydata()[-1])
    by_k = {f.label.k: f for f in fits if f.ok}
    assert alpha.lines[0].get_ydata()[:3].tolist() == [by_k[k].params["alpha"] for k in (1, 10, 100)]
    assert len(alpha.collections) == 1
    with pytest.raises(LabError, match="every fit was refused"):
        over_k_figure([f for f in fits if not f.ok], "title")


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    before = dict(matplotlib.rcParams)
    save(scaling_figure(published(), "title"), tmp_path / "a")
    assert dict(matplotlib.rcParams) == before


def test_saved_files_repeat_to_the_byte(tmp_path):
    for name in ("a", "b"):
        save(scaling_figure(published(), "title"), tmp_path / name, ("png", "svg", "pdf"))
    for extension in ("png", "svg", "pdf"):
        a, b = ((tmp_path / f"{name}.{extension}").read_bytes() for name in ("a", "b"))
        assert a == b and len(a) > 1000
    assert not list(tmp_path.glob(".*"))


def test_families_differ_by_colour_and_marker():
    styles = family_styles(["d", "b", "a", "c", "b"])
    assert list(styles) == ["a", "b", "c", "d"]
    assert len({to_hex(s.color) for s in styles.values()}) == len({s.marker for s in styles.values()}) == 4
    many = family_styles(map(str, range(14)))
    assert len({(s.color, s.marker) for s in many.values()}) == 14


def test_axis_numbers():
    assert plain(0.05) == "0.05" and plain(1e-4) == "$10^{-4}$" and plain(2e-5) == "2·$10^{-5}$"


def test_a_threshold_that_no_model_ever_met_has_no_panel():
    """RBP_k = 0 for every model: −log RBP_k is infinite and has no place on the axis; the other panels are drawn."""
    size, names, se = np.array([2e4, 3e4]), ("a", "b"), np.full(2, np.nan)
    fits = [
        fit_power(FitPoints(size, value, names, se), Label("f", "d", "neg_log_rbp", k))
        for k, value in ((1, np.full(2, np.inf)), (10, np.array([3.0, 2.0])))
    ]
    figure = scaling_figure(fits, "title")
    assert sum(ax.get_visible() for ax in figure.axes) == 1
    with pytest.raises(LabError, match="nothing to draw"):
        scaling_figure(fits[:1], "title")
