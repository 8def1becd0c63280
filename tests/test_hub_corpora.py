"""Corpora of the hub beside the paper's: what they read, streaming shuffles, and what is kept for the next model."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rbp_lab.config.build import build
from rbp_lab.data import HubText
from rbp_lab.data.corpus import Selection
from rbp_lab.data.corpus_cache import keep_corpus, read_corpus
from rbp_lab.data.tables import corpus_from_tables
from rbp_lab.errors import LabError
from tests import hub_server
from tests.sources import MadeUpText
from tests.test_text_sources import compose

# Config → path, config, split and text of the hub's data sets.
OTHERS = {
    "wikitext": ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", "test", "page"),
    "gsm8k": ("openai/gsm8k", "main", "test", "{question}\n{answer}"),
    "fineweb": ("HuggingFaceFW/fineweb", "sample-10BT", "train", None),
    "pile": ("mit-han-lab/pile-val-backup", None, "validation", None),
    "xquad": ("google/xquad", "xquad.en", "validation", "context"),
    "wikipedia-language": ("wikimedia/wikipedia", "20231101.de", "train", None),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_corpora_have_the_papers_protocol(name):
    given = ["dataset.config=20231101.de"] if name == "wikipedia-language" else []
    source = build(compose(name, *given), "dataset")
    assert (source.path, source.config, source.split, source.field or source.template) == OTHERS[name]
    assert source.name == {"xquad": "xquad.en", "wikipedia-language": "wikipedia.20231101.de"}.get(name, name)
    assert (source.shuffle_seed, source.num_documents, source.cache) == (42, 1000, "there/cache/corpora")
    assert source.protocol == build(compose("c4"), "dataset").protocol
    assert (source.shuffle_buffer is not None) == (name in ("fineweb", "wikipedia-language"))


def test_another_language_has_another_name():
    assert build(compose("xquad", "dataset.config=xquad.zh"), "dataset").name == "xquad.zh"


READ = """
import json, sys
from rbp_lab.data import HubText
read = [HubText(**json.loads(one)).corpus() for one in sys.argv[1:]]
print(json.dumps([[list(one.texts), one.ids, one.fingerprint, one.info] for one in read]))
"""
NOTED = f"""
import contextlib, io
with contextlib.redirect_stderr(io.StringIO()) as told, contextlib.redirect_stdout(io.StringIO()) as out:
    exec({READ!r})
print(json.dumps(told.getvalue()))
print(out.getvalue(), end="")
"""
FILES, ROWS = 24, 100


@pytest.fixture
def hub(tmp_path):
    """A server with a data set in many files; two rows each are equal, and the first is empty."""
    repo = tmp_path / "hub" / "datasets" / "some" / "large"
    repo.mkdir(parents=True)
    for file in range(FILES):
        texts = ["", *(f"file {file}, row {row - row % 2}" for row in range(1, ROWS))]
        pq.write_table(pa.table({"text": texts}), repo / f"train-{file:05}-of-{FILES:05}.parquet")
    server = hub_server.serve(tmp_path / "hub")
    yield server
    server.shutdown()
    server.server_close()


def files_read(server) -> set[str]:
    return {path.rpartition("/")[2] for method, path in server.log if method == "GET" and path.endswith(".parquet")}


def test_a_streaming_shuffle_reads_no_more_than_it_must_and_the_next_model_reads_the_same(hub, tmp_path):
    asked = {"path": "some/large", "num_documents": 120, "streaming": True, "shuffle_buffer": 40}
    kept = asked | {"cache": str(tmp_path / "store" / "cache")}
    ((texts, ids, fingerprint, info),) = read(hub, tmp_path, kept)
    assert 2 <= len(files_read(hub)) < FILES / 2
    assert len(texts) == 120 == len(set(texts)) and "" not in texts
    assert ids == [f"train/{hashlib.sha256(text.encode()).hexdigest()[:16]}" for text in texts]
    assert (info["shuffle_buffer"], info["shuffle_seed"]) == (40, 42)
    assert info["rows_read"] == 120 + sum(info["left_out"].values())
    assert set(info["left_out"]) == {"empty", "with the text of another"}
    assert Counter(text.split(",")[0] for text in texts).most_common(1)[0][1] < 120, "only one file was shuffled"
    # The next model has the same documents without a row being read, also without a hub.
    hub.log.clear()
    assert read(hub, tmp_path, kept, offline=True) == [[texts, ids, fingerprint, info]] and not hub.log
    # Where nothing is kept the same are chosen; the shuffle of the whole chooses others.
    anew, whole = read(hub, tmp_path, asked, asked | {"shuffle_buffer": None})
    assert anew[2] == fingerprint
    assert whole[2] != fingerprint and "shuffle_buffer" not in whole[3]
    assert files_read(hub) == {f"train-{file:05}-of-{FILES:05}.parquet" for file in range(FILES)}


def read(server, tmp_path, *asked, **more):
    """Texts, ids, fingerprint and info of each corpus, read in a new process."""
    return json.loads(hub_server.run_client(READ, server, tmp_path / "home", *map(json.dumps, asked), **more))


def test_a_data_set_that_has_moved_on_is_chosen_from_again(hub, tmp_path):
    asked = {"path": "some/large", "num_documents": 20, "cache": str(tmp_path / "store")}
    (first,) = read(hub, tmp_path, asked)
    hub.log.clear()
    (tmp_path / "hub" / "datasets" / "some" / "large" / "README.md").write_text("a new commit")
    again, found, more = read(hub, tmp_path, asked, asked, asked | {"num_documents": 21})
    assert again[:3] == first[:3] and again[3]["commit"] != first[3]["commit"]
    assert found == again and more[0][:20] == first[0]
    # A hub that does not say what is the newest costs a note, not the documents that are kept.
    hub.refuse["/api/datasets/some/large*"] = 503, {}
    hub.log.clear()
    told, kept = map(json.loads, hub_server.run_client(NOTED, hub, tmp_path / "home", json.dumps(asked)).splitlines())
    assert kept == [again] and not files_read(hub)
    assert "out of order at the moment (503)" in told and f"kept of commit {again[3]['commit']} are read" in told


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"streaming": False}, r"needs dataset\.streaming to be true; got false"),
        ({"shuffle_seed": None}, r"needs dataset\.shuffle_seed to be a number; got null"),
        ({"num_documents": None}, r"needs dataset\.num_documents to be a number; got null"),
        ({"split": "a+b"}, r"needs dataset\.split to be one split; got 'a\+b'"),
        ({"shuffle_buffer": 0}, r"dataset\.shuffle_buffer must be at least 1 row, or null; got 0"),
    ],
)
def test_a_streaming_shuffle_that_cannot_be_is_a_sentence(fields, words):
    with pytest.raises(LabError, match=words):
        HubText(**({"path": "a/b", "streaming": True, "shuffle_buffer": 10} | fields))


def test_equal_texts_are_one_document_where_that_is_asked_for():
    class Pair:
        place, length = "pair", 2

        def __init__(self, label, *texts):
            self.label, self.texts = label, texts

        def documents(self):
            return ((text, None) for text in self.texts)

        def pick(self, numbers):
            return (self.texts[number] for number in numbers)

        def id_of(self, number):
            return f"{self.label}/{number}"

    tables = [Pair("x", "a", "b"), Pair("y", "b", "c")]
    for min_chars in (0, 1):
        corpus = corpus_from_tables(tables, Selection("s", None, None, min_chars, unique=True), {})
        assert (corpus.ids, list(corpus.texts)) == (("x/0", "x/1", "y/1"), ["a", "b", "c"])
        assert corpus.info["left_out"] == {"with the text of another": 1} and corpus.info["unique"]
    assert len(corpus_from_tables(tables, Selection("s", None, None, 0), {})) == 4


def test_kept_documents_are_those_that_were_kept_or_none(tmp_path, capsys):
    corpus = MadeUpText().corpus()
    odd = corpus.__class__("odd", ("a\ud800b", "", "é\r\n"), ("1", "2", "3"), "f" * 64, {"commit": None})
    for one in (corpus, odd):
        keep_corpus(tmp_path / "kept", one)
        found = read_corpus(tmp_path / "kept", one.name)
        assert list(found.texts) == list(one.texts)
        assert (found.name, found.ids, found.fingerprint, found.info) == (one.name, one.ids, one.fingerprint, one.info)
    assert capsys.readouterr().err == ""
    assert read_corpus(tmp_path / "none", "x") is None
    damaged = tmp_path / "kept" / "text.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert read_corpus(tmp_path / "kept", "odd") is None
    assert "are damaged (the checksum of text.npy differs) and are chosen again" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()
    (tmp_path / "file").write_text("")
    keep_corpus(tmp_path / "file" / "below", corpus)
    assert "cannot be kept in" in capsys.readouterr().err
