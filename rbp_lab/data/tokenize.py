"""Texts to token ids, once per (tokenizer, corpus, beginning-of-text policy), kept on disk."""

from __future__ import annotations

import hashlib
import inspect
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rbp_lab.data.corpus import Corpus
from rbp_lab.data.prefix import locality
from rbp_lab.data.token_cache import keep_tokens, read_tokens
from rbp_lab.data.windows import TokenizedCorpus, Windowing
from rbp_lab.errors import LabError
from rbp_lab.store.layout import Store

# Documents and characters handed to the tokenizer at a time: enough to keep its threads busy, few enough to bound
# memory. A longer document goes alone.
BATCH = 512
BATCH_CHARACTERS = 2**20
# Characters of a document that are tried first where only its first tokens are kept.
FIRST_CHARACTERS = 2**14
# Something of everything that a normaliser or pre-tokenizer may treat in a way of its own.
_PROBE = (
    "  It's a Probe:\tcafé CAFE\u0301, naïve ﬁ \u3000日本語 🙂👩\u200d👧 12345 3.14 <s></s> __init__(x);\r\n\n\n"
    " ÀÉß Σς\u00a0end "
)


def tokenizer_fingerprint(tokenizer: Any) -> str | None:
    """SHA-256 over everything that decides ids; None when that is unknown, as of a slow tokenizer without files.

    It covers the class and its code, the arguments it was made with, the versions of the libraries, special tokens and
    automatic additions, the ids of a probe, and the serialised backend of a fast tokenizer or the files (vocabulary,
    merges, …) that a slow one saves.
    """
    import tokenizers
    import transformers

    digest = hashlib.sha256(f"{type(tokenizer).__qualname__} {transformers.__version__}\n".encode())
    try:
        made_with = {
            name: one for name, one in tokenizer.init_kwargs.items() if name not in {"name_or_path", "vocab_file"}
        }
        special = [sorted(tokenizer.all_special_ids), tokenizer.eos_token_id, tokenizer.bos_token_id]
        probe = [tokenizer(_PROBE, add_special_tokens=added)["input_ids"] for added in (True, False)]
        digest.update(Path(inspect.getfile(type(tokenizer))).read_bytes())
        digest.update(json.dumps([made_with, special, probe], sort_keys=True, default=repr).encode())
        if tokenizer.is_fast:
            digest.update(tokenizers.__version__.encode())
            digest.update(tokenizer.backend_tokenizer.to_str().encode())
        else:
            with tempfile.TemporaryDirectory() as directory:
                tokenizer.save_pretrained(directory)
                for file in sorted(Path(directory).rglob("*")):
                    if file.is_file():
                        digest.update(f"\n{file.name}\n".encode() + file.read_bytes())
    except Exception:  # a class without a file, a tokenizer that cannot be saved: it is used, and nothing is kept
        return None
    return digest.hexdigest()


def tokenize(corpus: Corpus, tokenizer: Any, protocol: Windowing, store: Store | None = None) -> TokenizedCorpus:
    """The corpus as token ids; kept in ``store``, and read from there when these texts were tokenized this way before.

    With a store its tokens stay in a file, of which slices are read; without one, or when nothing can be written there,
    they are in memory. Bytes per token come from the offsets of a fast tokenizer and sum to the document's UTF-8 size
    (special tokens stand for none); slow tokenizers have no offsets and give None. Under ``truncate`` only the tokens
    that a row can hold are kept, and of a long document only its beginning is tokenized where that provably gives the
    same. Raises LabError when ``bos: always`` is asked of a tokenizer without such a token.
    """
    if protocol.bos == "always" and tokenizer.bos_token_id is None:
        raise LabError("protocol.bos=always, but the tokenizer has no beginning-of-text token; use tokenizer or never")
    keep = protocol.max_tokens if protocol.windows == "truncate" else None
    special = np.array(sorted(set(tokenizer.all_special_ids)), np.int64)
    eos, with_bytes = tokenizer.eos_token_id, bool(tokenizer.is_fast)
    identity = None if store is None else tokenizer_fingerprint(tokenizer)
    if identity is not None:
        what = [identity, corpus.fingerprint, protocol.bos, keep]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
        path = store.tokens(key[:24])
        found = read_tokens(path, key)
        if found is None:
            documents = _documents(corpus, tokenizer, protocol.bos, keep)
            keep_tokens(path, key, documents, special, eos, with_bytes)
            found = read_tokens(path, key)
        if found is not None:
            return found
    ids, sizes, offsets = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], [0]
    for tokens, size in _documents(corpus, tokenizer, protocol.bos, keep):
        ids.append(tokens)
        sizes.append(size)
        offsets.append(offsets[-1] + len(tokens))
    token_bytes = np.concatenate(sizes) if with_bytes else None
    return TokenizedCorpus(np.concatenate(ids), np.array(offsets, np.int64), token_bytes, special, eos)


def _documents(corpus: Corpus, tokenizer: Any, bos: str, keep: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Token ids int32 and their bytes int32 of each document, with the beginning that ``bos`` asks for."""
    for ids, sizes in encode(corpus.texts, tokenizer, bos != "never", keep):
        if bos == "always" and (len(ids) == 0 or ids[0] != tokenizer.bos_token_id):
            ids = np.concatenate([[tokenizer.bos_token_id], ids]).astype(np.int32)
            sizes = np.concatenate([[0], sizes]).astype(np.int32)
        yield ids[:keep], sizes[:keep]


def encode(
    texts: Sequence[str], tokenizer: Any, add_special_tokens: bool, keep: int | None, first: int = FIRST_CHARACTERS
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Token ids int32 and their bytes int32 of each text, at least the first ``keep`` (None: all).

    first: characters of a longer text that are tried at first; four times as many while these do not settle the
    tokens, see ``prefix``.
    """
    local = None if keep is None else locality(tokenizer)
    for batch in _batches(texts, first if local else None):
        begin = first if local and len(batch[0]) > first else None
        while begin is not None:
            coded = _call(tokenizer, [batch[0][:begin]], add_special_tokens)
            if local.settles(coded.encodings[0], _clean(batch[0][:begin]), keep):
                break
            begin = 4 * begin if 4 * begin < len(batch[0]) else None
        if begin is None:
            coded = _call(tokenizer, batch, add_special_tokens)
        for i, text in enumerate(batch):
            document = np.array(coded["input_ids"][i], np.int32)
            if tokenizer.is_fast:
                yield document, token_sizes(_clean(text[:begin]), coded["offset_mapping"][i])
            else:
                yield document, np.zeros(len(document), np.int32)


def _batches(texts: Sequence[str], alone: int | None) -> Iterator[list[str]]:
    """Texts in order, several at a time; one of more than ``alone`` or BATCH_CHARACTERS characters by itself."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        on_its_own = alone is not None and len(text) > alone
        if batch and (on_its_own or len(batch) == BATCH or characters + len(text) > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
        if on_its_own:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _clean(text: str) -> str:
    """A lone surrogate (possible in JSON) is not text and has no UTF-8 form: it becomes U+FFFD."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _call(tokenizer: Any, texts: list[str], add_special_tokens: bool) -> Any:
    return tokenizer(
        [_clean(text) for text in texts],
        add_special_tokens=add_special_tokens,
        return_offsets_mapping=bool(tokenizer.is_fast),
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # a document longer than the model's positions is cut by the protocol, not a reason to warn
    )


def token_sizes(text: str, offsets: list[tuple[int, int]]) -> np.ndarray:
    """UTF-8 bytes that each token adds to those before it, int32 [tokens], from (begin, end) character offsets.

    Of tokens that share a character (its bytes were split) the first has all its bytes. The sum is the number of bytes
    up to the last token's end.
    """
    if not offsets:
        return np.zeros(0, np.int32)
    raw = np.frombuffer(text.encode("utf-8"), np.uint8)
    byte_of_char = np.append(np.flatnonzero((raw & 0xC0) != 0x80), len(raw))
    end = np.maximum.accumulate(byte_of_char[np.array(offsets, np.int64)[:, 1]])
    return np.diff(end, prepend=0).astype(np.int32)
