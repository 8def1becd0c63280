"""Records that stay on the disk: the same numbers as records in memory, with little of them at hand."""

from dataclasses import fields

import numpy as np
import pytest

from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.errors import LabError
from rbp_lab.fits.result import fits_to_frame
from rbp_lab.laws.base import Inputs
from rbp_lab.laws.registry import LAWS, compute, tables
from rbp_lab.points import points_from_records
from rbp_lab.stats import DocumentTable, RankStats
from rbp_lab.store import streamed
from rbp_lab.store.records import list_records, read_record, write_record
from rbp_lab.store.streamed import Shelf, stream_records
from tests.fits_data import ladder

KS = [1, 10, 100]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    for record in ladder(5, documents=20, vocab=600, tied=True):
        write_record(root, record)
    return root


def same(a, b):
    return np.array_equal(a, b) if isinstance(b, np.ndarray) else a == b


def test_every_part_of_a_streamed_record_is_that_of_the_record(store):
    for ours, whole in zip(stream_records(store, most=0), list_records(store), strict=True):
        assert ours.header == whole.header and ours.document_names == whole.document_names
        for mine, theirs, kind in (
            (ours.stats, whole.stats, RankStats),
            (ours.documents, whole.documents, DocumentTable),
        ):
            assert all(same(getattr(mine, f.name), getattr(theirs, f.name)) for f in fields(kind))
        assert ours.stats == whole.stats and len(ours.documents) == len(whole.documents)
        for k in (1, 7, 100, 600):
            assert [ours.stats.hits(k, t) for t in streamed.TIES] == [whole.stats.hits(k, t) for t in streamed.TIES]
            for _ in range(2):  # counted, and remembered
                hits = ours.documents.hits(k)
                assert np.array_equal(hits, whole.documents.hits(k)) and hits.dtype == np.int64
        assert np.array_equal(ours.documents.window_hits(2, 10), whole.documents.window_hits(2, 10))


def test_an_analysis_of_streamed_records_gives_the_same_tables(store):
    def found(records):
        points = points_from_records(records, KS)
        fits = fit_all(points, records=records)
        return {"points": points, "fits": fits_to_frame(fits)} | tables(compute(LAWS, Inputs(points, fits, records)))

    ours, theirs = found(stream_records(store, most=0)), found(list_records(store))
    assert ours.keys() == theirs.keys() and len(ours) > 12
    for name, table in theirs.items():
        assert ours[name].to_csv() == table.to_csv(), name


def test_tables_are_read_once_while_there_is_room_and_never_all_at_once(store, monkeypatch):
    reads, held = [], []
    real = streamed.read_stats
    monkeypatch.setattr(streamed, "read_stats", lambda files: reads.append(files.key) or real(files))
    for most, times in ((10**9, 1), (0, 3)):
        reads.clear()
        records = stream_records(store, most=most)
        for _ in range(3):
            held = [record.stats.counts.sum() for record in records]
        assert len(held) == 5 and len(reads) == 5 * times
    reads.clear()
    assert [record.stats.hits(10) for record in records] and reads == []  # hits at the thresholds are at hand


def test_what_was_asked_for_last_stays_as_far_as_there_is_room(store):
    (record, *_) = list_records(store)
    size = sum(getattr(getattr(record.documents, f.name), "nbytes", 0) for f in fields(DocumentTable))
    shelf, reads = Shelf(2 * size), []

    def get(key):
        shelf.get(key, lambda: reads.append(key) or record.documents)

    for key in "abaca":  # b, which was asked for before a was again, makes room for c
        get(key)
    assert reads == ["a", "b", "c"]
    for key in "cacbbc":  # two fit for good, not only until the first was put away
        get(key)
    assert reads == ["a", "b", "c", "b"]


def test_a_damaged_record_is_told_and_the_others_are_there(tmp_path):
    for record in ladder(2):
        write_record(tmp_path, record)
    damaged, told = sorted((tmp_path / "runs").iterdir())[0], []
    (damaged / "ranks.parquet").write_bytes(b"damaged")
    assert len(stream_records(tmp_path, told.append)) == 1
    assert len(told) == 1 and damaged.name in told[0]


def test_a_record_that_vanishes_meanwhile_is_named(tmp_path):
    write_record(tmp_path, ladder(1)[0])
    (record,) = stream_records(tmp_path, most=0)
    (directory,) = (tmp_path / "runs").iterdir()
    assert read_record(directory).key == record.key
    (directory / "ranks.parquet").unlink()
    with pytest.raises(LabError, match=r"ranks\.parquet is missing"):
        record.stats.counts  # noqa: B018
