"""Local files and hub data sets as documents: what is read, in which order, and every refusal in words."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from rbp_lab.config.build import build
from rbp_lab.data import HubText, LocalText
from rbp_lab.errors import LabError
from tests import hub_server
from tests.sources import composed

CONF = Path(__file__).parent.parent / "conf"
ROWS = [{"question": f"What is {i}?", "answer": f"{i}", "meta": {"set": "even" if i % 2 == 0 else "odd"}, "n": i}
        for i in range(40)]  # fmt: skip
WHOLE = {"shuffle_seed": None, "num_documents": None}


def lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def as_parquet(path: Path) -> bytes:
    datasets.Dataset.from_list(ROWS).to_parquet(path)
    return path.read_bytes()


FILES = {
    "rows.jsonl": lambda p: lines(ROWS),
    "rows.jsonl.gz": lambda p: gzip.compress(lines(ROWS).encode()),
    "rows.json": lambda p: json.dumps(ROWS, indent=1),
    "lines.json": lambda p: lines(ROWS),
    "rows.parquet": as_parquet,
    "rows.csv": lambda p: "question,answer,n\n" + "".join(f"{r['question']},{r['answer']},{r['n']}\n" for r in ROWS),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_documents(name, tmp_path):
    path = write(tmp_path / name, FILES[name](tmp_path / name))
    corpus = LocalText(files=path, template="{question}\n{answer}", **WHOLE).corpus()
    assert corpus.texts == tuple(f"What is {i}?\n{i}" for i in range(40))
    assert corpus.ids == tuple(f"{name}/{i}" for i in range(40))
    assert corpus.info["documents"] == corpus.info["documents_before_selection"] == 40
    json.dumps(corpus.info)


def test_selection_is_shuffle_and_select_of_datasets(tmp_path):
    path = write(tmp_path / "rows.jsonl", lines(ROWS))
    table = datasets.Dataset.from_list(ROWS)
    paper = LocalText(files=path, field="question", num_documents=15).corpus()
    assert list(paper.texts) == table.shuffle(seed=42).select(range(15))["question"][:]
    odd = table.filter(lambda row: row["meta"]["set"] == "odd").shuffle(seed=7).select(range(5))
    few = LocalText(files=path, field="question", where={"meta.set": "odd"}, shuffle_seed=7, num_documents=5).corpus()
    assert list(few.texts) == odd["question"][:]
    assert few.ids == tuple(f"rows.jsonl/{n}" for n in odd["n"])
    assert few.info["documents_before_selection"] == 20


def test_unread_rows_are_chosen_as_read_ones(tmp_path):
    """With min_chars = 0 only the chosen rows are read; nothing else may differ."""
    path = write(tmp_path / "rows.jsonl", lines(ROWS))
    read = LocalText(files=path, field="question", num_documents=9).corpus()
    unread = LocalText(files=path, field="question", num_documents=9, min_chars=0).corpus()
    assert (read.texts, read.ids, read.fingerprint) == (unread.texts, unread.ids, unread.fingerprint)


def test_short_and_null_documents_leave_before_the_shuffle(tmp_path):
    rows = [{"text": t} for t in ("abc", "", None, "ab", "abcdef", "abcd")]
    path = write(tmp_path / "rows.jsonl", lines(rows))
    corpus = LocalText(files=path, min_chars=3, **WHOLE).corpus()
    assert corpus.texts == ("abc", "abcdef", "abcd")
    assert corpus.ids == ("rows.jsonl/0", "rows.jsonl/4", "rows.jsonl/5")


def test_several_files_keep_their_order_and_names(tmp_path):
    write(tmp_path / "b" / "x.jsonl", lines([{"text": "bx"}]))
    write(tmp_path / "a" / "x.jsonl", lines([{"text": "ax", "more": 1}]))
    write(tmp_path / "a" / "[1].jsonl", lines([{"text": "a1"}]))
    everything = LocalText(files=f"{tmp_path}/**/*.jsonl", **WHOLE).corpus()
    assert dict(zip(everything.ids, everything.texts, strict=True)) == {
        "a/[1].jsonl/0": "a1",
        "a/x.jsonl/0": "ax",
        "b/x.jsonl/0": "bx",
    }
    listed = LocalText(files=[str(tmp_path / "b/x.jsonl"), f"{tmp_path}/**/x.jsonl"], **WHOLE).corpus()
    assert listed.texts == ("bx", "ax")
    shutil.copytree(tmp_path, tmp_path.parent / "moved", dirs_exist_ok=True)
    moved = LocalText(files=f"{tmp_path.parent}/moved/**/*.jsonl", **WHOLE).corpus()
    assert moved.fingerprint == everything.fingerprint


def test_nested_fields_numbers_and_shell_line_breaks(tmp_path):
    path = write(tmp_path / "rows.jsonl", lines(ROWS[:2]))
    assert LocalText(files=path, field="meta.set", **WHOLE).corpus().texts == ("even", "odd")
    shell = LocalText(files=path, template="{n}: {meta.set}\\n{{end}}", **WHOLE).corpus()
    assert shell.texts == ("0: even\n{end}", "1: odd\n{end}")


def test_where_takes_values_lists_and_nesting(tmp_path):
    path = write(tmp_path / "rows.jsonl", lines(ROWS))
    some = {"files": path, "field": "answer", **WHOLE}
    assert LocalText(where={"n": [3, 1]}, **some).corpus().texts == ("1", "3")
    assert LocalText(where={"meta": {"set": "odd"}, "n": [2, 3]}, **some).corpus().texts == ("3",)


def test_text_files_are_documents_or_are_parted_by_lines(tmp_path):
    content = "= one =\nfirst\n\n= two =\n\n= three =\r\nthird\n"
    first = write(tmp_path / "a.txt", b"\xef\xbb\xbf" + content.encode())
    second = write(tmp_path / "b.txt.gz", gzip.compress(b"whole"))
    whole = LocalText(files=[first, second], **WHOLE).corpus()
    assert whole.ids == ("a.txt", "b.txt.gz")
    assert whole.texts == (content, "whole")
    parted = LocalText(files=first, separator="= .* =", **WHOLE).corpus()
    assert (parted.ids, parted.texts) == (("a.txt/0", "a.txt/1"), ("first", "third"))
    kept = LocalText(files=first, separator="= .* =", keep_separator=True, **WHOLE).corpus()
    assert kept.texts == ("= one =\nfirst", "= two =", "= three =\r\nthird")


def test_a_separator_that_parts_nothing_is_noted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rbp_lab.errors._noted", set())
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("one\n=== 1 ===\ntwo\n")
    noted = {}
    for separator in ("===", "=+ . =+", None):
        LocalText(files=str(tmp_path / "*.txt"), separator=separator, **WHOLE).corpus()
        noted[separator] = capsys.readouterr().err
    assert noted.pop("===").startswith("note: dataset.separator '===' matches no whole line of dataset local")
    assert set(noted.values()) == {""}


REFUSALS = {
    "no file": ({}, {"files": "none/*.jsonl"}, "no file none/"),
    "directory": ({"d/x.jsonl": "{}"}, {"files": "{tmp}/d"}, "is a directory; name its files"),
    "not a path": ({}, {"files": 3}, "must be a path, a glob or a list of them; got 3"),
    "empty list": ({}, {"files": []}, "must be a path, a glob or a list"),
    "unknown kind": ({"x.doc": "x"}, {}, "unknown kind of file x.doc; known are .txt"),
    "mixed": ({"x.txt": "x", "y.jsonl": "{}"}, {"files": "{tmp}/*"}, r"mixes formats \(json, text\)"),
    "empty file": ({"x.jsonl": ""}, {}, "x.jsonl is empty"),
    "bad line": ({"x.jsonl": '{"text": "a"}\n\n{"text": b}\n'}, {}, r"x.jsonl, line 3 is not JSON: Expecting value"),
    "bad line, gz": (
        {"x.jsonl.gz": gzip.compress(b'{"text": "a"}\n{"text"\n')},
        {},
        r"x.jsonl.gz, line 2 is not JSON: Expecting ':'",
    ),
    "bad json": ({"x.json": '[\n{"text": "a"},\n{"text": b}]'}, {}, r"x.json is not JSON: .*line 3"),
    "not gz": ({"x.jsonl.gz": b"plain"}, {}, r"x.jsonl.gz is cut off or damaged in line 1 \(Not a gzipped file"),
    "not parquet": ({"x.parquet": b"plain"}, {}, "cannot read .*x.parquet as parquet: .+"),
    "not utf-8": ({"x.txt": b"ab\xff"}, {}, r"x.txt, line 1 is not UTF-8 text \(byte 3 of it\)"),
    "field": ({"x.jsonl": lines(ROWS)}, {}, "row 0 has no field 'text'; its fields are question, answer, meta.set, n"),
    "unread field": ({"x.jsonl": lines(ROWS)}, {"min_chars": 0}, "has no field 'text'; its fields are question"),
    "nested": ({"x.jsonl": lines(ROWS)}, {"field": "meta.x"}, "no field 'meta.x'; its fields are .*meta.set"),
    "list": ({"x.jsonl": '{"text": ["a"]}\n'}, {}, "field 'text' holds a list, not a text"),
    "null in template": ({"x.jsonl": lines([{"a": "x", "b": None}])}, {"template": "{a}{b}"}, "nothing in field 'b'"),
    "condition": ({"x.jsonl": lines(ROWS)}, {"field": "answer", "where": {"meta.set": "x"}}, "none of 40 rows has"),
    "condition on": ({"x.jsonl": lines(ROWS)}, {"field": "answer", "where": {"set": 1}}, "has no field 'set'"),
    "nothing": ({"x.jsonl": lines(ROWS)}, {"field": "answer", "min_chars": 99}, "no document is left of 40"),
    "empty document": (
        {"x.jsonl": lines([{"text": ""}])},
        {"min_chars": 0},
        "row 0 is empty; set dataset.min_chars=1 to leave empty documents out",
    ),
    "empty text": ({"x.txt": ""}, {}, "no document is left of 1"),
    "text has no field": ({"x.txt": "x"}, {"field": "text"}, "text files have none"),
    "rows have no lines": ({"x.jsonl": "{}"}, {"separator": "-"}, "separator is for text files; these are json"),
    "both": ({}, {"files": "x", "field": "a", "template": "{b}"}, "field or dataset.template, not both"),
    "no name": ({}, {"files": "x", "template": "{}"}, "is malformed: fields are written"),
    "open brace": ({}, {"files": "x", "template": "{a"}, "is malformed"),
    "no field": ({}, {"files": "x", "template": "a"}, "names no field"),
    "format": ({}, {"files": "x", "format": "jsonl"}, "must be one of text, json, parquet, csv, or null; got 'jsonl'"),
    "expression": ({}, {"files": "x", "separator": "("}, "is not a regular expression"),
    "seed": ({"x.jsonl": lines(ROWS)}, {"field": "answer", "shuffle_seed": -1}, "shuffle_seed must be 0 or more"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_local_source_refuses_in_words(case, tmp_path):
    files, arguments, message = REFUSALS[case]
    for name, content in files.items():
        write(tmp_path / name, content)
    asked = arguments.get("files", [f"{tmp_path}/{name}" for name in files])
    asked = asked.format(tmp=tmp_path) if isinstance(asked, str) else asked
    with pytest.raises(LabError, match=message) as caught:
        LocalText(**{**arguments, "files": asked}).corpus()
    assert "\n" not in str(caught.value)


def compose(name: str, *overrides: str) -> dict:
    return composed(f"dataset/{name}", "+store=there", *overrides)["dataset"]


# Sources of [RBP] (arXiv 2510.20387), section 4 and its released code: path, config, split, text.
PAPER = {
    "wikipedia": ("wikimedia/wikipedia", "20231101.en", "train", None),
    "humaneval": ("openai/openai_humaneval", None, "test", "{prompt}\n{canonical_solution}"),
    "hotpotqa": ("hotpotqa/hotpot_qa", "distractor", "validation", "{question}\n{answer}"),
    "auslegal": ("isaacus/open-australian-legal-corpus", None, "corpus", None),
    "c4": ("allenai/c4", None, "validation", None),
    "github": ("monology/pile-uncopyrighted", None, "validation+test", None),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_corpora_compose_with_its_protocol(name):
    source = build(compose(name), "dataset")
    assert (source.path, source.config, source.split, source.template) == PAPER[name]
    assert (source.name, source.shuffle_seed, source.num_documents) == (name, 42, 1000)
    protocol = source.protocol
    assert (protocol.windows, protocol.max_tokens, protocol.bos) == ("truncate", 512, "tokenizer")
    assert protocol.mask_special
    assert source.min_chars == {"github": 513, "wikipedia": 0}.get(name, 1)
    assert source.where == ({"meta.pile_set_name": "Github"} if name == "github" else None)


@pytest.mark.parametrize(("name", "cls"), [("hub", HubText), ("local", LocalText)])
def test_the_generic_configs_hold_every_field_and_its_default(name, cls):
    given = {"hub": {"path": "owner/some"}, "local": {"files": "x.txt"}}[name]
    config = compose(name, *(f"dataset.{key}={value}" for key, value in given.items()))
    given |= {"cache": "there/cache/corpora"} if name == "hub" else {}
    assert build(config, "dataset") == cls(**given)
    assert set(config) == {field.name for field in dataclasses.fields(cls)} | {"_target_"}


def test_hub_fields_are_checked():
    assert HubText(path="owner/some").name == "some"
    for arguments, message in (({"path": ""}, "path is empty"), ({"path": "a/b", "split": "x+"}, "joined by +")):
        with pytest.raises(LabError, match=message.replace("+", r"\+")):
            HubText(**arguments)


def test_sources_import_no_frameworks_and_local_files_are_copied_nowhere(tmp_path):
    files = [
        write(tmp_path / name, FILES[name](tmp_path / name)) for name in ("rows.jsonl", "rows.csv", "rows.parquet")
    ]
    script = (
        "import sys, rbp_lab.data as c; c.HubText(path='a/b'); c.StdlibText();"
        "[c.LocalText(files=file, field='question').corpus() for file in sys.argv[1:]];"
        "print([m for m in ('torch', 'transformers', 'datasets', 'pandas') if m in sys.modules])"
    )
    home = {"HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", script, *files], capture_output=True, text=True, check=True, env=os.environ | home
    )
    assert done.stdout.strip() == "[]"
    assert not (tmp_path / "home").exists()


# The sizes of all splits, as cards give them: a choice of files has other ones.
CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: train-00000.jsonl}
  - {split: validation, path: val.jsonl}
dataset_info:
- config_name: main
  splits:
  - {name: train, num_bytes: 1000, num_examples: 100}
  - {name: validation, num_bytes: 10, num_examples: 1}
---
"""

FROM_HUB = """
import json, sys
from rbp_lab.data import HubText
from rbp_lab.errors import LabError
out = {}
for key, fields in json.loads(sys.argv[1]).items():
    try:
        corpus = HubText(**fields).corpus()
        out[key] = {name: getattr(corpus, name) for name in ("ids", "fingerprint", "info")}
        out[key]["texts"] = list(corpus.texts)
    except LabError as error:
        out[key] = str(error)
print(json.dumps(out))
"""


def test_hub_data_sets_by_split_files_condition_and_stream(tmp_path):
    repo = tmp_path / "root" / "datasets" / "tiny" / "qa"
    write(repo / "train-00000.jsonl", "this is not JSON\n")  # fetched by nothing that names its files
    write(repo / "val.jsonl", lines(ROWS[:30]))
    write(repo / "test.jsonl.gz", gzip.compress(lines(ROWS[30:]).encode()))
    write(repo / "README.md", CARD)
    plain = tmp_path / "root" / "datasets" / "tiny" / "plain"
    (plain / "data").mkdir(parents=True)
    datasets.Dataset.from_list(ROWS).to_parquet(plain / "data" / "validation-00000-of-00001.parquet")
    both = {"validation": "val.jsonl", "test": "test.jsonl.gz"}
    paper = {"path": "tiny/qa", "split": "validation+test", "data_files": both, "field": "question"}
    paper["config"] = "main"
    odd = paper | {"where": {"meta.set": "odd"}, "num_documents": 7}
    asked = {
        "both": paper,
        "odd": odd,
        "odd stream": odd | {"streaming": True},
        "plain": {"path": "tiny/plain", "split": "validation", "template": "{question}{answer}", "min_chars": 0},
        "unknown": {"path": "tiny/none"},
        "split": {"path": "tiny/plain", "split": "test"},
        "config": {"path": "tiny/plain", "config": "en", "split": "validation"},
        "field": {"path": "tiny/plain", "split": "validation"},
        "broken": {"path": "tiny/qa", "data_files": {"train": "train-00000.jsonl"}},
    }
    server = hub_server.serve(tmp_path / "root")
    home = tmp_path / "home"
    got = json.loads(hub_server.run_client(FROM_HUB, server, home, json.dumps(asked)))
    requests = len(server.log)

    table = datasets.Dataset.from_list(ROWS)
    assert isinstance(got["both"], dict), got["both"]
    assert got["both"]["texts"] == table.shuffle(seed=42)["question"][:]
    place = [f"validation/{i}" if i < 30 else f"test/{i - 30}" for i in range(40)]
    assert got["both"]["ids"] == [place[n] for n in table.shuffle(seed=42)["n"]]
    chosen = table.filter(lambda row: row["meta"]["set"] == "odd").shuffle(seed=42).select(range(7))
    assert got["odd"]["texts"] == chosen["question"][:]
    assert got["odd stream"] == got["odd"]
    assert got["odd"]["info"]["commit"] == hub_server.commit_of(repo)
    assert got["odd"]["info"]["left_out"] == {"not matching where": 20}
    asked_for = [path for _, path in server.log if path.startswith("/api/datasets/tiny/qa/")]
    assert asked_for and not [path for path in asked_for if "/main" in path]  # one commit, resolved once
    assert got["odd"]["info"]["documents_before_selection"] == 20
    assert got["plain"]["texts"] == [f"What is {n}?{n}" for n in table.shuffle(seed=42)["n"]]
    assert "cannot read split train of tiny/none: the hub has no such public data set" in got["unknown"]
    assert "cannot read split test of tiny/plain" in got["split"] and "['validation']" in got["split"]
    assert "tiny/plain (en)" in got["config"] and "['default']" in got["config"]
    assert "no field 'text'; its fields are question, answer, meta.set, n" in got["field"]
    assert "cannot read split train of tiny/qa" in got["broken"] and "JSON parse error" in got["broken"]

    again = {"plain": asked["plain"], "unknown": asked["unknown"]}
    offline = json.loads(hub_server.run_client(FROM_HUB, server, home, json.dumps(again), offline=True))
    assert len(server.log) == requests
    assert offline["plain"]["info"]["commit"] == got["plain"]["info"]["commit"] == hub_server.commit_of(plain)
    assert offline["plain"]["fingerprint"] == got["plain"]["fingerprint"]
    assert "HF_HUB_OFFLINE is set" in offline["unknown"]
    server.shutdown()
