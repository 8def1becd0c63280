"""Texts in a temporary file: what was put in comes out, in any order, and the file leaves no trace."""

import errno
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbp_lab.data import spool as module
from rbp_lab.data.spool import Spool, SpooledTexts
from rbp_lab.errors import LabError

TEXTS = st.lists(st.text(st.characters(), max_size=9))  # lone surrogates, which JSON files can carry, are among them


@pytest.fixture(scope="module", params=[0, 2**22], ids=["in a file", "in memory"])
def in_memory(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "IN_MEMORY", request.param or 1)
        yield bool(request.param)


def spooled(texts, order):
    spool = Spool()
    for text in texts:
        spool.append(text)
    return SpooledTexts(spool, order)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.data())
def test_texts_come_out_as_they_were_put_in(in_memory, texts, data):
    order = data.draw(st.permutations(range(len(texts))))
    got, right = spooled(texts, order), tuple(texts[i] for i in order)
    assert got == right and right == got and got == spooled(right, range(len(right))) and tuple(got) == right
    assert len(got) == len(right) and [got[i] for i in range(-len(right), len(right))] == [*right, *right]
    part = slice(*(data.draw(st.none() | st.integers(-9, 9)) for _ in range(2)))
    assert got[part] == right[part]
    assert got != (*right, "") and (not right or got != (right[0] + "x", *right[1:])) and got != "x"
    if texts:
        assert right[0] in got and texts[-1] in got
    with pytest.raises(IndexError):
        got[len(texts)]


def test_reading_and_writing_may_alternate(in_memory):
    spool = Spool()
    for i in range(20):
        spool.append(f"text {i}" * 9)
        assert spool.text(i // 2) == f"text {i // 2}" * 9
    assert list(SpooledTexts(spool, range(20))) == [f"text {i}" * 9 for i in range(20)]


def test_the_file_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "IN_MEMORY", 1)
    texts = spooled(["abc", "de"], [1, 0])
    assert not list(tmp_path.iterdir()) and list(texts) == ["de", "abc"]


def test_no_room_is_one_sentence(monkeypatch, tmp_path):
    class Full:
        seek = close = staticmethod(lambda *_: None)

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module.tempfile, "SpooledTemporaryFile", lambda _: Full())
    with pytest.raises(LabError, match=rf"kept in {tmp_path}: No space left on device; name a directory .* TMPDIR"):
        spooled(["abc"], [0])
