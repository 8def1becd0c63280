"""Speculative decoding from comparisons: runs of equal first choices, and how many tokens of a draft are accepted."""

import numpy as np
import pytest
from scipy import stats

from rbp_lab.comparison.accepted import accepted
from rbp_lab.comparison.differences import degrees_of_freedom
from rbp_lab.comparison.findings import ByDocument, ratio
from rbp_lab.comparison.sums import PairSums, Tally, agreements, columns


def sums_of(documents):
    """PairSums with what acceptance needs, from whether the first choices are the same at each token, by document."""
    names = columns((1,))
    document = np.repeat(np.arange(len(documents)), [len(d) for d in documents])
    agree = np.concatenate([np.asarray(d, bool) for d in documents])
    values = [np.ones(len(agree)) if n == "tokens" else agree if n == "agree" else 0 * agree for n in names]
    cells = Tally.of((document, 0 * document, 0 * document), [np.asarray(v, np.int64) for v in values])
    return PairSums((1,), cells, *(Tally.zeros(keys, 1) for keys in (3, 3, 4)), agreements(document, agree))


def accepted_by_walking(documents, draft):
    """Mean over the windows of every length of the chance that all of them agree, summed over lengths."""
    total = 0.0
    for n in range(1, draft + 1):
        windows = [all(d[i : i + n]) for d in documents for i in range(len(d) - n + 1)]
        total += np.mean(windows)
    return total


def test_runs_are_those_of_each_document_in_its_order():
    document = np.array([5, 2, 5, 2, 2, 5, 5])
    agree = np.array([1, 1, 1, 1, 0, 0, 1])
    runs = agreements(document, agree)  # 2: 1 1 0, 5: 1 1 0 1
    assert runs.keys.tolist() == [[2, 2], [5, 1], [5, 2]] and runs.sums[:, 0].tolist() == [1, 1, 1]
    assert agreements(document, 0 * agree) == agreements(document[:0], agree[:0]) == Tally.zeros(2, 1)


def test_accepted_tokens_are_counted_window_by_window():
    rng = np.random.default_rng(0)
    documents = [rng.random(n) < 0.7 for n in (1, 3, 9, 30, 31)]
    found = accepted(sums_of(documents), (1, 2, 4, 64, 8, 31))
    assert [one.draft for one in found] == [1, 2, 4, 8, 31]  # no document is as long as 64
    for one in found:
        assert one.accepted == pytest.approx(accepted_by_walking(documents, one.draft))
        assert one.documents == sum(len(d) >= one.draft for d in documents)
    p = np.concatenate(documents).mean()
    assert found[0].accepted == found[0].independent == pytest.approx(p) and found[0].ratio == 1
    assert found[2].independent == pytest.approx(p + p**2 + p**3 + p**4)


def test_the_interval_is_the_jackknife_of_whole_documents():
    rng = np.random.default_rng(0)
    documents = [rng.random(n) < 0.7 for n in (1, 3, 9, 30, 31)]
    one = accepted(sums_of(documents), (8,), level=0.9)[0]
    whole = accepted_by_walking(documents, 8)
    moves = np.array([whole - accepted_by_walking(documents[:i] + documents[i + 1 :], 8) for i in range(5)])
    freedom = degrees_of_freedom(moves, np.array([0, 0, 2, 23, 24]))
    half = stats.t.ppf(0.95, freedom) * np.sqrt(4 / 5 * (moves**2).sum())
    assert (one.low, one.high) == pytest.approx((max(0, whole - half), min(8, whole + half)))
    assert whole - half > 0 or whole + half < 8


def test_agreement_in_bursts_is_accepted_longer_than_independence_says():
    bursts = [np.repeat([True, False], 20), np.repeat([False, True], 20)]
    one = accepted(sums_of(bursts), (8,))[0]
    assert one.ratio > 3
    alike = accepted(sums_of([np.ones(30, bool)] * 3), (8,))[0]
    assert (alike.accepted, alike.low, alike.high, alike.ratio) == (8, 8, 8, 1)
    never = accepted(sums_of([np.zeros(30, bool)] * 3), (8,))[0]
    assert never.accepted == never.independent == 0 and never.ratio is None
    assert accepted(sums_of([np.ones(30, bool)]), (8,))[0].low is None  # one document
    two = accepted(sums_of([[True] * 29 + [False], [False] * 29 + [True]]), (4,))[0]
    assert (two.low, two.high) == (0, 4)  # of two documents that say the opposite nothing is known, but no more than 4


def test_the_interval_covers_what_documents_scatter():
    rng = np.random.default_rng(1)
    truth, held = sum(np.mean(np.array([0.6, 0.9]) ** n) for n in range(1, 5)), []
    for _ in range(400):
        rates = rng.choice([0.6, 0.9], 40)
        one = accepted(sums_of([rng.random(50) < r for r in rates]), (4,))[0]
        held.append(one.low <= truth <= one.high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.035)


def test_documents_of_unlike_lengths_have_the_interval_of_the_first_choices():
    rng = np.random.default_rng(2)
    sums = sums_of([rng.random(n) < rng.choice([0.3, 0.8]) for n in np.exp(rng.normal(3, 1.5, 30)).astype(int) + 1])
    by, one = ByDocument.of(sums), accepted(sums, (1,))[0]
    assert (one.accepted, one.low, one.high) == pytest.approx(ratio(by["agree"], by["tokens"], 0.95))
