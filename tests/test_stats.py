"""Sufficient statistics against token-by-token oracles, and the laws of the monoid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbp_lab.counting import DocumentScores, document_table, rank_stats, to_units
from rbp_lab.stats import UNIT, DocumentTable, RankStats

V = 40
WINDOWS = (1, 2, 3, 5, 8)
THRESHOLDS = (1, 3, 10)


def make_scores(sizes, seed=0, ids=None):
    """Random scores of documents with these numbers of tokens."""
    rng = np.random.default_rng(seed)
    n = int(np.sum(sizes))
    greater = np.minimum(rng.geometric(0.3, n) - 1, V - 3).astype(np.int32)
    return DocumentScores(
        document_id=np.arange(len(sizes)) if ids is None else np.asarray(ids),
        num_scored=np.asarray(sizes, np.int64),
        num_bytes=np.asarray(sizes, np.int64) * 3,
        nll=rng.exponential(2.0, n).astype(np.float32),
        num_greater=greater,
        num_equal=(rng.random(n) < 0.2).astype(np.int32) * 2,
        entropy=rng.exponential(1.0, n).astype(np.float32),
    )


def take(scores, rows):
    """The documents ``rows`` of ``scores``, in that order."""
    end = np.cumsum(scores.num_scored)
    tokens = np.concatenate([np.arange(end[i] - scores.num_scored[i], end[i]) for i in rows] or [[]]).astype(int)
    per_document = (getattr(scores, n)[list(rows)] for n in ("document_id", "num_scored", "num_bytes"))
    return DocumentScores(
        *per_document, *(getattr(scores, n)[tokens] for n in ("nll", "num_greater", "num_equal", "entropy"))
    )


def both(scores):
    return rank_stats(scores, V, WINDOWS), document_table(scores, THRESHOLDS)


def test_rank_stats_against_a_loop_over_tokens():
    sizes = [7, 1, 0, 12, 3]
    scores = make_scores(sizes)
    stats = rank_stats(scores, V, WINDOWS)
    pessimistic, optimistic, nll = np.zeros(V, int), np.zeros(V, int), np.zeros(V)
    windows = np.zeros((len(WINDOWS), V), int)
    start = 0
    for size in sizes:
        ranks = []
        for i in range(start, start + size):
            g, e = int(scores.num_greater[i]), int(scores.num_equal[i])
            pessimistic[g + e] += 1
            optimistic[g] += 1
            nll[g] += float(scores.nll[i])
            ranks.append(1 + g + e)
        for w, length in enumerate(WINDOWS):
            for i in range(len(ranks) - length + 1):
                windows[w, max(ranks[i : i + length]) - 1] += 1
        start += size
    assert np.array_equal(stats.counts, pessimistic)
    assert np.array_equal(stats.counts_optimistic, optimistic)
    assert np.array_equal(stats.window_max, windows)
    assert np.allclose(stats.nll_sum, nll, atol=len(scores.nll) * UNIT)
    assert stats.num_tokens == sum(sizes) and stats.num_documents == len(sizes)
    assert stats.num_tied == (scores.num_equal > 0).sum() and stats.num_bytes == 3 * sum(sizes)
    assert stats.entropy_units * UNIT == pytest.approx(scores.entropy.astype(float).sum(), abs=len(nll) * UNIT)


def test_window_of_one_is_the_histogram_of_ranks():
    stats = rank_stats(make_scores([30, 5]), V, WINDOWS)
    assert np.array_equal(stats.window_max[0], stats.counts)


def test_unordered_and_overlong_windows():
    scores = make_scores([9, 4])
    stats, sorted_stats = rank_stats(scores, V, (8, 2, 50)), rank_stats(scores, V, (2, 8))
    assert np.array_equal(stats.window_max[1], sorted_stats.window_max[0])
    assert np.array_equal(stats.window_max[0], sorted_stats.window_max[1])
    assert stats.window_max[2].sum() == 0


def test_document_table_against_a_loop_over_documents():
    sizes = [7, 1, 0, 12, 30]
    scores = make_scores(sizes, ids=[11, 3, 8, 5, 2])
    table = document_table(scores, THRESHOLDS)
    assert table.document_id.tolist() == [2, 3, 5, 8, 11]
    rank = 1 + scores.num_greater.astype(int) + scores.num_equal
    ends = np.cumsum(sizes)
    for document, size, end in zip([11, 3, 8, 5, 2], sizes, ends, strict=True):
        row = table.document_id.tolist().index(document)
        mine = rank[end - size : end]
        lo, hi = table.indptr[row], table.indptr[row + 1]
        assert dict(zip(table.rank[lo:hi].tolist(), table.count[lo:hi].tolist(), strict=True)) == {
            int(r): int((mine == r).sum()) for r in np.unique(mine)
        }
        assert table.log_rank[row] == pytest.approx(np.log(mine).sum())
        assert table.log_rank_sq[row] == pytest.approx((np.log(mine) ** 2).sum())
        nll = scores.nll[end - size : end].astype(float)
        assert table.nll_sq[row] == pytest.approx((nll**2).sum())
        assert table.nll_units[row] * UNIT == pytest.approx(nll.sum(), abs=size * UNIT + 1e-12)
        for k in (1, 2, 3, 10, V):
            assert table.hits(k)[row] == (mine <= k).sum()
        for length in (1, 2, 5, 9):
            assert table.windows(length)[row] == max(0, size - length + 1)
            for k in THRESHOLDS:
                expected = sum((mine[i : i + length] <= k).all() for i in range(max(0, size - length + 1)))
                assert table.window_hits(length, k)[row] == expected


def test_runs_and_window_histogram_agree():
    stats, table = both(make_scores([40, 13, 90], seed=3))
    for w, length in enumerate(WINDOWS):
        for k in THRESHOLDS:
            assert table.window_hits(length, k).sum() == stats.window_max[w, :k].sum()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 25), min_size=1, max_size=9), st.randoms(use_true_random=False), st.integers(1, 4))
def test_any_split_in_any_order_gives_the_same_bits(sizes, random, parts):
    scores = make_scores(sizes, seed=len(sizes))
    whole_stats, whole_table = both(scores)
    rows = list(range(len(sizes)))
    random.shuffle(rows)
    stats, table = RankStats.zeros(V, WINDOWS), DocumentTable.zeros(THRESHOLDS)
    for part in range(parts):
        s, t = both(take(scores, rows[part::parts]))
        stats, table = s + stats, t + table
    assert stats == whole_stats
    assert table == whole_table


def test_equality_sees_every_field():
    stats, table = both(make_scores([5, 6]))
    assert stats != rank_stats(make_scores([5, 6], seed=9), V, WINDOWS)
    assert table != document_table(make_scores([5, 6], seed=9), THRESHOLDS)
    assert stats != table


def test_sums_of_unlike_statistics_are_refused():
    stats, table = both(make_scores([5]))
    with pytest.raises(ValueError, match="rows"):
        stats + RankStats.zeros(V + 1, WINDOWS)
    with pytest.raises(ValueError, match="windows"):
        stats + RankStats.zeros(V, (1, 2))
    with pytest.raises(ValueError, match="thresholds"):
        table + DocumentTable.zeros((1,))
    with pytest.raises(ValueError, match="counted twice"):
        table + table


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.0**21])
def test_scores_that_are_not_numbers_never_enter(bad):
    scores = make_scores([4])
    scores.nll[2] = bad
    with pytest.raises(ValueError, match="finite"):
        rank_stats(scores, V, WINDOWS)
    with pytest.raises(ValueError, match="finite"):
        document_table(scores, THRESHOLDS)


def test_fixed_point_is_exact_to_half_a_unit():
    nats = np.float32([0.0, 1e-7, 0.1, 11.93, 1e5])
    assert np.abs(to_units(nats) * UNIT - nats.astype(float)).max() <= UNIT / 2


def test_no_document_at_all():
    empty = make_scores([])
    stats, table = both(empty)
    assert stats == RankStats.zeros(V, WINDOWS) and table == DocumentTable.zeros(THRESHOLDS)


@pytest.mark.parametrize("base", [7, 2**33])
def test_distinct_pairs_are_counted_whatever_their_size(base):
    from rbp_lab.counting import _distinct

    row, value = np.array([0, 2, 2, 5, 5, 5]), np.array([3, 6, 6, 0, 6, 0])
    distinct, count = _distinct(row, base, value)
    assert distinct.tolist() == [3, 2 * base + 6, 5 * base, 5 * base + 6] and count.tolist() == [1, 2, 2, 1]
