"""The law of aggregate observations on made-up runs whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from rbp_lab.config.schemas import FitChoices
from rbp_lab.counting import DocumentScores, document_table, rank_stats
from rbp_lab.laws import aggregate
from rbp_lab.laws.base import Inputs
from rbp_lab.points import points_from_records, with_sizes
from rbp_lab.records import DatasetInfo, ModelInfo, ParamCounts, RunHeader, RunRecord, ScoringSpec, record_key

CLASSES, TOKENS = 6, 100_000
SIZES, DATA = (1000, 4000, 16000), (100, 200, 400)


def value(size, instances):
    """−log RBP_1 of the made-up supervised classifiers."""
    return 2.0 * size**-0.1 * (instances / 400) ** -0.3


def run(size, instances, seed, neg_log, family="supervised", kind="supervised", m=1, loss="cross_entropy"):
    hits = round(TOKENS * np.exp(-neg_log))
    greater = np.zeros(TOKENS, np.int32)
    greater[hits:] = 1 + np.arange(TOKENS - hits) % (CLASSES - 1)
    each = np.full(TOKENS, 0.5, np.float32)
    scores = DocumentScores(
        np.arange(10), np.full(10, TOKENS // 10), np.zeros(10, np.int64), each, greater, np.zeros_like(greater), each
    )
    settings = {
        "task": {"kind": "Made", "label_noise": 0.0}, "classifier": {"kind": "MLP"},
        "objective": {"kind": kind, "loss": loss}, "observation": {"kind": "Proportions", "m": m},
        "training": {"reuse": 1}, "seed": seed,
    }  # fmt: skip
    name = f"{family}-{size}-{instances}-{seed}".replace(" ", "-")
    params = ParamCounts(size + 10, 0, 10)
    model = ModelInfo(name, family, "", None, name, "MLP", "float32", CLASSES, CLASSES, None, params, instances)
    dataset = DatasetInfo("made", "f" * 64, 10, {"set": "made"})
    scoring = ScoringSpec("float32", False, "float32", "rows", {"windows": "instances"}, (1, 2, 5), (1,))
    header = RunHeader(record_key(model, dataset, scoring), model, dataset, scoring)
    about = {"settings": settings, "training_instances": instances, "residual_label_entropy": 0.25}
    return RunRecord(
        header, rank_stats(scores, CLASSES, (1,)), document_table(scores, (1, 2, 5)), tuple("abcdefghij"), {},
        {"classifier": about},
    )  # fmt: skip


def luck(seed):
    return 1 + 0.01 * (seed - 1)


@pytest.fixture(scope="module")
def result():
    records = [run(s, n, seed, value(s, n) * luck(seed)) for s in SIZES for n in DATA for seed in range(3)]
    # Groups of 4 are worth 0.6 of the data at every size; groups of 8 less than a quarter, which nothing tells.
    for m, worth in ((4, 0.6), (8, 0.2)):
        records += [
            run(s, 400, seed, value(s, 400 * worth) * luck(seed), f"proportions m={m} likelihood", "likelihood", m)
            for s in SIZES for seed in range(3)
        ]  # fmt: skip
    records += [
        run(16000, 400, seed, value(16000, 400 * worth) * luck(seed), "proportions m=4 gce", "aggregate", 4, "gce")
        for seed, worth in enumerate((0.65, 0.7, 0.75))
    ]  # fmt: skip
    return aggregate.compute(
        Inputs(points_from_records(records, [1, 2, 5]), (), records, (1, 2), choices=FitChoices(laws=False))
    )


def test_equivalent_data_is_interpolated_at_the_size_and_never_beyond(result):
    worth = result.tables["aggregate_equivalent"].set_index(["family", "size"])
    for size in (*SIZES, "all"):
        row = worth.loc[("proportions m=4 likelihood", size)]
        assert row["equivalent_data"] == pytest.approx(0.6, rel=0.01)
        assert row["equivalent_data_low"] <= row["equivalent_data"] <= row["equivalent_data_high"]
        assert row["equivalent_data_high"] - row["equivalent_data_low"] < 0.02  # the luck of a seed cancels
    assert worth.loc[("proportions m=8 likelihood", "all"), "equivalent_data_outside"] == 9
    assert np.isnan(worth.loc[("proportions m=8 likelihood", "all"), "equivalent_data"])


def test_equivalent_size_is_interpolated_at_the_data(result):
    worth = result.tables["aggregate_equivalent"].set_index(["family", "size"])
    row = worth.loc[("proportions m=4 likelihood", 16000)]
    assert row["equivalent_size"] == pytest.approx(0.6 ** (-0.3 / 0.1), rel=0.05)
    assert np.isnan(worth.loc[("proportions m=4 likelihood", 1000), "equivalent_size"])  # below the smallest
    assert row["null_equivalent_size_low"] < 1 < row["null_equivalent_size_high"]


def test_differences_are_paired_by_seed(result):
    rows = result.tables["aggregate_accuracy"].set_index(["family", "size", "instances"])
    row = rows.loc[("proportions m=4 gce", 16000, 400)]
    worths = np.array([0.65, 0.7, 0.75])

    def rbp(worth, seed):
        return np.exp(-value(16000, 400 * worth) * luck(seed))

    supervised = [100 * (rbp(w, s) - rbp(1, s)) for s, w in enumerate(worths)]
    likelihood = [100 * (rbp(w, s) - rbp(0.6, s)) for s, w in enumerate(worths)]
    assert row["than_supervised"] == pytest.approx(np.mean(supervised), abs=0.01)
    assert row["worst_than_supervised"] == pytest.approx(min(supervised), abs=0.01)
    assert row["than_likelihood"] == pytest.approx(np.mean(likelihood), abs=0.01)
    half = 4.302652729911275 * np.std(likelihood, ddof=1) / np.sqrt(3)
    assert row["than_likelihood_high"] - row["than_likelihood"] == pytest.approx(half, abs=0.01)
    assert np.isnan(rows.loc[("supervised", 16000, 400), "than_supervised"])
    assert row["residual_label_entropy"] == 0.25


def test_exponents_are_those_of_means_over_seeds_at_the_most_data(result):
    rows = result.tables["aggregate_exponents"].set_index(["family", "metric", "k"])
    for family in ("supervised", "proportions m=4 likelihood"):
        row = rows.loc[(family, "neg_log_rbp", 1)]
        assert row["alpha"] == pytest.approx(0.1, rel=0.02) and row["sizes"] == 3
    assert "k_near_v" in rows.loc[("supervised", "neg_log_rbp", 5), "warnings"] and "k_near_v" not in row["warnings"]
    assert "proportions m=4 gce" not in rows.index.get_level_values("family")  # one size has no law


def test_the_section_shows_dashes_and_marks_k_near_the_number_of_classes(result):
    section = aggregate.section(result)
    worth, accuracy, exponents = section.tables
    dashes = worth.frame[(worth.frame["observed"] == "proportions m=8 likelihood")]["equivalent data"]
    assert set(dashes) == {"–"}
    assert accuracy.frame["RBP_5 %"].str.contains("k near K").all()
    assert not accuracy.frame["RBP_2 %"].str.contains("near").any()
    assert len(exponents.frame) == 3 and {f.name for f in section.figures} == {
        "aggregate_equivalent_made", "aggregate_difference_made",
    }  # fmt: skip


def test_runs_of_language_models_have_nothing_to_say():
    record = run(1000, 400, 0, 1.0)
    language = RunRecord(record.header, record.stats, record.documents, record.document_names)
    found = aggregate.compute(Inputs(pd.DataFrame(), (), [language]))
    assert aggregate.section(found) is None and not found.tables and not found.lacks


def test_data_sets_without_enough_sizes_take_no_part_in_laws():
    points = points_from_records([run(s, 400, 0, 1.0) for s in SIZES], [1])
    few = points[points["size"] < 10000].assign(dataset="few")
    both = pd.concat([points, few])
    assert set(with_sizes(both, 3)["dataset"]) == {"made"} and len(with_sizes(both, 1)) == len(both)
    assert len(with_sizes(few, 3)) == len(few)  # rather all than nothing


@pytest.mark.parametrize("supervised", [True, False])
def test_bags_of_whatever_size_have_no_m(supervised):
    records = [run(1000, 400, seed, 0.5, "bag likelihood", "likelihood", None) for seed in range(2)]
    records += [run(1000, n, seed, 0.4) for seed in range(2) for n in DATA] if supervised else []
    found = aggregate.compute(Inputs(points_from_records(records, [1, 2]), (), records))
    accuracy = found.tables["aggregate_accuracy"].set_index("family")
    assert pd.isna(accuracy.loc["bag likelihood", "m"])
    assert not supervised or set(accuracy.loc[["supervised"], "m"]) == {1}
    assert aggregate.section(found) is not None
