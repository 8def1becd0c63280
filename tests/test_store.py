"""Records on disk: equal to the last bit when read back, complete or absent."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rbp_lab import metrics
from rbp_lab.errors import LabError
from rbp_lab.records import DatasetInfo, ModelInfo, ParamCounts, RunHeader, RunRecord, ScoringSpec, record_key
from rbp_lab.stats import DocumentScores, document_table, rank_stats
from rbp_lab.store.records import has_record, list_records, read_record, record_path, write_record
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
    monkeypatch.setattr("rbp_lab.store.records._header", lambda record: 1 / 0)
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
    with pytest.raises(LabError, match=str(path)):
        read_record(path)


def test_listing_is_ordered_and_ignores_what_is_unfinished(tmp_path):
    for name in ("b", "a"):
        write_record(tmp_path, make_record(name))
    (tmp_path / "runs" / ".0123abcd.part").mkdir()
    (tmp_path / "runs" / "0123456789abcdef").mkdir()
    assert sorted(r.model.name for r in list_records(tmp_path)) == ["a", "b"]
    assert list_records(tmp_path / "nowhere") == []
