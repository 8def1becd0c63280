"""Selection and fingerprint of a corpus, and the standard library as text."""

import platform
import sysconfig
from pathlib import Path

import datasets
import pytest

from rbp_lab.data import stdlib
from rbp_lab.data.corpus import LONGEST_NAME, build_corpus, fingerprint
from rbp_lab.data.stdlib import StdlibText, library_files, number_share, read_source, split_of
from rbp_lab.errors import LabError

WHOLE = {"shuffle_seed": None, "num_documents": None}
TEXTS = [str(n) * (n % 4 + 1) for n in range(40)]


def chosen(texts=TEXTS, seed=None, number=None, min_chars=0):
    settings = {"shuffle_seed": seed, "num_documents": number, "min_chars": min_chars}
    corpus = build_corpus("x", texts, [str(i) for i in range(len(texts))], info={}, **settings)
    return [int(i) for i in corpus.ids]


def test_selection_keeps_order_without_a_seed():
    assert chosen() == list(range(40))
    assert chosen(number=3) == [0, 1, 2]


@pytest.mark.parametrize("seed", [0, 42])
def test_selection_is_that_of_datasets(seed):
    """[RBP] takes ``dataset.filter(...).shuffle(seed=42).select(range(1000))``."""
    rows = datasets.Dataset.from_dict({"text": TEXTS, "index": list(range(40))})
    expected = rows.filter(lambda row: len(row["text"]) >= 4).shuffle(seed=seed).select(range(7))["index"]
    assert chosen(seed=seed, number=7, min_chars=4) == list(expected)


def test_selection_takes_what_there_is_when_fewer_than_asked():
    assert len(chosen(seed=1, number=1000)) == 40


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"min_chars": 1000}, "no document is left of 40"),
        ({"texts": []}, "holds no rows at all"),
        ({"number": 0}, "num_documents must be at least 1"),
        ({"min_chars": -1}, "min_chars must be 0 or more"),
        ({"seed": -1}, "shuffle_seed must be 0 or more"),
    ],
)
def test_selection_refuses_in_words(arguments, words):
    with pytest.raises(LabError, match=words):
        chosen(**arguments)


def test_fingerprint_sees_every_change():
    variants = [
        (["a", "b"], ["one", "two"]),
        (["b", "a"], ["two", "one"]),
        (["a", "b"], ["onet", "wo"]),
        (["a", "b"], ["one", "two "]),
        (["a", "c"], ["one", "two"]),
        (["a", "b"], ["one", "two\ud800"]),
        (["a"], ["one"]),
    ]
    assert len({fingerprint(*one) for one in variants}) == len(variants)
    assert fingerprint(*variants[0]) == fingerprint(*variants[0])


def test_corpus_names_its_documents_and_tells_how_they_were_chosen():
    ids = [f"doc{n}" for n in range(40)]
    corpus = build_corpus("x", TEXTS, ids, shuffle_seed=3, num_documents=5, min_chars=2, info={"source": "here"})
    assert [ids.index(i) for i in corpus.ids] == [TEXTS.index(t) for t in corpus.texts]
    assert corpus.fingerprint == fingerprint(corpus.ids, corpus.texts)
    assert corpus.info == {
        "source": "here",
        "shuffle_seed": 3,
        "num_documents": 5,
        "min_chars": 2,
        "documents_before_selection": 40,
        "left_out": {"shorter than 2 characters": 3},
        "documents": 5,
        "characters": sum(map(len, corpus.texts)),
    }


def test_what_is_left_out_is_told_with_its_reason():
    texts = ["", "long enough", "short", "", "also long enough"]
    corpus = build_corpus(
        "x", texts, list("abcde"), shuffle_seed=None, num_documents=1, min_chars=6, info={"source": "here"}
    )
    assert corpus.texts == ("long enough",)
    assert corpus.left_out_note() == (
        "dataset x: 3 documents left out before the selection (2 empty, 1 shorter than 6 characters)"
    )
    assert build_corpus("x", ["a"], ["a"], **WHOLE, min_chars=1, info={}).left_out_note() is None
    one = build_corpus("x", ["a", ""], ["a", "b"], **WHOLE, min_chars=1, info={})
    assert one.left_out_note() == "dataset x: 1 document left out before the selection (1 empty)"


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x1b[31mb", "a\u2028b", "\ud800", "n" * (LONGEST_NAME + 1), 3])
def test_a_name_that_cannot_be_shown_is_refused(name):
    with pytest.raises(LabError, match=r"dataset\.name") as caught:
        StdlibText(name=name)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["$x", "[bold]", "naïve/日本語 %s", "n" * LONGEST_NAME])
def test_any_other_name_is_taken(name):
    assert StdlibText(name=name).name == name


@pytest.mark.parametrize(("ids", "words"), [(["a", "a"], "'a' occurs more than once"), (["a"], "2 texts came with 1")])
def test_corpus_refuses_bad_ids(ids, words):
    with pytest.raises(LabError, match=words):
        build_corpus("x", ["t", "u"], ids, shuffle_seed=None, num_documents=None, min_chars=0, info={})


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of our own making."""

    def add(path: str, content: bytes) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)

    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda name: str(tmp_path) if name == "stdlib" else None)
    return add


def both(**fields):
    """Documents of both splits together, by id."""
    found = {}
    for split in stdlib.SPLITS:
        try:
            corpus = StdlibText(split=split, **fields).corpus()
        except LabError:
            continue
        found.update(zip(corpus.ids, corpus.texts, strict=True))
    return found


def test_what_is_not_library_text_is_left_out(library):
    library("kept.py", b"value = 1\n")
    library("package/module.py", b"def f():\n    pass\n")
    for path in (
        "site-packages/torch/nn.py",
        "dist-packages/x.py",
        "test/test_x.py",
        "unittest/test/x.py",
        "json/tests/x.py",
        "idlelib/idle_test/x.py",
        "encodings/cp437.py",
        "pydoc_data/topics.py",
        "__pycache__/x.py",
        "_sysconfigdata__linux_x86_64-linux-gnu.py",
        "readme.txt",
    ):
        library(path, b"left = 'out'\n")
    library("table.py", b"codes = {" + b"".join(b"0x%x: '\\u%04x', " % (n, n) for n in range(99)) + b"}\n")
    assert set(both()) == {"kept.py", "package/module.py"}


def test_odd_files_do_not_stop_it(library):
    library("empty.py", b"")
    library("latin.py", "# -*- coding: latin-1 -*-\nname = 'é'\n".encode("latin-1"))
    library("windows.py", b"a = 1\r\nb = 2\r\n")
    library("marked.py", b"\xef\xbb\xbfa = 1\n")
    library("undecodable.py", b"name = '\xe9\xff'\n")
    library("cookie.py", b"# -*- coding: no-such-codec -*-\n")
    found = both()
    assert found == {
        "latin.py": "# -*- coding: latin-1 -*-\nname = 'é'\n",
        "windows.py": "a = 1\nb = 2\n",
        "marked.py": "a = 1\n",
    }
    assert read_source(Path("no such file")) is None


def test_no_library_is_said(library, tmp_path):
    with pytest.raises(LabError, match="no Python source files"):
        StdlibText().corpus()


def test_unknown_split_is_said():
    with pytest.raises(LabError, match="must be one of train, heldout; got 'test'"):
        StdlibText(split="test")


def test_split_depends_on_the_path_alone_and_holds_out_a_tenth():
    paths = [f"package{n}/module.py" for n in range(4000)]
    share = sum(split_of(p) == "heldout" for p in paths) / 4000
    assert abs(share - stdlib.HELDOUT_SHARE) < 4 * (0.1 * 0.9 / 4000) ** 0.5
    # Known values, so that the split never changes between releases.
    assert [split_of(p) for p in ("subprocess.py", "enum.py", "typing.py", "asyncio/tasks.py")] == [
        "heldout",
        "heldout",
        "train",
        "train",
    ]


def test_number_share():
    assert number_share("") == 0.0
    assert number_share("ab12") == 0.5
    assert number_share("'\\x0f'") == pytest.approx(4 / 6)
    assert number_share("value = name") == 0.0


def test_the_real_library():
    train, heldout = StdlibText(split="train").corpus(), StdlibText(split="heldout").corpus()
    assert not set(train.ids) & set(heldout.ids)
    assert 0.04 < len(heldout) / (len(heldout) + len(train)) < 0.2
    assert heldout.info["characters"] > 300_000 and train.info["characters"] > 4_000_000
    assert heldout.fingerprint == StdlibText(split="heldout").corpus().fingerprint != train.fingerprint
    assert heldout.info["python"].endswith(platform.python_version())
    root = Path(sysconfig.get_path("stdlib"))
    assert all((root / i).is_file() for i in heldout.ids)
    assert len(library_files(root)) == len(set(library_files(root))) == heldout.info["files_in_both_splits"]
