"""The corpus: ordered texts with names, and the one selection that every source shares.

A source (``stdlib``, ``local``, a hub data set) reads its documents and hands them to ``build_corpus``; what happens
then (length filter, shuffle, first N, fingerprint) is the same for all of them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rbp_lab.errors import LabError


@dataclass(frozen=True)
class Corpus:
    """Documents in the order in which they are scored.

    name: as in the config. texts: the documents. ids: their names, unique, stable and readable, in the same order.
    fingerprint: ``fingerprint(ids, texts)``. info: plain JSON that says where the texts came from and how they were
    selected (source, split, shuffle_seed, counts before selection, …).
    """

    name: str
    texts: tuple[str, ...]
    ids: tuple[str, ...]
    fingerprint: str
    info: dict[str, Any]

    def __len__(self) -> int:
        return len(self.texts)


def fingerprint(ids: Sequence[str], texts: Sequence[str]) -> str:
    """SHA-256 (64 hexadecimal digits) over ids and texts in order; any change of a character or of the order shows.

    Lengths are hashed with the strings, so moving a character from one text to the next is a different corpus. Lone
    surrogates, which JSON files can carry, are hashed as they are.
    """
    digest = hashlib.sha256(f"{len(texts)}\n".encode())
    for name, text in zip(ids, texts, strict=True):
        for part in (name.encode("utf-8", "surrogatepass"), text.encode("utf-8", "surrogatepass")):
            digest.update(f"{len(part)}\n".encode())
            digest.update(part)
    return digest.hexdigest()


def select(
    lengths: Sequence[int], *, shuffle_seed: int | None, num_documents: int | None, min_chars: int, name: str
) -> np.ndarray:
    """Indices int64 [M] of the documents to score, in scoring order.

    Keeps documents of at least min_chars characters (lengths: characters of each), permutes them by
    ``np.random.default_rng(shuffle_seed)`` (the permutation of ``datasets.Dataset.shuffle(seed)``; None keeps the
    order), takes at most the first num_documents (None takes all). [RBP] (arXiv 2510.20387, section 4) selects
    documents this way: 1000 of a corpus, and all 164 of HumanEval, which has fewer.

    Raises:
        LabError: nothing is left, or an argument is out of range.
    """
    if min_chars < 0:
        raise LabError(f"dataset {name!r}: min_chars must be 0 or more; got {min_chars}")
    if num_documents is not None and num_documents < 1:
        raise LabError(f"dataset {name!r}: num_documents must be at least 1, or null for all; got {num_documents}")
    if shuffle_seed is not None and shuffle_seed < 0:
        raise LabError(f"dataset {name!r}: shuffle_seed must be 0 or more, or null for file order; got {shuffle_seed}")
    kept = np.flatnonzero(np.asarray(lengths, dtype=np.int64) >= min_chars)
    if kept.size == 0:
        raise LabError(
            f"dataset {name!r}: no document is left of {len(lengths)} after keeping those of at least {min_chars} "
            "characters; lower min_chars or check the source"
        )
    if shuffle_seed is not None:
        kept = kept[np.random.default_rng(shuffle_seed).permutation(kept.size)]
    return kept[:num_documents]


def build_corpus(
    name: str,
    texts: Sequence[str],
    ids: Sequence[str],
    *,
    shuffle_seed: int | None,
    num_documents: int | None,
    min_chars: int,
    info: dict[str, Any],
) -> Corpus:
    """The Corpus of the selected documents; info is kept and completed by the selection's own settings and counts.

    Raises:
        LabError: as ``select``, or when ids repeat or do not match the texts in number.
    """
    if len(ids) != len(texts):
        raise LabError(f"dataset {name!r}: {len(texts)} texts came with {len(ids)} ids; each document needs one id")
    twice = [one for one, count in Counter(ids).items() if count > 1]
    if twice:
        raise LabError(f"dataset {name!r}: the document id {twice[0]!r} occurs more than once; ids must be unique")
    lengths = [len(text) for text in texts]
    order = select(lengths, shuffle_seed=shuffle_seed, num_documents=num_documents, min_chars=min_chars, name=name)
    selection = {"shuffle_seed": shuffle_seed, "num_documents": num_documents, "min_chars": min_chars}
    counts = {"documents_before_selection": len(texts)}
    return chosen_corpus(name, [texts[i] for i in order], [ids[i] for i in order], {**info, **selection, **counts})


def chosen_corpus(name: str, texts: Sequence[str], ids: Sequence[str], info: dict[str, Any]) -> Corpus:
    """The Corpus of documents that are selected and ordered already; info is completed by what they amount to."""
    size = {"documents": len(texts), "characters": sum(map(len, texts))}
    return Corpus(name, tuple(texts), tuple(ids), fingerprint(ids, texts), {**info, **size})
