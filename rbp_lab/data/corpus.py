"""The corpus: ordered texts with names, and the one selection that every source shares.

A source (``stdlib``, ``local``, a hub data set) reads its documents; what happens then (length filter, shuffle,
first N, fingerprint) is the same for all of them.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rbp_lab.data.windows import Windowing
from rbp_lab.errors import LabError
from rbp_lab.text import count, several

LONGEST_NAME = 200  # characters; a name becomes part of labels, tables and file names


@dataclass(frozen=True)
class Corpus:
    """Documents in the order in which they are scored.

    name: as in the config. texts: the documents, which may be read from a file as they are asked for. ids: their
    names, unique, stable and readable, in the same order. fingerprint: ``fingerprint(ids, texts)``. info: plain JSON
    that says where the texts came from and how they were selected (source, split, shuffle_seed, counts before
    selection, …); its ``left_out`` maps reasons to numbers of rows that could not be selected.
    """

    name: str
    texts: Sequence[str]
    ids: tuple[str, ...]
    fingerprint: str
    info: dict[str, Any]

    def __len__(self) -> int:
        return len(self.texts)

    def left_out_note(self) -> str | None:
        """How many rows were left out before the selection and why, as a sentence; None when none was."""
        left_out: Mapping[str, int] = self.info.get("left_out") or {}
        if not left_out:
            return None
        reasons = ", ".join(f"{count(number)} {reason}" for reason, number in left_out.items())
        number = sum(left_out.values())
        return f"dataset {self.name}: {several(number, 'document')} left out before the selection ({reasons})"


@runtime_checkable
class TextSource(Protocol):
    """What a dataset of the config is: a name, the protocol by which its documents are cut, and the documents."""

    name: str
    protocol: Windowing

    def corpus(self) -> Corpus:
        """The selected documents. Raises LabError on anything the user can put right."""
        ...


def check_name(name: str) -> None:
    """Raise LabError unless the name of a dataset is one line of at most LONGEST_NAME printable characters."""
    if not isinstance(name, str) or not name.strip():
        raise LabError(f"dataset.name must be a text that is not blank; got {name!r}")
    if len(name) > LONGEST_NAME:
        raise LabError(f"dataset.name has {len(name)} characters, at most {LONGEST_NAME} are possible; shorten it")
    odd = next((one for one in name if unicodedata.category(one) in {"Cc", "Cs", "Zl", "Zp"}), None)
    if odd is not None:
        raise LabError(f"dataset.name holds the unprintable character {odd!r}; got {name!r}")


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


def check_selection(shuffle_seed: int | None, num_documents: int | None, min_chars: int) -> None:
    """LabError, naming the key, when one of a data set's choices of documents is out of range; see Selection."""
    if min_chars < 0:
        raise LabError(f"dataset.min_chars must be 0 or more; got {min_chars}")
    if num_documents is not None and num_documents < 1:
        raise LabError(f"dataset.num_documents must be at least 1, or null for all; got {num_documents}")
    if shuffle_seed is not None and shuffle_seed < 0:
        raise LabError(f"dataset.shuffle_seed must be 0 or more, or null for file order; got {shuffle_seed}")


@dataclass(frozen=True)
class Selection:
    """Which documents are scored, and in which order.

    Documents of at least min_chars characters are permuted by ``np.random.default_rng(shuffle_seed)`` (the
    permutation of ``datasets.Dataset.shuffle(seed)``; None keeps the order), and at most the first num_documents are
    taken (None takes all). [RBP] (arXiv 2510.20387, section 4) selects documents this way: 1000 of a corpus, and all
    164 of HumanEval, which has fewer. unique: of equal texts only the first is a candidate. name: of the dataset, for
    messages. Raises LabError on a value out of range.
    """

    name: str
    shuffle_seed: int | None
    num_documents: int | None
    min_chars: int
    unique: bool = False

    def __post_init__(self) -> None:
        check_selection(self.shuffle_seed, self.num_documents, self.min_chars)

    def order(self, candidates: int, left_out: Mapping[str, int]) -> np.ndarray:
        """Indices int64 [M] of the chosen among ``candidates`` documents, in scoring order.

        left_out: reasons and numbers of the documents that are no candidates. Raises LabError when none is left.
        """
        if candidates == 0 and not left_out:
            raise LabError(f"dataset {self.name!r} holds no rows at all; check its files")
        if candidates == 0:
            why = "".join(f", {number} {reason}" for reason, number in left_out.items())
            raise LabError(
                f"dataset {self.name!r}: no document is left of {sum(left_out.values())} after keeping those of at "
                f"least {self.min_chars} characters{why}; lower min_chars or check the source"
            )
        if self.shuffle_seed is None:
            return np.arange(candidates)[: self.num_documents]
        return np.random.default_rng(self.shuffle_seed).permutation(candidates)[: self.num_documents]

    def why_too_short(self, text: str) -> str | None:
        """Why a text is no candidate; None when it is one."""
        if len(text) >= self.min_chars:
            return None
        return "empty" if not text else f"shorter than {self.min_chars} characters"

    def corpus(self, texts: Sequence[str], ids: Sequence[str], info: dict[str, Any]) -> Corpus:
        """The Corpus of documents selected and ordered; info is completed by the settings and what they amount to.

        texts: kept as they are, and gone through one after another.
        """
        settings = {
            "shuffle_seed": self.shuffle_seed, "num_documents": self.num_documents, "min_chars": self.min_chars,
        }  # fmt: skip
        settings |= {"unique": True} if self.unique else {}
        size = {"documents": len(texts), "characters": sum(map(len, texts))}
        return Corpus(self.name, texts, tuple(ids), fingerprint(ids, texts), {**info, **settings, **size})


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
    """The Corpus of the documents selected among texts in memory; see Selection.

    Raises LabError as Selection does, or when ids repeat or do not match the texts in number.
    """
    if len(ids) != len(texts):
        raise LabError(f"dataset {name!r}: {len(texts)} texts came with {len(ids)} ids; each document needs one id")
    twice = [one for one, count in Counter(ids).items() if count > 1]
    if twice:
        raise LabError(f"dataset {name!r}: the document id {twice[0]!r} occurs more than once; ids must be unique")
    selection = Selection(name, shuffle_seed, num_documents, min_chars)
    reasons = [selection.why_too_short(text) for text in texts]
    left_out = dict(Counter(reason for reason in reasons if reason is not None))
    kept = [i for i, reason in enumerate(reasons) if reason is None]
    chosen = [kept[i] for i in selection.order(len(kept), left_out)]
    counts = {"documents_before_selection": len(texts), "left_out": left_out}
    return selection.corpus(tuple(texts[i] for i in chosen), [ids[i] for i in chosen], {**info, **counts})
