"""The analysis as a whole: what it writes and prints, and that an interrupted one leaves nothing half done."""

import io
import warnings
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from rbp_lab.analysis import run as stage
from rbp_lab.analysis.csv_points import points_from_csv
from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.analysis.run import ONLY_POWER_LAWS, analyze
from rbp_lab.analysis.sources import Selection, gather
from rbp_lab.config.schemas import Filters, KSpec
from rbp_lab.errors import LabError
from rbp_lab.fits.points import POOLED
from rbp_lab.points import points_from_records, validate
from rbp_lab.records import ParamCounts, record_key
from rbp_lab.store.records import write_record
from tests.fits_data import GPT2_K1, PYTHIA_K1, ladder, synthetic_record

PNG = replace(ONLY_POWER_LAWS, formats=["png"])


def printed(points, out, *fit, **kwargs):
    stream = io.StringIO()
    result = analyze(points, out, *fit, console=Console(file=stream, width=160), **kwargs)
    return result, stream.getvalue()


def test_ladder_from_runs(tmp_path):
    points = points_from_records(ladder(), [1, 2, 10, 100, 512])
    result, text = printed(points, tmp_path / "out", replace(ONLY_POWER_LAWS, formats=["png", "svg", "pdf"]))
    names = sorted(path.name for path in result.files)
    assert names == [
        "against_k_stdlib.pdf", "against_k_stdlib.png", "against_k_stdlib.svg", "fits.csv", "fits.parquet",
        "points.csv", "report.html", "scaling_stdlib.pdf", "scaling_stdlib.png", "scaling_stdlib.svg",
    ]  # fmt: skip
    assert all(path.stat().st_size for path in result.files)
    assert "ladder-5" in text and "RBP_100" in text and "3,600" in text
    assert str(tmp_path / "out" / "report.html") in text and "10 files" in text
    assert "no fit for ladder −log RBP_512: the value is 0 for every model" in text
    two = printed(points[points["model"] < "ladder-2"], tmp_path / "two")[1]
    assert "no fit for any law of ladder: an exponent with an interval needs at least 3 models; got 2" in two
    assert "nan" not in text.lower() and "few_models: fewer than 7" in text
    fits = pd.read_parquet(tmp_path / "out" / "fits.parquet")
    assert fits["status"].tolist() == ["ok"] * 5 + ["refused"]
    assert result.fit("ladder", "stdlib", "ce").ok
    with pytest.raises(LabError, match="no fit of −log RBP_3"):
        result.fit("ladder", "stdlib", "neg_log_rbp", 3)


def test_published_values_with_several_families(tmp_path):
    rows = [
        f"{family},{m},{s},Wiki pedia,1,{v}"
        for family, t in (("GPT2", GPT2_K1), ("Pythia", PYTHIA_K1))
        for m, (s, v) in t.items()
    ]
    csv = tmp_path / "v.csv"
    csv.write_text("\n".join(["family,model,non_embedding_params,dataset,k,neg_log_rbp", *rows]))
    result, text = printed(points_from_csv(csv), tmp_path / "out", replace(ONLY_POWER_LAWS, formats=["svg"]))
    assert result.fit("Pythia", "Wiki pedia", "neg_log_rbp", 1).params["alpha"] == pytest.approx(0.079, abs=1e-3)
    assert result.fit(POOLED, "Wiki pedia", "neg_log_rbp", 1).n == 14
    assert "CE" not in text  # no column of nothing
    assert {p.name for p in result.files} == {
        "points.csv", "fits.csv", "fits.parquet", "law_dimensions.csv", "report.html", "scaling_Wiki-pedia.svg",
    }  # fmt: skip


def test_one_model_and_no_model(tmp_path):
    result, text = printed(points_from_records(ladder(1), [1]), tmp_path / "out")
    assert all(f.status == "refused" for f in result.fits) and "at least 3 models; got 1" in text
    with pytest.raises(LabError, match="no points"):
        analyze(result.points.iloc[:0], tmp_path / "out")


def test_again_in_the_same_place_replaces_its_own_files_only(tmp_path):
    analyze(points_from_records(ladder(3, dataset="a"), [1, 10]), tmp_path, PNG)
    (tmp_path / "mine.txt").write_text("kept")
    analyze(points_from_records(ladder(3, dataset="b"), [1, 10]), tmp_path, PNG)
    names = {path.name for path in tmp_path.iterdir()}
    assert "scaling_b.png" in names and "scaling_a.png" not in names and "mine.txt" in names


def test_an_interrupted_write_leaves_no_file(tmp_path, monkeypatch):
    def broken(self, path, **kwargs):
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_parquet", broken)
    with pytest.raises(KeyboardInterrupt):
        analyze(points_from_records(ladder(3), [1]), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"points.csv", "fits.csv"}


def test_the_same_again_is_found_and_anything_else_is_not(tmp_path, monkeypatch):
    written = []

    def write(path, *_, **__):
        written.append(path)
        path.touch()
        return [path]

    monkeypatch.setattr(stage, "write_report", write)
    points = points_from_records(ladder(3), [1])
    first = analyze(points, tmp_path, PNG)
    again, text = printed(points, tmp_path, PNG)
    assert len(written) == 1 and again.files == first.files and "found as they were left" in text
    analyze(points, tmp_path, replace(PNG, confidence=0.9))
    analyze(points.assign(value=points["value"] * 1.5), tmp_path, PNG)
    assert len(written) == 3
    (tmp_path / "fits.csv").unlink()
    analyze(points.assign(value=points["value"] * 1.5), tmp_path, PNG)
    assert len(written) == 4
    monkeypatch.setattr(stage, "write_report", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # broken off halfway: the files there are a mixture now
        analyze(points, tmp_path, PNG)
    monkeypatch.setattr(stage, "write_report", write)
    analyze(points.assign(value=points["value"] * 1.5), tmp_path, PNG)
    assert len(written) == 5


def test_a_family_next_to_another_is_fitted_alone_and_pooled(tmp_path):
    records = ladder(4) + [synthetic_record(f"x-{i}", 20000 * 3**i, 50 + i, family="x") for i in range(3)]
    fits = fit_all(points_from_records(records, [1]))
    assert [(f.label.family, f.n) for f in fits if f.label.metric == "ce"] == [("ladder", 4), ("x", 3), (POOLED, 7)]


@pytest.mark.parametrize("name", ["pooled", "all families", "all", "None", "NA", "nan"])
def test_no_name_of_a_family_takes_the_place_of_all_families(tmp_path, name):
    """A family keeps its own law whatever it is called, and the law of all families stands beside it."""
    header = "family,model,non_embedding_params,dataset,k,neg_log_rbp"
    rows = [f"{name},p{i},{10.0 ** (6 + i)},d,10,{0.9 - 0.1 * i}" for i in range(4)]
    rows += [f"g,g{i},{10.0 ** (6 + i)},d,10,{0.95 - 0.2 * i}" for i in range(4)]
    (tmp_path / "p.csv").write_text("\n".join([header, *rows]))
    result, text = printed(points_from_csv(tmp_path / "p.csv"), tmp_path / "out", papers=True)
    assert sorted((str(f.label.family), f.n, f.label.family is POOLED) for f in result.fits) == sorted(
        [(name, 4, False), ("g", 4, False), ("None", 8, True)]
    )
    alphas = {f.params["alpha"] for f in result.fits}
    assert len(alphas) == 3 and sum("−log RBP_10" in line and "│" in line for line in text.splitlines()) == 3
    table = pd.read_csv(tmp_path / "out" / "fits.csv", keep_default_na=False)
    assert sorted(zip(table["family"], table["pooled"].astype(str), strict=True)) == sorted(
        [(name, "False"), ("g", "False"), ("", "True")]
    )
    assert "all families" in (tmp_path / "out" / "report.html").read_text()


HOSTILE = ["$x$ and $\\frac$", "_under", "[red]x[/red]", "[/]", "\x1b[31mred", "<script>alert(1)</script>", "x" * 300,
           "=1+1", "日本"]  # fmt: skip


def test_names_that_mean_something_to_a_program_stay_names(tmp_path):
    """Neither TeX, rich markup, escape codes, HTML, formulas nor length in a name breaks or changes an analysis."""
    rows = [
        {"model": f"{name}-{i}", "family": name, "size": 10.0 ** (6 + i), "dataset": dataset, "metric": "neg_log_rbp",
         "k": k, "window": 1, "value": (0.9 - 0.1 * i) / k**0.3, "se_log": float("nan"), "n": None, "key": ""}
        for name in HOSTILE for dataset in ("a b", "a-b", "$" + "d" * 300) for k in (1, 10) for i in range(3)
    ]  # fmt: skip
    points = validate(pd.DataFrame(rows))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result, text = printed(points, tmp_path / "out", replace(ONLY_POWER_LAWS, formats=["svg"]))
    assert all(path.is_file() for path in result.files) and len({p.name.casefold() for p in result.files}) == 11
    assert "\x1b[31mred" not in text and "\\x1b[31mred" in text and "[red]x[/red]" in text and "[/]" in text
    html = (tmp_path / "out" / "report.html").read_text()
    assert "\x1b" not in html and "<script>alert" not in html and "&lt;script&gt;alert" in html
    assert ">[/]</td>" in html and ">_under</td>" in html
    # What cannot be printed is refused in a table that is read; every other name comes back as it was.
    lines = (tmp_path / "out" / "points.csv").read_text().splitlines(keepends=True)
    (tmp_path / "printable.csv").write_text("".join(line for line in lines if "\x1b" not in line))
    printable = {name for name in HOSTILE if name.isprintable()}
    assert set(points_from_csv(tmp_path / "printable.csv")["family"]) == printable != set(HOSTILE)


def test_a_model_without_size_is_left_out_with_a_note_that_says_how_to_keep_it(tmp_path):
    runs = ladder(4, documents=4)
    model = replace(runs[0].model, params=ParamCounts(total=5000, embedding=5000, head=0))
    key = record_key(model, runs[0].dataset, runs[0].scoring)
    runs[0] = replace(runs[0], header=replace(runs[0].header, model=model, key=key))
    for run in runs:
        write_record(tmp_path, run)
    inputs = gather(Selection(store=str(tmp_path), k=KSpec([1])))
    assert len(inputs.records) == 3 and "ladder-0" not in set(inputs.points["model"])
    assert inputs.notes == ["left out are models with S = 0 (non_embedding_params), where a law in S has no place: "
                            "ladder-0; size=total_params counts all"]  # fmt: skip
    assert len(gather(Selection(store=str(tmp_path), k=KSpec([1]), size="total_params")).records) == 4
    with pytest.raises(LabError, match=r"every model has S = 0 .*: ladder-0; size=total_params counts all"):
        gather(Selection(store=str(tmp_path), k=KSpec([1]), filters=Filters(model="ladder-0")))
