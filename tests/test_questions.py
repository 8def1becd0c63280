"""Open questions of the papers: what is told, what is not, and how many would be needed."""

import io
import math
import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.analysis.run import analyze
from rbp_lab.config.schemas import FitChoices
from rbp_lab.counting import DocumentScores, document_table, rank_stats
from rbp_lab.errors import LabError
from rbp_lab.fits.gls import DocumentErrors, LineError
from rbp_lab.fits.points import FitPoints
from rbp_lab.fits.questions import (
    answer,
    families_differ,
    forecast_errors,
    more,
    of_values,
    paired_errors,
)
from rbp_lab.laws import questions
from rbp_lab.laws.base import Inputs
from rbp_lab.points import points_from_records
from rbp_lab.records import ParamCounts
from rbp_lab.text import number
from tests.fits_data import ladder, synthetic_record

SIZES = np.geomspace(1e4, 1e7, 8)


def line(alpha, noise=0.0, sizes=SIZES, start=5.0):
    return FitPoints(sizes, np.exp(start - alpha * np.log(sizes) + noise), tuple(f"m{i}" for i in range(len(sizes))))


def test_a_forecast_is_of_each_model_from_all_smaller_ones():
    assert max(forecast_errors(line(0.1)).values()) < 1e-12
    noise = np.zeros(8)
    noise[4] = 0.02
    errors = forecast_errors(line(0.1, noise))
    assert list(errors) == ["m3", "m4", "m5", "m6", "m7"] and errors["m3"] < 1e-12
    assert errors["m4"] == pytest.approx(0.02)
    slope, level = np.polyfit(np.log(SIZES[:5]), np.log(line(0.1, noise).value[:5]), 1)
    twins = SIZES[[0, 1, 2, 3, 3, 4, 5, 6]]  # the second of one size is no forecast from the first
    assert list(forecast_errors(line(0.1, sizes=twins))) == ["m3", "m5", "m6", "m7"]
    assert errors["m5"] == pytest.approx(abs(level + slope * np.log(SIZES[5]) - np.log(line(0.1).value[5])))


def test_two_axes_that_are_equally_good_are_told_apart_as_often_as_the_level_says():
    rng, told = np.random.default_rng(4), []
    for _ in range(600):
        x = np.log(SIZES) + rng.normal(0, 0.05, (2, 8))  # either axis is the true one with an error
        value = np.exp(3 - 0.05 * np.log(SIZES) + rng.normal(0, 0.003, 8))
        names = tuple(map(str, range(8)))
        errors = [forecast_errors(FitPoints(np.exp(axis), value, names)) for axis in x]
        told.append(paired_errors(*errors, 0.95, "forecasts").told)
    assert np.mean(told) == pytest.approx(0.05, abs=0.03)


def mean_error(variance, n):
    """LineError of a mean of n values."""
    return LineError(np.zeros((1, 1)), np.array([[variance / n]]), math.nan, n - 1.0, variance)


def test_the_number_needed_has_the_power_it_promises():
    rng = np.random.default_rng(1)
    n = more(0.5, mean_error(1.0, 4), (1,), 0.95, 4)
    values = rng.normal(0.5, 1.0, (20_000, n))
    t = values.mean(1) / (values.std(1, ddof=1) / np.sqrt(n))
    assert (t > stats.t.ppf(0.975, n - 1)).mean() == pytest.approx(0.8, abs=0.02)
    assert n == more(0.5, mean_error(1.0, 9), (1,), 0.95, 9) < more(0.25, mean_error(1.0, 4), (1,), 0.95, 4)
    of_documents = LineError(np.array([[1 / 4]]), np.zeros((1, 1)), 3.0, 1.0, 0.0)
    assert n == more(0.5, of_documents, (1,), 0.95, 4, by_documents=True)
    stays = replace(mean_error(1.0, 4), documents=np.array([[1.0]]), freedom_documents=50.0)
    assert more(0.5, stays, (1,), 0.95, 4) is None  # a variance that no number of these units lessens


@pytest.mark.parametrize("share", [0.0, 0.3, 0.52, 0.9])
@pytest.mark.parametrize(("models", "freedom"), [(3, 49.0), (4, 4.0), (6, 1.0), (10, 300.0)])
def test_more_are_needed_than_there_are(models, freedom, share):
    """What cannot be told from these units takes more of them, whichever of the two sources carries the variance."""
    error = LineError(np.array([[share]]), np.array([[1 - share]]), freedom, models - 2.0, 1.0)
    found = answer(0.99 * error.half((1,), 0.95), error, (1,), 0.95, models, documents=50)
    assert found.told is False and found.needed_unit == ("documents" if share > 0.5 else "models")
    assert found.needed is None or found.needed > (50 if share > 0.5 else models)


def test_values_are_told_when_their_interval_leaves_out_no_difference():
    clear, unclear = of_values([1.0, 1.1, 0.9, 1.0], 0.95, "forecasts"), of_values([1.0, -1.1, 0.9], 0.95, "forecasts")
    assert clear.told and clear.low < 1 < clear.high and clear.needed is None
    assert unclear.told is False and unclear.needed > 3 and unclear.needed_unit == "forecasts"
    few = of_values([1.0, 2.0], 0.95, "forecasts")
    assert few.difference is None and few.told is None and few.message == "at least 3 forecasts are needed; got 2"
    first, second = {"a": 3.0, "b": 1.0, "c": 2.0}, {"a": 1.0, "c": 0.0, "b": -1.0, "d": 9.0}
    assert paired_errors(first, second, 0.95, "models").difference == 2


def test_families_of_one_exponent_are_told_apart_as_often_as_the_level_says():
    rng, found = np.random.default_rng(2), []
    for _ in range(800):
        noise = rng.normal(0, 0.02, (2, 8))
        found.append(families_differ(line(0.1, noise[0]), line(0.1, noise[1], start=4.0), 0.95).told)
    assert np.mean(found) == pytest.approx(0.05, abs=0.025)
    apart = families_differ(line(0.15), line(0.1, 1e-3 * rng.normal(size=8), start=4.0), 0.95)
    assert apart.told and apart.difference == pytest.approx(0.05, abs=1e-3) and apart.units == 16
    assert families_differ(line(0.1), line(0.1, sizes=SIZES[:2]), 0.95).message


def test_what_documents_do_to_both_families_leaves_their_difference_alone():
    """One document in two moves every exponent up, the other down: together in both families, or against each other."""
    rng = np.random.default_rng(5)
    slopes = rng.choice([-1.0, 1.0], 40)[:, None] * np.linspace(-0.01, 0.01, 8)
    first, second = (line(0.1 + 0.002 * i, 1e-4 * rng.normal(size=8), start=4.0 + i) for i in range(2))

    def told(sign):
        errors = [DocumentErrors(one * slopes, np.arange(40), 40.0) for one in (1, sign)]
        return families_differ(first.with_errors(errors[0]), second.with_errors(errors[1]), 0.95)

    plain, common, apart = families_differ(first, second, 0.95), told(1), told(-1)
    assert common.difference == apart.difference == plain.difference
    assert (common.low, common.high) == pytest.approx((plain.low, plain.high), rel=1e-6)
    slope = 2 * np.sqrt(40) * 0.01 / np.log(SIZES[-1] / SIZES[0]) * 2  # standard deviation of the difference
    assert apart.high - apart.low == pytest.approx(2 * stats.t.ppf(0.975, 39) * slope, rel=0.01)
    assert common.told and apart.told is False and (apart.units, apart.needed_unit) == (16, "documents")
    assert apart.needed is None or apart.needed > 40


@pytest.fixture(scope="module")
def runs():
    return ladder(7, documents=60, vocab=2000, sigma=6.0)


def test_every_question_is_answered_from_runs(runs):
    other = [replace(r, header=replace(r.header, model=replace(r.model, name=f"b-{r.model.name}", family="b")))
             for r in runs]  # fmt: skip
    both = [*runs, *other]
    points = points_from_records(both, [1, 10])
    found = questions.compute(Inputs(points, fit_all(points, records=both), both))
    by_question = {}
    for a in found.answered:
        by_question.setdefault(a.question, []).append(a)
        assert a.answer.difference is not None and a.sentence
        if not a.answer.told:
            assert "cannot be told" in a.sentence and "would be needed" in a.sentence
            assert " less " in a.sentence  # what is subtracted from what
    assert {q: len(asked) for q, asked in by_question.items()} == {
        questions.ENTROPY: 2, questions.EXPONENTS: 2, questions.INDEPENDENT: 2, questions.AXIS: 2, questions.SHARED: 1,
    }  # fmt: skip
    shared = by_question[questions.SHARED][0].answer  # the same records under another name
    assert shared.difference == pytest.approx(0, abs=1e-12) and shared.told is False
    assert "more than 10,000 would be needed" in by_question[questions.SHARED][0].sentence
    assert len(found.tables["questions"]) == len(found.lines()) == 9
    assert "Of the 9 answers about one in 20 is yes or no by chance" in questions.section(found).lead
    assert questions.section(found).tables[0].frame["answer"].tolist() == [a.sentence for a in found.answered]


def world(family="a", ce=0.1, first=0.1, noise=0.0, entropy_noise=0.0, axis_noise=0.0, better="S", order="mixed"):
    """Runs of 8 models whose cross-entropy and −log RBP_1 are powers of S with these exponents; −log RBP_10's is 0.3.

    noise: of ln cross-entropy. entropy_noise: of where the tokens beyond rank 10 lie. axis_noise: of ln S over the
    total; ``better`` is the axis of the powers. order: "runs" puts all hits of a document in a row, "apart" its misses.
    """
    found, sign = [], np.resize([1, -1], 8)
    for i, size in enumerate(SIZES):
        rng, off = np.random.default_rng(i), np.exp(axis_noise * sign[i])
        shares = np.exp(-np.array([0.5, 0.4]) * (1e4 / size) ** np.array([first, 0.3]))  # RBP_1 and RBP_10
        hits, ten = np.round(2000 * shares).astype(int)
        tail = np.clip(40 * np.exp(entropy_noise * sign[i] + rng.normal(0, 1, 2000 - ten)), 10, 999)
        ranks = np.concatenate([np.zeros(hits), np.full(ten - hits, 5), tail]).astype(np.int32)
        orders = {"mixed": rng.permutation(2000), "runs": np.arange(2000).reshape(100, 20).T.ravel(),
                  "apart": np.argsort(np.argsort(np.arange(2000) * 0.618 % 1))}  # fmt: skip
        ranks = ranks[orders[order]]
        nll = np.full(2000, 20 * size**-ce * np.exp(noise * sign[i]), np.float32)
        n = np.full(20, 100)
        scores = DocumentScores(np.arange(20), n, 0 * n, nll, ranks, 0 * ranks, nll)
        run = synthetic_record(f"{family}{i}", 1, 0, family=family, vocab=1000, documents=20, tokens=100)
        inner, total = (size, 3 * size * off) if better == "S" else (size * off, 3 * size)
        params = ParamCounts(total=int(total), embedding=int(total) - int(inner), head=0)
        header = replace(run.header, model=replace(run.model, params=params), key=f"{family}{i}")
        stats = rank_stats(scores, 1000, (1, 2, 5))
        found.append(replace(run, header=header, stats=stats, documents=document_table(scores, (1, 10))))
    return found


def asked(question, *families):
    runs = [run for family in families for run in family]
    points = points_from_records(runs, [1, 10])
    answered = questions.compute(Inputs(points, fit_all(points, records=runs), runs)).answered
    (found,) = [a for a in answered if a.question == question]
    return found


@pytest.mark.parametrize(
    ("question", "chosen", "words", "difference"),
    [
        (questions.ENTROPY, {"noise": 0.1}, "Yes: its forecast of the next larger model misses by {} % less", None),
        (questions.ENTROPY, {"entropy_noise": 0.5}, "No: its forecast .* misses by {} % more", None),
        (questions.EXPONENTS, {"ce": 0.2}, "No: cross-entropy's is larger by {}", 0.1),
        (questions.EXPONENTS, {"ce": 0.04}, "No: cross-entropy's is smaller by {}", -0.06),
        (questions.INDEPENDENT, {"order": "runs"}, "No: −log p grows more slowly than N; .* below 1 by {}", None),
        (questions.INDEPENDENT, {"order": "apart"}, "No: −log p grows faster than N; .* above 1 by {}", None),
        (questions.AXIS, {"axis_noise": 0.5}, "S: the next larger model is missed by {} % less", None),
        (questions.AXIS, {"axis_noise": -0.5, "better": "total"}, "The total: .* is missed by {} % less", None),
    ],
)  # fmt: skip
def test_a_sentence_says_which_way_it_is(question, chosen, words, difference):
    found = asked(question, world(**chosen))
    said = found.answer.difference
    if difference is not None:
        assert said == pytest.approx(difference, abs=0.01)
    share = "%" in words
    assert re.match(words.format(number(abs(said) * (100 if share else 1), 2 if share else 4)), found.sentence)


def test_families_are_asked_about_the_exponent_of_rbp_1():
    found = asked(questions.SHARED, world(first=0.1), world("b", first=0.2))
    assert found.about == "a and b" and found.answer.difference == pytest.approx(-0.1, abs=0.01)
    assert found.sentence.startswith("No: that of the first is smaller by 0.")
    other = asked(questions.SHARED, world(first=0.2), world("b", first=0.1))
    assert other.sentence.startswith("No: that of the first is larger by 0.")


def test_values_without_runs_answer_what_they_can(runs):
    points = points_from_records(runs, [1, 10])
    found = questions.compute(Inputs(points, fit_all(points)))
    assert {a.question for a in found.answered} == {questions.EXPONENTS}
    assert set(found.lacks) == {questions.ENTROPY, questions.AXIS}


def test_an_analysis_fits_only_the_laws_that_are_named(runs, tmp_path):
    points = points_from_records(runs, [1, 10])
    for _ in range(2):  # found again, it answers again
        console = Console(file=io.StringIO(), width=300)
        analyze(points, tmp_path, FitChoices(only=["questions"]), records=runs, console=console)
        assert console.file.getvalue().count("ladder on stdlib: ") == 4
    assert sorted(p.name for p in tmp_path.glob("law_*.csv")) == ["law_questions.csv"]
    table = pd.read_csv(tmp_path / "law_questions.csv")
    assert len(table) == 4 and table["answer"].notna().all()
    with pytest.raises(LabError, match=r"fit\.only: no such law 'question'; did you mean questions"):
        analyze(points, tmp_path / "other", FitChoices(only=["question"]), records=runs)


def test_a_value_of_zero_is_why_a_forecast_cannot_be_asked_for():
    runs, none, one = world(), np.zeros(9, np.int32), np.ones(9, np.float32)
    perfect = DocumentScores(np.array([0]), np.array([9]), np.array([0]), one, none, none, one)
    runs[3] = replace(runs[3], stats=rank_stats(perfect, 1000, (1,)))  # the entropy of its errors is 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = asked(questions.ENTROPY, runs)
    assert found.sentence.startswith("It cannot be asked: the value is 0 for a3: it has no logarithm")
