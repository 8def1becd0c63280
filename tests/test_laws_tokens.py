"""Laws in tokens from points: which checkpoints take part, exponents along trainings, the joint law and its report."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rbp_lab.analysis.csv_points import points_from_csv
from rbp_lab.analysis.run import analyze
from rbp_lab.analysis.sources import Selection, gather
from rbp_lab.config.schemas import FitChoices, KSpec
from rbp_lab.errors import LabError
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.tokens import evaluate
from rbp_lab.laws import surface
from rbp_lab.laws.base import Inputs
from rbp_lab.laws.trajectories import checkpoints, fit_along, training_of
from rbp_lab.points import longest_trained, points_from_records, validate
from rbp_lab.records import ParamCounts
from rbp_lab.report.terminal import notes
from tests.fits_data import synthetic_record
from tests.test_fits_tokens import SIZES, TOKENS

TRUE = {
    ("ce", None, 1): {"E": 1.5, "A": 18.0, "a": 0.28, "B": 60.0, "b": 0.31},
    ("neg_log_rbp", 1, 1): {"E": 0.3, "A": 9.0, "a": 0.25, "B": 20.0, "b": 0.25},
    ("neg_log_rbp", 10, 1): {"E": 0.0, "A": 6.0, "a": 0.3, "B": 30.0, "b": 0.35},
    ("neg_log_p", 1, 2): {"E": 0.5, "A": 16.0, "a": 0.25, "B": 35.0, "b": 0.25},
}
WARMUP = 2 * int(TOKENS[0])


def trajectories(**changes) -> pd.DataFrame:
    """Points of six trainings with eight checkpoints, the last under the name of the model; two lie in the warm-up."""
    rows = [
        {"model": f"m{i}" if d == TOKENS[-1] else f"m{i}@step{round(d)}", "family": "f", "size": s, "dataset": "d",
         "metric": metric, "k": k, "window": window, "value": float(evaluate(params, s, round(d))), "se_log": np.nan,
         "n": pd.NA, "key": "", "training_tokens": round(d), "warmup_tokens": WARMUP}
        for (metric, k, window), params in TRUE.items() for i, s in enumerate(SIZES) for d in TOKENS
    ]  # fmt: skip
    return validate(pd.DataFrame(rows).assign(**changes))


def test_what_takes_no_part_has_a_reason():
    points = trajectories()
    points.loc[points["model"] == "m0", "training_tokens"] = pd.NA
    points.loc[points["model"] == "m1", "training_tokens"] = 0
    table = checkpoints(points, least_tokens=200_000)
    reasons = table.set_index("model")["left_out"]
    assert len(table) == 48
    assert reasons["m0"] == "its training tokens are not known" and reasons["m1"].startswith("it is not trained")
    early = reasons[f"m2@step{round(TOKENS[0])}"]
    assert early == f"warm-up: the learning rate reaches its peak at {WARMUP:,} tokens only"
    assert reasons[f"m2@step{round(TOKENS[3])}"] == "fewer than fit.least_tokens=200,000" and reasons["m2"] == ""


def test_a_training_is_what_its_checkpoints_are_called_without_their_step():
    names = ["m@step5", "m", "m@step5+int8", "m+int8", "m@stage1-step5-tokens1B"]
    assert list(map(training_of, names)) == ["m", "m", "m+int8", "m+int8", "m"]


def test_every_quantity_of_every_training_has_a_law_in_tokens():
    fits = fit_along(trajectories())
    assert len(fits) == 6 * len(TRUE) and {f.points.axis for f in fits} == {"D"} and {f.n for f in fits} == {6}
    first = fits[0]
    assert (first.label.training, first.label.metric) == ("m0", "ce")
    line = np.polyfit(np.log(first.points.x), np.log(first.points.value), 1)
    assert first.params["alpha"] == pytest.approx(-line[0]) and "log10 D" in first.method
    assert "curvature" in first.warnings  # a law with a floor is no straight line
    assert [f.label.training for f in fits[:6]] == [f"m{i}" for i in range(6)]


def test_a_law_in_size_takes_the_last_of_each_training():
    assert set(longest_trained(trajectories())["model"]) == {f"m{i}" for i in range(6)}


def analysed(tmp_path, points=None, **choices):
    fit = FitChoices(figure_ks=[1, 10], **choices)
    return analyze(trajectories() if points is None else points, tmp_path / "out", fit, axis="size+tokens")


def test_the_joint_law_is_found_for_every_quantity_and_reported(tmp_path):
    analysed(tmp_path)
    table = pd.read_csv(tmp_path / "out" / "law_surface.csv")
    full = table[table["form"] == "E + A·N^−a + B·D^−b"]
    assert len(full) == len(TRUE) and len(table) == 3 * 4 + 1  # special cases where they are shown
    for (metric, k, window), params in TRUE.items():
        row = full[(full["metric"] == metric) & (full["window"] == window)]
        row = row[row["k"].isna() if k is None else row["k"] == k].iloc[0]
        assert [row[name] for name in "abE"] == pytest.approx([params[name] for name in "abE"], rel=2e-2, abs=2e-3)
        assert row["n"] == 36 and row["trainings"] == 6
    best = pd.read_csv(tmp_path / "out" / "law_surface_compute.csv").iloc[0]
    assert not best["inside"]  # 2M tokens, where the points end at 716k
    assert best["operations"] < best["used"] and best["share"] == pytest.approx(0.31 / 0.59, rel=1e-2)
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("RBP_k and cross-entropy against training tokens", "Size and tokens together", "Least compute",
                  "12: warm-up", "b differs from that of cross-entropy"):  # fmt: skip
        assert words.replace("RBP_k", "RBP<sub>k</sub>") in page or words in page, words
    assert "Scaling laws on d" not in page  # laws in S are another analysis


def test_the_joint_law_of_runs_counts_their_documents(tmp_path):
    """Five trainings of four checkpoints; the same points without their runs have narrower intervals."""
    records = []
    for i, size in enumerate((1e4, 3e4, 1e5, 3e5, 1e6)):
        for j, tokens in enumerate((10**5, 3 * 10**5, 10**6, 3 * 10**6)):
            made = synthetic_record(f"m{i}@step{tokens}", int(2e3 + 4e3 * i + 3e3 * j), seed=7, documents=12)
            params = ParamCounts(int(size) + 5000, 5000, 0)
            model = replace(made.model, params=params, training_tokens=tokens)
            records.append(replace(made, header=replace(made.header, model=model)))
    points = points_from_records(records, [1])
    points = points[points["window"] == 1]
    widths = []
    for runs in (records, ()):
        result = surface.compute(Inputs(points=points, fits=(), records=runs, shown=(1,)))
        row = result.tables["surface_compute"].iloc[0]
        widths.append(math.log(row["operations_high"] / row["operations_low"]))
        assert result.over_documents == bool(runs)
        assert ("are not known and not in these intervals" in surface.section(result).lead) != bool(runs)
    assert widths[0] > 1.02 * widths[1]


def test_a_pinned_floor_says_where_it_is_from(tmp_path):
    analysed(tmp_path, E=1.4, E_source="a paper")
    table = pd.read_csv(tmp_path / "out" / "law_surface.csv")
    mine = table[(table["metric"] == "ce") & table["pinned"]]
    assert set(mine["E"]) == {1.4} and not table.loc[table["metric"] != "ce", "pinned"].any()
    assert "E of cross-entropy is pinned at 1.4 nats (a paper)" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(LabError, match=r"fit.E must be a cross-entropy of at least 0 nats, with where it is from"):
        FitChoices(E=1.4)


def test_few_trainings_and_events_never_seen_are_said(tmp_path):
    points = trajectories()
    points.loc[(points["metric"] == "neg_log_p") & (points["model"] == "m3"), "value"] = math.inf
    analysed(tmp_path, points[points["size"] > 2e4].reset_index(drop=True))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "the value has no logarithm for m3" in page
    analysed(tmp_path, points[points["size"] > 2e5].reset_index(drop=True))
    assert "needs at least 4 training runs; got 2" in (tmp_path / "out" / "report.html").read_text()


def test_one_training_has_a_law_in_tokens_alone(tmp_path):
    points = trajectories(warmup_tokens=pd.NA)  # none is left out
    analyze(points[points["size"] == SIZES[0]], tmp_path / "out", FitChoices(figure_ks=[1]), axis="tokens")
    fits = pd.read_csv(tmp_path / "out" / "fits.csv")
    assert set(fits["axis"]) == {"D"} and set(fits["training"]) == {"m0"} and len(fits) == len(TRUE)
    assert not (tmp_path / "out" / "law_surface.csv").exists()


def test_values_that_rise_with_size_have_no_least_compute(tmp_path):
    """Larger models are a little worse at equal tokens, as where all are trained too little."""
    points = trajectories()
    points["value"] = 4 + 0.05 * np.log(points["size"]) - 0.3 * np.log(points["training_tokens"].astype(float) / 1e5)
    analysed(tmp_path, points)
    best = pd.read_csv(tmp_path / "out" / "law_surface_compute.csv")
    sizes = best["size"].dropna()
    assert (sizes > 1).all() and (best["tokens"].dropna() > 1).all()


def test_what_few_checkpoints_cannot_tell_is_not_counted(tmp_path):
    """Exact power laws of two families: the later of four checkpoints is no half, and no bend is tested for."""
    rows = [
        {"model": f"{family}{i}@step{d}", "family": family, "size": size, "dataset": "d", "metric": "ce", "k": None,
         "window": 1, "value": 9 * d**-beta, "se_log": np.nan, "n": pd.NA, "key": "", "training_tokens": d,
         "warmup_tokens": pd.NA}
        for family, i, size, beta in (("a", 0, 5e4, 0.20), ("a", 1, 9e5, 0.30), ("z", 0, 1e4, 0.10))
        for d in (10**4, 10**5, 10**6, 10**7)
    ]  # fmt: skip
    analyze(validate(pd.DataFrame(rows)), tmp_path / "out", FitChoices(), axis="tokens")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "in 0 of 0 trainings that have 5 checkpoints" in page and "less steep in 0 of 0 that can be halved" in page
    assert "β = 0.100 for the smallest and 0.300 for the largest" in page


def test_papers_are_of_laws_in_size(tmp_path):
    with pytest.raises(LabError, match="papers=true is of laws in S, and axis=tokens of laws in tokens"):
        analyze(trajectories(), tmp_path, axis="tokens", papers=True)


CSV = """family,model,non_embedding_params,dataset,k,rbp,{columns}
f,a,1000,d,1,0.5,{one}
f,b,2000,d,1,0.6,{two}
"""


def test_published_points_may_carry_tokens_and_operations(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(CSV.format(columns="training_tokens,flops,warmup_tokens", one="5,,2", two=",1.2e6,"))
    points = points_from_csv(path)
    assert points["training_tokens"].tolist() == [5, 100] and points["flops"].tolist()[1] == 1.2e6
    assert points["warmup_tokens"][0] == 2 and np.isnan(points["flops"][0])
    for odd in ("1e300", "1"):
        path.write_text(CSV.format(columns="flops", one=odd, two="1e9"))
        with pytest.raises(LabError, match=r"line 2, column 'flops': .* training tokens; expected flops = 6"):
            points_from_csv(path)
    path.write_text(CSV.format(columns="flops", one="-3", two="1"))
    with pytest.raises(LabError, match=r"line 2, column 'flops': expected a number of at least 1, got '-3'"):
        points_from_csv(path)


def test_an_axis_that_is_none_is_refused(tmp_path):
    with pytest.raises(LabError, match=r"axis must be one of size, tokens, size\+tokens; got 'token'; did you"):
        gather(Selection(store=str(tmp_path), k=KSpec([1]), axis="token"))


def test_trainings_of_one_checkpoint_are_refused_in_one_line_that_says_what_to_measure():
    one = FitPoints(np.array([1e6]), np.array([3.0]), ("a",), axis="D")
    fits = [fit_power(one, Label("f", "d", "ce", training=name)) for name in ("a-1", "a-2", "a-3")]
    (line,) = notes(fits, "d")
    assert line == (
        "no fit for CE of a-1, a-2, a-3: an exponent with an interval needs at least 3 checkpoints; got 1; "
        "model.checkpoints=8 measures eight of a training"
    )
    assert notes(fits[:1], "d")[0].startswith("no fit for a-1 CE: an exponent")
