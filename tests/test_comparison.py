"""Comparing two runs: the differences, intervals that hold, and runs that cannot be compared."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as distributions

from rbp_lab import metrics
from rbp_lab.commands.compare import run as compare_command
from rbp_lab.commands.measure import measure
from rbp_lab.comparison import differences
from rbp_lab.comparison.differences import POWER, PairedSums, compare, holm, influence, paired_sums
from rbp_lab.comparison.pairs import find_pairs, load_pair, of_documents
from rbp_lab.comparison.summary import per_document
from rbp_lab.counting import DocumentScores, document_table, rank_stats
from rbp_lab.errors import LabError
from rbp_lab.figures.comparison import comparison_figure
from rbp_lab.report.comparison.page import documents_frame
from rbp_lab.report.comparison.show import documents_table, worst_table
from rbp_lab.store.layout import Store
from tests.sources import measure_config

KS, WINDOWS, V = (1, 3, 10), (2, 3), 40


def scores(rng, documents=9, shift=0.0):
    sizes = np.random.default_rng(7).integers(3, 60, documents)
    n = int(sizes.sum())
    greater = np.minimum(rng.geometric(0.2 + shift, n) - 1, V - 1).astype(np.int32)
    nll = rng.gamma(2.0, 1.0, n).astype(np.float32)
    none = np.zeros(n, np.int32)
    return DocumentScores(np.arange(documents), sizes, 3 * sizes, nll, greater, none, nll)


@pytest.fixture
def two():
    rng = np.random.default_rng(1)
    return scores(rng), scores(rng, shift=0.1)


def test_values_are_those_of_the_whole_corpus_and_swapping_changes_the_sign(two):
    a, b = (document_table(s, KS) for s in two)
    totals = [rank_stats(s, V, (1, *WINDOWS)) for s in two]
    found = {d.name: d for d in compare(paired_sums(a, b, KS, WINDOWS, True))}
    back = {d.name: d for d in compare(paired_sums(b, a, KS, WINDOWS, True))}
    expected = {"cross-entropy": metrics.cross_entropy, "bits per byte": metrics.bits_per_byte}
    expected["error entropy"] = lambda stats: metrics.decomposition(stats).error_entropy
    expected |= {f"RBP_{k}": lambda stats, k=k: metrics.rbp(stats, k) for k in KS}
    expected |= {f"p_{{{n},{k}}}": lambda s, n=n, k=k: metrics.window_rbp(s, n, k) for n in WINDOWS for k in KS}
    assert found.keys() == expected.keys() == back.keys()
    for name, value in expected.items():
        assert found[name].a == pytest.approx(value(totals[0]), rel=1e-12)
        assert found[name].b == pytest.approx(value(totals[1]), rel=1e-12)
        assert found[name].difference == -back[name].difference and found[name].p == pytest.approx(back[name].p)
        assert found[name].low == pytest.approx(-back[name].high)
    assert paired_sums(a, b, KS, WINDOWS, False)[0].name == "bits per byte"


def test_influence_is_the_derivative_by_a_documents_weight(two):
    """Of every quantity, with the error entropy recomputed from the weighted histogram."""
    a, b = (document_table(s, KS) for s in two)
    chosen = {q.name: q for q in paired_sums(a, b, KS, WINDOWS, True)}

    def entropy(table, weights):
        total = np.bincount(table.rank, weights=table.count * np.repeat(weights, np.diff(table.indptr)))
        p = total[total > 0] / total.sum()
        return -(p * np.log(p)).sum()

    h = 1e-5
    for name, q in chosen.items():
        for m in (0, 4, 8):
            w = [np.ones(len(a)) + sign * h * (np.arange(len(a)) == m) for sign in (1, -1)]
            if name == "error entropy":
                up, down = (entropy(b, one) - entropy(a, one) for one in w)
            else:
                up, down = (q.x_b @ v / (q.n_b @ v) - q.x_a @ v / (q.n_a @ v) for v in w)
            assert influence(q)[m] == pytest.approx((up - down) / (2 * h), rel=1e-4, abs=1e-9)
        assert influence(q).sum() == pytest.approx(0, abs=1e-12)


def replicates(number, rng, documents, difference=0.0):
    """Quantities of made-up documents: lengths, a difficulty that both models share, and errors of their own."""
    for _ in range(number):
        n = rng.integers(50, 400, documents).astype(float)
        difficulty = rng.normal(0, 0.5, documents)
        x = [n * (3 + difficulty + rng.normal(0, 0.1, documents)) for _ in range(2)]
        yield PairedSums("x", "", x[0], n, x[1] + difference * n, n)


def coverage(number, documents, monkeypatch):
    """Shares of replicates whose intervals hold the truth, largest distance of p from uniform, and the power."""
    monkeypatch.setattr(differences, "RESAMPLINGS", 400)
    rng = np.random.default_rng(documents)
    null = [compare([q])[0] for q in replicates(number, rng, documents)]
    shift = float(np.mean([d.detectable for d in null]))
    shifted = [compare([q])[0] for q in replicates(number, rng, documents, shift)]
    student = np.mean([d.low <= 0 <= d.high for d in null])
    resampled = np.mean([d.resampled_low <= 0 <= d.resampled_high for d in null])
    uniform = distributions.kstest([d.p for d in null], "uniform").statistic
    return student, resampled, uniform, np.mean([d.low > 0 for d in shifted])


def test_intervals_hold_p_is_uniform_and_the_detectable_difference_is_detected(monkeypatch):
    student, resampled, uniform, power = coverage(300, 40, monkeypatch)
    assert 0.92 <= student <= 0.98 and 0.90 <= resampled <= 0.98
    assert uniform < 1.63 / np.sqrt(300) and abs(power - POWER) < 0.08


def test_the_detectable_difference_of_few_documents_is_not_too_small(monkeypatch):
    monkeypatch.setattr(differences, "RESAMPLINGS", 100)
    rng = np.random.default_rng(0)
    for freedom in (1, 2.5, 6):
        errors = np.sqrt(rng.chisquare(freedom, 200_000) / freedom)
        assert differences.mean_of_errors(freedom) == pytest.approx(errors.mean(), rel=5e-3)
    n = np.full(6, 100.0)
    found = [compare([PairedSums("x", "", n, n, n + x, n)])[0] for x in rng.normal(0, 1, (1500, 6))]
    shift = np.mean([d.detectable for d in found])
    shown = np.mean([[d.low + shift > 0, d.high - shift < 0] for d in found])
    assert 0.775 < shown < 0.825  # 0.75 without the mean of errors


@pytest.mark.parametrize("documents", [20, 100])
def test_intervals_hold_where_a_few_long_documents_hold_most_tokens(documents, monkeypatch):
    """Resampled from one set of documents whose lengths differ as files do; intervals of M − 1 hold 0.87 to 0.93."""
    rng = np.random.default_rng(5)
    sizes = np.exp(rng.normal(7, 1.3, 70)).round()
    x_a, x_b = (sizes * (3 + rng.normal(0, 0.3, 70) + 0.05 * np.log(sizes)) for _ in range(2))
    truth = (x_b.sum() - x_a.sum()) / sizes.sum()
    held = 0
    monkeypatch.setattr(differences, "RESAMPLINGS", 2)
    for _ in range(1000):
        i = rng.integers(0, 70, documents)
        q = PairedSums("x", "", x_a[i], sizes[i], x_b[i], sizes[i])
        (found,) = compare([q])
        held += found.low <= truth <= found.high
    assert 0.93 <= held / 1000 <= 0.975


def test_an_interval_of_two_documents_of_which_one_is_long_is_wide_and_finite():
    n = np.array([10_000.0, 20.0])
    (found,) = compare([PairedSums("x", "", 3 * n, n, n * [3.1, 2.9], n)])
    assert found.low < 0 < found.high and found.high - found.low < 10
    alone = PairedSums("x", "", 3 * n, n, np.array([30.0, 0.0]), np.array([10.0, 0.0]))
    assert compare([alone])[0].low is None


def test_one_document_that_carries_the_variance_costs_degrees_of_freedom():
    n, rng = np.full(40, 100.0), np.random.default_rng(3)
    even, one = np.tile([1.0, -1.0], 20), np.append(np.full(39, -1.0), 39.0)
    found = [differences.degrees_of_freedom(moves, n) for moves in (even, one)]
    assert found[0] == pytest.approx(39) and found[1] == pytest.approx(2 * (39 + 39**2) ** 2 / (39 + 39**4) - 1)
    assert differences.degrees_of_freedom(even, n, np.append(n[:39], 1e6)) == 1  # of the ratio with fewest
    alike = PairedSums("x", "", 3 * n, n, n * (3 + rng.normal(0, 1e-3, 40)), n)
    carried = PairedSums("x", "", 3 * n, n, 3 * n + one, n)
    se, freedom = differences.error(carried)
    assert freedom < 2 < 15 < differences.error(alike)[1]
    assert compare([carried])[0].high == pytest.approx(distributions.t.ppf(0.975, freedom) * se)


def test_the_jackknife_is_what_leaving_a_document_out_does(two):
    a = document_table(two[0], KS)
    x, n = a.nll_units * 1.0, a.num_scored * 1.0
    without = [(x.sum() - x[i]) / (n.sum() - n[i]) for i in range(len(n))]
    assert differences.jackknifed(x, n) == pytest.approx(x.sum() / n.sum() - np.array(without))
    assert not differences.jackknifed(x[:1], n[:1]).any()


@pytest.mark.slow
@pytest.mark.parametrize("documents", [20, 100, 1000])
def test_coverage_of_two_thousand_replicates(documents, monkeypatch):
    student, resampled, uniform, power = coverage(2000, documents, monkeypatch)
    print(f"\n{documents}: t {student:.3f}, resampled {resampled:.3f}, KS of p {uniform:.3f}, power {power:.3f}")
    assert 0.93 <= student <= 0.97 and 0.93 <= resampled <= 0.97
    assert uniform < 1.63 / np.sqrt(2000) and abs(power - POWER) < 0.05


def test_twice_as_exact_takes_four_times_the_documents(two):
    a, b = (document_table(s, KS) for s in two)
    one = compare(paired_sums(a, b, (1,), (), True))[0]
    assert one.documents_to_show(one.detectable) == one.documents
    assert one.documents_to_show(one.detectable / 2) == 4 * one.documents


def test_one_document_has_no_interval(two):
    a, b = (of_documents(document_table(s, KS), np.array([3])) for s in two)
    (first, *_) = compare(paired_sums(a, b, (1,), (), True))
    assert first.low is first.p is first.detectable is None and first.documents == 1
    assert first.documents_to_show(0.1) is None


def test_holm_on_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_rows_of_some_documents_are_those_of_a_table_of_them_alone(two):
    whole = document_table(two[0], KS)
    first = np.cumsum([0, *two[0].num_scored])
    chosen = [1, 4, 8]
    token = np.concatenate([np.arange(first[i], first[i + 1]) for i in chosen])
    per_token = {name: getattr(two[0], name)[token] for name in ("nll", "num_greater", "num_equal", "entropy")}
    per_document = {name: getattr(two[0], name)[chosen] for name in ("document_id", "num_scored", "num_bytes")}
    assert of_documents(whole, np.array(chosen)) == document_table(DocumentScores(**per_document, **per_token), KS)


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_model_dir, tiny_gpt2_dir):
    store = tmp_path_factory.mktemp("compare")
    for name, path in (("one", tiny_model_dir), ("two", tiny_gpt2_dir)):
        config = measure_config(path, store)
        measure({**config, "model": {**config["model"], "name": name}})
    config = measure_config(tiny_model_dir, store, precision__dtype="bfloat16")
    measure({**config, "model": {**config["model"], "name": "one"}})
    return store


def test_runs_are_found_by_name_key_and_filters(store):
    with pytest.raises(LabError, match=r"a=one names several runs on made-up with the same windows") as refused:
        find_pairs(store, "one", "two")
    cure = re.search(r"for example (\S+) in the place of one", str(refused.value))[1]
    assert len(find_pairs(store, cure, "two")) == 1
    ((a, b),) = find_pairs(store, "model=one,dtype=float32", "two")
    assert (a.model.name, a.scoring.dtype, b.model.name) == ("one", "float32", "two")
    assert find_pairs(store, a.key, b.key[:8]) == [(a, b)]
    pair = load_pair(store, a, b)
    assert pair.same_tokens and pair.left_out == 0 and len(pair.names) == len(pair.a_documents) == 23
    for wrong, why in (("three", "no such finished run 'three'"), ("model=x", "no such finished run"),
                       ("size=1", "no such filter 'size'"), ("two", "name the same run")):  # fmt: skip
        with pytest.raises(LabError, match=why):
            find_pairs(store, wrong, "two")
    with pytest.raises(LabError, match="a=model=one,model=two gives model twice"):
        find_pairs(store, "model=one,model=two", "two")
    with pytest.raises(LabError, match="names several runs") as refused:
        find_pairs(store, "model=*", "two")
    assert re.search(r"for example (\S+) in", str(refused.value))[1].count("model=") == 1
    with pytest.raises(LabError, match="there are no finished runs"):
        find_pairs(store / "nothing", "a", "b")


def test_a_damaged_run_is_left_out_and_said(store, tmp_path, capsys):
    copy = shutil.copytree(store, tmp_path / "copy")
    ((_, b),) = find_pairs(copy, "model=one,dtype=float32", "two")
    Store(copy).record(b.key).table("ranks").unlink()
    with pytest.raises(LabError, match="no such finished run 'two'"):
        find_pairs(copy, "model=one,dtype=float32", "two")
    assert re.search(f"note: .*{b.key} is not a readable record", capsys.readouterr().err)


def test_the_command_prints_the_headline_and_keeps_the_tables(store, capsys):
    compare_command({"store": str(store), "a": "model=one,dtype=float32", "b": "two", "detect": 0.01})
    out = capsys.readouterr().out
    assert "b − a of cross-entropy" in out and "over 23 documents" in out and "documents for 0.01" in out
    (directory,) = (store / "comparisons").iterdir()
    assert sorted(p.name for p in directory.iterdir()) == ["differences.csv", "documents.csv", "report.html"]
    page = (directory / "report.html").read_text()
    assert "run b, two, is worse than run a, one: b − a of cross-entropy" in out
    assert "Run b, two, is worse than run a, one: " in page
    assert "two against one on made-up" in page and page.count("<circle") + page.count("<use") > 23
    with pytest.raises(LabError, match="both were measured on made-up"):
        compare_command({"store": str(store), "a": "model=one,dtype=float32", "b": "two", "datasets": "x"})


def test_other_tokens_leave_bits_per_byte_of_the_whole_and_of_each_document(store):
    ((a, b),) = find_pairs(store, "model=one,dtype=float32", "two")
    other = replace(b, model=replace(b.model, tokenizer_size=b.model.tokenizer_size + 1))
    for second, same, what in ((b, True, "nats per token"), (other, False, "bits per byte")):
        pair = load_pair(store, a, second)
        assert pair.same_tokens is same
        chosen = paired_sums(pair.a_documents, pair.b_documents, KS, WINDOWS, same)
        documents = documents_table(pair, chosen)
        unit, *each = per_document(documents)
        assert unit == what and f"{what}, a" in [str(c.header) for c in worst_table(documents, documents).columns]
        assert f"{what}, a" in documents_frame(documents)
        assert f"{what} of a document, a" == comparison_figure(compare(chosen), documents, "T").axes[1].get_xlabel()
        for side, values in zip("ab", each, strict=True):
            sizes = documents[f"{'tokens' if same else 'bytes'}_{side}"]
            whole = getattr(compare(chosen)[0], side)
            assert (values * sizes).sum() / sizes.sum() == pytest.approx(whole, rel=1e-12)
