"""The law in size and tokens whose floor lies at its bound 0: intervals by profile likelihood."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats

from rbp_lab.fits.gls import DocumentErrors
from rbp_lab.fits.tokens import FULL, SurfacePoints, evaluate, fit_surface
from tests.coverage.surface import Trainings, draw

TRUE = {"E": 0.0, "A": 4.0, "a": 0.12, "B": 60.0, "b": 0.31}
SIZES, TOKENS = np.geomspace(9e3, 1e6, 5), np.geomspace(36e3, 716e3, 6)
SIZE, TOKEN = (grid.ravel() for grid in np.meshgrid(SIZES, TOKENS, indexing="ij"))
RUN = np.repeat(np.arange(5), 6)


def bent(errors: DocumentErrors | None = None, bend: float = 0.02) -> SurfacePoints:
    """Trainings whose own errors bend ln value downwards in ln N, so that no floor is fitted; upwards for bend < 0."""
    shape = bend * np.array([-1.0, 0.7, 0.5, 0.6, -0.8])
    return SurfacePoints(SIZE, TOKEN, evaluate(TRUE, SIZE, TOKEN) * np.exp(shape[RUN]), RUN, errors)


def least(points, name, given):
    """Sum of squares of ln value with one param given, by a simplex from several starts."""

    def square(u):
        at = dict(zip([n for n in ("A", "a", "B", "b", "E") if n != name], np.exp(u), strict=True)) | {name: given}
        return float((np.log(evaluate(at, points.size, points.tokens) / points.value) ** 2).sum())

    best = np.inf
    for exponent, floor in ((0.12, 0.1), (0.5, 1.0), (0.05, 0.01)):
        start = {"A": 2.0 * 1e5**exponent, "a": exponent, "B": 60.0, "b": 0.31, "E": floor}
        u = np.log([v for n, v in start.items() if n != name])
        for _ in range(4):
            found = optimize.minimize(
                square,
                u,
                method="Nelder-Mead",
                options={"maxiter": 4000, "maxfev": 4000, "xatol": 1e-9, "fatol": 1e-14},
            )
            u = found.x
        best = min(best, found.fun)
    return best


def test_ends_are_where_the_profile_crosses_its_limit():
    points = bent()
    found = fit_surface(points)
    assert found.params["E"] == 0
    residual = np.log(found.at(SIZE, TOKEN) / points.value)
    mean_square = sum(6 * residual[run == RUN].mean() ** 2 for run in range(5)) / 3
    limit = (residual**2).sum() + mean_square * stats.f.ppf(0.95, 1, 3)
    (low, high), (zero, most) = found.intervals["a"], found.intervals["E"]
    assert zero == 0 < most < points.value.min() and 0 < low < found.params["a"] < high < 5
    for name, ends in (("a", (low, high)), ("E", (most,))):
        for end in ends:
            assert least(points, name, end) == pytest.approx(limit, rel=2e-2), (name, end)


def test_the_floor_has_the_unit_of_the_values():
    points = bent()
    small = replace(points, value=1e-4 * points.value)
    most, least_most = (fit_surface(one).intervals["E"][1] for one in (points, small))
    assert 1e4 * least_most == pytest.approx(most, rel=1e-3)


@pytest.mark.parametrize("error", [0, 1e-8, 1e-6, 1e-4])
def test_points_almost_without_errors_have_intervals(error):
    sizes, tokens = np.geomspace(1e6, 1e9, 4), np.geomspace(1e7, 1e9, 5)
    size, token = (grid.ravel() for grid in np.meshgrid(sizes, tokens, indexing="ij"))
    value = evaluate({"E": 0.0, "A": 4.0, "a": 0.2, "B": 6.0, "b": 0.03}, size, token)
    for seed in range(8):
        found = fit_surface(
            SurfacePoints(
                size, token, value * np.exp(error * np.random.default_rng(seed).normal(size=20)), np.repeat(range(4), 5)
            )
        )
        low, high = found.intervals["a"]
        assert low <= found.params["a"] <= high


def test_documents_that_move_all_trainings_alike_widen_both_halves():
    along = 0.3 * np.log(SIZE / SIZE.mean())
    rng = np.random.default_rng(1)
    each = rng.standard_normal((50, 1)) * along / 50
    plain, wide = fit_surface(bent()), fit_surface(bent(DocumentErrors(each, np.arange(50), 50.0)))
    a = plain.params["a"]
    low, high = (
        (abs(w - a) ** 2 - abs(p - a) ** 2) for w, p in zip(*(f.intervals["a"] for f in (wide, plain)), strict=True)
    )
    assert low > 0 and low == pytest.approx(high, rel=1e-3)
    assert wide.intervals["E"] == plain.intervals["E"]


def test_other_fits_keep_their_intervals():
    assert "E" not in fit_surface(bent(), loss="huber").intervals
    assert "E" not in fit_surface(bent(), "A·N^−a + B·D^−b").intervals
    assert "E" not in fit_surface(bent(), E=0.0).intervals
    found = fit_surface(bent(bend=-0.02))
    assert found.params["E"] > 0
    assert found.intervals["a"][0] + found.intervals["a"][1] == pytest.approx(2 * found.params["a"])


def test_studies_whose_floor_is_lost_hold_the_truth_only_so():
    """Twenty documents that move each training by itself; tests/coverage has every design."""
    rng, inside, jackknife = np.random.default_rng(20261130), [], []
    while len(inside) < 12:
        found = fit_surface(draw(Trainings(20, "exchangeable"), rng))
        if found.params["E"] > 0:
            continue
        low, high = found.intervals["a"]
        inside.append(low <= 0.28 <= high and found.intervals["E"][1] >= 1.5)
        a = np.array([p["a"] for p in found.without])
        half = stats.t.ppf(0.975, 5) * np.sqrt(
            5 / 6 * ((a - a.mean()) ** 2).sum() + found.moves.of({"a": 1.0}).variance
        )
        jackknife.append(abs(found.params["a"] - 0.28) <= half)
    assert np.mean(inside) >= 0.85 and np.mean(jackknife) < 0.8 and found.form == FULL
