"""Two models on several data sets: one page with a forest of intervals; nothing is pooled, p counts everything."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rbp_lab.cli import main
from rbp_lab.commands.compare import run as compare_records
from rbp_lab.commands.compare_models import run as compare_models
from rbp_lab.commands.compare_over import show_sweep
from rbp_lab.commands.measure import measure
from rbp_lab.comparison.differences import PairedSums, compare, holm
from rbp_lab.comparison.findings import Finding
from rbp_lab.comparison.overview import OnDataSet, differences_over, names_of, together, verdict
from rbp_lab.comparison.pairs import find_pairs
from rbp_lab.comparison.record import list_pairs
from rbp_lab.config.arguments import parse
from rbp_lab.errors import LabError
from rbp_lab.figures.forest import forest_figure
from rbp_lab.figures.style import point_titles
from rbp_lab.store.layout import Store
from tests.sources import measure_config, pair_config


def on(name, path, shift, seed, names=("cross-entropy", "RBP_1", "RBP_10"), kl=None):
    """What was found on a data set: every quantity is greater by ``shift`` under b."""
    rng = np.random.default_rng(seed)
    n = rng.integers(50, 90, 30).astype(float)
    a, noise = n * (0.5 + rng.normal(0, 0.1, 30)), rng.normal(0, 0.01, (len(names), 30))
    found = compare([PairedSums(what, "", a, n, a + n * (shift + e), n) for what, e in zip(names, noise, strict=True)])
    apart = {} if kl is None else {"KL(a‖b)": Finding("KL(a‖b)", "nats", "all", kl, kl / 2, 2 * kl, 9, 30)}
    return OnDataSet(name, found, path / name / "report.html", apart)


@pytest.fixture
def sets(tmp_path):
    return [on("w", tmp_path, 0.02, 1, kl=0.1), on("x", tmp_path, -0.02, 2, kl=0.2), on("y", tmp_path, 0.0, 3, kl=0.3)]


def test_p_counts_every_comparison_and_the_verdict_every_data_set(sets):
    both = together(sets)
    plain, adjusted = ([d for one in some for d in one.differences] for some in (sets, both))
    assert [d.p_adjusted for d in adjusted] == holm([d.p for d in plain])
    assert [replace(d, p_adjusted=None) for d in adjusted] == [replace(d, p_adjusted=None) for d in plain]
    said = verdict(both, "one", "two")
    assert said == ("of 3 data sets, by cross-entropy, run b, two, against run a, one, is worse on 1 and better on 1; "
                    "no difference is shown on 1 (p adjusted for 3 comparisons, Holm)")  # fmt: skip
    alone = [replace(one, differences=[replace(d, p=None, low=None) for d in one.differences]) for one in sets]
    assert verdict(together(alone), "one", "two") == "over 3 data sets no difference has an interval"
    one = [sets[0], alone[1], alone[2]]
    assert verdict(one, "one", "two").endswith("is worse on 1; there is no interval on 2")
    # Of many data sets without a difference few are called different: 40 at 5 % would be 2 without the adjustment.
    many = [replace(sets[2], differences=[replace(sets[2].differences[0], p=p)]) for p in np.linspace(0.02, 1, 40)]
    assert "no difference is shown on 40" in verdict(many, "one", "two")
    table = differences_over(both)
    assert list(table["dataset"]) == ["w"] * 3 + ["x"] * 3 + ["y"] * 3 and table["p_adjusted"].notna().all()


def test_the_forest_has_a_row_for_each_data_set_and_k_with_its_interval(sets):
    figure = forest_figure(sets, "T")
    rbp, ce, kl = figure.axes
    labels = [t.get_text() for t in rbp.get_yticklabels()]
    assert labels == [f"{name}k = {k}" for s in "wxy" for name, k in ((f"{s}, ", 1), ("", 10))]
    known = {d.name: d for d in sets[1].differences}
    drawn = np.concatenate([c.get_segments() for c in rbp.collections if len(c.get_segments())])
    row = drawn[(drawn[:, :, 1] == 3).all(1)]  # the second data set, k = 10
    np.testing.assert_allclose(row[0][:, 0], [100 * known["RBP_10"].low, 100 * known["RBP_10"].high])
    (bars,) = [c.get_segments() for c in ce.collections if len(c.get_segments())]
    np.testing.assert_allclose(bars[1], [[known["cross-entropy"].low, 2.5], [known["cross-entropy"].high, 2.5]])
    assert kl.get_xlim()[0] == 0 and kl.get_xlim()[1] > 0.6
    texts = [t for titles in point_titles(figure).values() for t in titles]
    assert len(texts) == 3 * 2 + 3 + 3 and sum(t.startswith("x: ") for t in texts) == 4


def test_other_tokens_have_a_forest_of_bits_per_byte_and_what_lacks_an_interval_is_left_out(tmp_path):
    bits = [on(name, tmp_path, 0.1, i, ("bits per byte",)) for i, name in enumerate("ab")]
    (panel,) = forest_figure(bits, "T").axes
    assert "bits per byte" in panel.get_title(loc="left") and len(panel.get_yticks()) == 2
    mixed = [on("a", tmp_path, 0.1, 0, ("cross-entropy", "RBP_1", "bits per byte")), bits[1]]
    assert [len(ax.get_lines()[0].get_xdata()) for ax in forest_figure(mixed, "T").axes] == [1, 1]
    none = [replace(one, differences=[replace(d, low=None, high=None) for d in one.differences]) for one in bits]
    with pytest.raises(LabError, match="no difference has an interval"):
        forest_figure(none, "T")


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_model_dir, tiny_near_dir):
    """Two models measured on two corpora; the same compared in one pass."""
    store = tmp_path_factory.mktemp("over")
    for name, seed in (("first", 0), ("second", 1)):
        more = {"dataset__name": name, "dataset__seed": seed, "dataset__num_documents": 12}
        for side, path in (("a", tiny_model_dir), ("b", tiny_near_dir)):
            config = measure_config(path, store, **more)
            measure({**config, "model": {**config["model"], "name": f"tiny-{side}"}})
        compare_models(pair_config(tiny_model_dir, tiny_near_dir, store, **more))
    return store


def asked_of(store, a, b, *names, **more):
    """Configurations of the comparisons in one pass that the fixture has made on these data sets."""
    seeds = {"first": 0, "second": 1, "third": 2}
    return [pair_config(a, b, store, dataset__name=name, dataset__seed=seeds[name], dataset__num_documents=12, **more)
            | {"confidence": 0.95, "name": None} for name in names]  # fmt: skip


def test_a_page_has_the_data_sets_that_were_asked_for_and_no_others(store, tiny_model_dir, tiny_near_dir, capsys):
    compare_models(asked_of(store, tiny_model_dir, tiny_near_dir, "third")[0])
    assert "data sets" not in capsys.readouterr().out  # though the store has others of these models
    pages = set()
    for names in (["first", "second"], ["third", "first"], ["second", "first"]):
        show_sweep(asked_of(store, tiny_model_dir, tiny_near_dir, *names))
        out = capsys.readouterr().out
        assert "over data sets; adjusted p are for all of them together" in out and "of 2 data sets" in out
        page = Path(out.split("report over 2 data sets: ")[1].replace("\n", ""))
        table = pd.read_csv(page.with_name("differences.csv"))
        assert list(dict.fromkeys(table["dataset"])) == names
        assert list(table["p_adjusted"].dropna()) == pytest.approx(holm(table["p"].dropna().tolist()))
        pages.add(page)
    assert len(pages) == 2  # the order of the data sets makes no other comparison
    for key, name in {h.key: h.a.dataset.name for h in list_pairs(store)}.items():
        own = pd.read_csv(Store(store).pair(key).differences)
        mine = table[table["dataset"] == name].reset_index(drop=True)
        if len(mine):
            pd.testing.assert_frame_equal(mine[["name", "low", "p"]], own[["name", "low", "p"]])
    text = page.read_text()
    assert "tiny-b against tiny-a on 2 data sets" in text and "b − a of RBP" in text and "KL(a‖b)" in text


def test_the_end_of_a_sweep_leaves_out_what_failed_and_has_a_page_for_each_two_models(
    store, tiny_model_dir, tiny_near_dir, capsys
):
    forth, back = ((tiny_model_dir, tiny_near_dir), (tiny_near_dir, tiny_model_dir))
    asked = asked_of(store, *forth, "first", "second")
    wrong = asked[0] | {"dataset": asked[0]["dataset"] | {"num_documents": -1}}
    never = asked_of(store, *forth, "first")[0] | {"ks": [2]}
    for config in (others := asked_of(store, *back, "first", "second")):
        compare_models(config)
    capsys.readouterr()
    show_sweep([wrong, never, asked[0], others[0], asked[1], others[1], asked[0]])
    assert capsys.readouterr().out.count("report over 2 data sets") == 2
    show_sweep([wrong, asked[0]])
    assert not capsys.readouterr().out


def one_pass(a, b):
    """Words of a command line that compares the models of two directories on two data sets."""
    sides = [f"{side}.model.{field}={value}" for side, path in (("a", a), ("b", b))
             for field, value in (("path", path), ("name", f"tiny-{side}"))]  # fmt: skip
    few = ["dataset.num_documents=2", "dataset.protocol.windows=truncate", "dataset.protocol.stride=null"]
    return ["model@a=hf", "model@b=hf", *sides, "dataset=stdlib,stdlib-train", *few]


def test_the_command_line_shows_the_data_sets_of_its_sweep(store, tiny_model_dir, tiny_near_dir, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["compare", *one_pass(tiny_model_dir, tiny_near_dir), f"store={store}", "tracking=none"])
    assert exit.value.code == 0
    out = capsys.readouterr().out
    assert out.count("report over 2 data sets") == 1 and out.index("stdlib-train, run") < out.index("report over")


def swept(store, *words):
    """The directories of comparisons that a command line makes, without the records of those in one pass."""
    before = set((store / "comparisons").iterdir())
    with pytest.raises(SystemExit) as exit:
        main(["compare", *words, "confidence=0.9,0.5", f"store={store}", "tracking=none"])
    assert exit.value.code == 0
    made = set((store / "comparisons").iterdir()) - before
    return {path.name: path for path in made if path.name not in {header.key for header in list_pairs(store)}}


def test_a_sweep_over_how_it_is_shown_keeps_every_page(store, tiny_model_dir, tiny_near_dir):
    """Of records and in one pass, of each data set and over both; the record of the pass stays one."""
    made = swept(store, "tiny-a", "tiny-b", "-m", "dataset=first")
    ((a, b), _) = find_pairs(str(store), "tiny-a", "tiny-b")
    assert set(made) == {f"{a.key}-{b.key}_confidence-{level}" for level in ("0.9", "0.5")}
    records = len(list(list_pairs(store)))
    made |= swept(store, *one_pass(tiny_model_dir, tiny_near_dir))
    assert len(list(list_pairs(store))) - records in (0, 2) and len(made) == 2 + 6  # found, or made once
    for name, path in made.items():
        level = name.rpartition("-")[2]
        assert set(pd.read_csv(path / "differences.csv")["level"].dropna()) == {float(level)}
        if name.startswith("over-"):
            page = (path / "report.html").read_text()
            linked = [other for other in made if other != name and other in page]
            assert len(linked) == 2 and all(other.endswith(f"_confidence-{level}") for other in linked)


def test_records_of_several_data_sets_are_one_comparison(store, capsys):
    compare_records({"store": str(store), "a": "tiny-a", "b": "tiny-b"})
    out = capsys.readouterr().out
    assert "over data sets; adjusted p are for all of them together" in out and "report over 2 data sets" in out
    page = Path(out.split("report over 2 data sets: ")[1].replace("\n", ""))
    table = pd.read_csv(page.with_name("differences.csv"))
    assert sorted(set(table["dataset"])) == ["first", "second"] and not page.with_name("distances.csv").exists()
    assert list(table["p_adjusted"].dropna()) == pytest.approx(holm(table["p"].dropna().tolist()))
    for wanted in ("fir*,third", "first", '"first"'):  # as a user writes it, for which Hydra has another meaning
        with pytest.raises(SystemExit) as exit:
            main(["compare", "tiny-a", "tiny-b", f"dataset={wanted}", f"store={store}", "tracking=none"])
        assert exit.value.code == 0
        out = capsys.readouterr().out
        assert "data sets" not in out and "on first" in out


def test_data_sets_of_one_name_are_told_apart(store):
    ((a, _), (other, _)) = find_pairs(str(store), "tiny-a", "tiny-b")
    same = replace(other, dataset=replace(other.dataset, name=a.dataset.name))
    assert names_of([a, other]) == ["first", "second"] or names_of([a, other]) == ["second", "first"]
    fewer = replace(same, dataset=replace(same.dataset, num_documents=3))
    assert names_of([a, fewer]) == [f"{a.dataset.name}, {n} documents" for n in (a.dataset.num_documents, 3)]
    as_many = [f"{a.dataset.name}, texts {header.dataset.fingerprint[:12]}" for header in (a, same)]
    assert names_of([a, same]) == as_many
    assert names_of([a, a]) == [f"{a.dataset.name}, run {a.key[:6]}"] * 2


def test_several_data_sets_need_no_flag():
    models = ["model@a=x", "model@b=y"]
    for word in ("dataset=a,b", "dataset=glob(paper-*)", "dataset=choice(a,b)"):
        assert parse("compare", [*models, word]).multirun
    for word in ("dataset=a", "dataset.files=[a,b]", 'dataset.name="a,b"'):
        assert not parse("compare", [*models, word]).multirun
    assert not parse("measure", ["model=x", "dataset=a,b"]).multirun  # says that it is a sweep
    records = parse("compare", ["x", "y", "dataset=a,b*"])
    assert not records.multirun and 'datasets="a,b*"' in records.overrides
    assert parse("compare", [*models, "dataset=a,b", "--cfg", "job"]).shows_jobs
