"""What exponents hang on: models left out, values that stand out, points that take no part, and the texts behind."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest

from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.fits.influence import document_influence, leave_one_out, odd_values
from rbp_lab.fits.points import FitPoints
from rbp_lab.fits.power import fit_power
from rbp_lab.laws import influence, overview, texts
from rbp_lab.laws.base import Inputs
from rbp_lab.points import points_from_records, validate
from tests.fits_data import PYTHIA_K1, fit_points, ladder

SIZES = np.geomspace(1e6, 1e10, 8)
KS = (1, 2, 5, 10, 20, 50, 100)


def published(change=None, models=8, seed=0):
    """A table of −log RBP_k whose models scatter alike at all k; change: (model, k, factor) of one misprint."""
    rng, rows = np.random.default_rng(seed), []
    luck = 0.02 * rng.standard_normal(models)
    for k in KS:
        for i, size in enumerate(SIZES[:models]):
            value = 4 * size**-0.1 * k ** (-0.4 - 0.01 * math.log(size / 1e8)) * math.exp(luck[i])
            value *= math.exp(0.001 * rng.standard_normal()) * (change[2] if change and change[:2] == (i, k) else 1)
            rows.append((f"m{i}", "F", size, "D", "neg_log_rbp", k, 1, value, np.nan, None, "", None, None))
    columns = ["model", "family", "size", "dataset", "metric", "k", "window", "value", "se_log", "n", "key",
               "training_tokens", "documents"]  # fmt: skip
    return validate(pd.DataFrame(rows, columns=columns))


def test_each_model_left_out_is_a_fit_without_it():
    law = fit_power(fit_points(PYTHIA_K1))
    table = leave_one_out(law)
    for i, row in enumerate(table.itertuples()):
        without = fit_power(law.points.of([name for name in law.points.names if name != row.model]))
        assert row.model == law.points.names[i]
        assert row.alpha_without == pytest.approx(without.params["alpha"], rel=1e-9)
        assert row.shift == pytest.approx(row.alpha_without - law.params["alpha"])
    half = np.diff(law.intervals["alpha"])[0] / 2
    assert table["share_of_half"].to_numpy() == pytest.approx((table["shift"] / half).to_numpy())
    assert leave_one_out(fit_power(FitPoints(np.ones(3), np.ones(3)))).empty


def test_a_model_without_which_there_is_no_slope_has_no_shift():
    table = leave_one_out(fit_power(FitPoints(np.array([1.0, 1.0, 8.0]), np.array([3.0, 2.9, 2.0]))))
    assert table["shift"].isna().tolist() == [False, False, True] and table["outlier_p"].isna().all()


def test_the_farthest_model_is_rarely_off_the_line_by_chance():
    rng, found = np.random.default_rng(1), 0
    for _ in range(400):
        value = 5 * SIZES**-0.1 * np.exp(0.02 * rng.standard_normal(8))
        found += (leave_one_out(fit_power(FitPoints(SIZES, value)))["outlier_p"] < 0.05).any()
    assert 0.01 < found / 400 < 0.08
    value[3] *= 1.3
    table = leave_one_out(fit_power(FitPoints(SIZES, value)))
    assert table["outlier_p"].idxmin() == 3 and table["outlier_p"].min() < 0.01


@pytest.mark.parametrize("at", [(2, 10), (0, 1), (7, 100)])
@pytest.mark.parametrize("factor", [1.08, 0.9])
def test_one_misprint_among_published_values_is_flagged(at, factor):
    """Far less than what would stand out from the line: neighbouring k betray it, at the ends too."""
    assert odd_values(fit_all(published())).empty
    found = odd_values(fit_all(published((*at, factor))))
    worst = found[found["reason"] == "off_its_k"].iloc[0]
    assert (worst["model"], worst["quantity"]) == (f"m{at[0]}", f"−log RBP_{at[1]}")
    assert worst["value"] / worst["expected"] == pytest.approx(factor, abs=0.02)
    assert set(found["model"]) == {worst["model"]}


def test_the_report_names_the_misprint_and_only_for_values_that_were_typed():
    points = published((2, 10, 1.1))
    result = influence.compute(Inputs(points, fit_all(points)))
    section = influence.section(result)
    odd = next(t.frame for t in section.tables if t.title == "Values that stand out")
    assert set(odd["model"]) == {"m2"} and odd["reason"].str.contains("off_its_k").sum() == 1
    assert section.notes == ("Values that stand out: 1 of 56.",)
    assert {"documents_of_alpha", "documents_of_p"}.isdisjoint(result.tables)
    clean = published()
    section = influence.section(influence.compute(Inputs(clean, fit_all(clean))))
    assert section.notes == ("Values that stand out: 0 of 56.",)


def test_runs_show_the_documents_that_carry_a_law():
    records = ladder(5)
    points = points_from_records(records, [1, 10])
    result = influence.compute(Inputs(points, fit_all(points, records=records), records))
    assert "odd_values" not in result.tables
    alpha, p = result.tables["documents_of_alpha"], result.tables["documents_of_p"]
    assert set(alpha["k"]) == {1, 10} and alpha.groupby("k").size().max() == influence.TOP
    assert (alpha.groupby("k")["shift"].apply(lambda s: s.abs().is_monotonic_decreasing)).all()
    assert set(p["model"]) == {"ladder-4"} and p["share"].max() <= 1
    titles = [t.title for t in influence.section(result).tables]
    assert "Each exponent without each of its models" in titles and len(titles) == 3


def test_points_that_take_no_part_carry_a_code():
    points = published(models=5)
    earlier = points[points["model"] == "m0"].assign(model="m0-early", training_tokens=10)
    points.loc[points["model"] == "m0", "training_tokens"] = 100
    points.loc[(points["model"] == "m4") & (points["k"] == 100), "value"] = 0.0
    points.loc[(points["model"] == "m1") & (points["k"] == 1), "value"] = math.inf
    table = influence.excluded(pd.concat([points, earlier], ignore_index=True))
    by = table.groupby("model")["reason"].agg(["first", "size"])
    assert by.to_dict("index") == {
        "m0-early": {"first": "earlier_checkpoint", "size": len(KS)}, "m4": {"first": "never_missed", "size": 1},
        "m1": {"first": "never_hit", "size": 1},
    }  # fmt: skip
    assert set(table["reason"]) == set(influence.REASONS)


def test_the_texts_behind_the_values():
    records = ladder(3, documents=40)
    points = points_from_records(records, [1])
    result = texts.compute(Inputs(points, fit_all(points, records=records), records))
    row = result.tables["texts"].iloc[0]
    assert (row["tokens_low"], row["documents"], row["claim_met"]) == (4800, 40, False)
    assert row["effective_documents"] == pytest.approx(40) and row["largest_share"] == pytest.approx(1 / 40)
    notes = texts.section(result).notes
    assert "training tokens are unknown" in notes[0] and "Contamination is not measured" in notes[-1]
    known = points.assign(training_tokens=(points["size"] * 3).astype("Int64"), n=600_000)
    result = texts.compute(Inputs(known, fit_all(known)))
    assert "undertrained, 3.0 training tokens per parameter" in texts.section(result).notes[0]
    assert result.tables["texts"]["claim_met"].tolist() == [True] and pd.isna(result.tables["texts"]["documents"]).all()


def test_a_single_document_has_no_influence_to_print_and_no_error_to_count():
    runs = ladder(4, documents=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert document_influence(runs, 10)["shift"].isna().all()
    for records, counted in ((runs, False), (ladder(4, documents=8), True)):
        points = points_from_records(records, KS)
        lead = overview.section(overview.compute(Inputs(points, fit_all(points, records=records), records))).lead
        assert ("error of documents" in lead) == counted != ("of the residuals between models" in lead)
