"""The class of the next character of Python source: next-token prediction with a vocabulary of 14 classes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rbp_lab.data.corpus import Corpus, TextSource
from rbp_lab.data.stdlib import StdlibText
from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.tasks import Split, with_noise

# Name of a class → its characters. The last class takes every other character.
CLASSES = {
    "newline": "\n", "space": " \t", "vowel": "aeiou", "frequent consonant": "tnsrl", "other small": "bcdfghjkmpqvwxyz",
    "capital": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "digit": "0123456789", "underscore": "_", "opening": "([{",
    "closing": ")]}", "dot": ".", "separator": ",:;", "quote": "'\"#", "other": "",
}  # fmt: skip
# Ids of characters: 0 stands before a file's beginning, 1 for every character that has no id of its own.
_OWN_IDS = "\n\t" + "".join(map(chr, range(32, 127)))
VOCABULARY = 2 + len(_OWN_IDS)


@dataclass(frozen=True)
class NextCharacter:
    """The class of a character from the ``context`` characters before it, K = 14.

    instances: windows to train on, drawn by the seed from the training texts without repetition. test_instances: about
    so many positions to measure on, evenly spaced over the held-out texts. training, heldout: text sources; by default
    the standard library's source, split by file.
    """

    name: str = "characters"
    context: int = 16
    instances: int = 400_000
    test_instances: int = 100_000
    label_noise: float = 0.0
    training: TextSource = field(default_factory=lambda: StdlibText(name="stdlib-train", split="train"))
    heldout: TextSource = field(default_factory=lambda: StdlibText(split="heldout"))

    def __post_init__(self) -> None:
        for name in ("context", "instances", "test_instances"):
            if getattr(self, name) < 1:
                raise LabError(f"task.{name} must be at least 1; got {getattr(self, name)}")

    def split(self, seed: int) -> Split:
        train, test = self.training.corpus(), self.heldout.corpus()
        if train.fingerprint == test.fingerprint:
            raise LabError("task.training and task.heldout are the same texts; measure on texts not trained on")
        stream, classes, positions, _ = _stream(train, self.context)
        if len(positions) < self.instances:
            raise LabError(
                f"task.instances={self.instances}, but the training texts have only {len(positions)} characters"
            )
        drawn = positions[np.random.default_rng(seed).permutation(len(positions))[: self.instances]]
        heldout, test_classes, everywhere, document = _stream(test, self.context)
        kept = np.arange(0, len(everywhere), max(1, round(len(everywhere) / self.test_instances)))
        at = everywhere[kept]
        return Split(
            self.name,
            _windows(stream, drawn, self.context),
            with_noise(classes[drawn], self.label_noise, len(CLASSES), seed),
            _windows(heldout, at, self.context),
            test_classes[at],
            document[kept],
            test.ids,
            tuple(CLASSES),
            VOCABULARY,
            {"set": self.name, "training": train.info, "heldout": test.info, "context": self.context},
        )


def _stream(corpus: Corpus, context: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ids uint8 and classes int64 of all texts, each after ``context`` zeros; positions of characters; their texts."""
    points = [np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32) for text in corpus.texts]
    table, of_class = np.ones(128, np.uint8), np.full(128, len(CLASSES) - 1, np.int64)
    for i, character in enumerate(_OWN_IDS):
        table[ord(character)] = 2 + i
    for c, characters in enumerate(CLASSES.values()):
        of_class[[ord(character) for character in characters]] = c
    pad = np.zeros(context, np.uint32)
    joined = np.concatenate([part for text in points for part in (pad, text)])
    real = np.concatenate([np.repeat([False, True], [context, len(text)]) for text in points])
    position = np.flatnonzero(real)
    known = np.where(joined < 128, joined, 0)
    ids = np.where(real, np.where(joined < 128, table[known], 1), 0).astype(np.uint8)
    classes = np.where(joined < 128, of_class[known], len(CLASSES) - 1)
    return ids, classes, position, np.repeat(np.arange(len(points)), [len(text) for text in points])


def _windows(stream: np.ndarray, positions: np.ndarray, context: int) -> np.ndarray:
    """The ids before each position, uint8 [n, context]."""
    return stream[positions[:, None] + np.arange(-context, 0)]
