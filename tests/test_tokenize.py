"""Texts to ids: bytes that add up, policies for the first token, one pass per tokenizer and corpus."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbp_lab.data import tokenize as module
from rbp_lab.data.corpus import build_corpus
from rbp_lab.data.tokenize import token_sizes, tokenize, tokenizer_fingerprint
from rbp_lab.data.windows import Windowing
from rbp_lab.errors import LabError
from rbp_lab.store import long_arrays
from rbp_lab.store.layout import Store
from tests.conftest import build_tiny_tokenizer

TOKENIZER = build_tiny_tokenizer()


def corpus(*texts):
    ids = [str(i) for i in range(len(texts))]
    return build_corpus("t", texts, ids, shuffle_seed=None, num_documents=None, min_chars=0, info={})


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_bytes_of_the_tokens_are_the_bytes_of_the_text(text):
    done = tokenize(corpus(text, "after"), TOKENIZER, Windowing(max_tokens=1000))
    clean = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert done.token_bytes[: done.offsets[1]].sum() == len(clean.encode())
    assert (done.token_bytes >= 0).all()
    assert TOKENIZER.decode(done.tokens[: done.offsets[1]].tolist(), clean_up_tokenization_spaces=False) == clean


def test_ids_are_the_tokenizers_own_and_long_texts_are_cut():
    texts = ("the quick brown fox " * 30, "", "wisdom")
    done = tokenize(corpus(*texts), TOKENIZER, Windowing(max_tokens=16))
    parts = np.split(done.tokens, done.offsets[1:-1])
    assert [p.tolist() for p in parts] == [TOKENIZER(t)["input_ids"][:16] for t in texts]
    assert done.special_ids.tolist() == [0] and done.eos_id == 0
    rolling = tokenize(corpus(*texts), TOKENIZER, Windowing("rolling", 16))
    assert rolling.offsets[1] == len(TOKENIZER(texts[0])["input_ids"])


def test_beginning_of_text_policies():
    plain = tokenize(corpus("dog"), TOKENIZER, Windowing(bos="tokenizer"))
    always = tokenize(corpus("dog"), TOKENIZER, Windowing(bos="always"))
    assert always.tokens.tolist() == [TOKENIZER.bos_token_id, *plain.tokens.tolist()]
    assert always.token_bytes[0] == 0
    twice = tokenize(corpus("<|endoftext|>dog"), TOKENIZER, Windowing(bos="always"))
    assert twice.tokens.tolist().count(TOKENIZER.bos_token_id) == 1
    without = build_tiny_tokenizer()
    without.bos_token = None
    with pytest.raises(LabError, match="no beginning-of-text token"):
        tokenize(corpus("dog"), without, Windowing(bos="always"))


def test_the_cache_is_used_and_keyed_by_all_that_matters(tmp_path, monkeypatch):
    calls = []
    real = module.encode
    monkeypatch.setattr(module, "encode", lambda *a: calls.append(1) or real(*a))
    first = tokenize(corpus("dog", "fox é"), TOKENIZER, Windowing(), Store(tmp_path))
    again = tokenize(corpus("dog", "fox é"), TOKENIZER, Windowing(), Store(tmp_path))
    assert len(calls) == 1
    assert same(first, again)
    tokenize(corpus("dog", "fox"), TOKENIZER, Windowing(), Store(tmp_path))
    tokenize(corpus("dog", "fox é"), build_tiny_tokenizer(280), Windowing(), Store(tmp_path))
    tokenize(corpus("dog", "fox é"), TOKENIZER, Windowing(bos="always"), Store(tmp_path))
    tokenize(corpus("dog", "fox é"), TOKENIZER, Windowing(max_tokens=2), Store(tmp_path))
    assert len(calls) == 5 and len(list(tmp_path.rglob("about.json"))) == 5
    tokenize(corpus("dog", "fox é"), TOKENIZER, Windowing(mask_special=False), Store(tmp_path))
    assert len(calls) == 5


def test_fingerprints_tell_tokenizers_apart():
    assert tokenizer_fingerprint(TOKENIZER) == tokenizer_fingerprint(build_tiny_tokenizer())
    assert tokenizer_fingerprint(TOKENIZER) != tokenizer_fingerprint(build_tiny_tokenizer(280))


def test_bytes_of_overlapping_and_empty_offsets():
    """A split character goes to its first token; a token that stands for nothing takes nothing, wherever it points."""
    sizes = token_sizes("aéb", [(0, 1), (1, 2), (1, 2), (0, 0), (2, 3), (0, 0)])
    assert sizes.tolist() == [1, 2, 0, 0, 1, 0]
    assert token_sizes("", []).tolist() == []


def kept_files(tmp_path, *texts):
    """Token ids as they are without a store, and the directory where a store has them now."""
    tokenize(corpus(*texts), TOKENIZER, Windowing(), Store(tmp_path))
    (about,) = tmp_path.rglob("about.json")
    return tokenize(corpus(*texts), TOKENIZER, Windowing()), about.parent


def same(one, other):
    return one.eos_id == other.eos_id and all(
        np.array_equal(getattr(one, name)[:], getattr(other, name)[:])
        for name in ("tokens", "offsets", "token_bytes", "special_ids")
    )


def test_kept_token_ids_stay_in_the_file_and_equal_those_in_memory(tmp_path):
    texts = ("the quick brown fox", "dog é", "", "wisdom")
    right, path = kept_files(tmp_path, *texts)
    kept = tokenize(corpus(*texts), TOKENIZER, Windowing(), Store(tmp_path))
    assert isinstance(right.tokens, np.ndarray) and not isinstance(kept.tokens, np.ndarray) and same(kept, right)
    assert np.array_equal(np.load(path / "tokens.npy"), right.tokens)
    n = len(right.tokens)
    for part in (np.s_[2:5], np.s_[-3:], np.s_[5:2], np.s_[n:], np.s_[: n + 9], np.s_[1:n:3]):
        assert np.array_equal(kept.tokens[part], right.tokens[part]) and kept.tokens[part].dtype == np.int32
    shutil.rmtree(path)  # whoever deletes the cache does not stop what has begun
    assert same(kept, right)


def test_damaged_token_ids_are_made_again_with_a_note(tmp_path, capsys):
    texts = ("the quick brown fox", "dog é", "")
    right, path = kept_files(tmp_path, *texts)
    for name in ("tokens", "offsets", "token_bytes", "special_ids"):
        assert (path / f"{name}.npy").is_file()
    for file in sorted(path.iterdir()):
        good = file.read_bytes()
        flips = [good[:i] + bytes([good[i] ^ 1 << i % 8]) + good[i + 1 :] for i in range(0, len(good), 13)]
        cuts = [good[:i] for i in range(0, len(good), 71)]
        for damaged in [*flips, *cuts, b"\0" * len(good), good + b"\0", good * 2, b"\xff" * 64, b"[]", None]:
            if damaged is None:
                file.unlink()
            else:
                file.write_bytes(damaged)
            assert same(tokenize(corpus(*texts), TOKENIZER, Windowing(), Store(tmp_path)), right)
            note = capsys.readouterr().err
            assert note.startswith(f"note: the token cache {path} is damaged (") and note.count("\n") == 1
            assert file.read_bytes() == good
    assert same(tokenize(corpus(*texts), TOKENIZER, Windowing(), Store(tmp_path)), right)
    assert capsys.readouterr().err == "" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("other", ["a file", "an empty directory", "a directory in place of an array"])
def test_something_else_under_the_name_is_replaced_with_a_note(tmp_path, capsys, other):
    right, path = kept_files(tmp_path, "dog")
    if other == "a directory in place of an array":
        (path / "tokens.npy").unlink()
        (path / "tokens.npy").mkdir()
    else:
        shutil.rmtree(path)
        path.write_text("in the way") if other == "a file" else path.mkdir()
    assert same(tokenize(corpus("dog"), TOKENIZER, Windowing(), Store(tmp_path)), right)
    assert capsys.readouterr().err.startswith(f"note: the token cache {path} is damaged (")
    assert same(kept_files(tmp_path, "dog")[0], right) and list(path.parent.iterdir()) == [path]


def test_token_ids_of_another_corpus_under_the_name_are_not_taken(tmp_path, capsys):
    right, path = kept_files(tmp_path / "a", "dog")
    _, other = kept_files(tmp_path / "b", "fox")
    (path / "tokens.npy").write_bytes((other / "tokens.npy").read_bytes())
    assert same(tokenize(corpus("dog"), TOKENIZER, Windowing(), Store(tmp_path / "a")), right)
    assert "the checksum of tokens.npy differs" in capsys.readouterr().err
    shutil.rmtree(path)
    shutil.copytree(other, path)
    assert same(tokenize(corpus("dog"), TOKENIZER, Windowing(), Store(tmp_path / "a")), right)
    assert "it is of other texts" in capsys.readouterr().err


def test_of_two_that_write_the_same_the_first_one_stays(tmp_path, monkeypatch, capsys):
    """Another process may have begun to read what it finds."""
    real, first = module.encode, []

    def slower(*arguments):
        monkeypatch.setattr(module, "encode", real)
        first.append(tokenize(corpus("dog"), TOKENIZER, Windowing(), Store(tmp_path)))
        inode.append(first[0].tokens.path.stat().st_ino)
        return real(*arguments)

    inode = []
    monkeypatch.setattr(module, "encode", slower)
    second = tokenize(corpus("dog"), TOKENIZER, Windowing(), Store(tmp_path))
    assert same(first[0], second) and second.tokens.path.stat().st_ino == inode[0] and capsys.readouterr().err == ""


def test_a_place_that_cannot_be_written_costs_a_note(tmp_path, capsys, monkeypatch):
    right = tokenize(corpus("dog"), TOKENIZER, Windowing())
    (tmp_path / "cache").write_text("in the way")
    assert same(tokenize(corpus("dog"), TOKENIZER, Windowing(), Store(tmp_path)), right)
    assert "note: token ids cannot be kept in" in capsys.readouterr().err
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(long_arrays._Written, "append", lambda *_: (_ for _ in ()).throw(full))
    assert same(tokenize(corpus("dog"), TOKENIZER, Windowing(), Store(tmp_path / "b")), right)
    assert "note: token ids cannot be kept in" in (said := capsys.readouterr().err) and "No space left" in said
    assert [path.name for path in (tmp_path / "b").rglob("*")] == ["cache", "tokens"]


def test_token_ids_that_are_cut_short_while_they_are_read_stop_with_a_sentence(tmp_path):
    _, path = kept_files(tmp_path, "the quick brown fox")
    kept = tokenize(corpus("the quick brown fox"), TOKENIZER, Windowing(), Store(tmp_path))
    os.truncate(path / "tokens.npy", 130)
    with pytest.raises(LabError, match=r"tokens\.npy was cut short while it was read; run again"):
        kept.tokens[:]


def slow_tokenizer(directory, merges, **arguments):
    """A tokenizer in Python: one vocabulary, merges of the caller's."""
    from transformers import CTRLTokenizer

    letters = [*"abcd", *(f"{letter}@@" for letter in "abcd")]
    vocabulary = ["<unk>", *letters, "ab", "bc", "ab@@", "bc@@", "abc", "abcd"]
    directory.mkdir(exist_ok=True)
    (directory / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(vocabulary)}))
    (directory / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{merge}\n" for merge in merges))
    files = {"vocab_file": str(directory / "vocab.json"), "merges_file": str(directory / "merges.txt")}
    return CTRLTokenizer(**files, unk_token="<unk>", **arguments)


def test_slow_tokenizers_with_one_vocabulary_share_nothing(tmp_path):
    one = slow_tokenizer(tmp_path / "one", ["a b", "b c"])
    two = slow_tokenizer(tmp_path / "two", ["b c", "a b"])
    again = slow_tokenizer(tmp_path / "again", ["a b", "b c"])
    unused = slow_tokenizer(tmp_path / "unused", ["a b", "b c", "q z"])
    assert one.get_vocab() == two.get_vocab() and one("abcd")["input_ids"] != two("abcd")["input_ids"]
    prints = [tokenizer_fingerprint(tokenizer) for tokenizer in (one, two, again, unused)]
    assert prints[0] == prints[2] and len(set(prints)) == 3 and None not in prints
    store = Store(tmp_path)
    for tokenizer in (one, two, one):
        done = tokenize(corpus("abcd abc"), tokenizer, Windowing(), store)
        assert done.tokens[:].tolist() == tokenizer("abcd abc")["input_ids"] and done.token_bytes is None


@pytest.mark.parametrize("fast", [True, False])
def test_whatever_decides_ids_is_in_the_fingerprint(fast, tmp_path):
    """Arguments, settings made later, added tokens, normalisers: each alone gives another cache."""
    from tokenizers import normalizers, pre_tokenizers

    def make(**arguments):
        if not fast:
            return slow_tokenizer(tmp_path / "slow", ["a b"], **arguments)
        tokenizer = build_tiny_tokenizer()
        tokenizer.init_kwargs.update(arguments)
        return tokenizer

    changes = {
        "argument": lambda: make(do_lower_case=True),
        "other argument": lambda: make(do_lower_case=False),
        "added token": lambda: (t := make(), t.add_tokens(["fox"]))[0],
        "special token": lambda: (t := make(), t.add_special_tokens({"pad_token": "<p>"}))[0],
    }
    if fast:

        def backend(**parts):
            tokenizer = make()
            for name, part in parts.items():
                setattr(tokenizer.backend_tokenizer, name, part)
            return tokenizer

        changes["normaliser"] = lambda: backend(normalizer=normalizers.NFC())
        changes["prefix space"] = lambda: backend(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True))
    prints = {name: tokenizer_fingerprint(change()) for name, change in changes.items()}
    assert len({*prints.values(), tokenizer_fingerprint(make())}) == len(prints) + 1 and None not in prints.values()


def test_a_tokenizer_that_cannot_be_identified_is_used_and_nothing_is_kept(tmp_path, monkeypatch):
    tokenizer = slow_tokenizer(tmp_path / "slow", ["a b"])

    def refuse(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr(tokenizer, "save_vocabulary", refuse)
    assert tokenizer_fingerprint(tokenizer) is None
    done = tokenize(corpus("abcd"), tokenizer, Windowing(), Store(tmp_path))
    assert done.tokens[:].tolist() == tokenizer("abcd")["input_ids"] and not list(tmp_path.rglob("about.json"))
