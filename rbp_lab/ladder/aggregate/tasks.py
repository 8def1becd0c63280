"""What a classifier learns: instances with classes, split for training and measuring.

Legend: n training instances, N test instances, K classes, E seeds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rbp_lab.errors import LabError, shown
from rbp_lab.ladder.aggregate.networks import InputShape

TEST_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class Bags:
    """Groups that come with the data, each with one label: the observation of a bag. No instance has a label.

    groups int64 [G, m] of training instances, test_groups [N, m] of test instances: filled up at the end with the
    number of instances on their side, which stands for none. z: 1 for a bag with a positive instance, int64 [G].
    """

    groups: np.ndarray
    z: np.ndarray
    test_groups: np.ndarray


@dataclass(frozen=True, eq=False)
class Split:
    """One split of a task. Groups are drawn within ``inputs``, so none straddles it.

    name: of the test set, as records show it. inputs [n, *shape] and labels int64 [n]: to train on. test_inputs
    [N, *shape], test_labels int64 [N], documents int64 [N]: to measure on; instances of one document are resampled
    together. document_names: by document. classes: names [K]. info: plain JSON that says where it comes from; its
    ``set`` is what splits of all seeds are called together. bags: of data whose bags alone have labels; test_labels and
    documents are then of test bags, and labels repeat the bag's.
    """

    name: str
    inputs: np.ndarray
    labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray
    documents: np.ndarray
    document_names: tuple[str, ...]
    classes: tuple[str, ...]
    vocabulary: int | None = None
    info: dict[str, Any] = field(default_factory=dict)
    bags: Bags | None = None

    @property
    def shape(self) -> InputShape:
        return InputShape(self.inputs.shape[1:], self.vocabulary)

    @property
    def units(self) -> int:
        """How many training instances there are; bags, where the data come in bags."""
        return len(self.labels if self.bags is None else self.bags.z)

    def fingerprint(self, part: str) -> str:
        """SHA-256 over the arrays of a part, "train" or "test"."""
        train = (self.inputs, self.labels)
        arrays = train if part == "train" else (self.test_inputs, self.test_labels, self.documents)
        if self.bags is not None:
            arrays += (self.bags.groups, self.bags.z) if part == "train" else (self.bags.test_groups,)
        digest = hashlib.sha256(repr(self.classes).encode())
        for array in arrays:
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@runtime_checkable
class Task(Protocol):
    """A source of instances with classes (group ``task``). name: directory-safe, for people."""

    name: str

    def split(self, seed: int) -> Split:
        """Training and test instances of a seed. Raises LabError on anything the user can put right."""
        ...


def stratified(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rising indices of the training and of the test side; every class gives the same share to the test side.

    Numbers are rounded class by class, so that every seed has sides of the same size.
    """
    generator = np.random.default_rng(seed)
    test = np.zeros(len(labels), bool)
    for c in np.unique(labels):
        mine = np.flatnonzero(labels == c)
        test[generator.permutation(mine)[: round(share * len(mine))]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)


def with_noise(labels: np.ndarray, share: float, classes: int, seed: int) -> np.ndarray:
    """Labels of which a share, chosen by ``seed``, is replaced by one of the other classes, each as likely."""
    if not 0 <= share < 1:
        raise LabError(f"task.label_noise must be at least 0 and below 1; got {shown(share)}")
    generator = np.random.default_rng((seed, 1))
    wrong = generator.permutation(len(labels))[: round(share * len(labels))]
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + generator.integers(1, classes, len(wrong))) % classes
    return noisy


def standardised(inputs: np.ndarray, test_inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, d] and [N, d] scaled to mean 0 and variance 1 over the first, float32; constant ones become 0."""
    mean, scale = inputs.mean(0), inputs.std(0)
    scale[scale == 0] = 1
    return ((inputs - mean) / scale).astype(np.float32), ((test_inputs - mean) / scale).astype(np.float32)


def array_split(
    name: str, inputs: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], seed: int,
    positive: int | None, label_noise: float, info: dict[str, Any],
) -> Split:  # fmt: skip
    """The split of instances in memory by ``seed``, 70 to 30 within each class.

    positive: None, or the class that is told from all others. Every test instance is a document of its own.
    """
    if positive is not None:
        if not 0 <= positive < len(classes):
            raise LabError(f"task.positive must be a class from 0 to {len(classes) - 1}; got {positive}")
        labels, classes = (labels == positive).astype(np.int64), (f"not {classes[positive]}", classes[positive])
        name = f"{name}-{classes[1]}"
    train, test = stratified(labels, TEST_SHARE, seed)
    noisy = with_noise(labels[train], label_noise, len(classes), seed)
    return Split(
        f"{name}-split{seed}", inputs[train], noisy, inputs[test], labels[test], np.arange(len(test)),
        tuple(f"instance {i}" for i in test), classes,
        info={**info, "set": name, "split_seed": seed, "test_share": TEST_SHARE, "positive": positive},
    )  # fmt: skip


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1,797 digits of 8 × 8 pixels, K = 10, inside that package.

    positive: None, or the digit that is told from all others (K = 2). label_noise: share of the training labels that
    are replaced.
    """

    name: str = "digits"
    positive: int | None = None
    label_noise: float = 0.0

    def split(self, seed: int) -> Split:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise LabError(
                "task=digits needs scikit-learn, which holds the images: pip install 'rbp-lab[classify]'"
            ) from None
        found = load_digits()
        inputs = (found.images[:, None] / 16).astype(np.float32)
        labels = found.target.astype(np.int64)
        info = {"source": "sklearn.datasets.load_digits"}
        return array_split(
            self.name, inputs, labels, tuple(map(str, range(10))), seed, self.positive, self.label_noise, info
        )
