"""Numbers of a record that cannot all be right: each contradiction is found, and rounding is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rbp_lab.counting import DocumentScores, document_table, rank_stats
from rbp_lab.stats import MAX_NATS, UNIT
from rbp_lab.store.consistency import contradiction


def tables(sizes=(5, 3), nll=(0.5, 0.25, 1, 2, 4, 0.5, 3, 0.5), greater=(0, 0, 0, 1, 6, 0, 4, 0), tied=(2,)):
    """Totals and table of documents 3, 4, …; ranks 1 1 2 2 7 and 1 5 1 with one tie, V = 10, k = 1 and 5."""
    n = sum(sizes)
    scores = DocumentScores(
        document_id=3 + np.arange(len(sizes)),
        num_scored=np.array(sizes),
        num_bytes=4 * np.array(sizes),
        nll=np.array(nll, np.float32),
        num_greater=np.array(greater, np.int32),
        num_equal=np.isin(np.arange(n), tied).astype(np.int32),
        entropy=np.ones(n, np.float32),
    )
    return rank_stats(scores, 10, (1, 2)), document_table(scores, (1, 5))


def test_what_was_counted_does_not_contradict_itself():
    assert contradiction(*tables()) is None
    # Certain tokens that rounding took below 0, and tokens of some units, whose rounding is most of them.
    nll = (-5e-4, 1e-6, 1e-6, 1e-6, -9e-4, 9e-4)
    assert contradiction(*tables((1, 3, 2), nll, (0,) * 6, ())) is None


# What is changed in the table of documents: field, place, value, what is said.
DOCUMENTS = [
    ("document_id", 0, -1, "document ids do not rise"),
    ("document_id", 1, 3, "document ids do not rise"),
    ("num_scored", 0, -1, "num_scored of a document is negative"),
    ("num_bytes", 0, -1, "num_bytes of a document is negative"),
    ("num_tied", 0, -1, "num_tied of a document is negative"),
    ("num_tied", 0, 6, "a document has more ties than tokens"),
    ("nll_sq", 0, -1, "nll_sq of a document is negative or not finite"),
    ("log_rank", 0, -1, "log_rank of a document is negative or not finite"),
    ("log_rank_sq", 0, np.nan, "log_rank_sq of a document is negative or not finite"),
    ("nll_units", 0, -(2**24), "nll_units of a document is out of range"),
    ("nll_units", 1, int(3 * MAX_NATS / UNIT) + 1, "nll_units of a document is out of range"),
    ("entropy_units", 0, -(2**24), "entropy_units of a document is out of range"),
    ("num_tied", 0, 2, "num_tied of the corpus is not the sum over its documents"),
    ("rank", 0, 0, "a rank is not in 1…V"),
    ("rank", 2, 11, "a rank is not in 1…V"),
    ("count", 0, 0, "the count of a document's rank is not positive"),
    ("rank", slice(2), [2, 1], "the ranks of a document do not rise"),
    ("log_rank_sq", 0, 9, "log_rank_sq of a document does not follow from its ranks"),
    ("run_row", 0, -1, "a run is of no document or threshold of this record"),
    ("run_row", 0, 2, "a run is of no document or threshold of this record"),
    ("run_threshold", 0, -1, "a run is of no document or threshold of this record"),
    ("run_threshold", 0, 2, "a run is of no document or threshold of this record"),
    ("run_length", 0, 0, "a run has no length or count"),
    ("run_count", 0, 0, "a run has no length or count"),
]


@pytest.mark.parametrize("field, at, value, said", DOCUMENTS)
def test_a_contradiction_of_a_document_is_said(field, at, value, said):
    stats, documents = tables()
    values = getattr(documents, field).copy()
    values[at] = value
    assert contradiction(stats, replace(documents, **{field: values})) == said


# Runs of the first document at k = 5, four tokens in a row, as lengths and counts.
@pytest.mark.parametrize(
    "length, count, said",
    [
        ([4], [1], None),
        ([2, 2], [1, 1], "a length of run is listed twice"),
        ([1, 2], [2, 1], "there are more runs than fit in a document"),
        ([3], [1], "the runs at k = 5 do not hold the document's tokens of rank ≤ k"),
    ],
)
def test_runs_are_maximal_and_hold_the_tokens(length, count, said):
    stats, documents = tables()
    assert (documents.run_row.tolist(), documents.run_length.tolist()) == ([0, 0, 1, 1], [2, 4, 1, 3])
    runs = {
        "run_row": [0] * (1 + len(length)) + [1, 1],
        "run_threshold": [0] + [1] * len(length) + [0, 1],
        "run_length": [2, *length, 1, 3],
        "run_count": [1, *count, 2, 1],
    }
    changed = {name: np.array(values, getattr(documents, name).dtype) for name, values in runs.items()}
    assert contradiction(stats, replace(documents, **changed)) == said


# What is taken from one rank, counted from 0, and given to another.
@pytest.mark.parametrize(
    "field, giver, taker, said",
    [
        ("counts", 9, 0, "the count of a rank is negative"),
        ("counts_optimistic", 9, 0, "the count of a rank is negative"),
        ("counts_optimistic", 0, 8, "an optimistic rank is above the pessimistic one"),
        ("nll_units", 9, 0, "Σ nll of a rank is out of range"),
        ("nll_units", 0, 9, "Σ nll of a rank is out of range"),
        ("counts", 6, 7, "ranks by document do not add up to ranks"),
    ],
)
def test_a_contradiction_of_the_totals_is_said(field, giver, taker, said):
    stats, documents = tables()
    values = getattr(stats, field).copy()
    values[giver] -= 1
    values[taker] += 1
    assert contradiction(replace(stats, **{field: values}), documents) == said


@pytest.mark.parametrize(
    "at, change, said",
    [
        ((1, 9), -1, "the count of a window is negative"),
        ((1, 0), 1, "there are not as many windows of N = 2 as the documents hold"),
        ((1, slice(2)), [-1, 1], "windows of N = 2 contradict the runs at k = 1"),
        ((0, slice(1, 3)), [-1, 1], "windows of one token are not the tokens"),
    ],
)
def test_a_contradiction_of_the_windows_is_said(at, change, said):
    stats, documents = tables()
    windows = stats.window_max.copy()
    windows[at] += change
    assert contradiction(replace(stats, window_max=windows), documents) == said
