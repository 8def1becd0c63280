"""Of a long document only the beginning is tokenized, and its tokens are those of the whole."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from rbp_lab.data.corpus import build_corpus
from rbp_lab.data.prefix import is_local, locality
from rbp_lab.data.tokenize import FIRST_CHARACTERS, encode, tokenize
from rbp_lab.data.windows import Windowing
from tests.conftest import TINY_TEXTS

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Letters of several scripts, blanks, marks and signs.
ALPHABET = [*"abcdefgh etaoin", *" \t\n\r", *"éÀßΣςıİ", "e\u0301", "\u0301\u0323", *"日本語。", *"🙂👩👧", "\u200d",
            *"0123.,;'!?", " <|end|> ",
            "\u00a0", "\u3000", "\ufffd", "ﬁ", "'s", "<|end|>", "▁"]  # fmt: skip


def trained(model, trainer, normalizer=None, pre_tokenizer=None, post=None):
    backend = Tokenizer(model)
    if normalizer is not None:
        backend.normalizer = normalizer
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    rng = random.Random(0)
    texts = [*TINY_TEXTS, *("".join(rng.choices(ALPHABET, k=60)) for _ in range(60)), "ab" * 20, "a" * 40]
    backend.train_from_iterator(texts, trainer)
    if post is not None:
        backend.post_processor = post
    backend.add_special_tokens([AddedToken("<|end|>", lstrip=True, rstrip=True)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", bos_token="<|end|>")


def bpe(pre_tokenizer, normalizer=None, post=None, alphabet=True):
    letters = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=letters, show_progress=False)
    return trained(models.BPE(), trainer, normalizer, pre_tokenizer, post)


def split_then_bytes(expression):
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    return bpe(pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))


def sentence_pieces(model, trainer):
    """As Llama 2: spaces are ▁, and no pre-tokenizer parts the text. Trained by words, so that no piece goes on."""
    words = trained(model, trainer, None, pre_tokenizers.Metaspace())
    backend = words.backend_tokenizer
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")


UNIGRAM = {"unk_token": "<unk>", "special_tokens": ["<unk>"], "vocab_size": 300, "show_progress": False}
LOCAL = {
    "gpt2": lambda: bpe(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "llama3": lambda: split_then_bytes(LLAMA3),
    "o200k": lambda: split_then_bytes(O200K),
    "bert": lambda: trained(
        models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=30),
        trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False),
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
        processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1)),
    ),
    "t5": lambda: trained(
        models.Unigram(), trainers.UnigramTrainer(**UNIGRAM), normalizers.NFKC(), pre_tokenizers.Metaspace()
    ),
    "words": lambda: trained(
        models.WordLevel(unk_token="[UNK]"),
        trainers.WordLevelTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False),
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
        pre_tokenizers.Whitespace(),
    ),
    "llama2": lambda: sentence_pieces(
        models.BPE(unk_token="<unk>", fuse_unk=True),
        trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>"], show_progress=False),
    ),
    "unigram pieces": lambda: sentence_pieces(models.Unigram(), trainers.UnigramTrainer(**UNIGRAM)),
}
NOT_LOCAL = {
    "no split": lambda: bpe(None, alphabet=False),
    "look far ahead": lambda: split_then_bytes(r"\w+(?=.*end)|\s+|."),
    "one line": lambda: split_then_bytes(r"[^\n]+|\n"),
    "expression after bytes": lambda: bpe(
        pre_tokenizers.Sequence(
            [pre_tokenizers.ByteLevel(use_regex=False), pre_tokenizers.Split(Regex(GPT2), "isolated")]
        )
    ),
    "expression after ▁": lambda: bpe(pre_tokenizers.Split(Regex(GPT2), "isolated"), normalizers.Replace(" ", "▁")),
    "random": lambda: trained(
        models.BPE(dropout=0.1),
        trainers.BpeTrainer(vocab_size=300, show_progress=False),
        None,
        pre_tokenizers.Whitespace(),
    ),
}


def nasty_texts():
    rng = random.Random(1)
    words = [
        "word",
        "déjà",
        "日本語",
        "x1",
        "it's",
        "<|end|>",
        "🙂👩\u200d👧",
        "e" + "\u0301" * 30,
        "…",
        "  ",
        "\n\n",
        "a" * 50,
    ]
    for _ in range(6):
        yield "".join(rng.choices(ALPHABET, k=6000))
        yield " ".join(rng.choices(words, k=1500))
        yield "".join(rng.choices("ab ", weights=[9, 9, 1], k=6000))
    yield "a" * 6000
    yield "ab" * 3000
    yield " " * 3000 + "end " * 900
    yield "word " * 200 + "x" * 3000 + " word" * 900
    yield "日本語。" * 1500
    yield unicodedata.normalize("NFD", "é" * 3000)
    yield "\u0301" * 3000 + " a" * 1500
    yield "<|end|>" * 900
    yield "word <|end|> " * 600
    yield "a \ud800b \udfff" * 1200
    yield "\t".join(["def", "return", "x1"] * 800) + "\r\n"


@pytest.mark.parametrize("add_special_tokens", [True, False])
@pytest.mark.parametrize("name", LOCAL)
def test_the_first_tokens_are_those_of_the_whole_text(name, add_special_tokens):
    tokenizer = LOCAL[name]()
    assert locality(tokenizer) is not None
    texts = list(nasty_texts())
    whole = list(encode(texts, tokenizer, add_special_tokens, None))
    shortened = 0
    for keep in (1, 7, 64):
        cut = list(encode(texts, tokenizer, add_special_tokens, keep, first=100))
        for text, (ids, sizes), (cut_ids, cut_sizes) in zip(texts, whole, cut, strict=True):
            assert np.array_equal(ids[:keep], cut_ids[:keep]), text[:80]
            assert np.array_equal(sizes[:keep], cut_sizes[:keep]), text[:80]
            shortened += len(cut_ids) < len(ids) / 2
    assert shortened > 15


@pytest.mark.parametrize("name", NOT_LOCAL)
def test_a_tokenizer_without_proof_sees_whole_texts(name):
    tokenizer = NOT_LOCAL[name]()
    texts = ["word " * 300 + "end", "ab" * 200]
    local = locality(tokenizer)
    lengths = [len(ids) for ids, _ in encode(texts, tokenizer, True, 8, first=100)]
    if name == "random":
        assert local is None
    else:
        assert lengths == [len(tokenizer(text)["input_ids"]) for text in texts]


@pytest.mark.parametrize("keep", [128, 512])
def test_a_long_document_is_not_tokenized_whole(keep, monkeypatch):
    tokenizer = LOCAL["gpt2"]()
    seen = []
    call = PreTrainedTokenizerFast.__call__

    def watched(self, texts, *rest, **options):
        seen.append(max(map(len, texts)))
        return call(self, texts, *rest, **options)

    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", watched)
    rng = random.Random(2)
    begin = " ".join(rng.choices(["def", "return", "naïve", "x", "日本"], k=20_000))
    texts = [begin + " more" * 1_000_000, "short"]
    corpus = build_corpus("t", texts, ["0", "1"], shuffle_seed=None, num_documents=None, min_chars=0, info={})
    done = tokenize(corpus, tokenizer, Windowing(max_tokens=keep))
    assert max(seen) <= FIRST_CHARACTERS
    assert done.tokens[:keep].tolist() == tokenizer(begin)["input_ids"][:keep]
    assert done.offsets.tolist() == [0, keep, keep + len(tokenizer("short")["input_ids"])]


@pytest.mark.parametrize(
    "expression",
    [
        GPT2,
        LLAMA3,
        O200K,
        r"\s+",
        r" {2,}",
        r"\p{N}{1,3}",
        r"[一-龥぀-ゟ]+",
        r"\w+|[^\w\s]+",
        r"[!-z]+",
        r"[^\r\n\p{L}]?+\p{L}++",
    ],
)
def test_expressions_that_look_ahead_over_few_words(expression):
    assert is_local(expression)


@pytest.mark.parametrize(
    "expression",
    [r".*", r"[\s\S]+", r"(?:\s?\w+)*", r"[^\n]+", r"\w+(?=.*x)", r"(?<=a)b", r"(?<!a)b", r"a(?!b)", r"[\w ]+",
     r"[a-z\s]+", r"x$", r"^a", r"\D+", r"\P{L}+", r"[^\p{L}]+", r"(a|b)+", r"\p{^L}+", r"[\x00-\x7f]+", r"[ -~]+",
     r"[\u0000-\u00ff]*", r"\X+", r"(a)\1", r"[^x&&[^ ]]+", r"[\D]+", r"[\P{L}]+", r"[[:alpha:] ]+", r"[^\\s]+",
     "[\x01-z]+", r"[\p{Z}\p{L}]+", r"[\W\d]+", r"\p{Any}+", r"[^ ]+", r"\K", r"(?s).", r"(?x) a+"],
)  # fmt: skip
def test_expressions_that_may_look_further_are_not_trusted(expression):
    assert not is_local(expression)
