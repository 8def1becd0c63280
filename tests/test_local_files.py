"""Local files are read as they are written: no guess of types, no change of line ends, no file held as a whole."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import re
import tracemalloc
from pathlib import Path

import pyarrow
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from rbp_lab.data import LocalText
from rbp_lab.data.corpus import Selection
from rbp_lab.data.readers import read_rows
from rbp_lab.data.tables import corpus_from_tables, picked
from rbp_lab.errors import LabError

WHOLE = {"shuffle_seed": None, "num_documents": None}
COMPRESS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, **fields) -> tuple[str, ...]:
    return LocalText(files=str(path), **{**WHOLE, **fields}).corpus().texts


def as_csv(texts) -> str:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["n", "text"], *enumerate(texts)])
    return out.getvalue()


def as_parquet(texts) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.table({"n": range(len(texts)), "text": pyarrow.array(texts, pyarrow.string())}), out)
    return out.getvalue()


FORMATS = {
    "x.jsonl": lambda texts: "".join(json.dumps({"n": i, "text": t}) + "\n" for i, t in enumerate(texts)).encode(),
    "x.json": lambda texts: json.dumps([{"text": t} for t in texts], indent=1, ensure_ascii=False).encode(),
    "strings.json": lambda texts: json.dumps(texts).encode(),
    "pretty.json": lambda texts: "\n".join(json.dumps({"text": t}, indent=2) for t in texts).encode(),
    "x.csv": lambda texts: as_csv(texts).encode(),
    "x.parquet": as_parquet,
}

NASTY = [
    "NA", "null", "None", "nan", "N/A", "007", "010", "1e3", "1.50", "2024-01-01", "2024-01-01T00:00:00Z", "true", "-0",
    " both sides ", "a\r\nb", "a\rb", "a\nb", "tab\tquote\"comma,", "\ufeffmark inside", "line\u2028separator\x0b\x85",
    "é 日本語 🙂", "\\n is no line end", "[1]", '{"text": 1}',
]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_text_is_what_the_file_holds(name, tmp_path):
    assert read(write(tmp_path / name, FORMATS[name](NASTY))) == tuple(NASTY)


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1))
def test_any_text_comes_back_from_every_format(texts, tmp_path_factory):
    for name, make in FORMATS.items():
        assert read(write(tmp_path_factory.getbasetemp() / name, make(texts))) == tuple(texts), name


def test_escapes_of_json_are_characters_whatever_they_stand_for(tmp_path):
    texts = ["\0 nothing", "\ud800 half", "\U0001f642"]
    assert read(write(tmp_path / "x.jsonl", FORMATS["x.jsonl"](texts))) == tuple(texts)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_line_ends_stay(name, tmp_path):
    content = {
        "a.txt": b"one\r\ntwo\rthree\n",
        "a.jsonl": b'{"text": "one\\r\\ntwo\\rthree\\n"}\r\n\r\n',
        "a.csv": b'text\r\n"one\r\ntwo\rthree\n"\r\n',
    }[name]
    assert read(write(tmp_path / name, content)) == ("one\r\ntwo\rthree\n",)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_part_documents_whatever_ends_them(end, tmp_path):
    path = write(tmp_path / "a.txt", end.join(["= 1 =", "a", "", "b", "= 2 =", "", "= 3 =", "c", ""]))
    assert read(path, separator="= .* =") == (f"a{end}{end}b", "c")
    assert read(path, separator="= .* =", keep_separator=True)[1] == "= 2 ="


@pytest.mark.parametrize("name", FORMATS)
def test_a_replaced_file_gives_its_new_text(name, tmp_path):
    """As tar, cp -p and rsync -a replace it: the same path, size and time."""
    path = tmp_path / name
    for text in ("old words", "new words"):
        os.utime(write(path, FORMATS[name]([text])), ns=(10**18, 10**18))
        assert read(path) == (text,)


def test_cells_of_csv_are_compared_as_they_stand(tmp_path):
    path = write(tmp_path / "x.csv", "zip,flag,text\n01234,True,a\n1234,false,b\n,true,c\n1e3,,d\n")
    for where, texts in [
        ({"zip": "01234"}, ("a",)),
        ({"zip": 1234}, ("b",)),
        ({"zip": None}, ("c",)),
        ({"zip": ["01234", "1e3"]}, ("a", "d")),
        ({"flag": True}, ("a", "c")),
        ({"flag": "true"}, ("c",)),
    ]:
        assert read(path, where=where) == texts, where
    with pytest.raises(LabError, match=r"none of 4 rows has \{'zip': "):
        read(path, where={"zip": 1000})


def test_conditions_on_json_tell_numbers_texts_and_booleans_apart(tmp_path):
    rows = [{"text": "one", "v": 1}, {"text": "yes", "v": True}, {"text": "text", "v": "1"}, {"text": "none"}]
    path = write(tmp_path / "x.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for value, text in ((1, "one"), (True, "yes"), ("1", "text")):
        assert read(path, where={"v": value}) == (text,)


def test_numbers_in_a_template_are_written_as_in_the_file(tmp_path):
    digits = "9" * 5000
    numbers = ["1e3", "1.50", "-0", "0.10", "12345678901234567890123", "1E400", digits]
    path = write(tmp_path / "x.jsonl", "".join(f'{{"v": {n}, "w": true}}\n' for n in numbers))
    assert read(path, template="{v} {w}") == tuple(f"{n} true" for n in numbers)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("7", 'holds the number 7, not a text; dataset.template="{text}" takes it'),
        ("1e3", "holds the number 1e3, not a text"),
        ("false", "holds the boolean false, not a text"),
        ('["a"]', "holds a list, not a text; name a field inside it"),
        ('{"a": 1}', "holds a dict, not a text; name a field inside it"),
        ("Infinity", "holds the number Infinity"),
    ],
)
def test_a_value_that_is_no_text_is_refused(value, words, tmp_path):
    with pytest.raises(LabError, match=words):
        read(write(tmp_path / "x.jsonl", f'{{"text": "a"}}\n{{"text": {value}}}\n'))


def test_columns_of_parquet_that_hold_no_texts_are_refused(tmp_path):
    table = pyarrow.table({"n": [1.5], "b": [b"x"], "flag": [True]})
    parquet.write_table(table, tmp_path / "x.parquet")
    for name, words in (("n", "the number 1.5"), ("b", "binary data"), ("flag", "the boolean true")):
        with pytest.raises(LabError, match=f"field '{name}' holds {words}, not a text"):
            read(tmp_path / "x.parquet", field=name)
    assert read(tmp_path / "x.parquet", template="{n} {flag}") == ("1.5 true",)


def test_what_is_left_out_is_counted_by_reason(tmp_path):
    rows = ['{"text": "kept", "on": 1}', '{"text": "other", "on": 2}', '{"text": null, "on": 1}', '{"on": 1}',
            '{"text": NaN, "on": 1}', '{"text": "", "on": 1}', '{"text": "no", "on": 1}',
            '{"text": "unmarked"}']  # fmt: skip
    path = write(tmp_path / "x.jsonl", "\n".join(rows))
    corpus = LocalText(files=str(path), where={"on": 1}, min_chars=3).corpus()
    assert corpus.texts == ("kept",)
    assert corpus.info["left_out"] == {
        "not matching where": 2,
        "with nothing in field text": 2,
        "without field text": 1,
        "empty": 1,
        "shorter than 3 characters": 1,
    }
    assert corpus.info["documents_before_selection"] == 6
    assert "7 documents left out before the selection (2 not matching where, " in corpus.left_out_note()


def test_rows_may_differ_in_fields_that_nobody_asked_for(tmp_path):
    odd = [1, "A", None, [1], {"deep": [{}]}, 1.5, float("nan"), {"deep": 3}, True]
    rows = [{"text": f"t{i}"} | ({"late": odd[i % len(odd)]} if i > 2000 else {}) for i in range(3000)]
    path = write(tmp_path / "x.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert read(path) == tuple(f"t{i}" for i in range(3000))
    assert read(path, where={"late.deep": 3})[0] == "t2005"
    cells = [f"{i if i < 2900 else 'A'},t{i}\n" for i in range(3000)]
    assert read(write(tmp_path / "x.csv", "id,text\n" + "".join(cells))) == tuple(f"t{i}" for i in range(3000))


def test_long_values_and_values_across_reads(tmp_path):
    texts = ["x" * n + '\\"é🙂\n' for n in (1, 65530, 65536, 131072, 400_000)] + [
        f"text {i}" * (i % 90) for i in range(1, 999)
    ]
    texts = [text for text in texts if text]
    for name in FORMATS:
        assert read(write(tmp_path / name, FORMATS[name](texts))) == tuple(texts), name


REFUSED = {
    "long row": ("x.csv", 'text,n\n"a\nb",1\nc,2,3\n', "x.csv, line 4 has 3 cells, but the header names 2"),
    "short row": ("x.csv", "text,n\na,1\n\nc\n", "x.csv, line 4 has 1 cells, but the header names 2"),
    "open quote": ("x.csv", 'text\na\n"b\nc\n', "x.csv, line 3 is not CSV: unexpected end of data"),
    "after quote": ("x.csv", 'text\n"a"b\n', "x.csv, line 2 is not CSV: ',' expected after '\"'"),
    "header twice": ("x.csv", "text,a,a\nx,1,2\n", "line 1: the header names 'a' twice"),
    "no csv": ("x.csv", "\n\n", "x.csv is empty"),
    "latin-1": ("x.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n', r"x.jsonl, line 2 is not UTF-8 text \(byte 14 of"),
    "late latin-1": ("x.csv", b"text\n" + b"fine\n" * 99999 + b"\xe9t\xe9\n", "x.csv, line 100001 is not UTF-8 text"),
    "latin-1 in a list": ("x.json", b'[{"text":\n"caf\xe9"}]', "x.json, line 2 is not UTF-8 text"),
    "latin-1, zst": ("x.txt.zst", zstandard.compress(b"a\nb\xff"), r"x.txt.zst, line 2 is not UTF-8 text \(byte 2"),
    "utf-16": ("x.csv", "text\na\n".encode("utf-16"), "x.csv, line 1 is not UTF-8 text"),
    "utf-16, no mark": ("x.txt", "one\ntwo\n".encode("utf-16-le"), "x.txt, line 1 holds a NUL byte"),
    "nul": ("x.csv", "text\na\n\0\0\n", "x.csv, line 3 holds a NUL byte"),
    "nul, text": ("x.txt", "a\nb\n\0", "x.txt, line 3 holds a NUL byte"),
    "nul, json": ("x.jsonl", '{"text": "a"}\n\0\0\0\n', "x.jsonl, line 2 holds a NUL byte"),
    "cut json": ("x.jsonl", '{"text": "a"}\n{"text": "b', "x.jsonl, line 2 is not JSON: Unterminated string"),
    "cut list": ("x.json", '[{"text": "a"},\n', "x.json is not JSON: Expecting value, line 2"),
    "open list": ("x.json", '[{"text": "a"}\n', "x.json is not JSON: expected ',' or ']' after an element, line 2"),
    "after list": ("x.json", '[{"text": "a"}]\n]', "x.json is not JSON: more follows the end of the list, line 2"),
    "wrong inside": ("x.json", json.dumps([{"text": "a" * 99}] * 999)[:-99] + " b, " + "c" * 99999, "is not JSON"),
    "no object": ("x.jsonl", '{"text": "a"}\n3\n', "x.jsonl, line 2 holds no object with fields, but 3"),
    "field twice": ("x.jsonl", '{"text": "a"}\n{"text": "b", "n": 1, "text": "c"}\n',
                    "x.jsonl, line 2 names the field 'text' twice"),
    "field twice, inside": ("x.jsonl", '{"text": "a", "meta": {"n": 1, "n": 2}}\n',
                            "x.jsonl, line 1 names the field 'n' twice"),
    "field twice, list": ("x.json", '[{"text": "a"},\n{"text": "b",\n"text": "c"}]',
                          "x.json, line 2: the value that begins here names the field 'text' twice"),
    "field twice, values": ("x.json", '{"text":\n"a"}\n{"text": "b",\n"text": "c"}',
                            "x.json, line 3: the value that begins here names the field 'text' twice"),
    "deep": ("x.jsonl", '{"text": "a"}\n' + "[" * 99999 + "\n", "x.jsonl, line 2 is nested too deeply"),
    "deep list": ("x.json", "[" * 99999, "x.json, line 1 is nested too deeply"),
    "empty list": ("x.json", "[]", "holds no rows at all"),
    "empty": ("x.json", "", "x.json is empty"),
    "only a mark": ("x.jsonl", b"\xef\xbb\xbf", "x.jsonl is empty"),
    "empty gz": ("x.csv.gz", b"", "x.csv.gz is empty"),
    "nothing in gz": ("x.jsonl.gz", gzip.compress(b""), "x.jsonl.gz is empty"),
    "empty parquet": ("x.parquet", b"", "x.parquet is empty"),
    "empty text": ("x.txt", b"", r"no document is left of 1 .*, 1 empty; "),
    "other compression": ("x.txt.bz2", gzip.compress(b"a"), "x.txt.bz2 is cut off or damaged in line 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_read_is_refused_with_its_line(case, tmp_path):
    name, content, words = REFUSED[case]
    with pytest.raises(LabError, match=words) as caught:
        read(write(tmp_path / name, content))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("name", ["x.txt", "x.jsonl", "x.json", "x.csv"])
def test_compressed_files_are_read_and_refused_wherever_they_are_cut(name, ending, tmp_path):
    texts = [f"text {i} {i * i}" for i in range(300)]
    content = "\n".join(texts).encode() if name == "x.txt" else FORMATS[name](texts)
    packed = COMPRESS[ending](content)
    path = write(tmp_path / (name + ending), packed)
    assert read(path) == (("\n".join(texts),) if name == "x.txt" else tuple(texts))
    for cut in [*range(1, len(packed) - 1, len(packed) // 12), len(packed) - 1]:
        with pytest.raises(LabError, match=r"is cut off or damaged in line [0-9]+ .*; copy or download it again"):
            read(write(path, packed[:cut]))


def test_a_cut_file_is_refused_with_the_line_of_the_cut(tmp_path):
    """Lines that compress badly, so that the place of the cut tells the line within a few."""
    rng = random.Random(0)
    lines = [json.dumps({"text": rng.randbytes(300).hex()}) + "\n" for _ in range(1000)]
    for ending, compress in COMPRESS.items():
        if ending in {".gz", ".zst"}:
            packed = compress("".join(lines).encode())
            with pytest.raises(LabError, match="cut off or damaged in line") as caught:
                read(write(tmp_path / f"x.jsonl{ending}", packed[: len(packed) // 2]))
            line = int(re.search(r"in line (\d+)", str(caught.value))[1])
            assert 250 < line < 510


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.csv.zst", "x.json.bz2", "x.jsonl.xz", "x.parquet"])
def test_a_damaged_file_is_refused_or_read_without_a_traceback(name, tmp_path):
    texts = [f"text {i} {i * i}" for i in range(200)]
    if name == "x.parquet":
        good = as_parquet(texts)
    else:
        base, ending = name.rsplit(".", 1)
        good = COMPRESS["." + ending](FORMATS[base](texts))
    for place in range(0, len(good), max(1, len(good) // 60)):
        for damaged in (good[:place], good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :]):
            try:
                read(write(tmp_path / name, damaged))
            except LabError as error:
                words = (str(tmp_path), "no document is left", "holds no rows", "field")
                assert any(word in str(error) for word in words)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "x.jsonl", '{"text": "a"}\n')
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(LabError, match=r"cannot read .*x.jsonl: Permission denied"):
        read(path)


def row_of(text: str) -> bytes:
    return json.dumps({"text": text}).encode()


BIG = {
    "x.jsonl": (b"", row_of, b"\n", b"\n"),
    "x.json": (b"[", row_of, b",\n", b"]"),
    "x.csv": (b"text\n", str.encode, b"\n", b"\n"),
    "x.txt": (b"", str.encode, b"\n---\n", b"\n"),
}


@pytest.mark.parametrize("name", BIG)
def test_memory_does_not_grow_with_the_file(name, tmp_path):
    """5 documents of 24 MB: all texts together would be 24 MB, a candidate is two integers."""
    begin, one, between, end = BIG[name]
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(begin)
        for i in range(6000):
            file.write((between if i else b"") + one(f"document {i} " + "words " * 680))
        file.write(end)
    assert path.stat().st_size > 24e6
    tracemalloc.start()
    corpus = LocalText(files=str(path), num_documents=5, **({"separator": "---"} if name == "x.txt" else {})).corpus()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(corpus) == 5 and corpus.info["documents_before_selection"] == 6000
    assert peak < 4e6


@pytest.mark.parametrize("rows_of_group", [600, 6000])
def test_parquet_is_read_by_pieces(rows_of_group, tmp_path):
    table = pyarrow.table({"text": [f"document {i} " + "words " * 680 for i in range(6000)], "n": range(6000)})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=rows_of_group, compression="none")
    del table
    before = pyarrow.total_allocated_bytes()
    held = [pyarrow.total_allocated_bytes() - before for _ in read_rows("parquet", tmp_path / "x.parquet", ["text"])]
    assert len(held) == 6000 and max(held) < 12e6  # of 24 MB; a page holds many rows
    tracemalloc.start()
    rows = LocalText(files=str(tmp_path / "x.parquet"), num_documents=5).corpus()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == 5 and peak < 6e6
    tracemalloc.start()
    rows = LocalText(files=str(tmp_path / "x.parquet"), num_documents=None).corpus()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == 6000 and held < 2e6 and peak < 12e6  # of 24 MB


def test_a_file_that_changes_while_it_is_read_is_noticed():
    class Changing:
        place, length, calls = "x.jsonl", None, 0

        def documents(self):
            self.calls += 1
            return iter([("same", None), (f"text {self.calls}", None)])

        def pick(self, numbers):
            return picked(self, numbers)

        def id_of(self, number):
            return str(number)

    with pytest.raises(LabError, match=r"x.jsonl changed while it was read"):
        corpus_from_tables([Changing()], Selection("x", None, None, 1), {})
    assert corpus_from_tables([Changing()], Selection("x", None, 1, 1), {}).texts == ("same",)
