"""N in a row: measured shares, bounds, the free exponent of N, and when a level is reached."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rbp_lab import metrics
from rbp_lab.errors import LabError
from rbp_lab.fits.emergence import COLUMNS, emergence_table, fit_emergence
from rbp_lab.fits.influence import carrying_documents
from rbp_lab.fits.levels import size_at_level
from rbp_lab.fits.points import FitPoints
from rbp_lab.fits.power import fit_power
from tests.fits_data import ladder, synthetic_record

SIZES = np.geomspace(1e6, 1e10, 8)


def table(beta=0.6, alpha=0.1, log_c=0.5, windows=(1, 2, 5, 10), scatter=0.0, sizes=SIZES, seed=0):
    """Rows of an emergence table that follow −log p = c·N^β·S^−α."""
    rng, rows = np.random.default_rng(seed), []
    for i, size in enumerate(sizes):
        shift, tilt = scatter * rng.standard_normal(2)
        for n in windows:
            p = math.exp(-math.exp(log_c + shift + (beta + tilt) * math.log(n) - alpha * math.log(size)))
            rows.append((f"m{i}", "F", size, "D", 1, n, p, *[np.nan] * 3, 0.0, 1.0, 100, 10, np.nan))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_measured_shares_come_from_runs():
    record = ladder(1)[0]
    rows = emergence_table([record], [1, 2, 5, 3], ks=[10, 100])
    assert len(rows) == 8
    for row in rows[rows["window"] != 3].itertuples():
        assert row.p == pytest.approx(metrics.window_rbp(record.stats, row.window, row.k))
        assert row.independent == pytest.approx(metrics.rbp(record.stats, row.k) ** row.window)
        if row.p > 0:
            assert row.low < row.p < row.high and not row.bound
    first = rows[rows["window"] == 1]
    assert first["ratio"].tolist() == pytest.approx([1, 1])
    ranks = emergence_table([record], [3], ks=[100]).iloc[0]
    assert 0.9 < ranks["ratio"] < 1.1  # synthetic ranks are independent


def test_nothing_seen_is_an_upper_bound_over_documents():
    record = synthetic_record("m", 1000, 0, documents=20, tokens=60)
    rows = emergence_table([record], [50, 100], ks=[1])
    assert rows["window"].tolist() == [50]  # no document has 100 tokens
    row = rows.iloc[0]
    assert row["p"] == 0 and row["bound"] and row["high"] == pytest.approx(1 - 0.05 ** (1 / 20)) and row["low"] == 0
    with pytest.raises(LabError, match="k = 7 needs a new measurement"):
        emergence_table([record], [1], ks=[7])


def test_exact_law_is_recovered():
    fit = fit_emergence(table(), "F", "D", 1)
    assert (fit.beta, fit.alpha, fit.log_c) == pytest.approx((0.6, 0.1, 0.5))
    assert fit.independent is False and fit.windows == (1, 2, 5, 10) and fit.dropped == ()
    assert fit.by_window[5].params["alpha"] == pytest.approx(0.1)
    rows = table()
    assert fit.predict(rows["window"], rows["size"]).tolist() == pytest.approx(rows["p"].tolist())
    by_model = table(beta=1.0, scatter=0.01).groupby("model")
    loose = fit_emergence(table(beta=1.0, scatter=0.01), "F", "D", 1)
    assert loose.independent is True
    slopes = [np.polyfit(np.log(m["window"]), np.log(-np.log(m["p"])), 1)[0] for _, m in by_model]
    half = stats.t.ppf(0.975, 7) * np.std(slopes, ddof=1) / math.sqrt(8)
    assert loose.beta_interval == pytest.approx((np.mean(slopes) - half, np.mean(slopes) + half))


def test_the_fit_of_one_exponent_for_all_n_is_tested():
    """A straight law is left alone; one that bends in ln N, or whose exponent of N falls with S, is marked."""
    straight = fit_emergence(table(scatter=0.01), "F", "D", 1)
    assert straight.lack_of_fit > 0.05 and "lack_of_fit" not in straight.warnings
    assert set(straight.local) == {(1, 2), (2, 5), (5, 10)}
    assert all(low < 0.6 < high and low < value < high for value, low, high in straight.local.values())

    def bent(change):
        rows = table(scatter=0.01)
        rate = -np.log(rows["p"].astype(float)) * np.exp(change(np.log(rows["window"].astype(float)), rows["size"]))
        return fit_emergence(rows.assign(p=np.exp(-rate)), "F", "D", 1)

    curved = bent(lambda n, s: -0.05 * n**2)
    assert curved.lack_of_fit < 0.01 and "lack_of_fit" in curved.warnings
    assert curved.rmse_percent > 2 * straight.rmse_percent > 0
    assert curved.local[1, 2][0] > curved.local[5, 10][0] + 0.05
    assert "lack_of_fit" in bent(lambda n, s: -0.01 * n * np.log(s / 1e8)).warnings
    assert fit_emergence(table(windows=(1, 2)), "F", "D", 1).lack_of_fit is None
    assert {"rmse_percent", "lack_of_fit"} <= set(straight.to_frame())


def test_windows_without_an_event_are_dropped_and_named():
    rows = table()
    rows.loc[(rows["window"] == 10) & (rows["model"] == "m0"), "p"] = 0.0
    fit = fit_emergence(rows, "F", "D", 1)
    assert fit.dropped == (10,) and fit.windows == (1, 2, 5) and "zero_counts" in fit.warnings
    assert fit.alpha == pytest.approx(0.1) and fit.to_frame()["dropped"].iloc[0] == "10"


def test_refusals():
    one = fit_emergence(table(windows=(1,)), "F", "D", 1)
    assert one.status == "refused" and "two window lengths" in one.message and one.independent is None
    assert "at least 3 models; got 2" in fit_emergence(table(sizes=SIZES[:2]), "F", "D", 1).message
    with pytest.raises(LabError, match="no law of emergence"):
        one.predict(1, 1e6)


def coverage(replicates):
    inside = np.zeros(2)
    for seed in range(replicates):
        fit = fit_emergence(table(scatter=0.03, seed=seed), "F", "D", 1)
        inside += [
            fit.beta_interval[0] <= 0.6 <= fit.beta_interval[1],
            fit.alpha_interval[0] <= 0.1 <= fit.alpha_interval[1],
        ]
    return inside / replicates


def test_coverage_quick():
    assert (coverage(60) >= 0.88).all()


@pytest.mark.slow
def test_coverage():
    covered = coverage(1500)
    assert (covered >= 0.93).all() and (covered <= 0.97).all()


def law(noise, alpha=0.2, seed=0, n=8):
    size = np.geomspace(1e6, 1e10, n)
    return fit_power(
        FitPoints(size, 30 * size**-alpha * np.exp(noise * np.random.default_rng(seed).standard_normal(n)))
    )


def test_size_at_a_level():
    exact = (30 / -math.log(0.7)) ** 5
    at = size_at_level(law(1e-9), 0.7)
    assert at.size == pytest.approx(exact, rel=1e-6) and not at.extrapolates
    assert at.low == pytest.approx(exact, rel=1e-5) and at.low <= at.size <= at.high
    loose_law = law(0.2)
    loose = size_at_level(loose_law, 0.7)
    for size in (loose.low, loose.high):  # where the curve's own interval just reaches the level
        gradient = np.array([-math.log(size), 1.0])
        curve = loose_law.params["log_a"] - loose_law.params["alpha"] * math.log(size)
        half = stats.t.ppf(0.975, 6) * math.sqrt(gradient @ loose_law.covariance @ gradient)
        assert abs(curve - math.log(-math.log(0.7))) == pytest.approx(half)
    assert size_at_level(law(1e-9), 0.9).extrapolates
    assert "never reached" in size_at_level(law(0.01, alpha=-0.1), 0.5).message
    flat = size_at_level(law(2.0, alpha=0.02, seed=2, n=3), 0.5)
    assert flat.high is None and "thousandfold above" in flat.message
    assert size_at_level(fit_power(FitPoints(np.ones(1), np.ones(1))), 0.5).size is None
    with pytest.raises(LabError, match="between 0 and 1"):
        size_at_level(law(0.1), 1.0)


@pytest.mark.parametrize(("level", "side"), [(0.999999, "above"), (1e-300, "below")])
def test_a_size_far_from_every_model_is_a_sentence(level, side):
    at = size_at_level(law(0.001, alpha=0.2), level)
    assert (at.size, at.low, at.high) == (None, None, None) and at.extrapolates
    assert f"more than a thousandfold {side} the sizes measured" in at.message


def test_an_end_far_from_every_model_is_missing():
    wild = size_at_level(law(0.3, alpha=0.2, seed=1), 0.9)
    assert wild.low < wild.size and wild.high is None and "interval reaches more than a thousandfold" in wild.message


def test_certain_events_have_no_independence_ratio():
    """Every window is within k: its logarithm is 0, whether or not a token in a shorter document missed."""
    record = synthetic_record("m", 10**6, 0, sigma=1e-9)  # every rank is 1
    missed = np.bincount([0, 3], [3000, 600], 512).astype(int)
    for run in (record, dataclasses.replace(record, stats=dataclasses.replace(record.stats, counts=missed))):
        row = emergence_table([run], [2], [1]).iloc[0]
        assert row["p"] == 1 and math.isnan(row["ratio"])
    assert row["independent"] == pytest.approx((3000 / 3600) ** 2)


def test_size_at_a_level_covers():
    exact, inside = (30 / -math.log(0.7)) ** 5, 0
    for seed in range(400):
        at = size_at_level(law(0.05, seed=seed), 0.7)
        inside += at.low <= exact <= at.high
    assert 0.92 <= inside / 400 <= 0.98


def test_documents_that_carry_a_point():
    record = ladder(6)[5]
    rows = carrying_documents(record, 5, 100, top=3)
    hits = record.documents.window_hits(5, 100)
    assert rows["hits"].iloc[0] == hits.max() and rows["share"].iloc[0] == pytest.approx(hits.max() / hits.sum())
    assert rows["document"].iloc[0] == f"doc{hits.argmax()}" and len(rows) <= 3
    assert carrying_documents(ladder(1)[0], 100, 1).empty
