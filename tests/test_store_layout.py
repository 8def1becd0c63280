"""Paths below a store: names and keys from outside never lead out of it."""

import pytest

from rbp_lab.errors import LabError
from rbp_lab.store.layout import CheckpointFiles, PartialFiles, Store, compared, file_name, is_key

KEY = "0123456789abcdef"
HOSTILE = ["", ".", "..", "../x", "a/b", "a\\b", "/etc", ".hidden", "a\0b", "a\nb", "\x1b[31m", "x" * 201, "é" * 101]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    store = Store(tmp_path)
    for path in (lambda: store.analysis(name), lambda: store.mirrored(name)):
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


def test_only_what_bears_its_name_is_listed(tmp_path):
    """What writers make under hidden names, and what users put beside, is nobody's."""
    store, other = Store(tmp_path), "f" * 16
    for below, file, names in (
        ("partial", "plan.json", (KEY, f".{KEY}.part", "notes")),
        ("models", "training.json", ("ladder-1", ".ladder-2.part")),
        ("analysis", "analysis.json", ("paper", ".paper.part")),
        (
            "comparisons",
            "differences.csv",
            (KEY, f"{KEY}-{other}", f"{KEY}_mine", f"{KEY}-{other}_mine", f".{KEY}.part", f"{KEY}-notes", "notes"),
        ),
        ("comparisons", "comparison.json", (other, "notes")),
        ("checkpoints", "step-0000000008.safetensors", (KEY, f".{KEY}.part", "notes")),
    ):
        for name in names:
            (tmp_path / below / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / below / name / file).touch()
    assert [files.directory.name for files in store.partials()] == [KEY]
    assert [path.parent.name for path in store.trainings()] == ["ladder-1"]
    assert [files.directory.name for files in store.analyses()] == ["paper"]
    names = [KEY, f"{KEY}-{other}", f"{KEY}-{other}_mine", f"{KEY}_mine"]
    assert [path.name for path in store.comparisons()] == names
    assert [compared(name) for name in names] == [(KEY,), (KEY, other), (KEY, other), (KEY,)]
    assert [files.directory.name for files in store.pairs()] == [other]
    assert [files.directory.name for files in store.all_checkpoints()] == [KEY]


def test_shards_and_checkpoints_are_found_by_their_numbers(tmp_path):
    partial, training = PartialFiles(tmp_path), CheckpointFiles(tmp_path)
    for index in (0, 999_999, 1_000_000, 12_345_678):
        partial.shard(index).touch()
    (tmp_path / "shard-12.safetensors").touch()
    assert partial.finished() == {0, 999_999, 1_000_000, 12_345_678}
    for step in (9, 10, 200, 1_000_000):
        training.checkpoint(step).touch()
    assert [training.step(path) for path in training.checkpoints()] == [1_000_000, 200, 10, 9]


@pytest.mark.parametrize("below", ["runs", "models", "comparisons"])
def test_what_a_killed_writer_had_moved_aside_is_found_where_it_belongs(tmp_path, below):
    file = {"runs": "record.json", "models": "training.json", "comparisons": "comparison.json"}[below]
    (tmp_path / below / f".{KEY}.replaced").mkdir(parents=True)
    (tmp_path / below / f".{KEY}.replaced" / file).touch()
    store = Store(tmp_path)
    if below == "models":
        (found,) = store.trainings()
    else:
        ((files,), one) = (store.records(), store.record) if below == "runs" else (store.pairs(), store.pair)
        assert files == one(KEY)
        found = files.header
    assert found == tmp_path / below / KEY / file and found.exists()


def test_only_what_bears_a_key_is_a_record(tmp_path):
    for name in (KEY, f".{KEY}.part", "notes", KEY.upper(), "f" * 16):
        (tmp_path / "runs" / name).mkdir(parents=True)
        if name != "f" * 16:
            (tmp_path / "runs" / name / "record.json").touch()
    assert [files.directory.name for files in Store(tmp_path).records()] == [KEY]
    assert Store(tmp_path / "nowhere").records() == []
