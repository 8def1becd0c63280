"""Texts to token ids, once per (tokenizer, corpus, beginning-of-text policy), kept on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from rbp_lab.data.corpus import Corpus
from rbp_lab.data.windows import Protocol, TokenizedCorpus
from rbp_lab.errors import LabError
from rbp_lab.store.atomic import atomic_path
from rbp_lab.store.layout import Store

# Documents handed to the tokenizer at a time: enough to keep its threads busy, few enough to bound memory.
BATCH = 512


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256 over everything that decides ids: the serialised backend, special tokens and automatic additions."""
    digest = hashlib.sha256(type(tokenizer).__name__.encode())
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        digest.update(tokenizer.backend_tokenizer.to_str().encode())
    else:
        digest.update(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    additions = (
        tokenizer.build_inputs_with_special_tokens([0])
        if hasattr(tokenizer, "build_inputs_with_special_tokens")
        else None
    )
    digest.update(json.dumps([sorted(tokenizer.all_special_ids), additions, tokenizer.eos_token_id]).encode())
    return digest.hexdigest()


def tokenize(corpus: Corpus, tokenizer: Any, protocol: Protocol, store: Store | None = None) -> TokenizedCorpus:
    """The corpus as token ids; read from ``store`` when these texts were tokenized this way before.

    Bytes per token come from the offsets of a fast tokenizer and sum to the document's UTF-8 size (special tokens
    stand for none); slow tokenizers tell no offsets and give None. Under ``truncate`` only the tokens that a row
    can hold are kept. Raises LabError when ``bos: always`` is asked of a tokenizer without such a token.
    """
    keep = protocol.max_tokens if protocol.windows == "truncate" else None
    path = None
    if store is not None:
        what = [tokenizer_fingerprint(tokenizer), corpus.fingerprint, protocol.bos, keep]
        path = store.tokens(hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24])
        if path.is_file():
            return _load(path)
    tokenized = _tokenize(corpus, tokenizer, protocol.bos, keep)
    if path is not None:
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                tokens=tokenized.tokens,
                offsets=tokenized.offsets,
                special_ids=tokenized.special_ids,
                eos_id=np.array(-1 if tokenized.eos_id is None else tokenized.eos_id),
                **({} if tokenized.token_bytes is None else {"token_bytes": tokenized.token_bytes}),
            )
    return tokenized


def _load(path: Path) -> TokenizedCorpus:
    with np.load(path) as data:
        eos = int(data["eos_id"])
        return TokenizedCorpus(
            tokens=data["tokens"],
            offsets=data["offsets"],
            token_bytes=data.get("token_bytes"),
            special_ids=data["special_ids"],
            eos_id=None if eos < 0 else eos,
        )


def _tokenize(corpus: Corpus, tokenizer: Any, bos: str, keep: int | None) -> TokenizedCorpus:
    if bos == "always" and tokenizer.bos_token_id is None:
        raise LabError("protocol.bos=always, but the tokenizer has no beginning-of-text token; use tokenizer or never")
    fast = bool(tokenizer.is_fast)
    ids: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    for first in range(0, len(corpus.texts), BATCH):
        # A lone surrogate (possible in JSON) is not text and has no UTF-8 form: it becomes U+FFFD.
        texts = [
            t.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for t in corpus.texts[first : first + BATCH]
        ]
        # verbose=False: a document longer than the model's positions is cut by the protocol, not a reason to warn
        coded = tokenizer(texts, add_special_tokens=bos != "never", return_offsets_mapping=fast, verbose=False)
        for i, text in enumerate(texts):
            document = np.array(coded["input_ids"][i], np.int32)
            size = token_sizes(text, coded["offset_mapping"][i]) if fast else np.zeros(len(document), np.int32)
            if bos == "always" and (len(document) == 0 or document[0] != tokenizer.bos_token_id):
                document = np.concatenate([[tokenizer.bos_token_id], document]).astype(np.int32)
                size = np.concatenate([[0], size]).astype(np.int32)
            ids.append(document[:keep])
            sizes.append(size[:keep])
    return TokenizedCorpus(
        tokens=np.concatenate([*ids, np.zeros(0, np.int32)]),
        offsets=np.concatenate([[0], np.cumsum([len(d) for d in ids])]).astype(np.int64),
        token_bytes=np.concatenate([*sizes, np.zeros(0, np.int32)]) if fast else None,
        special_ids=np.array(sorted(set(tokenizer.all_special_ids)), np.int64),
        eos_id=tokenizer.eos_token_id,
    )


def token_sizes(text: str, offsets: list[tuple[int, int]]) -> np.ndarray:
    """UTF-8 bytes that each token adds to those before it, int32 [tokens], from (begin, end) character offsets.

    Tokens that share a character (its bytes were split) leave it to the first of them, so the sum is the number of
    bytes up to the last token's end, whatever the tokenizer does in between.
    """
    if not offsets:
        return np.zeros(0, np.int32)
    raw = np.frombuffer(text.encode("utf-8"), np.uint8)
    byte_of_char = np.append(np.flatnonzero((raw & 0xC0) != 0x80), len(raw))
    end = np.maximum.accumulate(byte_of_char[np.array(offsets, np.int64)[:, 1]])
    return np.diff(end, prepend=0).astype(np.int32)
