"""Every scored token exactly once, whatever the windows; masks from lengths and special ids."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbp_lab.data.streams import Separated
from rbp_lab.data.windows import WIDTH_STEP, TokenizedCorpus, Windowing, plan_windows
from rbp_lab.errors import LabError

EOS = 999


def corpus(sizes, special=(), with_bytes=True):
    """Documents whose tokens are all different, so that a label says where it came from."""
    n = int(np.sum(sizes))
    return TokenizedCorpus(
        tokens=np.arange(1, n + 1, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        token_bytes=np.full(n, 2, np.int32) if with_bytes else None,
        special_ids=np.array(special, np.int64),
        eos_id=EOS,
    )


def labels(plan, batch_tokens=64):
    """(document, context length, label) of every scored position, in the order of the plan."""
    out = []
    for batch in plan.batches(batch_tokens):
        for row, position in zip(*np.nonzero(batch.scored), strict=True):
            out.append((int(batch.document_id[row]), int(position) + 1, int(batch.tokens[row, position + 1])))
    return out


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 90), min_size=1, max_size=8),
    st.sampled_from(["rolling", "packed"]),
    st.integers(2, 40),
    st.integers(1, 500),
    st.data(),
)
def test_every_token_but_the_first_is_scored_exactly_once(sizes, windows, width, batch_tokens, data):
    if max(sizes) < 2:
        sizes = [*sizes, 2]
    stride = data.draw(st.integers(1, width - 1)) if windows == "rolling" else None
    protocol = Windowing(windows, width, stride, mask_special=False)
    plan = plan_windows(corpus(sizes), protocol)
    got = sorted(label for _, _, label in labels(plan, batch_tokens) if label != EOS)
    first = {int(np.sum(sizes[:i])) + 1 for i, s in enumerate(sizes) if s}
    missing = first if windows == "rolling" else {1}
    expected = [t for t in range(1, int(np.sum(sizes)) + 1) if t not in missing]
    assert got == expected
    assert (plan.width <= max(width, 1)).all()


def test_rolling_gives_late_tokens_their_context_and_keeps_reading_order():
    plan = plan_windows(corpus([50, 7]), Windowing("rolling", 16, 4, mask_special=False))
    mine = [(context, label) for document, context, label in labels(plan) if document == 0]
    assert [label for _, label in mine] == list(range(2, 51))
    assert all(context == min(label - 1, 15) or context >= 16 - 4 for context, label in mine)


def test_truncate_is_the_head_of_each_document():
    plan = plan_windows(corpus([50, 1, 0, 7]), Windowing("truncate", 16, mask_special=False))
    assert sorted(label for _, _, label in labels(plan)) == [*range(2, 17), *range(53, 59)]
    assert sorted(set(plan.document_id.tolist())) == [0, 3]


def test_special_tokens_count_neither_as_input_nor_as_label():
    plan = plan_windows(corpus([10], special=(1, 5)), Windowing("truncate", 16))
    # position j predicts token j+2; input 1 (the first) and 5 drop, and the prediction of 5 drops
    assert [label for _, _, label in labels(plan)] == [3, 4, 7, 8, 9, 10]


def test_an_end_of_text_inside_a_document_is_not_padding():
    plan = plan_windows(corpus([10], special=(5,)), Windowing("truncate", 16, mask_special=False))
    assert [label for _, _, label in labels(plan)] == list(range(2, 11))


def test_bytes_are_those_of_the_scored_labels():
    plan = plan_windows(corpus([10, 4], special=(5,)), Windowing("truncate", 16))
    got = {
        int(d): int(b) for batch in plan.batches(64) for d, b in zip(batch.document_id, batch.num_bytes, strict=True)
    }
    assert got == {0: 2 * 7, 1: 2 * 3}
    assert all((b.num_bytes == 0).all() for b in plan_windows(corpus([9], with_bytes=False), Windowing()).batches(64))


def rows_by_hand(sizes, protocol):
    """(document, start, length, skip) of every row, one token after another."""
    rows, begin = [], 0
    for document, size in enumerate(sizes):
        end, done = begin + size, begin + min(size, protocol.max_tokens)
        if size >= 2:
            rows.append((document, begin, done - begin, 0))
        while size >= 2 and protocol.windows != "truncate" and done < end:
            stop = min(done + (protocol.stride or protocol.max_tokens // 2), end)
            start = max(begin, stop - protocol.max_tokens)
            rows.append((document, start, stop - start, done - start - 1))
            done = stop
        begin = end
    return rows


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=8), st.integers(2, 40), st.data())
def test_rows_are_those_that_a_loop_over_the_tokens_finds(sizes, width, data):
    sizes = [*sizes, 2]
    stride = data.draw(st.none() | st.integers(1, width - 1))
    for windows in ("truncate", "rolling"):
        plan = plan_windows(corpus(sizes), protocol := Windowing(windows, width, stride))
        got = zip(*(getattr(plan, name).tolist() for name in ("document_id", "start", "length", "skip")), strict=True)
        assert sorted(got) == rows_by_hand(sizes, protocol)


class Stored:
    """Numbers of which slices can be read only; counts what was read."""

    def __init__(self, numbers):
        self.numbers, self.read = numbers, 0

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, part):
        assert isinstance(part, slice)
        self.read += len(self.numbers[part])
        return self.numbers[part].copy()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9)), st.data())
def test_a_slice_of_a_separated_stream_is_that_of_the_whole(numbers, data):
    ends = sorted(data.draw(st.sets(st.integers(0, len(numbers)))))
    part = slice(*(data.draw(st.none() | st.integers(-25, 25)) for _ in range(2)), data.draw(st.integers(1, 3)))
    whole = np.insert(np.array(numbers, np.int32), ends, 7)
    separated = Separated(Stored(np.array(numbers, np.int32)), np.array(ends, np.int64), 7)
    assert separated[part].tolist() == whole[part].tolist() and len(separated) == len(whole)
    assert separated[part].dtype == np.int32


@pytest.mark.parametrize("windows", ["truncate", "rolling", "packed"])
def test_documents_read_only_their_tokens_and_score_the_same(windows):
    sizes = [min(size, 24) if windows == "truncate" else size for size in (40, 0, 3, 90, 1, 17, 64)]
    plan = plan_windows(c := corpus(sizes, special=(9,)), protocol := Windowing(windows, 24))
    tokens, sizes_in_bytes = Stored(c.tokens), Stored(c.token_bytes)
    stored = plan_windows(TokenizedCorpus(tokens, c.offsets, sizes_in_bytes, c.special_ids, EOS), protocol)
    assert tokens.read == sizes_in_bytes.read == 0
    for first, last in [(0, 1), (2, 4), (1, 2), (3, 7), (0, 7)]:
        part = stored.documents(first, last)
        least = plan.documents(first, last).length.sum()
        assert tokens.read == sizes_in_bytes.read <= least + 1  # the document without rows
        tokens.read = sizes_in_bytes.read = 0
        inside = (plan.document_id >= first) & (plan.document_id < last)
        assert labels(part) == labels(plan.take(np.flatnonzero(inside)))
        bytes_of = [[int(b.num_bytes.sum()) for b in p.batches(48)] for p in (part, plan.documents(first, last))]
        assert bytes_of[0] == bytes_of[1]
        assert tokens.read == 0
    assert stored.digest() == plan.digest() and labels(stored) == labels(plan)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=12), st.integers(1, 100), st.integers(1, 400))
def test_shards_partition_documents_and_widths_ignore_company(sizes, tokens, batch_tokens):
    sizes = [*sizes, 5]
    plan = plan_windows(corpus(sizes), Windowing("rolling", 24, 7, mask_special=False))
    bounds = plan.cut(tokens)
    shards = [plan.documents(*between) for between in pairwise(bounds)]
    documents = [sorted(set(s.document_id.tolist())) for s in shards]
    assert [one for some in documents for one in some] == sorted(set(plan.document_id.tolist()))
    assert sorted(x for s in shards for x in labels(s, batch_tokens)) == sorted(labels(plan, 10**6))
    assert all(len(some) == 1 or s.length.sum() <= tokens for some, s in zip(documents, shards, strict=True))
    assert plan.unpadded().cut(tokens) == bounds  # how rows are padded is known later than how they are cut
    for batch in plan.batches(batch_tokens):
        lengths = batch.scored.shape[1] - np.argmax(batch.scored[:, ::-1], axis=1) + 1  # the last label is scored
        width = batch.tokens.shape[1]
        assert (np.minimum(-(-lengths // WIDTH_STEP) * WIDTH_STEP, 24) == width).all()
        assert (batch.tokens[np.arange(width) >= lengths[:, None]] == 0).all()
        assert len(batch.tokens) == 1 or batch.tokens.size <= batch_tokens


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"windows": "sliding"}, "truncate, rolling, packed"),
        ({"bos": "maybe"}, "tokenizer, always, never"),
        ({"max_tokens": 1}, "at least 2"),
        ({"max_tokens": 8, "stride": 8}, "1…max_tokens−1 = 7"),
    ],
)
def test_bad_protocols_say_what_was_expected(fields, message):
    with pytest.raises(LabError, match=message):
        Windowing(**fields)


def test_nothing_to_predict():
    with pytest.raises(LabError, match="none of the 3 documents has two tokens"):
        plan_windows(corpus([1, 0, 1]), Windowing())


def test_packing_needs_a_separator():
    c = corpus([5])
    with pytest.raises(LabError, match="end-of-text"):
        plan_windows(TokenizedCorpus(c.tokens, c.offsets, None, c.special_ids, None), Windowing("packed"))
