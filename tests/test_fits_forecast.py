"""Forecasts and backtests, calibration, and what an exponent hangs on."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import stdtrit

from rbp_lab import metrics
from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.errors import LabError
from rbp_lab.fits.calibration import calibration_table, calibration_trend
from rbp_lab.fits.documents import effects_by_dataset
from rbp_lab.fits.fit import fit
from rbp_lab.fits.forecast import backtest, forecast
from rbp_lab.fits.gls import DocumentErrors
from rbp_lab.fits.influence import document_influence, sensitivity_warnings
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import fit_power
from rbp_lab.laws import calibration, over_k, paired
from rbp_lab.laws import forecast as forecast_law
from rbp_lab.laws.base import Inputs
from rbp_lab.laws.registry import compute, sections
from rbp_lab.points import points_from_records, series, validate
from tests.fits_data import PYTHIA_K1, fit_points, ladder, synthetic_record

SIZES = np.geomspace(1e6, 1e9, 8)


def noisy(rng):
    return FitPoints(SIZES, 5 * SIZES**-0.1 * np.exp(0.02 * rng.standard_normal(8)))


def test_forecast_is_the_law_with_a_wider_interval_outside():
    law = fit_power(fit_points(PYTHIA_K1), Label("Pythia", "Wikipedia", "neg_log_rbp", 1))
    rows = forecast(law, [1e8, 1e12])
    assert rows["value"].iloc[0] == pytest.approx(math.exp(law.params["log_a"]) * 1e8 ** -law.params["alpha"])
    assert rows["probability"].tolist() == pytest.approx(np.exp(-rows["value"]).tolist())
    assert (rows["probability_low"] < rows["probability"]).all() and (rows["low"] < rows["value"]).all()
    assert rows["extrapolates"].tolist() == [False, True] and rows["beyond"].iloc[1] == pytest.approx(
        1e12 / 11327027200
    )
    width = np.log(rows["high"] / rows["low"])
    x, y = np.log(law.points.x), np.log(law.points.value)
    line = stats.linregress(x, y)
    s = math.sqrt(((y - line.intercept - line.slope * x) ** 2).sum() / 8)
    spread = math.sqrt(1 + 1 / 10 + (math.log(1e12) - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    assert width.iloc[1] == pytest.approx(2 * stats.t.ppf(0.975, 8) * s * spread)
    assert width.iloc[1] > width.iloc[0]
    assert forecast(fit_power(noisy(np.random.default_rng(0)), Label(metric="ce")), [1e6])["probability"].isna().all()


def test_forecast_refuses():
    with pytest.raises(LabError, match="no law to forecast"):
        forecast(fit_power(FitPoints(np.ones(1), np.ones(1))), [1e6])
    with pytest.raises(LabError, match="size is positive"):
        forecast(fit_power(fit_points(PYTHIA_K1)), [0])
    with pytest.raises(LabError, match="form power_constant"):
        forecast(fit("power_constant", fit_points(PYTHIA_K1)), [1e6])


def prediction_coverage(replicates):
    rng, inside = np.random.default_rng(20261122), 0
    for _ in range(replicates):
        row = forecast(fit_power(noisy(rng)), [1e10]).iloc[0]
        inside += row["low"] <= 5 * 1e10**-0.1 * np.exp(0.02 * rng.standard_normal()) <= row["high"]
    return inside / replicates


def test_prediction_interval_covers_quick():
    assert 0.91 <= prediction_coverage(300) <= 0.985


@pytest.mark.slow
def test_prediction_interval_covers():
    assert 0.93 <= prediction_coverage(3000) <= 0.97


def test_backtest_forecasts_what_it_has_not_seen():
    points = fit_points(PYTHIA_K1)
    rows = backtest(fit_power(points))
    assert rows["held"].tolist() == [1, *[2] * 2, *[3] * 3, *[5] * 5] and rows["model"].iloc[0] == "pythia-12b"
    assert rows["error_percent"].iloc[0] == pytest.approx(fit_power(points).leave_largest_out)
    first = rows.iloc[0]
    assert first["inside"] == (first["low"] <= first["actual"] <= first["high"])
    assert (rows["beyond"] > 1).all() and backtest(fit_power(points.without_largest(7))).empty


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_backtest_has_the_confidence_of_its_law(confidence):
    points = fit_points(PYTHIA_K1)
    row = backtest(fit_power(points, confidence=confidence)).iloc[0]
    expected = forecast(fit_power(points.without_largest(), confidence=confidence), points.x[-1:]).iloc[0]
    assert (row["low"], row["high"]) == (expected["low"], expected["high"])
    wide = backtest(fit_power(points, confidence=0.99)).iloc[0]
    assert wide["low"] < row["low"] < row["high"] < wide["high"]


def values_table(value):
    rows = [(f"m{i}", "F", SIZES[i], "D", "ce", None, 1, v, np.nan, None, "") for i, v in enumerate(value)]
    columns = ["model", "family", "size", "dataset", "metric", "k", "window", "value", "se_log", "n", "key"]
    return validate(pd.DataFrame(rows, columns=columns))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (5 * SIZES**-0.1, ""),
        (0.5 + 5 * SIZES**-0.1, "E + a·S^−α"),
        (5 * SIZES**-0.1 * np.exp(-0.003 * np.log(SIZES / 3e7) ** 2), "curvature"),
    ],
)
def test_a_law_that_the_points_speak_against_is_not_forecast(value, said):
    points = values_table(value * np.exp(0.002 * np.random.default_rng(3).standard_normal(8)))
    result = forecast_law.compute(Inputs(points, fit_all(points)))
    section = forecast_law.section(result)
    assert any(said in note and note.startswith("No forecast for CE") for note in section.notes) == bool(said)
    assert any(f.name.startswith("forecast") for f in section.figures) == (not said)
    distance = next(t.frame for t in section.tables if t.title == "Backtest by distance")
    assert distance["forecasts"].sum() == len(result.tables["backtest"]) == 1 + 2 + 3 + 4


def test_an_interval_beyond_every_float_is_open():
    four = fit_points(PYTHIA_K1).without_largest(6)
    row = backtest(fit_power(four, confidence=1 - 1e-9)).iloc[0]  # three models leave one degree of freedom
    assert row["low"] == 0 and row["high"] == math.inf and row["inside"]


def test_calibration_gap_and_trend():
    records = ladder(4)
    table = calibration_table(records)
    assert table["gap"].tolist() == pytest.approx([metrics.entropy_gap(r.stats) for r in records])
    assert ((table["low"] < table["gap"]) & (table["gap"] < table["high"])).all()
    trend = calibration_trend(table, "stdlib", "ladder")
    slope = np.polyfit(np.log10(table["size"]), table["gap"], 1)[0]
    assert trend.per_decade == pytest.approx(slope) and trend.low < slope < trend.high
    effects = effects_by_dataset(records)["stdlib"]
    along = np.sqrt(np.diag(effects.of_calibration(table["model"].tolist()).covariance))
    documents = len(records[0].documents)
    assert along * stdtrit(documents - 1, 0.975) == pytest.approx((table["high"] - table["gap"]).tolist(), rel=0.1)
    shared = calibration_trend(table, "stdlib", "ladder", effects=effects)
    assert shared.per_decade == pytest.approx(slope) and shared.high - shared.low > 0.9 * (trend.high - trend.low)
    none = calibration_trend(table.iloc[:2], "stdlib", "ladder")
    assert none.per_decade is None and "three models" in none.message
    single = calibration_table([synthetic_record("m", 1000, 0, documents=1)])
    assert np.isfinite(single["gap"]).all() and single["low"].isna().all()


def test_the_trend_of_calibration_counts_errors_of_documents_that_leave_no_residual():
    size = np.array([1e5, 1e6, 1e7, 1e8])
    table = pd.DataFrame({"model": list("abcd"), "family": "f", "dataset": "d", "size": size, "gap": np.log10(size)})
    tilt = np.log10(size) - np.log10(size).mean()  # ten documents, each of which tilts the line by as much as another
    errors = DocumentErrors(np.outer([0.1, -0.1] * 5, tilt), np.arange(10), 10.0)
    blind = calibration_trend(table, "d", "f")
    assert blind.high - blind.low < 1e-9
    seeing = calibration_trend(table, "d", "f", effects=SimpleNamespace(of_calibration=lambda models: errors))
    half = (seeing.high - seeing.low) / 2
    assert 0.9 * stdtrit(9, 0.975) < half / np.sqrt(10 * 0.1**2) < 1.2 * stdtrit(9, 0.975)


def law_of(records, k):
    label = Label("ladder", "stdlib", "neg_log_rbp", k)
    return fit_power(series(points_from_records(records, [k]), label), label)


def test_influence_of_a_document_is_leaving_it_out():
    records = ladder(4)
    table = document_influence(records, 10).set_index("document")
    y = []
    for record in records:
        d = record.documents
        y.append(math.log(-math.log((d.hits(10).sum() - d.hits(10)[7]) / (d.num_scored.sum() - d.num_scored[7]))))
    slope = np.polyfit(np.log([r.model.params.non_embedding for r in records]), y, 1)[0]
    assert table.loc["doc7", "shift"] == pytest.approx(-slope - law_of(records, 10).params["alpha"])
    assert table["shift"].abs().is_monotonic_decreasing and len(table) == 30


def test_warnings_of_ties_and_documents():
    smooth = ladder(6, documents=60)
    assert sensitivity_warnings(law_of(smooth, 100), smooth) == ()
    tied = ladder(6, documents=60, tied=True)
    assert "tie_sensitive" in sensitivity_warnings(law_of(tied, 1), tied)
    few = ladder(6, documents=2)
    assert "few_documents" in sensitivity_warnings(law_of(few, 10), few)


@pytest.mark.parametrize(("factor", "marked"), [(1.05, False), (0.95, True)])
def test_a_document_dominates_beyond_half_of_the_interval(factor, marked):
    """The residuals' interval is given the width at which the largest shift is just below, or above, its half."""
    records = ladder(6, documents=30)
    law = law_of(records, 10)
    shift = document_influence(records, 10)["shift"].abs().max()
    se = shift * factor / stats.t.ppf(0.975, law.dof)
    law = dataclasses.replace(law, error=dataclasses.replace(law.error, residuals=np.eye(2) * se**2))
    assert law.least_squares["alpha"][1] - law.params["alpha"] == pytest.approx(shift * factor)
    assert ("one_document_dominates" in sensitivity_warnings(law, records)) == marked


def test_few_documents_are_counted_by_their_tokens():
    assert metrics.effective_documents(np.full(30, 7)) == pytest.approx(30)
    assert metrics.effective_documents(np.array([1000, *[1] * 50])) == pytest.approx(1050**2 / (10**6 + 50))
    assert metrics.effective_documents(np.zeros(3)) == 0
    many, few = ladder(4, documents=30), ladder(4, documents=19)
    ce = Label("ladder", "stdlib", "ce")
    for records in (many, few):
        law = fit_power(series(points_from_records(records, [1]), ce), ce)
        assert ("few_documents" in sensitivity_warnings(law, records)) == (records is few)


@pytest.mark.parametrize("documents", [19, 30])
def test_every_law_over_documents_says_once_that_they_are_few(documents):
    records = ladder(4, documents=documents)
    points = points_from_records(records, [1, 10])
    inputs = Inputs(points, fit_all(points, records=records), records)
    laws = (over_k, calibration, paired)
    notes = {s.anchor: s.notes for s in sections(laws, compute(laws, inputs)) if s.anchor != "ruled-out"}
    said = {anchor: sum(note.startswith("few_documents: ") for note in mine) for anchor, mine in notes.items()}
    few = int(documents < 20)
    assert said == {"over-k": few, "calibration": few, "paired": 0}


def test_nothing_is_marked_without_a_law():
    smooth = ladder(6, documents=60)
    assert sensitivity_warnings(fit_power(FitPoints(np.ones(1), np.ones(1))), smooth) == ()
