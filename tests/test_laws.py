"""All laws from runs: the tables and figures of the analysis, their consistency with the fits they are made of."""

import dataclasses
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rbp_lab.analysis.csv_points import points_from_csv
from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.analysis.run import analyze
from rbp_lab.config.schemas import FitChoices
from rbp_lab.errors import LabError
from rbp_lab.figures.decomposition import parts_figure
from rbp_lab.figures.emergence import emergence_figure
from rbp_lab.figures.lognormal import rank_figure
from rbp_lab.fits.against_k import TABLE1_KS
from rbp_lab.fits.decomposition import decomposition_table, part_scalings
from rbp_lab.fits.emergence import emergence_table, fit_emergence
from rbp_lab.fits.levels import SizeAtLevel
from rbp_lab.fits.lognormal import fit_lognormal, rank_bins, rank_pairs, rank_shares
from rbp_lab.fits.points import Label
from rbp_lab.fits.power import fit_power
from rbp_lab.laws import calibration, decomposition, emergence, forecast, lognormal, over_k, paired, scaling
from rbp_lab.laws.base import Inputs
from rbp_lab.laws.registry import LAWS, compute, tables
from rbp_lab.points import points_from_records
from rbp_lab.store.tables import write_csv
from tests.fits_data import ladder, synthetic_record

KS = [1, 2, 5, 10, 50, 100]
NAMES = {
    "against_k", "forms", "bands", "differences", "trade_off", "iso_rbp", "backtest", "counts", "emergence",
    "emergence_fits", "emergence_levels", "lognormal", "decomposition", "parts", "calibration", "calibration_trends",
    "questions",
    "emergence_local", "leave_one_out", "excluded", "documents_of_alpha", "documents_of_p", "texts", "training",
}  # fmt: skip


def all_tables(points, records=()):
    return tables(compute(LAWS, Inputs(points, fit_all(points, records=records), records)))


@pytest.fixture(scope="module")
def runs():
    return ladder(7, documents=30, vocab=2000, sigma=2.0)


def test_tables_of_values(runs):
    points = points_from_records(runs, KS)
    fits = fit_all(points)
    found = all_tables(points)
    assert len(found["forms"]) == 7 * 3 and len(found["against_k"]) == 7 and len(found["trade_off"]) == 7 * 6
    by_k = {f.label.k: f.params["alpha"] for f in fits}
    row = found["differences"].set_index("k").loc[10]
    assert row["difference"] == pytest.approx(by_k[None] - by_k[10])
    assert found["bands"].set_index("k")["alpha"].to_dict() == pytest.approx({k: by_k[k] for k in KS})
    first = found["backtest"].query("metric == 'ce' and held == 1").iloc[0]
    assert first["error_percent"] == pytest.approx(fits[0].leave_largest_out)
    assert set(found["iso_rbp"]["level"]) == {0.3, 0.5, 0.7, 0.9}


def test_tables_of_runs(runs):
    found = all_tables(points_from_records(runs, KS), runs)
    counts = found["counts"].set_index("k")
    assert counts.loc[10, "alpha"] == pytest.approx(
        fit_all(points_from_records(runs, [10]))[1].params["alpha"], rel=0.05
    )
    law = fit_emergence(emergence_table(runs, [1, 2, 5]), "ladder", "stdlib", 100)
    assert found["emergence_fits"].set_index("k").loc[100, "beta"] == pytest.approx(law.beta)
    levels = found["emergence_levels"].query("k == 100 and window == 2").iloc[0]
    assert law.by_window[2].ok and levels["low"] < levels["size"] < levels["high"]
    ranks = found["lognormal"]
    assert set(zip(ranks["model"], ranks["xmin"], strict=True)) == {("rounded", 2), ("pmf", 1)} and len(ranks) == 14
    assert ranks.loc[ranks["model"] == "rounded", "implied_neg_log_p1"].isna().all()
    assert ranks["measured_rbp_1"].iloc[0] == runs[0].stats.counts[0] / 3600
    assert len(found["parts"]) == 4 and len(found["calibration_trends"]) == 1


def test_two_families_add_the_pooled_parts(runs):
    other = [synthetic_record(f"x{i}", 3000 * 4**i, 90 + i, family="x", vocab=2000, sigma=2.0) for i in range(3)]
    both = [*runs, *other]
    parts = all_tables(points_from_records(both, [1]), both)["parts"]
    assert parts["family"].value_counts().to_dict() == {"ladder": 4, "x": 4}
    assert parts["pooled"].sum() == 4 and parts.loc[parts["pooled"], "family"].isna().all()


def test_published_values_have_no_laws_of_ranks(runs):
    points = points_from_records(runs, KS)
    found = all_tables(points)
    assert "lognormal" not in found and "forms" in found


def test_a_document_that_decides_is_marked():
    few = ladder(5, documents=2)
    points = points_from_records(few, [10])
    assert "one_document_dominates" in fit_all(points, records=few)[1].warnings
    assert "one_document_dominates" not in fit_all(points)[1].warnings


@pytest.mark.slow
def test_thirty_models_in_a_minute_of_one_core():
    """Every law of 30 models, 22 k and 9 N, in processor time, which a busy machine does not change much."""
    k = (1, 2, 3, 5, 7, 10, 18, 30, 50, 78, 100, 200, 336, 500, 886, 1438, 2500, 3792, 6158, 8000, 9000, 9999)
    n = (1, 2, 5, 10, 20, 50, 100, 110, 120)
    records = [
        synthetic_record(f"{family}-{i}", int(1e5 * 3**i), seed=i, family=family, vocab=10000, thresholds=k[:8],
                         window_lengths=n)
        for family in ("a", "b", "c") for i in range(10)
    ]  # fmt: skip
    start = time.process_time()
    points = points_from_records(records, k)
    all_tables(points, records)
    assert time.process_time() - start < 60


def test_emergence_figure_shows_measured_fitted_and_independent(runs):
    table = emergence_table(runs, [1, 2, 5])
    laws = [fit_emergence(table, "ladder", "stdlib", k) for k in (10, 100)]
    figure = emergence_figure(table, laws, "title")
    ax, logarithmic = figure.axes[2:]
    seen = table.query("k == 100 and not bound")["p"].min()
    assert logarithmic.get_yscale() == "log" and ax.get_ylim() == (-0.02, 1.02) and logarithmic.get_ylim()[0] < seen
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    solid = [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 100]
    assert len(dashed) == 3 and len(solid) == len(laws[1].windows)
    pair = table.query("k == 100 and window == 2").sort_values("size")
    assert dashed[1].get_ydata().tolist() == pytest.approx(pair["independent"].tolist())
    assert solid[1].get_ydata()[0] == pytest.approx(laws[1].predict(2, pair["size"].min()))
    with pytest.raises(LabError, match="nothing to draw"):
        emergence_figure(table, [fit_emergence(table, "ladder", "stdlib", 3)], "title")


def test_rank_figure_shows_shares_and_law(runs):
    record = runs[3]
    law = fit_lognormal(*rank_pairs(record.documents)[:2], vocab=2000)
    assert rank_shares(law, 2000).sum() == pytest.approx(1) and rank_shares(law, 2000)[0] == 0
    figure = rank_figure([("m", 1e6, 2000, rank_bins(record.stats.counts, law))], "title")
    dots, line = figure.axes[0].lines[:2]
    assert dots.get_ydata()[0] == record.stats.counts[0] / 3600
    assert line.get_ydata()[0] == pytest.approx(rank_shares(law, 2000)[1] * law.n / 3600)
    assert np.abs(figure.axes[1].lines[0].get_ydata()).max() < 1
    refused = dataclasses.replace(law, mu=None, sigma=None, status="refused", message="no")
    assert len(rank_figure([("m", 1e6, 2000, rank_bins(record.stats.counts, refused))], "title").axes[0].lines) == 1
    with pytest.raises(LabError, match="no lognormal to draw: no"):
        rank_shares(refused, 10)
    with pytest.raises(LabError, match="no run"):
        rank_figure([], "title")


def test_parts_figure_names_each_part_and_its_r2(runs):
    parts = part_scalings(decomposition_table(runs), "stdlib", "ladder")
    figure = parts_figure([parts], "title")
    texts = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert texts[0] == f"CE, R² {parts[0].law.r2:.3f}" and len(texts) == 4
    drawn = figure.axes[0].lines[0]
    assert drawn.get_ydata().tolist() == pytest.approx(parts[0].law.points.value.tolist())
    refused = [dataclasses.replace(p, law=fit_power(p.law.points.without_largest(6))) for p in parts]
    assert "no fit" in parts_figure([refused], "title").axes[0].get_legend().get_texts()[0].get_text()
    with pytest.raises(LabError, match="no run"):
        parts_figure([], "title")


def counted(monkeypatch, name, key):
    """Every call of a fitter by what it fits, wherever the function of that name was imported."""
    calls = []
    for module in [m for n, m in sys.modules.items() if n.startswith("rbp_lab.") and hasattr(m, name)]:
        real = getattr(module, name)

        def fitter(*args, real=real, **kwargs):
            calls.append(key(*args, **kwargs))
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, fitter)
    return calls


def test_every_law_is_fitted_once_and_written_with_its_figures(runs, tmp_path, monkeypatch):
    """One analysis with its report, every figure and the comparison with the papers; the next one removes its files."""
    no = Label()
    keys = {
        "fit_power": lambda points, label=no, *_, **__: (label, points.hash),
        "fit": lambda form, points, *_, **__: (form, points.hash),
        "fit_emergence": lambda table, family, dataset, k, *_, **__: (family, k),
        "fit_cloglog": lambda counts, label, *_, **__: label,
        "fit_lognormal": lambda ranks, counts, model, *_, **__: (model, counts.tobytes()),
        "fit_against_k": lambda points, model, dataset, *_, **__: (model, dataset),
        "part_scalings": lambda table, dataset, family, *_, **__: (dataset, family),
        "exponent_difference": lambda first, second: (first.label, second.label),
    }
    calls = {name: counted(monkeypatch, name, key) for name, key in keys.items()}
    named = [replace(run, header=replace(run.header, dataset=replace(run.dataset, name="wikipedia"))) for run in runs]
    points = points_from_records(named, sorted({*KS, *TABLE1_KS}))
    result = analyze(points, tmp_path, FitChoices(formats=["svg"], every_figure=True), records=named, papers=True)
    assert all(calls.values())
    twice = {name: [what for what, n in Counter(mine).items() if n > 1] for name, mine in calls.items()}
    assert twice == {name: [] for name in calls}
    assert len(calls["fit_emergence"]) == 3 and len(calls["fit_lognormal"]) == 2 * len(runs)
    assert {p.stem.removeprefix("law_") for p in result.files if p.name.startswith("law_")} == NAMES
    names = {path.name for path in result.files}
    assert {f"law_{name}.csv" for name in NAMES} <= names
    for stem in ("emergence_wikipedia_ladder_10", "ranks_wikipedia_ladder", "parts_wikipedia", "forecast_wikipedia"):
        assert f"{stem}.svg" in names
    assert 'id="emergence"' in (tmp_path / "report.html").read_text()
    assert all(path.stat().st_size for path in result.files)
    table = pd.read_csv(tmp_path / "law_emergence.csv")
    assert table["p"].between(0, 1).all() and set(table["window"]) == {1, 2, 5}
    analyze(points_from_records(runs, [1]), tmp_path)
    assert not list(tmp_path.glob("law_*")) and not list(tmp_path.glob("ranks_*"))


def test_every_window_length_keeps_its_own_law(runs):
    points = points_from_records(runs, [1, 10], windows=[2, 5])
    inputs = Inputs(points, fit_all(points))
    found = tables(compute([scaling, forecast], inputs))
    at = ["metric", "k", "window"]
    for name in ("forms", "backtest"):
        groups = found[name][found[name]["metric"] == "neg_log_p"].groupby(at).groups
        assert {("neg_log_p", 10, 2), ("neg_log_p", 10, 5)} <= set(groups) and {n for _, _, n in groups} == {2, 5}
    shown = scaling.section(compute([scaling], inputs)["scaling"]).tables[0].frame.set_index("quantity")
    forms = found["forms"][found["forms"]["form"] == "log_linear"].set_index(at)["delta_aicc"]
    for n in (2, 5):
        expected = forms.loc[("neg_log_p", 10, n)]
        assert shown.loc[f"−log p_{{{n},10}}", "ΔAICc log-linear"] == pytest.approx(float(expected))
    assert forms.loc[("neg_log_p", 10, 2)] != forms.loc[("neg_log_p", 10, 5)]
    rows = forecast.section(compute([forecast], inputs)["forecast"]).tables[1].frame
    assert {"−log p_{2,10}", "−log p_{5,10}", "−log RBP_10", "CE"} <= set(rows["quantity"])


def test_points_with_windows_have_a_law_of_emergence(runs, tmp_path):
    """A CSV that holds p_{N,k} gives the exponents that the runs give."""
    points = points_from_records(runs, [10, 100], windows=[2, 5])
    write_csv(points, tmp_path / "points.csv")
    read = points_from_csv(tmp_path / "points.csv")
    ours = compute([emergence], Inputs(read, fit_all(read)))["emergence"]
    theirs = compute([emergence], Inputs(points, fit_all(points), runs))["emergence"]
    by_k = {f.k: f for f in theirs.fits}
    assert [f.k for f in ours.fits] == [10, 100] and not ours.lacks
    for fit in ours.fits:
        assert fit.windows == by_k[fit.k].windows == (1, 2, 5)
        assert (fit.beta, fit.alpha) == pytest.approx((by_k[fit.k].beta, by_k[fit.k].alpha))
    pair = ours.table.query("k == 10 and window == 2")["ratio"].tolist()
    assert pair == pytest.approx(theirs.table.query("k == 10 and window == 2")["ratio"].tolist())
    shown = emergence.section(ours)
    assert shown.figures and "independence ratio" in shown.notes[0]
    assert emergence.section(compute([emergence], Inputs(read[read["window"] == 1], ()))["emergence"]) is None


def checkpoint(run, tokens, name):
    """The run as a checkpoint of so many training tokens."""
    return replace(run, header=replace(run.header, model=replace(run.model, name=name, training_tokens=tokens)))


def test_a_law_in_s_takes_one_checkpoint_of_each_size(runs):
    """Earlier checkpoints of a size are left out of every law in S, and the fits say so."""
    early = [checkpoint(r, 10**6, f"{r.model.name}-early") for r in runs[::-1]]
    late = [checkpoint(r, 10**7, r.model.name) for r in runs]
    plain, mixed = (points_from_records(rs, [10]) for rs in (late, [*early, *late]))
    alone, both = fit_all(plain, records=late), fit_all(mixed, records=[*early, *late])
    assert [f.n for f in both] == [7, 7] and [f.params for f in both] == [f.params for f in alone]
    assert all("earlier_checkpoints" in f.warnings for f in both)
    assert not any("earlier_checkpoints" in f.warnings for f in alone)
    laws = [over_k, emergence, decomposition, calibration]
    one, two = (tables(compute(laws, Inputs(p, f, rs)))
                for p, f, rs in ((plain, alone, late), (mixed, both, [*early, *late])))  # fmt: skip
    for name in ("counts", "emergence_fits", "calibration_trends"):
        pd.testing.assert_frame_equal(two[name], one[name])
    assert two["parts"]["n"].tolist() == [7] * 4 and len(two["decomposition"]) == 14
    unknown = [replace(r, header=replace(r.header, model=replace(r.model, path="same", training_tokens=None,
               fingerprint=r.model.name))) for r in runs[:2]]  # fmt: skip
    with pytest.raises(LabError, match="two checkpoints of same"):
        points_from_records(unknown, [10])


def test_how_far_ranks_are_from_lognormal_is_said(runs):
    found = compute([lognormal], Inputs(points_from_records(runs, [1]), (), runs))["lognormal"]
    lead = lognormal.section(found).lead
    ratios = [law.ks * law.n**0.5 / 1.358 for _, law in found.fits if law.model == "rounded" and law.ks]
    assert f"{min(ratios):.1f} to {max(ratios):.1f} × the 5 % critical value" in lead
    assert ("not lognormal within error" in lead) == (found.tables["lognormal"]["ks_over_critical"].max() > 1)
    assert "are close to lognormal" not in lead


def test_a_size_far_beyond_the_models_is_no_number():
    far = SizeAtLevel(0.5, None, 2e5, None, True, "the level lies more than a thousandfold above the sizes measured")
    assert emergence.place(far, np.array([1e4, 1e6])) == {"S": None, "interval": "200k … > 1B"}
    nowhere = SizeAtLevel(0.5, None, None, None, True, "its interval is unbounded")
    assert emergence.place(nowhere, np.array([1e4, 1e6])) == {"S": None, "interval": None}
    within = SizeAtLevel(0.5, 2e5, 1e5, 4e5, False, "within")
    assert emergence.place(within, np.array([1e4, 1e6])) == {"S": "200k", "interval": "100k … 400k"}


def test_the_gain_of_pairing_is_measured(runs):
    points = points_from_records(runs, KS)
    result = compute([paired], Inputs(points, fit_all(points)))["paired"]
    gains = [difference.gain for _, _, difference in result.pairs]
    assert f"{min(gains):.1f} to {max(gains):.1f} times narrower" in paired.section(result).lead
