"""Chosen documents on disk, so that the next model reads the same ones without a network; safe to delete."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rbp_lab.data.corpus import Corpus
from rbp_lab.data.spool import SpooledTexts
from rbp_lab.errors import LabError, first_line, note
from rbp_lab.store.atomic import remove_directory
from rbp_lab.store.long_arrays import read_long_arrays, write_long_arrays


@dataclass(frozen=True)
class _KeptTexts:
    """Texts in a file, by number. bytes: of all of them, UTF-8. ends: where each ends, after a 0."""

    bytes: Any
    ends: np.ndarray

    def text(self, number: int) -> str:
        return self.bytes[self.ends[number] : self.ends[number + 1]].tobytes().decode("utf-8", "surrogatepass")


def read_corpus(path: Path, name: str) -> Corpus | None:
    """The corpus that was kept at path, under this name; None when there is none to use.

    One that is damaged is removed, with a note on stderr.
    """
    try:
        arrays, about = read_long_arrays(path)
        texts = SpooledTexts(_KeptTexts(arrays["text"], arrays["ends"][:]), range(len(about["ids"])))
        return Corpus(name, texts, tuple(about["ids"]), about["fingerprint"], about["info"])
    except FileNotFoundError:
        return None
    except (LabError, KeyError) as error:
        note(f"the documents kept in {path} are damaged ({first_line(error)}) and are chosen again")
        with suppress(OSError):
            remove_directory(path)
        return None


def keep_corpus(path: Path, corpus: Corpus) -> None:
    """Keep a corpus at path, in place of what is there; a note on stderr when that fails, which costs only time."""
    about = {"fingerprint": corpus.fingerprint, "ids": list(corpus.ids), "info": corpus.info}
    try:
        with write_long_arrays(path, {"text": np.uint8, "ends": np.int64}, about, replace=True) as written:
            ends = [0]
            for text in corpus.texts:
                data = text.encode("utf-8", "surrogatepass")
                written["text"].append(np.frombuffer(data, np.uint8))
                ends.append(ends[-1] + len(data))
            written["ends"].append(np.array(ends))
    except (OSError, LabError) as error:
        note(f"the documents of dataset {corpus.name} cannot be kept in {path}: {first_line(error)}")
