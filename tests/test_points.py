"""The table of points: from runs, from published CSV files, and what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rbp_lab import metrics
from rbp_lab.analysis.csv_points import points_from_csv
from rbp_lab.errors import LabError
from rbp_lab.fits.points import POOLED, Label
from rbp_lab.points import COLUMNS, matches, points_from_records, select, series, validate
from tests.fits_data import PYTHIA_K1, ladder, synthetic_record

HEADER = "family,model,non_embedding_params,dataset,k,neg_log_rbp,rbp\n"


def csv(tmp_path, text):
    path = tmp_path / "values.csv"
    path.write_text(text)
    return path


def test_points_of_a_run_are_its_metrics():
    record = ladder(1)[0]
    points = points_from_records([record], [1, 10], windows=[1, 2])
    assert list(points.columns) == list(COLUMNS) and len(points) == 5
    ce, one, ten = points.iloc[0], points.iloc[1], points.iloc[2]
    assert ce["metric"] == "ce" and pd.isna(ce["k"]) and ce["value"] == metrics.cross_entropy(record.stats)
    assert one["value"] == pytest.approx(-math.log(metrics.rbp(record.stats, 1)))
    assert ten["se_log"] == metrics.neg_log_rbp(record.documents, 10).se_log and ten["se_log"] > 0
    assert (one["n"], one["size"], one["key"]) == (30 * 120, 10000, record.key)
    pair = points[points["window"] == 2].iloc[0]
    assert pair["value"] == pytest.approx(-math.log(metrics.window_rbp(record.stats, 2, 1)))
    assert pair["n"] == 30 * 119 and pair["metric"] == "neg_log_p"


def test_total_parameters_as_size():
    record = synthetic_record("m", 10000, 0)
    assert points_from_records([record], [1], size="total_params")["size"].unique().tolist() == [15000]
    with pytest.raises(LabError, match="size must be one of"):
        points_from_records([record], [1], size="params")


def test_rank_never_and_always_within_k():
    record = synthetic_record("m", 10000, 0, vocab=64)
    value = points_from_records([record], [64])["value"].iloc[1]
    assert value == 0.0 and math.copysign(1, value) == 1
    hard = synthetic_record("hard", 10, 0, vocab=10**5, sigma=0.01)
    assert points_from_records([hard], [1])["value"].iloc[1] == math.inf


def test_models_of_a_family_whose_weights_were_rounded_in_different_ways_are_not_mixed():
    def rounded(record, kind, family="f"):
        model = replace(record.model, quantisation=kind, family=family)
        return replace(record, header=replace(record.header, model=model))

    a, b = synthetic_record("a", 10000, 0), synthetic_record("b", 20000, 1)
    assert len(points_from_records([rounded(a, "Q4_1"), rounded(b, "Q4_1")], [1])) == 4
    assert len(points_from_records([rounded(a, None), rounded(b, "int8", "g")], [1])) == 4
    with pytest.raises(LabError, match=r"rounded in different ways: a \(not rounded\) and b \(int8\); choose with"):
        points_from_records([rounded(a, None), rounded(b, "int8")], [1])


def test_runs_that_differ_are_not_mixed():
    a = synthetic_record("a", 10000, 0)
    with pytest.raises(LabError, match="differ in dtype"):
        points_from_records([a, synthetic_record("b", 20000, 1, dtype="bfloat16")], [1])
    with pytest.raises(LabError, match="differ in protocol"):
        points_from_records([a, synthetic_record("b", 20000, 1, protocol={"windows": "packed"})], [1])
    with pytest.raises(LabError, match="'stdlib' stands for two corpora"):
        points_from_records([a, synthetic_record("b", 20000, 1, corpus_text="other")], [1])
    again = synthetic_record("a", 10000, 0, thresholds=(1, 2))
    with pytest.raises(LabError, match=f"more than one value of CE from runs .*{a.key}"):
        points_from_records([a, again], [1])
    with pytest.raises(LabError, match="no finished run"):
        points_from_records([], [1])


def test_published_csv(tmp_path):
    rows = "".join(f"Pythia,{m},{s},Wikipedia,1,{v},{math.exp(-v):.6f}\n" for m, (s, v) in PYTHIA_K1.items())
    points = points_from_csv(csv(tmp_path, HEADER + rows + "Pythia,pythia-14m,1189888,Wikipedia,10,,0.5\n"))
    assert len(points) == 11 and points["metric"].unique().tolist() == ["neg_log_rbp"]
    assert points["value"].iloc[-1] == pytest.approx(math.log(2))
    assert points["n"].isna().all() and points["se_log"].isna().all()


def test_spaces_after_commas_and_blank_lines_do_not_count(tmp_path):
    spaced = HEADER.replace(",", ", ") + "\n\nF, m, 1000, D, 1, 0.5, \n"
    assert points_from_csv(csv(tmp_path, spaced))["value"].tolist() == [0.5]


def test_a_csv_that_is_not_utf8_names_the_line(tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes((HEADER + "F,m,1000,D,1,0.5,\nF,caf\xe9,2000,D,1,0.4,\n").encode("latin-1"))
    with pytest.raises(LabError, match="line 3 is not UTF-8"):
        points_from_csv(path)


def test_written_points_read_back(tmp_path):
    points = points_from_records(ladder(3), [1, 10, 500], windows=[5])
    points.to_csv(tmp_path / "points.csv", index=False)
    pd.testing.assert_frame_equal(points_from_csv(tmp_path / "points.csv"), points)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (HEADER + "F,m,1000,D,1,0.5,,extra\n", "line 2 has 8 cells, but the header names 7"),
        (HEADER + "\n" + "F,m,1000,D,1,0.5,\nF,n,2000,D\n", "line 4 has 4 cells, but the header names 7"),
        (HEADER + '"F\nG",m,1000,D,1,0.5,\n', "line 2, column 'family'.*printable"),
        (HEADER.replace("dataset", "model") + "F,m,1000,D,1,0.5,\n", "line 1: the header names 'model' twice"),
        (HEADER, "no rows"),
        (HEADER.replace("dataset,", "") + "F,m,1000,1,0.5,\n", "no column 'dataset'"),
        (HEADER + "F,m,1000,D,1,0.5,\nF,n,ten,D,1,0.5,\n", "line 3, column 'non_embedding_params'.*'ten'"),
        (HEADER + "F,m,1000,D,0,0.5,\n", r"line 2, column 'k'.*in \[1, 9"),
        (HEADER + "F,m,1000,D,1.5,0.5,\n", "line 2, column 'k'.*whole number"),
        (HEADER + "F,m,1000,D,inf,0.5,\n", "line 2, column 'k'.*'inf'"),
        (HEADER + "F,m,1000,D,1e30,0.5,\n", "line 2, column 'k'.*'1e30'"),
        (HEADER + "F,m,1000,D,1,1e300,\n", "line 2, column 'neg_log_rbp'.*nats"),
        (HEADER + "F,m,1000,D,1,1e-310,\n", "line 2, column 'neg_log_rbp'.*nats"),
        (HEADER + "F,m,1e400,D,1,0.5,\n", "positive and finite"),
        (HEADER + "F,m\x1b[31m,1000,D,1,0.5,\n", "line 2, column 'model'.*printable"),
        (HEADER + "F,m,1000,D,1,-0.5,\n", "line 2, column 'neg_log_rbp'.*at least 0"),
        (HEADER + "F,m,1000,D,1,nan,\n", "line 2, column 'neg_log_rbp'"),
        (HEADER + "F,m,1000,D,1,,1.2\n", r"line 2, column 'rbp'.*in \[0, 1\]"),
        (HEADER + "F,m,1000,D,1,,\n", "line 2: expected neg_log_rbp"),
        (HEADER + "F,m,1000,D,1,0.5,0.3162\n", "line 2: columns .* contradict .* natural"),
        (HEADER + ",m,1000,D,1,0.5,\n", "line 2, column 'family'.*found nothing"),
        (HEADER + "F,m,1000,D,1,0.5,\nF,m,1000,D,1,0.5,\n", "more than one value of −log RBP_1"),
        (HEADER + "F,m,1000,D,1,0.5,\nF,m,2000,D,10,0.5,\n", "more than one size"),
        ("metric,family,model,size,dataset,k,value\nrank,F,m,1,D,1,1\n", "line 2, column 'metric'"),
    ],
)
def test_csv_mistakes_name_the_place(tmp_path, text, said):
    with pytest.raises(LabError, match=said) as error:
        points_from_csv(csv(tmp_path, text))
    assert "values.csv" in str(error.value)


def test_missing_csv(tmp_path):
    with pytest.raises(LabError, match="no CSV file at"):
        points_from_csv(tmp_path / "none.csv")


def test_selecting():
    points = points_from_records([*ladder(3), synthetic_record("other", 5, 9, family="x")], [1])
    assert set(select(points, models=["ladder-[01]"])["model"]) == {"ladder-0", "ladder-1"}
    assert set(select(points, families=["x"])["model"]) == {"other"}
    with pytest.raises(LabError, match=r"no point matches.*ladder-0"):
        select(points, datasets=["wiki*"])
    assert matches("a", None) and not matches("a", ["b", "A"])


def test_series_of_a_family_and_pooled():
    points = points_from_records([*ladder(3), synthetic_record("other", 5, 9, family="x")], [1, 10], windows=[2])
    one = series(points, Label("ladder", "stdlib", "neg_log_rbp", 1))
    assert one.names == ("ladder-0", "ladder-1", "ladder-2") and np.isfinite(one.se_log).all()
    assert series(points, Label(POOLED, "stdlib", "ce")).names[0] == "other"
    assert len(series(points, Label(POOLED, "stdlib", "neg_log_p", 10, 2))) == 4
    assert len(series(points, Label("ladder", "elsewhere", "ce"))) == 0


def test_validation_of_a_table_made_by_hand():
    points = points_from_records(ladder(1), [1])
    with pytest.raises(LabError, match="lack the columns key"):
        validate(points.drop(columns="key"))
    with pytest.raises(LabError, match="ladder-0 on stdlib has value nan"):
        validate(points.assign(value=np.nan))
