"""Paths below a store: names and keys from outside never lead out of it."""

import pytest

from rbp_lab.errors import LabError
from rbp_lab.store.layout import Store, file_name, is_key

KEY = "0123456789abcdef"
HOSTILE = ["", ".", "..", "../x", "a/b", "a\\b", "/etc", ".hidden", "a\0b", "a\nb", "\x1b[31m", "x" * 300, "é" * 150]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    store = Store(tmp_path)
    for path in (lambda: store.analysis(name), lambda: store.mirrored(name), lambda: store.benchmark("now", name)):
        with pytest.raises(LabError, match="becomes a file name"):
            path()


@pytest.mark.parametrize("name", ["paper", "my analysis", "Bücher", "$HOME", "[x]", "a..b", "x" * 200])
def test_other_names_are_kept_as_they_are(tmp_path, name):
    assert file_name(name, "a name") == name
    assert Store(tmp_path).analysis(name).directory == tmp_path / "analysis" / name


@pytest.mark.parametrize("key", ["", KEY[:-1], KEY + "0", KEY.upper(), "../../../../../x", KEY + "\n", None, 7])
def test_only_sixteen_hexadecimal_digits_are_a_key(tmp_path, key):
    assert not is_key(key)
    with pytest.raises(LabError, match="16 hexadecimal digits"):
        Store(tmp_path).record(key)


@pytest.mark.parametrize("digest", ["", "../x", "zz" * 16, "ab" * 40, None])
def test_only_hexadecimal_digits_are_a_digest(tmp_path, digest):
    store = Store(tmp_path)
    for path in (store.tokens, store.tokenizer, store.pulled, store.checkpoints):
        with pytest.raises(LabError, match="hexadecimal"):
            path(digest)


def test_only_what_bears_a_key_is_a_record(tmp_path):
    for name in (KEY, f".{KEY}.part", "notes", KEY.upper(), "f" * 16):
        (tmp_path / "runs" / name).mkdir(parents=True)
        if name != "f" * 16:
            (tmp_path / "runs" / name / "record.json").touch()
    assert [files.directory.name for files in Store(tmp_path).records()] == [KEY]
    assert Store(tmp_path / "nowhere").records() == []
