"""Precisions and protocols as dimensions of an analysis: laws of their own, never pooled, compared one at a time."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.analysis.sources import Selection, gather
from rbp_lab.config.schemas import Filters, KSpec
from rbp_lab.counting import DocumentScores, document_table
from rbp_lab.dimensions import named_apart, told_apart, without_dimension
from rbp_lab.errors import LabError
from rbp_lab.fits.gls import DocumentErrors, beside, independent
from rbp_lab.fits.paired import exponent_difference
from rbp_lab.fits.points import POOLED
from rbp_lab.fits.power import fit_power
from rbp_lab.laws import dimensions, precision, questions
from rbp_lab.laws.base import Inputs
from rbp_lab.laws.registry import LAWS, compute, sections, tables
from rbp_lab.points import points_from_records
from rbp_lab.records import record_key
from rbp_lab.store.records import write_record
from tests.fits_data import PYTHIA_K1, fit_points, synthetic_record

SHORT = {"windows": "truncate", "max_tokens": 64}


def run(family, i, quantisation=None, seed=None, **kwargs):
    """A run; its weights are the same at every precision, its scores those of ``seed``."""
    seed = i if seed is None else seed
    record = synthetic_record(f"{family}-{i}", int(1e4 * 2.5**i), seed=seed, family=family, vocab=2000, **kwargs)
    model = replace(record.model, quantisation=quantisation)
    header = replace(record.header, model=model)
    return replace(record, header=replace(header, key=record_key(model, header.dataset, header.scoring)))


@pytest.fixture(scope="module")
def several():
    """Two families of 5; one of them at three precisions, and in one also by another protocol and on another corpus."""
    runs = [run(f, i, seed=i + 50 * (f == "b")) for f in "ab" for i in range(5)]
    runs += [run("a", i, seed=i + 100 * (i % 2), dtype="bfloat16") for i in range(5)]
    runs += [run("a", i, "int8", seed=i + 500 * (i == 2)) for i in range(5)]  # most with the counts of float32
    runs += [run("a", i, protocol=SHORT, seed=i + 300) for i in range(5)]
    return runs + [run("a", i, dataset="other", seed=i + 400) for i in range(5)]


def selected(store, **filters):
    return gather(Selection(str(store), KSpec([1, 10, 100]), filters=Filters(**filters)))


@pytest.fixture(scope="module")
def store(several, tmp_path_factory):
    root = tmp_path_factory.mktemp("dimensions")
    for record in several:
        write_record(root, record)
    return root


@pytest.fixture(scope="module")
def inputs(store):
    found = selected(store)
    return Inputs(found.points, fit_all(found.points, records=found.records), found.records)


def test_what_agrees_keeps_its_name():
    runs = [run(f, i) for f in "ab" for i in range(2)]
    headers = [r.header for r in runs]
    assert named_apart(headers) == headers
    assert {(d.precision, d.protocol) for d in told_apart(runs).values()} == {("", "")}
    mixed = [run("a", 0), run("b", 0, "Q4_1")]  # one precision in each family: the family says enough
    assert [h.model.family for h in named_apart([r.header for r in mixed])] == ["a", "b"]
    assert [d.precision for d in told_apart(mixed).values()] == ["not rounded", "Q4_1"]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"tf32": True}, ("no tf32", "tf32")),
        ({"logits": "bfloat16"}, ("logits float32", "logits bfloat16")),
        ({"candidates": "tokens"}, ("candidates rows", "candidates tokens")),
    ],
)
def test_every_choice_is_told_in_words(chosen, words):
    told = told_apart([run("a", 0), run("a", 0, **chosen)]).values()
    assert tuple(d.precision or d.protocol for d in told) == words
    assert all(bool(d.protocol) == ("candidates" in chosen) for d in told)


def test_names_show_the_precision_once_and_before_a_step():
    def named(record, name):
        return replace(record.header, model=replace(record.model, name=name))

    headers = [named(run("a", 0), "m@step8"), named(run("a", 0, "int8"), "m@step8+INT8")]
    assert [h.model.name for h in named_apart(headers)] == ["m, not rounded@step8", "m, int8@step8"]
    headers = [named(run("a", 0), "a+b"), named(run("a", 0, "int8"), "int8+b+int8")]  # only a mark at the end is one
    assert [h.model.name for h in named_apart(headers)] == ["a+b, not rounded", "int8+b, int8"]
    assert without_dimension("m, int8@step8", "int8") == "m@step8" and without_dimension("m", "") == "m"


def test_a_store_of_many_precisions_and_protocols_is_analysed(store, several):
    found = selected(store)
    assert len(found.records) == len(several) == 30
    families = {"a, float32", "a, bfloat16", "a, float32, int8", "b"}
    assert set(found.points["family"]) == families
    assert set(found.points["dataset"]) == {"stdlib, max tokens 512", "stdlib, max tokens 64", "other"}
    assert any("no law pools: a, bfloat16; a, float32; a, float32, int8" in note for note in found.notes)
    fits = {(f.label.family, f.label.dataset, f.label.metric, f.label.k): f for f in fit_all(found.points)}
    assert not any(family is POOLED for family, *_ in fits)
    alone = [r for r in several if r.scoring.dtype == "bfloat16"]
    expected = fit_all(points_from_records(alone, [10]))[1]
    law = fits["a, bfloat16", "stdlib, max tokens 512", "neg_log_rbp", 10]
    assert law.params == pytest.approx(expected.params) and law.n == 5


def test_corpora_of_one_name_are_data_sets_of_their_own(tmp_path):
    """A short look at three documents does not spoil the analysis of a store, and takes no part in its laws."""
    whole = [run("a", i) for i in range(3)]
    for record in (*whole, run("a", 0, corpus_text=" in short", documents=3)):
        write_record(tmp_path, record)
    found = selected(tmp_path)
    assert set(found.points["dataset"]) == {"stdlib, 30 documents", "stdlib, 3 documents"}
    assert any("and each corpus is a data set of its own" in note for note in found.notes)
    assert not any("protocol" in note for note in found.notes)
    law, alone = (next(f for f in fit_all(p) if f.ok) for p in (found.points, points_from_records(whole, [1])))
    assert law.params == alone.params and law.n == 3
    other = replace(whole[1].header, dataset=replace(whole[1].header.dataset, fingerprint="0" * 64))
    named = [header.dataset.name for header in named_apart([whole[0].header, other])]
    assert named == ["stdlib, texts fingerprint ", "stdlib, texts 000000000000"]


def test_names_that_an_analysis_shows_can_be_filtered_by(store, tmp_path):
    for record in (*(run("a", i) for i in range(3)), run("a", 0, corpus_text=" in short", documents=3)):
        write_record(tmp_path, record)
    (short,) = selected(tmp_path, dataset="stdlib, 3 documents").records
    assert short.dataset.num_documents == 3
    found = selected(store, family="a, bfloat16", dataset="stdlib, max tokens*")
    assert len(found.records) == 5 and {r.scoring.dtype for r in found.records} == {"bfloat16"}
    both = selected(store, family=["a, bfloat16", "a, float32"], dataset="stdlib, max tokens*")
    assert set(both.points["family"]) == {"a, bfloat16", "a, float32"}
    assert set(both.points["dataset"]) == {"stdlib, max tokens 512", "stdlib, max tokens 64"}
    assert len(selected(store, model="a-1, float32", dataset="other").records) == 1
    with pytest.raises(LabError, match=r'family: a, "a, bfloat16", "a, float32", "a, float32, int8", b$'):
        selected(store, family="a, float16")


def test_runs_of_one_precision_are_said_to_have_nothing_to_compare(store):
    def notes(**filters):
        chosen = Selection(str(store), KSpec([1]), compare="precision", filters=Filters(**filters))
        return [note for note in gather(chosen).notes if "nothing to compare" in note]

    assert notes() == notes(family="a") == [] and len(notes(dtype="bfloat16")) == len(notes(dataset="other")) == 1


def test_families_of_one_precision_are_pooled(store):
    found = selected(store, dtype="bfloat16")
    assert set(found.points["family"]) == {"a"} and not found.notes
    found = selected(store, model="*-*", family=["b"])
    assert set(found.points["family"]) == {"b"} and set(found.points["dataset"]) == {"stdlib"}
    both = [run(f, i) for f in "ab" for i in range(3)]
    assert any(f.label.family is POOLED for f in fit_all(points_from_records(both, [1])))
    other = [run("a", i) for i in range(3)] + [run("b", i, dtype="bfloat16") for i in range(3)]
    points = points_from_records(other, [1])
    assert not any(f.label.family is POOLED for f in fit_all(points))
    parts = tables(compute(LAWS, Inputs(points, fit_all(points), other)))["parts"]
    assert not parts["pooled"].any()


def test_laws_are_compared_where_one_thing_differs(inputs):
    result = compute([dimensions], inputs)["dimensions"]
    kinds = [kind for kind, *_ in result.pairs]
    # of CE and three k: 3 pairs of precisions, 1 of protocols, data sets and, at one precision, families
    assert {kind: kinds.count(kind) for kind in kinds} == {"precision": 12, "protocol": 4, "data set": 4, "family": 4}
    table = result.tables["dimensions"]
    row = table[(table["differs_in"] == "precision") & (table["precision"] == "bfloat16")
                & (table["other"] == "float32, int8") & (table["quantity"] == "CE")].iloc[0]  # fmt: skip
    laws = {f.label.family: f for f in inputs.fits if f.label.metric == "ce" and f.label.dataset.endswith("512")}
    apart = laws["a, bfloat16"].params["alpha"] - laws["a, float32, int8"].params["alpha"]
    assert row["difference"] == pytest.approx(apart) and row["models"] == 5 and row["gain"] > 1
    (shown,) = [s for s in sections(LAWS, compute(LAWS, inputs)) if s.anchor == "dimensions"]
    assert len(shown.tables[0].frame) == 24 and "Of 24 comparisons about 1.2" in shown.lead


def test_one_precision_and_family_has_nothing_to_compare():
    runs = [run("a", i) for i in range(4)]
    points = points_from_records(runs, [1])
    assert dimensions.section(compute([dimensions], Inputs(points, fit_all(points), runs))["dimensions"]) is None


def test_documents_of_two_corpora_err_by_themselves():
    rng = np.random.default_rng(0)
    a, b = (DocumentErrors(rng.normal(size=(20, 3)), np.arange(20), 20.0) for _ in "ab")
    both = independent([a, b], (1, -1))
    np.testing.assert_allclose(both.covariance, a.covariance + b.covariance)
    assert independent([a, None], (1, -1)) is None and len(both.values) == 40
    points = fit_points(PYTHIA_K1)
    errors = DocumentErrors(rng.normal(size=(20, 10)) * np.linspace(-0.05, 0.05, 10), np.arange(20), 20.0)
    law = fit_power(points.with_errors(errors))
    near = fit_power(replace(points, value=points.value * np.exp(rng.normal(0, 0.001, 10)), errors=errors))
    same, other = (exponent_difference(law, near, same_documents=same) for same in (True, False))
    assert same.difference == other.difference and other.high - other.low > 10 * (same.high - same.low)


def test_families_are_compared_as_two_lines_on_the_same_documents(inputs):
    (difference,) = [d for kind, a, _, d in compute([dimensions], inputs)["dimensions"].pairs
                     if kind == "family" and a.law.label.k == 10]  # fmt: skip
    laws = {f.label.family: f for f in inputs.fits if f.label.k == 10 and f.label.dataset.endswith("512")}
    one, other = laws["a, float32"], laws["b"]
    assert difference.difference == pytest.approx(one.params["alpha"] - other.params["alpha"])
    both = beside(one.points.errors, other.points.errors)
    assert both.values.shape == (30, 10) and difference.models == 10
    np.testing.assert_array_equal(both.of(range(5)).values, one.points.errors.values)
    assert beside(one.points.errors, None) is None
    asked = compute([questions], inputs)["questions"].answered
    assert {a.about for a in asked if a.question == questions.SHARED} == {"a, float32 and b"}


def test_what_precision_costs_is_measured_over_paired_documents(store, inputs):
    result = compute([precision], inputs)["precision"]
    table = result.tables["precision"]
    assert set(table["model"]) == {f"a-{i}, {p}" for i in range(5) for p in ("bfloat16", "float32, int8")}
    assert len(table) == 10 * 4 and set(zip(table["precision"], table["bits"], strict=True)) == {
        ("bfloat16", 16), ("float32, int8", 8)
    }  # fmt: skip
    records = {r.model.name: r for r in inputs.records if r.dataset.name.endswith("512")}
    a, b = records["a-1, float32"].documents, records["a-1, bfloat16"].documents
    row = table[(table["model"] == "a-1, bfloat16") & (table["quantity"] == "RBP_10")].iloc[0]
    per_document = b.hits(10) - a.hits(10)  # documents of one length: the paired t interval of a mean
    moves = per_document - per_document.mean()
    carried = (moves**2).sum() ** 2 / (moves**4).sum()
    interval = stats.t.interval(0.95, min(29, 2 * carried - 1), per_document.mean(), stats.sem(per_document))
    assert (row["low"] * 120, row["high"] * 120) == pytest.approx(interval)
    assert row["difference"] == pytest.approx(per_document.sum() / 3600)
    same = table[table["model"] == "a-0, float32, int8"]
    assert (same["difference"] == 0).all() and (same["moved_at_least"] == 0).all()
    assert set(table["finest"]) == {"float32"}
    assert precision.section(result).tables[0].frame["bits"].isin([8, 16]).all()


def test_the_least_number_of_moved_ranks():
    def table(*ranks):
        n = np.array([len(r) for r in ranks])
        flat = np.concatenate(ranks).astype(np.int32) - 1
        zeros = np.zeros(len(flat), np.float32)
        scores = DocumentScores(np.arange(len(n)), n, n, zeros, flat, np.zeros(len(flat), np.int32), zeros)
        return document_table(scores, (1,))

    one = table([1, 1, 2, 5], [3, 3])
    assert precision.moved_at_least(one, one) == 0
    assert precision.moved_at_least(one, table([1, 2, 2, 5], [3, 3])) == pytest.approx(1 / 6)
    assert precision.moved_at_least(one, table([1, 1, 3, 3], [2, 5])) == pytest.approx(4 / 6)  # not across documents
    assert precision.moved_at_least(one, table([5, 2, 1, 1], [3, 3])) == 0  # places are not kept


def test_models_with_one_precision_have_no_cost_to_show():
    runs = [run("a", i) for i in range(3)] + [run("b", i, dtype="bfloat16") for i in range(3)]
    points = points_from_records(runs, [1])
    assert precision.section(compute([precision], Inputs(points, fit_all(points), runs))["precision"]) is None


def test_bits_are_those_that_the_format_names():
    formats = {None: 32, "int8": 8, "int4": 4, "Q4_K_M": 4, "Q8_0": 8, "fp8": 8, "BF16": 16}
    assert {q: precision.bits_of(run("a", 0, q)) for q in formats} == formats
    assert precision.bits_of(run("a", 0, dtype="bfloat16")) == 16
