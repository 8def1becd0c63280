"""Models with different tokenizers on the same texts are compared by bits per byte, and marked where they are not."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from rbp_lab import metrics
from rbp_lab.analysis.run import analyze
from rbp_lab.laws import vocabularies
from rbp_lab.laws.base import Inputs
from rbp_lab.points import points_from_records
from tests.fits_data import synthetic_record


def made(name, index, vocabulary=0):
    """A record with bytes, uneven over its documents, and so many more ids in its vocabulary than the usual one has."""
    record = synthetic_record(name, 10000 * (index + 1), index)
    size = 4 * record.documents.num_scored + 10 * record.documents.document_id
    model = replace(record.model, tokenizer_size=record.model.tokenizer_size + vocabulary)
    return replace(
        record,
        header=replace(record.header, model=model),
        documents=replace(record.documents, num_bytes=size),
        stats=replace(record.stats, num_bytes=int(size.sum())),
    )


@pytest.fixture(scope="module")
def records():
    """Two models that share a vocabulary, and one with another, on one data set."""
    return [made("a", 0), made("b", 1), made("c", 2, vocabulary=7)]


def inputs(records):
    return Inputs(points_from_records(records, [1]), (), tuple(records))


def test_bits_per_byte_is_a_ratio_of_sums_over_documents(records):
    documents = records[0].documents
    estimate = metrics.bits_per_byte_estimate(documents)
    nll, size = documents.nll_units * metrics.UNIT / math.log(2), documents.num_bytes
    assert size.sum() > 0
    assert estimate.value == pytest.approx(nll.sum() / size.sum())
    assert estimate.value == pytest.approx(metrics.bits_per_byte(records[0].stats))
    # The jackknife over documents gives the same standard error, to the order of 1 over their number.
    without = (nll.sum() - nll) / (size.sum() - size)
    jackknife = math.sqrt((len(nll) - 1) / len(nll) * ((without - without.mean()) ** 2).sum())
    assert estimate.se_log * estimate.value == pytest.approx(jackknife, rel=0.1)
    assert estimate.lower < estimate.value < estimate.upper
    unknown = replace(documents, num_bytes=np.zeros_like(size))
    assert metrics.bits_per_byte_estimate(unknown) is None


def test_only_data_sets_that_are_cut_into_different_tokens_are_compared_by_bytes(records):
    assert vocabularies.mixed(records[:2]) == {}
    assert vocabularies.compute(inputs(records[:2])).tables == {}
    result = vocabularies.compute(inputs(records))
    table = result.tables["bits_per_byte"]
    assert table["model"].tolist() == ["a", "b", "c"] and table["vocabulary"].nunique() == 2
    for record, row in zip(records, table.itertuples(), strict=True):
        assert row.bits == pytest.approx(record.stats.nll_sum.sum() / math.log(2))
        assert row.bits / row.bytes == pytest.approx(row.bits_per_byte)
    section = vocabularies.section(result)
    assert "between vocabularies only bits per byte compare" in section.lead


def test_the_terminal_marks_a_table_that_mixes_vocabularies(records, tmp_path):
    said = {}
    for name, chosen in (("same", records[:2]), ("mixed", records)):
        console = Console(width=160, file=io.StringIO())
        points = points_from_records(chosen, [1])
        found = analyze(points, tmp_path / name, records=chosen, console=console)
        said[name] = console.file.getvalue()
        assert ("law_bits_per_byte.csv" in {path.name for path in found.files}) == (name == "mixed")
    assert vocabularies.NOT_COMPARABLE in said["mixed"] and "total bits" in said["mixed"]
    assert vocabularies.NOT_COMPARABLE not in said["same"] and "total bits" not in said["same"]
