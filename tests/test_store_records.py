"""Records on disk: equal to the last bit when read back, complete or absent, and damage is noticed."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rbp_lab import metrics
from rbp_lab.counting import DocumentScores, document_table, rank_stats
from rbp_lab.errors import LabError
from rbp_lab.records import DatasetInfo, ModelInfo, ParamCounts, RunHeader, RunRecord, ScoringSpec, record_key
from rbp_lab.store.records import (
    DamagedRecord,
    has_record,
    list_headers,
    list_records,
    read_record,
    record_path,
    with_header,
    write_record,
)
from tests.test_store_atomic import file_size_limit


def make_record(name="tiny", seed=0, thresholds=(10, 1, 3), windows=(1, 5, 2)):
    rng = np.random.default_rng(seed)
    sizes = np.array([30, 0, 200, 1])
    n = int(sizes.sum())
    scores = DocumentScores(
        document_id=np.array([0, 2, 3, 5]),
        num_scored=sizes,
        num_bytes=sizes * 4,
        nll=rng.exponential(3, n).astype(np.float32),
        num_greater=np.minimum(rng.geometric(0.2, n) - 1, 90).astype(np.int32),
        num_equal=(rng.random(n) < 0.1).astype(np.int32),
        entropy=rng.exponential(1, n).astype(np.float32),
    )
    model = ModelInfo(
        name, "fam", "some/where", None, f"print-{name}", "X", None, 100, 99, 64, ParamCounts(1000, 300, 0)
    )
    dataset = DatasetInfo("texts", "data-print", 6, {"split": "test"})
    spec = ScoringSpec("float32", False, "float32", "rows", {"windows": "truncate"}, tuple(thresholds), tuple(windows))
    stats = rank_stats(scores, 100, spec.window_lengths)
    return RunRecord(
        header=RunHeader(record_key(model, dataset, spec), model, dataset, spec),
        stats=stats,
        documents=document_table(scores, spec.thresholds),
        document_names=("a", "", "c", "d", "", "f"),
        summary=metrics.summary(stats, spec.thresholds),
        provenance={"seconds": 1.5},
    )


def test_a_record_comes_back_bit_for_bit(tmp_path):
    record = make_record()
    path = write_record(tmp_path, record)
    assert path == record_path(tmp_path, record.key) and path.name == record.key
    assert read_record(path) == record
    assert has_record(tmp_path, record.key)


def test_tables_open_in_pandas_and_say_the_same(tmp_path):
    record = make_record()
    path = write_record(tmp_path, record)
    ranks = pd.read_parquet(path / "ranks.parquet")
    assert ranks.loc[ranks["rank"] <= 3, "count"].sum() / ranks["count"].sum() == metrics.rbp(record.stats, 3)
    documents = pd.read_parquet(path / "documents.parquet")
    assert documents["name"].tolist() == ["a", "c", "d", "f"]
    assert documents["nll_sum"].sum() / documents["num_scored"].sum() == pytest.approx(
        metrics.cross_entropy(record.stats), rel=1e-12
    )
    runs = pd.read_parquet(path / "document_runs.parquet")
    runs = runs[runs["k"] == 3]
    hits = (runs["count"] * (runs["length"] - 5 + 1).clip(lower=0)).sum()
    windows = pd.read_parquet(path / "windows.parquet")
    five = windows[windows["window"] == 5]
    assert hits == five.loc[five["max_rank"] <= 3, "count"].sum()
    header = json.loads((path / "record.json").read_text())
    assert header["model"]["non_embedding_params"] == 700
    assert header["summary"]["rbp"]["3"][0] == metrics.rbp(record.stats, 3)


def test_the_key_follows_what_determines_the_numbers():
    record = make_record()
    model, dataset, spec = record.model, record.dataset, record.scoring
    key = record_key(model, dataset, spec)
    assert key == record_key(replace(model, name="other", path="else/where"), replace(dataset, name="x"), spec)
    changed = {
        record_key(replace(model, fingerprint="p"), dataset, spec),
        record_key(model, replace(dataset, fingerprint="p"), spec),
        record_key(model, dataset, replace(spec, dtype="bfloat16")),
        record_key(model, dataset, replace(spec, logits="model")),
        record_key(model, dataset, replace(spec, candidates="tokenizer")),
        record_key(model, dataset, replace(spec, protocol={"windows": "packed"})),
        record_key(model, dataset, replace(spec, thresholds=(1,))),
        record_key(model, dataset, replace(spec, window_lengths=(1,))),
        record_key(model, dataset, replace(spec, tf32=True)),
        record_key(model, dataset, replace(spec, attention="eager")),
    }
    assert len(changed) == 10 and key not in changed


def test_a_failed_write_leaves_nothing_that_looks_finished(tmp_path):
    record = make_record()

    with file_size_limit(1000), pytest.raises(LabError, match=f"cannot write {record_path(tmp_path, record.key)}: "):
        write_record(tmp_path, record)
    assert not has_record(tmp_path, record.key) and list_records(tmp_path) == []
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_failed_overwrite_keeps_the_old_record(tmp_path, monkeypatch):
    record = make_record()
    path = write_record(tmp_path, record)
    monkeypatch.setattr("rbp_lab.store.records.header_text", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_record(tmp_path, replace(record, provenance={}))
    assert read_record(path) == record


def test_overwriting_replaces(tmp_path):
    record = make_record()
    write_record(tmp_path, record)
    newer = replace(record, provenance={"seconds": 2.5})
    assert read_record(write_record(tmp_path, newer)) == newer
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.parametrize("damage", ["missing", "garbage", "version"])
def test_a_damaged_record_is_named(tmp_path, damage):
    path = write_record(tmp_path, make_record())
    if damage == "missing":
        (path / "documents.parquet").unlink()
    elif damage == "garbage":
        (path / "ranks.parquet").write_bytes(b"not parquet")
    else:
        header = json.loads((path / "record.json").read_text())
        (path / "record.json").write_text(json.dumps({**header, "version": 99}))
    with pytest.raises(DamagedRecord, match=re.escape(str(path))):
        read_record(path)


def test_listing_is_ordered_and_ignores_what_is_unfinished(tmp_path):
    for name in ("b", "a"):
        write_record(tmp_path, make_record(name))
    (tmp_path / "runs" / ".0123abcd.part").mkdir()
    (tmp_path / "runs" / "0123456789abcdef").mkdir()
    assert sorted(r.model.name for r in list_records(tmp_path)) == ["a", "b"]
    assert list_records(tmp_path / "nowhere") == []


# -- damage ------------------------------------------------------------------------------------------------------------

OLD = Path(__file__).parent / "data" / "record_version_1" / "fa0a10937fea60e9"
FILES = ("record.json", *(f"{n}.parquet" for n in ("ranks", "windows", "documents", "document_ranks", "document_runs")))


def flipped(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("file", FILES)
def test_no_flipped_bit_is_read_as_a_number(tmp_path, file):
    path = write_record(tmp_path, make_record())
    whole, rng = (path / file).read_bytes(), np.random.default_rng(0)
    for bit in rng.choice(len(whole) * 8, 20, replace=False).tolist():
        flipped(path / file, bit)
        with pytest.raises(DamagedRecord, match=re.escape(str(path))):
            read_record(path)
        headers, damaged = list_headers(tmp_path)
        assert headers == [] and len(damaged) == 1 and str(path) in str(damaged[0])
        (path / file).write_bytes(whole)
    assert read_record(path) == make_record()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", ["missing", "empty", "cut", "another's"])
def test_a_file_that_is_not_the_one_written_is_noticed(tmp_path, file, how):
    path, other = (write_record(tmp_path, make_record(n, seed=s)) for n, s in (("a", 0), ("b", 1)))
    data = (path / file).read_bytes()
    if how == "missing":
        (path / file).unlink()
    else:
        (path / file).write_bytes({"empty": b"", "cut": data[: len(data) // 2]}.get(how, (other / file).read_bytes()))
    with pytest.raises(LabError, match=re.escape(str(path))):
        read_record(path)


def test_a_record_under_the_key_of_another_is_noticed(tmp_path):
    path = write_record(tmp_path, make_record())
    path.rename(path.with_name("0" * 16))
    notes = []
    assert list_records(tmp_path, notes.append) == [] and "the record of another key" in notes[0]
    assert list_headers(tmp_path)[0] == [] and read_record(path.with_name("0" * 16)) == make_record()


def test_one_damaged_record_does_not_hide_the_others(tmp_path, capsys):
    broken, whole = (write_record(tmp_path, make_record(name)) for name in "ab")
    flipped(broken / "ranks.parquet", 99)
    notes = []
    assert [r.key for r in list_records(tmp_path, notes.append)] == [whole.name]
    (note,) = notes
    assert str(broken) in note and "the checksum of ranks.parquet does not hold" in note and "measure it again" in note
    assert [r.key for r in list_records(tmp_path)] == [whole.name] and note in capsys.readouterr().err
    headers, damaged = list_headers(tmp_path)
    assert [h["key"] for h in headers] == [whole.name] and str(damaged[0]) == note


def test_a_record_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    path = write_record(tmp_path, make_record())

    def denied(self):
        raise PermissionError(13, "denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(LabError, match=r"record\.json may not be read: denied") as caught:
        read_record(path)
    assert not isinstance(caught.value, DamagedRecord)


def impossible(column, at, change):
    def spoil(table):
        values = table[column].to_numpy(copy=True)
        values[at] = change(values[at])
        return table.assign(**{column: values})

    return spoil


# Each is a table that opens, of a record without checksums: what its numbers say cannot be.
IMPOSSIBLE = {
    "a negative count": ("windows", impossible("count", 0, lambda v: -v), "negative"),
    "a rank of 0": ("ranks", impossible("rank", 0, lambda v: 0), ""),
    "a rank beyond the vocabulary": ("ranks", impossible("rank", -1, lambda v: 385), ""),
    "one token more": ("ranks", impossible("count", 0, lambda v: v + 1), "num_tokens"),
    "a token of only one tie rule": ("ranks", impossible("count_optimistic", 0, lambda v: v + 1), "two tie rules"),
    "tokens of another rank": ("ranks", impossible("rank", 0, lambda v: v - 1), ""),
    "an nll that is no number": ("ranks", impossible("nll_sum", 0, lambda v: np.nan), "not finite"),
    "an nll of the wrong sign": ("ranks", impossible("nll_sum", 0, lambda v: -v), "is not the sum over its documents"),
    "an nll of too many digits": ("ranks", impossible("nll_sum", 0, lambda v: v * (1 + 2**-40)), "multiples"),
    "one window more": ("windows", impossible("count", -1, lambda v: v + 1), "not as many windows of N = 5"),
    "windows of another length": ("windows", impossible("window", 0, lambda v: 3), ""),
    "windows of another rank": ("windows", impossible("max_rank", 0, lambda v: v + 300), "contradict|listed|tokens"),
    "a document twice": ("documents", impossible("document_id", 1, lambda v: v - 1), "document_id"),
    "tokens of a document": ("documents", impossible("num_scored", 0, lambda v: v + 1), "num_tokens"),
    "bytes of a document": ("documents", impossible("num_bytes", 0, lambda v: v + 1), "num_bytes"),
    "ties of a document": ("documents", impossible("num_tied", 0, lambda v: v + 64), "more ties than tokens"),
    "entropy of a document": ("documents", impossible("entropy_sum", 0, lambda v: v + 1), "Σ entropy"),
    "too little variance": ("documents", impossible("nll_sq", 0, lambda v: v / 2), "less than its Σ nll allows"),
    "too much variance": ("documents", impossible("nll_sq", 0, lambda v: v * 1e6), "more than its Σ nll allows"),
    "an infinite square": ("documents", impossible("nll_sq", 0, lambda v: np.inf), "not finite"),
    "logarithms of ranks": ("documents", impossible("log_rank", 0, lambda v: v * 1.001), "follow from its ranks"),
    "a document's rank": ("document_ranks", impossible("rank", 0, lambda v: v - 1), "add up"),
    "a document's count": ("document_ranks", impossible("count", 0, lambda v: v + 1), "are not its tokens"),
    "a rank of no document": ("document_ranks", impossible("document_id", 0, lambda v: 0), ""),
    "a longer run": ("document_runs", impossible("length", 0, lambda v: v + 9), "runs at k = "),
    "one run more": ("document_runs", impossible("count", 0, lambda v: v + 1), "runs at k = "),
    "a run at another k": ("document_runs", impossible("k", 0, lambda v: 5), ""),
    "a run at a k that is not kept": ("document_runs", impossible("k", 0, lambda v: 2), ""),
    "a run in another document": ("document_runs", impossible("document_id", 0, lambda v: v + 1), ""),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_numbers_that_contradict_each_other_are_refused(tmp_path, name):
    table, spoil, why = IMPOSSIBLE[name]
    path = Path(shutil.copytree(OLD, tmp_path / OLD.name))
    file = path / f"{table}.parquet"
    spoil(pd.read_parquet(file)).to_parquet(file, index=False)
    with pytest.raises(DamagedRecord, match=f"not a readable record .*({why})"):
        read_record(path)


@pytest.mark.parametrize(
    ("entry", "value", "why"),
    [
        ("key", "0" * 16, "its key"),
        ("version", 2, "record version 2"),
        ("totals.num_tokens", 379, "as many tokens"),
        ("totals.num_documents", 7, "num_documents"),
        ("totals.num_bytes", 619, "num_bytes"),
        ("totals.vocab_rows", 10**12, "two numbers of vocabulary rows"),
        ("totals.entropy_sum", 2032.5, "Σ entropy"),
        ("totals.entropy_sum", 2032.929024696351, "multiples"),
        ("model.fingerprint", "x", "its key"),
        ("dataset.fingerprint", "x", "its key"),
        ("scoring.dtype", "bfloat16", "its key"),
        ("surprise", 1, "has the entries"),
        ("model.surprise", 1, "surprise"),
    ],
)
def test_a_header_that_contradicts_itself_or_the_tables_is_refused(tmp_path, entry, value, why):
    path = Path(shutil.copytree(OLD, tmp_path / OLD.name))
    header = json.loads((path / "record.json").read_text())
    *groups, last = entry.split(".")
    node = header
    for group in groups:
        node = node[group]
    node[last] = value
    (path / "record.json").write_text(json.dumps(header))
    with pytest.raises(DamagedRecord, match=why):
        read_record(path)


def test_records_written_before_there_were_checksums_are_read(tmp_path):
    """The values are those that the rbp_lab which wrote the record gave for it."""
    record = read_record(OLD)
    stats, documents = record.stats, record.documents
    assert record.model.name == "tiny" and record.dataset.num_documents == 8 and record.provenance["seconds"] == 5.005
    assert stats.num_tokens == 378 and stats.entropy_units == 34106889360 and int(stats.nll_units.sum()) == 40508300520
    assert metrics.cross_entropy(stats) == 6.3875208014533635
    assert [metrics.rbp(stats, k) for k in (1, 5, 50)] == [0.0, 0.005291005291005291, 0.13756613756613756]
    assert metrics.window_rbp(stats, 2, 50) == 0.02956989247311828
    assert documents.window_hits(2, 50).tolist() == [3, 1, 1, 2, 2, 2]
    assert metrics.neg_log_rbp(documents, 50).value == pytest.approx(1.9836504770381604, rel=1e-12)
    assert record.document_names == ("", "", *(f"text-{i}" for i in range(2, 8)))
    shutil.copytree(OLD, tmp_path / "runs" / OLD.name)
    assert list_records(tmp_path) == [record]
    again = read_record(write_record(tmp_path, record))
    assert again == record and "sha256" in json.loads((tmp_path / "runs" / OLD.name / "record.json").read_text())


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True], ids=["with checksums", "without"])
def test_a_renamed_record_keeps_its_numbers_and_its_other_names(tmp_path, old):
    if old:
        shutil.copytree(OLD, tmp_path / "runs" / OLD.name)
        path = tmp_path / "runs" / OLD.name
    else:
        path = write_record(tmp_path, make_record())
    before = read_record(path)
    renamed = with_header(tmp_path, before, before.header.named("big", "mine", "corpus B"))
    found = read_record(path)
    assert found == renamed and found.header.names == ("big", "mine", "corpus B")
    assert found.header.other_models == (before.header.names[:2],)
    assert found.header.other_datasets == (before.dataset.name,)
    assert found.stats == before.stats and found.documents == before.documents and found.key == before.key
    back = with_header(tmp_path, found, found.header.named(*before.header.names))
    assert back.header.names == before.header.names and back.header.other_datasets == ("corpus B",)


def test_overwriting_keeps_the_names_of_the_record_before(tmp_path):
    record = make_record()
    write_record(tmp_path, record)
    other = replace(record, header=replace(record.header, dataset=replace(record.dataset, name="else")))
    header = read_record(write_record(tmp_path, other)).header
    assert header.dataset.name == "else" and header.other_datasets == (record.dataset.name,)


def test_a_damaged_record_is_overwritten(tmp_path):
    record = make_record()
    path = write_record(tmp_path, record)
    (path / "record.json").write_text("{")
    assert read_record(write_record(tmp_path, record)) == record
