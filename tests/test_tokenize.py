"""Texts to ids: bytes that add up, policies for the first token, one pass per tokenizer and corpus."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbp_lab.data import tokenize as module
from rbp_lab.data.corpus import build_corpus
from rbp_lab.data.tokenize import token_sizes, tokenize, tokenizer_fingerprint
from rbp_lab.data.windows import Protocol
from rbp_lab.errors import LabError
from rbp_lab.store.layout import Store
from tests.conftest import build_tiny_tokenizer

TOKENIZER = build_tiny_tokenizer()


def corpus(*texts):
    ids = [str(i) for i in range(len(texts))]
    return build_corpus("t", texts, ids, shuffle_seed=None, num_documents=None, min_chars=0, info={})


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_bytes_of_the_tokens_are_the_bytes_of_the_text(text):
    done = tokenize(corpus(text, "after"), TOKENIZER, Protocol(max_tokens=1000))
    clean = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert done.token_bytes[: done.offsets[1]].sum() == len(clean.encode())
    assert (done.token_bytes >= 0).all()
    assert TOKENIZER.decode(done.tokens[: done.offsets[1]].tolist(), clean_up_tokenization_spaces=False) == clean


def test_ids_are_the_tokenizers_own_and_long_texts_are_cut():
    texts = ("the quick brown fox " * 30, "", "wisdom")
    done = tokenize(corpus(*texts), TOKENIZER, Protocol(max_tokens=16))
    parts = np.split(done.tokens, done.offsets[1:-1])
    assert [p.tolist() for p in parts] == [TOKENIZER(t)["input_ids"][:16] for t in texts]
    assert done.special_ids.tolist() == [0] and done.eos_id == 0
    rolling = tokenize(corpus(*texts), TOKENIZER, Protocol("rolling", 16))
    assert rolling.offsets[1] == len(TOKENIZER(texts[0])["input_ids"])


def test_beginning_of_text_policies():
    plain = tokenize(corpus("dog"), TOKENIZER, Protocol(bos="tokenizer"))
    always = tokenize(corpus("dog"), TOKENIZER, Protocol(bos="always"))
    assert always.tokens.tolist() == [TOKENIZER.bos_token_id, *plain.tokens.tolist()]
    assert always.token_bytes[0] == 0
    twice = tokenize(corpus("<|endoftext|>dog"), TOKENIZER, Protocol(bos="always"))
    assert twice.tokens.tolist().count(TOKENIZER.bos_token_id) == 1
    without = build_tiny_tokenizer()
    without.bos_token = None
    with pytest.raises(LabError, match="no beginning-of-text token"):
        tokenize(corpus("dog"), without, Protocol(bos="always"))


def test_the_cache_is_used_and_keyed_by_all_that_matters(tmp_path, monkeypatch):
    calls = []
    real = module._tokenize
    monkeypatch.setattr(module, "_tokenize", lambda *a: calls.append(1) or real(*a))
    first = tokenize(corpus("dog", "fox é"), TOKENIZER, Protocol(), Store(tmp_path))
    again = tokenize(corpus("dog", "fox é"), TOKENIZER, Protocol(), Store(tmp_path))
    assert len(calls) == 1
    for name in ("tokens", "offsets", "token_bytes", "special_ids", "eos_id"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    tokenize(corpus("dog", "fox"), TOKENIZER, Protocol(), Store(tmp_path))
    tokenize(corpus("dog", "fox é"), build_tiny_tokenizer(280), Protocol(), Store(tmp_path))
    tokenize(corpus("dog", "fox é"), TOKENIZER, Protocol(bos="always"), Store(tmp_path))
    tokenize(corpus("dog", "fox é"), TOKENIZER, Protocol(max_tokens=2), Store(tmp_path))
    assert len(calls) == 5 and len(list(tmp_path.rglob("*.npz"))) == 5
    tokenize(corpus("dog", "fox é"), TOKENIZER, Protocol(mask_special=False), Store(tmp_path))
    assert len(calls) == 5


def test_fingerprints_tell_tokenizers_apart():
    assert tokenizer_fingerprint(TOKENIZER) == tokenizer_fingerprint(build_tiny_tokenizer())
    assert tokenizer_fingerprint(TOKENIZER) != tokenizer_fingerprint(build_tiny_tokenizer(280))


def test_bytes_of_overlapping_and_empty_offsets():
    """A split character goes to its first token; a token that stands for nothing takes nothing, wherever it points."""
    sizes = token_sizes("aéb", [(0, 1), (1, 2), (1, 2), (0, 0), (2, 3), (0, 0)])
    assert sizes.tolist() == [1, 2, 0, 0, 1, 0]
    assert token_sizes("", []).tolist() == []
