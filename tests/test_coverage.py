"""Intervals that count the error of documents hold the truth as often as they say; tests/coverage has every design."""

import numpy as np
import pytest

from rbp_lab.stats import UNIT
from tests.coverage import parts, surface
from tests.coverage.resampled import Runs
from tests.coverage.study import coverage, share_inside
from tests.coverage.worlds import LAWS, RARE_ALPHA, SIZES, World, draw
from tests.fits_data import ladder

ALONG_S = World(100, 8, "coherent", 0.0)


def test_an_error_along_s_is_missed_by_residuals_and_held_with_documents():
    found = coverage(ALONG_S, 80)
    assert found["ce, least squares"] < 0.75
    for name in ("ce", "k1", "k10", "k100", "difference", "k1, counts", "β of N", "α of p_N", "size at level"):
        assert found[name] >= 0.86, name  # 80 replicates: standard error 2.4 %


@pytest.mark.slow
@pytest.mark.parametrize("world", [
    World(20, 5, "coherent"), World(100, 10, "coherent", 0.0), World(100, 4, "exchangeable"),
    World(100, 8, "exchangeable", 0.0),
], ids=str)  # fmt: skip
def test_intervals_cover(world):
    """2,000 replicates: standard error 0.5 %."""
    found = coverage(world, 2000)
    assert found.pop("ce, least squares") < 0.97
    assert not beyond(found, 0.92, 0.985)


def beyond(found, low, high):
    return {name: share for name, share in found.items() if not np.isnan(share) and not low <= share <= high}


@pytest.mark.slow
@pytest.mark.parametrize("world", [parts.Parts(100, 5, "coherent"), parts.Parts(20, 8, "exchangeable")], ids=str)
def test_intervals_of_the_parts_cover(world):
    """400 replicates: standard error 1.1 %."""
    rng = np.random.default_rng(20261130)
    found = share_inside([parts.replicate(world, rng) for _ in range(400)])
    assert found.pop("confidence, least squares") < 0.97
    assert not beyond(found, 0.90, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("error", ["coherent", "exchangeable"])
def test_intervals_of_the_law_in_size_and_tokens_cover(error):
    """400 replicates: standard error 1.1 %."""
    rng = np.random.default_rng(20261130)
    found = share_inside([surface.replicate(surface.Trainings(100, error), rng) for _ in range(400)])
    assert found.pop("operations, trainings alone") < 0.8
    assert not beyond(found, 0.90, 1.0)


def test_a_world_has_the_laws_that_it_says():
    world, rng = World(4000, 8, "coherent", 0.0), np.random.default_rng(5)
    sums = draw(world, rng)
    for name, (alpha, level) in LAWS.items():
        ratio = sums[name][0].sum(0) / sums[name][1].sum(0)
        value = ratio if name == "ce" else -np.log(ratio)
        slope, intercept = np.polyfit(world.centred, np.log(value), 1)
        assert -slope == pytest.approx(alpha, abs=0.004) and np.exp(intercept) == pytest.approx(level, rel=0.05)
    misses = [(tried - hit).sum(0) for hit, tried in (draw(world, rng)["rare"] for _ in range(20))]
    assert (np.array(misses)[:, -1] == 0).any()  # zeros are part of the design
    slope = np.polyfit(world.centred, np.log(np.mean(misses, axis=0)), 1)[0]
    assert -slope == pytest.approx(RARE_ALPHA, abs=0.05)
    assert set(SIZES) == {4, 5, 8, 10}


def test_documents_of_runs_are_resampled_around_their_own_laws():
    records = ladder(6, documents=40)
    runs = Runs(records)
    assert runs.sums["ce"][0].sum() * (1 / UNIT) == pytest.approx(sum(int(r.stats.nll_units.sum()) for r in records))
    rng = np.random.default_rng(0)
    for redraw in (True, False):
        found = share_inside([runs.replicate(rng, redraw) for _ in range(12)])
        assert found["ce"] >= 0.75 and found["β of N"] >= 0.75 and (redraw or found["k1, counts"] >= 0.75)
