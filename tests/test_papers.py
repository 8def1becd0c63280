"""Ours against the papers: every verdict, what must not be compared, and claims held against published numbers."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console

from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.commands import analyze
from rbp_lab.config.directory import CONF
from rbp_lab.fits.against_k import TABLE1_KS, fit_against_k
from rbp_lab.fits.decomposition import part_scalings
from rbp_lab.fits.paired import exponent_difference
from rbp_lab.fits.points import POOLED, FitPoints, Label
from rbp_lab.fits.power import fit_power
from rbp_lab.jobs.composition import plain
from rbp_lab.laws.base import Inputs
from rbp_lab.laws.registry import compute
from rbp_lab.papers.compare import compare_differences, compare_parts, compare_table1, compare_table2
from rbp_lab.papers.comparison import comparisons_to_frame, remarks
from rbp_lab.papers.published import FAMILIES, published_claims, published_name
from rbp_lab.papers.run import PAPER_LAWS, against_papers, other_protocols, read_papers
from rbp_lab.papers.section import papers_section
from rbp_lab.papers.terminal import show_papers
from rbp_lab.points import points_from_records, validate
from tests.fits_data import GPT2_K1, PYTHIA_K1, fit_points, ladder, synthetic_record

PAPERS = read_papers()
K1 = Label("Pythia", "Wikipedia", "neg_log_rbp", 1)


def beside(points, records=()):
    """The comparison of everything that these points and runs give."""
    inputs = Inputs(points, fit_all(points, records=records), records)
    return against_papers(inputs, compute(PAPER_LAWS, inputs))


def pythia(slope=None, keep=10, factor=1.0, label=K1):
    """The published Pythia points, or values on a line of this slope with the same scatter."""
    points = fit_points(PYTHIA_K1)
    value = points.value if slope is None else points.value * (points.x / 1e8) ** (slope + 0.07942)
    names = points.names[:keep]
    return fit_power(FitPoints(points.x[:keep] * factor, value[:keep], names), label)


def verdict_of(fit, papers=PAPERS, **kwargs):
    (comparison,) = compare_table2([fit], papers, **kwargs)
    return comparison


def test_the_published_points_give_the_published_slopes():
    gpt2 = fit_power(fit_points(GPT2_K1), Label("gpt2", "wikipedia", "neg_log_rbp", 1))
    ours = compare_table2([gpt2, pythia()], PAPERS)
    assert [c.verdict for c in ours] == ["agrees"] * 2 and [c.published for c in ours] == [-0.056, -0.079]
    assert all(abs(c.difference) <= 5e-4 and abs(c.ours_r2 - c.published_r2) <= 5e-4 for c in ours)
    assert [c.published_n for c in ours] == [4, 10]
    # statistics by hand: 0.056·sqrt((1/0.983 − 1)/2)·t(2) = 0.056·0.09299·4.3027
    assert ours[0].published_low == pytest.approx(-0.056 - 0.02241, abs=2e-5)
    assert ours[0].published_high == pytest.approx(-0.056 + 0.02241, abs=2e-5)
    assert ours[0].ours_low < ours[0].ours < ours[0].ours_high < 0


@pytest.mark.parametrize(
    ("slope", "verdict"),
    [(-0.0781, "agrees"), (-0.0776, "within_interval"), (-0.0735, "within_interval"), (-0.0728, "outside"),
     (-0.0799, "agrees"), (-0.0845, "within_interval"), (-0.0852, "outside")],
)  # fmt: skip
def test_rounding_then_the_implied_interval_then_outside(slope, verdict):
    comparison = verdict_of(pythia(slope))
    assert comparison.ours == pytest.approx(slope, abs=1e-4) and comparison.verdict == verdict
    assert "[−0.085, −0.073]" in comparison.sentence or verdict == "agrees"


def test_other_models_are_not_compared_but_shown():
    fewer = verdict_of(pythia(keep=9))
    assert fewer.verdict == "not_comparable" and fewer.reason == "9 models, the paper has 10"
    assert fewer.ours is not None and "cannot be compared" in fewer.sentence
    total = verdict_of(pythia(factor=1.3))
    assert total.verdict == "not_comparable" and "10 of our 10 models have sizes that the paper's" in total.reason
    rounded = verdict_of(pythia(factor=1.001))  # "85.1M" written in a table of one's own
    assert rounded.verdict == "agrees"


def test_what_is_not_in_the_papers_is_left_out():
    labels = [
        Label("Pythia", "stdlib", "neg_log_rbp", 1), Label("ladder", "wikipedia", "neg_log_rbp", 1),
        Label("Pythia", "wikipedia", "neg_log_rbp", 50), Label(POOLED, "wikipedia", "neg_log_rbp", 1),
        Label("Pythia", "wikipedia", "neg_log_p", 1, 5),
    ]  # fmt: skip
    assert compare_table2([pythia(label=label) for label in labels], PAPERS) == ()
    assert [published_name(f, FAMILIES) for f in ("Qwen2.5", "GPT2", "hf")] == ["Qwen", "GPT2", None]


def test_a_refused_fit_and_a_degenerate_row():
    size = np.array(sorted(PAPERS.models["Qwen"].values()))
    refused = fit_power(FitPoints(size, np.zeros(5)), Label("qwen2.5", "humaneval", "neg_log_rbp", 1))
    comparison = verdict_of(refused)
    assert comparison.verdict == "not_fitted" and "value is 0 for every model" in comparison.sentence
    flat = replace(refused, label=Label("qwen2.5", "humaneval", "neg_log_rbp", 10000))
    comparison = verdict_of(flat)
    assert comparison.verdict == "degenerate" and comparison.published_low is None and comparison.difference is None
    fitted = fit_power(FitPoints(size, size**-0.2), flat.label)
    assert verdict_of(fitted).verdict == "degenerate"


def test_an_r2_of_one_leaves_the_interval_some_width():
    papers = replace(PAPERS, table2={("Wikipedia", "Pythia", 1): (-0.082, 1.0)})
    comparison = verdict_of(pythia(), papers)
    assert comparison.published_high - comparison.published_low == pytest.approx(0.003, abs=2e-4)
    assert comparison.verdict == "outside"


def test_the_claims_that_the_published_numbers_do_not_bear_out():
    small_k, falls, fits = published_claims(PAPERS)
    assert small_k.checked == 72 and len(small_k.counterexamples) == 7
    assert "HumanEval/GPT2 k=1 R² 0.895" in small_k.counterexamples
    assert falls.counterexamples == ("Wikipedia/GPT2 k=10000 slope +0.090 (R² 0.915)",)
    assert fits.counterexamples == ("HumanEval/Qwen k=10000 R² 1.000 with slope 0.000: degenerate",)
    fine = replace(PAPERS, table2={("C4", "OPT", 1): (-0.055, 0.993), ("C4", "OPT", 500): (-0.185, 0.962)})
    assert [c.counterexamples for c in published_claims(fine)] == [()] * 3
    assert "all 1 published numbers bear it out" in published_claims(fine)[0].sentence


def test_the_data_files_are_complete():
    assert len(PAPERS.table2) == 6 * 4 * 7 and len(PAPERS.table1) == 4 * 24 and len(PAPERS.parts) == 20
    assert {family: len(models) for family, models in PAPERS.models.items()} == {
        "GPT2": 4, "OPT": 5, "Pythia": 10, "Qwen": 5,
    }  # fmt: skip
    assert all(slope <= 0 or key == ("Wikipedia", "GPT2", 10000) for key, (slope, _) in PAPERS.table2.items())
    assert {model for _, _, model in PAPERS.table1} == {m for models in PAPERS.models.values() for m in models}


def wikipedia_table(model, slope, ks=TABLE1_KS, noise=1.02):
    rows = [
        {"model": model, "family": "pythia", "size": 85056000.0, "dataset": "wikipedia", "metric": "neg_log_rbp",
         "k": k, "window": 1, "value": 0.8 * k**slope * noise ** (-1) ** i, "se_log": np.nan, "n": None, "key": ""}
        for i, k in enumerate(ks)
    ]  # fmt: skip
    return validate(pd.DataFrame(rows))


def test_table_1_by_model():
    name = "EleutherAI/pythia-160m"

    def compared(**kwargs):
        points = wikipedia_table(name, **kwargs)
        return compare_table1([fit_against_k(points, name, "wikipedia")], {name: "pythia"}, PAPERS)[0]

    same, other = compared(slope=-0.406), compared(slope=-0.45)
    assert (same.verdict, same.published, same.published_n, same.ours_n) == ("agrees", -0.406, 11, 11)
    assert other.verdict == "outside" and "pythia-160m, wikipedia" in other.sentence
    fewer = compared(slope=-0.406, ks=(1, 10, 50, 100))
    assert fewer.verdict == "not_comparable" and fewer.reason == "4 of the 11 k of appendix B"


@pytest.mark.parametrize(("gap", "verdict"), [(0.0085, "agrees"), (0.0125, "in_our_interval"), (0.05, "outside")])
def test_alpha_of_ce_against_alpha_of_k(gap, verdict):
    law = pythia()  # published α_CE − α_1 = 0.087 − 0.079
    x, wave = np.log(law.points.x), 0.035 * np.cos(np.arange(10) * 2.5)
    wave -= np.polyval(np.polyfit(x, wave, 1), x)
    value = law.points.value * np.exp(wave - gap * (x - 18))
    ce = fit_power(FitPoints(law.points.x, value, law.points.names), Label("Pythia", "Wikipedia", "ce"))
    (comparison,) = compare_differences([(law, exponent_difference(ce, law))], PAPERS)
    assert comparison.published == pytest.approx(0.008) and comparison.ours == pytest.approx(gap)
    assert comparison.verdict == verdict and comparison.quantity == "CE minus −log RBP_1"


def test_parts_of_cross_entropy_against_their_r2():
    table = pd.DataFrame({"dataset": "wikipedia", "family": "qwen2.5", "model": list("abcde")})
    table["size"] = 1e8 * 2.0 ** np.arange(5)
    for part, r in zip(("cross_entropy", "error_entropy", "self_alignment", "confidence"), (0, 0, 0.3, 1), strict=True):
        table[part] = table["size"] ** -0.1 * np.exp(r * np.array([1, -1, 0.5, -1, 0.5]))
    laws = [part.law for part in part_scalings(table, "wikipedia", "qwen2.5")]
    found = compare_parts(laws, PAPERS)
    assert [c.published for c in found] == [0.973, 0.975, 0.944, 0.298] and {c.verdict for c in found} == {"differs"}
    near = replace(PAPERS, parts={("Wikipedia", "Qwen", "confidence"): round(laws[3].r2, 3)})
    assert [c.verdict for c in compare_parts(laws, near)] == ["agrees"]


def paper_runs(**scoring):
    """Synthetic runs under the names and sizes of the paper's GPT-2 on Wikipedia."""
    return [
        synthetic_record(name, int(size), seed=i, family="gpt2", dataset="wikipedia", **scoring)
        for i, (name, size) in enumerate(PAPERS.models["GPT2"].items())
    ]


def test_runs_give_every_comparison():
    runs = paper_runs()
    points = points_from_records(runs, [*TABLE1_KS, 500])
    result = beside(points, runs)
    sources = comparisons_to_frame(result.comparisons).groupby(["source", "what"]).size().to_dict()
    assert sources == {
        ("[RBP] table 2", "slope"): 5, ("[RBP] table 2", "α_CE − α_k"): 4, ("[RBP] table 1", "slope"): 4,
    }  # fmt: skip
    assert not any("table 1" in note or "protocol" in note for note in result.notes)
    on_c4 = [replace(run, header=replace(run.header, dataset=replace(run.dataset, name="c4"))) for run in runs]
    points = points_from_records(on_c4, [1])
    parts = [c for c in beside(points, on_c4).comparisons if c.source == "[EE]"]
    assert [c.family for c in parts] == ["gpt2"] * 4  # one family is not "all" of them
    opt = [synthetic_record(f"opt-{i}", 10 ** (8 + i), i, family="opt", dataset="wikipedia") for i in range(3)]
    more = on_c4 + [replace(run, header=replace(run.header, dataset=on_c4[0].dataset)) for run in opt]
    points = points_from_records(more, [1])
    parts = [c for c in beside(points, more).comparisons if c.source == "[EE]"]
    assert [c.family for c in parts] == ["gpt2"] * 4 + [POOLED] * 4


def test_another_protocol_is_no_disagreement():
    runs = paper_runs(protocol={"windows": "truncate", "max_tokens": 256})
    assert other_protocols(runs) == {"wikipedia": "another protocol than the paper's: max_tokens 256"}
    points = points_from_records(runs, [1])
    result = beside(points, runs)
    assert {c.verdict for c in result.comparisons} == {"not_comparable"}
    assert any("max_tokens 256" in line for line in result.lines)
    source = {"num_documents": 100, "shuffle_seed": 42}
    fewer = [replace(r, header=replace(r.header, dataset=replace(r.dataset, source=source))) for r in paper_runs()]
    assert "num_documents 100" in other_protocols(fewer)["wikipedia"]
    assert other_protocols(ladder()) == {} == other_protocols(paper_runs())


def test_nothing_in_common_with_the_papers_says_so():
    points = points_from_records(ladder(), [1])
    result = beside(points)
    assert result.comparisons == () and len(result.to_frame()) == 0 and "verdict" in result.to_frame()
    assert "no number for what was analysed (ladder on stdlib)" in result.notes[0]


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_into_80_columns_and_sentences_follow(width):
    points = points_from_records(paper_runs(), [*TABLE1_KS, 10000])
    result = beside(points, paper_runs())
    stream = io.StringIO()
    show_papers(
        Console(file=stream, width=width, force_terminal=True, color_system=None), result.comparisons, result.lines
    )
    text = stream.getvalue()
    assert "…" not in text and "nan" not in text.lower() and max(map(len, text.splitlines())) <= width
    assert "not fitted ([RBP] table 2, wikipedia, gpt2: −log RBP_10000" in text.replace("\n", " ")
    assert f"{len(result.comparisons)} comparisons with the papers" in text and "Github/GPT2" in text


def test_the_widest_row_fits_into_80_columns():
    size = np.array([1e8, 1e9, 1e10])
    law = fit_power(FitPoints(size, size**-0.3), Label("qwen2.5", "humaneval", "neg_log_rbp", 2500))
    wide = [replace(verdict_of(law), k=10000)]
    stream = io.StringIO()
    show_papers(Console(file=stream, width=80), wide, [])
    assert "…" not in stream.getvalue() and "qwen2.5" in stream.getvalue() and "not comparable" in stream.getvalue()


def test_experiment_paper_asks_for_the_comparison_and_writes_it(tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose("analyze", ["experiment=paper", "source=csv", f"csv={tmp_path}/v.csv"]))
    assert config["papers"] is True and config["name"] == "paper" and config["k"]["thresholds"][-1] == 30000
    lines = [f"GPT2,{m},{size},Wikipedia,1,{value}" for m, (size, value) in GPT2_K1.items()]
    (tmp_path / "v.csv").write_text("\n".join(["family,model,non_embedding_params,dataset,k,neg_log_rbp", *lines]))
    config |= {"store": str(tmp_path), "tracking": None, "fit": config["fit"] | {"laws": False}}
    stream = io.StringIO()
    analyze.run(config, Console(file=stream, width=80))
    written = pd.read_csv(tmp_path / "analysis" / "paper" / "paper_comparison.csv")
    assert written[["published", "verdict", "ours_n"]].to_numpy().tolist() == [[-0.056, "agrees", 4]]
    assert "agrees 1" in stream.getvalue()
    assert "Against the papers" in (tmp_path / "analysis" / "paper" / "report.html").read_text("utf-8")
    analyze.run(config | {"papers": False}, Console(file=io.StringIO()))
    assert not (tmp_path / "analysis" / "paper" / "paper_comparison.csv").exists()


def test_remarks_share_a_reason():
    fits = [pythia(keep=9), pythia(keep=9, label=replace(K1, k=10)), pythia(slope=-0.06, label=replace(K1, k=100))]
    lines = remarks(compare_table2(fits, PAPERS))
    assert lines[0].startswith("3 comparisons") and "outside 1, not comparable 2" in lines[0]
    assert lines[1].startswith("−log RBP_100 (Pythia, Wikipedia): our slope −0.0600 lies outside")
    assert lines[2] == (
        "not comparable ([RBP] table 2, Wikipedia, Pythia: −log RBP_1, −log RBP_10): 9 models, the paper has 10"
    )


def test_the_section_of_the_report():
    comparisons = compare_table2([pythia(), pythia(keep=9, label=replace(K1, k=10))], PAPERS)
    section = papers_section(comparisons, published_claims(PAPERS), ["a note"])
    frame = section.tables[0].frame
    assert list(frame["verdict"]) == ["agrees", "not comparable"] and "model" not in frame
    assert frame["published"][0] == "−0.079\n[−0.085, −0.073]" and section.notes[-1] == "a note"
    assert len(section.tables[1].frame) == 3
