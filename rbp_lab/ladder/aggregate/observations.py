"""What is known of a group of instances: one observation z = T(y_1 … y_m) in place of m labels (arXiv 2306.11343).

Every observation turns log-posteriors log p(y_i = j | x_i) into log p(z | x_1 … x_m) and into the weights
w_ij = p(y_i = j | x_1 … x_m, z), with which Σ_ij w_ij ℓ(f(x_i), j) / m has the expectation of the supervised risk for
every loss ℓ. Legend: G groups, m instances of a group, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch.nn import functional

from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.lattice import count_sums, slot_sums
from rbp_lab.ladder.aggregate.logspace import IMPOSSIBLE, log_others, log_sum
from rbp_lab.ladder.rules import MOST_SLOTS
from rbp_lab.text import count

# What an observation tells of the classes: which they are, or which instances share one.
CLASSES, PERMUTATION = "classes", "permutation"
MOST_ASSIGNMENTS = 1_000_000


@runtime_checkable
class Observation(Protocol):
    """A way to observe groups of m instances. identifies: ``CLASSES``, or ``PERMUTATION`` when only up to one.

    m: None where groups come with the data (``Bag``).
    """

    m: int | None
    identifies: ClassVar[str]

    def observe(self, labels: torch.Tensor) -> torch.Tensor:
        """z of labels int64 [G, m]: int64 [G], or [G, m] for a multiset."""
        ...

    def log_joint(self, logp: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """log p(y_i = j, z | x), [G, m, K], from log-posteriors [G, m, K]."""
        ...

    def check(self, classes: int) -> None:
        """LabError when labels of so many classes cannot be observed this way."""
        ...


def log_likelihood(observation: Observation, logp: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """log p(z | x_1 … x_m) of each group [G], in nats; −∞ where z is impossible under the posteriors."""
    return log_sum(observation.log_joint(logp, z)[:, 0])


def weights(observation: Observation, logp: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """w_ij [G, m, K], rows summing to 1, and which groups have an impossible observation, bool [G].

    Such a group tells nothing: its instances keep their own posteriors as weights. Rows are normalised by a softmax of
    the log-weights, never by exp(log w − log p(z)), which in float32 loses whole digits at log p(z) = −3000.
    """
    joint = observation.log_joint(logp, z)
    impossible = ~torch.isfinite(joint).any(-1).all(-1)
    joint = torch.where(impossible[:, None, None], logp, joint)
    return torch.softmax(joint, -1), impossible


def _group_size(m: int) -> None:
    if m < 1:
        raise LabError(f"observation.m must be at least 1; got {m}")


def _fixed_size(m: int, size: int, name: str) -> None:
    if m != size:
        raise LabError(f"observation.m must be {size} for a {name}; got {m}")


def _several_classes(classes: int) -> None:
    if classes < 2:
        raise LabError(f"the labels of the task have {classes} class; a classifier needs at least 2")


@dataclass(frozen=True)
class Similarity:
    """Whether two instances have the same class: z = 1 for the same, 0 for different ones."""

    m: int = 2
    identifies: ClassVar[str] = PERMUTATION

    def __post_init__(self) -> None:
        _fixed_size(self.m, 2, "similarity")

    def check(self, classes: int) -> None:
        _several_classes(classes)

    def observe(self, labels: torch.Tensor) -> torch.Tensor:
        return (labels[:, 0] == labels[:, 1]).long()

    def log_joint(self, logp: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        mate = logp.flip(1)
        return logp + torch.where(z[:, None, None] == 1, mate, log_others(mate))


@dataclass(frozen=True)
class Triplet:
    """Which of two instances is like the first: z = 0 for y1 = y2 ≠ y3, z = 1 for y1 = y3 ≠ y2, z = 2 for the rest."""

    m: int = 3
    identifies: ClassVar[str] = PERMUTATION

    def __post_init__(self) -> None:
        _fixed_size(self.m, 3, "triplet")

    def check(self, classes: int) -> None:
        _several_classes(classes)

    def observe(self, labels: torch.Tensor) -> torch.Tensor:
        first, second, third = labels.unbind(1)
        alike = torch.where((first == second) & (first != third), 0, 2)
        return torch.where((first == third) & (first != second), 1, alike)

    def log_joint(self, logp: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        a, b, c = logp.unbind(1)
        near_b = self._like_second(a, b, c)
        like_c = self._like_second(a, c, b)
        near_c = torch.stack([like_c[:, 0], like_c[:, 2], like_c[:, 1]], 1)
        # All three alike, or none like the first: the parts are added, never taken from 1.
        none = torch.stack([
            torch.logaddexp(b + c, log_others(b) + log_others(c)),
            torch.logaddexp(a + c, log_others(a + log_others(c))),
            torch.logaddexp(a + b, log_others(a + log_others(b))),
        ], 1)  # fmt: skip
        which = z[:, None, None]
        return torch.where(which == 0, near_b, torch.where(which == 1, near_c, none + logp))

    @staticmethod
    def _like_second(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """log p(y_i = j, y1 = y2 ≠ y3)."""
        pair = a + b
        same = pair + log_others(c)
        return torch.stack([same, same, c + log_others(pair)], 1)


@dataclass(frozen=True)
class Proportions:
    """How often each class occurs in a group; z holds the labels of the group in rising order, without their places.

    With m = 1 it is the label itself: supervised learning.
    """

    m: int = 4
    identifies: ClassVar[str] = CLASSES

    def __post_init__(self) -> None:
        _group_size(self.m)

    def check(self, classes: int) -> None:
        _several_classes(classes)

    def observe(self, labels: torch.Tensor) -> torch.Tensor:
        return labels.sort(1).values

    def log_joint(self, logp: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        if self.m > MOST_SLOTS:
            return count_sums(logp, z)
        slots = z[:, None, :].expand(-1, self.m, -1)
        joint = slot_sums(logp.gather(2, slots))
        # Slots of one label exchange places in Π c_k! ways that are one labelling.
        order = functional.one_hot(z, logp.shape[2]).sum(1).to(logp.dtype)
        ways = torch.lgamma(order + 1).sum(1)
        # Slots of one label add up.
        top = joint.detach().amax(-1, keepdim=True)
        top = torch.where(torch.isfinite(top), top, 0.0)
        summed = torch.zeros_like(logp).scatter_add(2, slots, (joint - top).exp())
        nothing = summed == 0
        logs = torch.where(nothing, IMPOSSIBLE, torch.where(nothing, 1.0, summed).log() + top)
        return logs - ways[:, None, None]


@dataclass(frozen=True)
class Bag:
    """Whether an instance of class ``positive`` is among the m of a bag (multiple-instance learning).

    m: None where the task's data come in bags, of whatever size.
    """

    m: int | None = 4
    positive: int = 1
    identifies: ClassVar[str] = CLASSES

    def __post_init__(self) -> None:
        if self.m is not None:
            _group_size(self.m)
        if self.positive < 0:
            raise LabError(f"observation.positive must be a class, counted from 0; got {self.positive}")

    def check(self, classes: int) -> None:
        _several_classes(classes)
        if self.positive >= classes:
            raise LabError(f"observation.positive must be below the {classes} classes of the task; got {self.positive}")
        if classes > 2:
            raise LabError(
                f"a bag tells one class from all others, so the task must have two classes and has {classes}; "
                f"choose task.positive, for example task.positive={self.positive}"
            )

    def observe(self, labels: torch.Tensor) -> torch.Tensor:
        return (labels == self.positive).any(1).long()

    def log_joint(self, logp: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        is_positive = torch.arange(logp.shape[2], device=logp.device) == self.positive
        has = logp[..., self.positive]  # [G, m]
        lacks = log_sum(logp.masked_fill(is_positive, IMPOSSIBLE))
        before, none_before = self._found(has, lacks)
        after, none_after = (side.flip(1) for side in self._found(has.flip(1), lacks.flip(1)))
        others_have = torch.logaddexp(before, none_before + after)
        others_lack = none_before + none_after
        others = torch.where(z[:, None] == 1, others_have, others_lack)[..., None]
        own = torch.where(z[:, None, None] == 1, 0.0, IMPOSSIBLE)  # a positive instance makes the bag positive
        return logp + torch.where(is_positive, own, others)

    def absent(self, logp: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """Log-posteriors [..., m, K] with those of ``missing`` places [..., m] certainly not positive.

        Such a place tells nothing of its bag, so bags of different sizes can be filled up to one.
        """
        positive = torch.arange(logp.shape[-1]) == self.positive
        return torch.where(missing[..., None], torch.where(positive, IMPOSSIBLE, 0.0), logp)

    @staticmethod
    def _found(has: torch.Tensor, lacks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The log of the chance that a positive stands before each place, and that none does; [G, m] each.

        The chance is a sum over the place of the first positive.
        """
        none = functional.pad(lacks.cumsum(1)[:, :-1], (1, 0))
        found = (none + has).logcumsumexp(1)[:, :-1]
        return functional.pad(found, (1, 0), value=IMPOSSIBLE), none


@dataclass(frozen=True)
class Enumerated:
    """Any observation, given as a table: the value of each of the K^m assignments of classes to m instances.

    table: whole numbers in the order (0,…,0,0), (0,…,0,1) … of the assignments (the last instance changes fastest).
    identifies_classes: False when the table stays the same under a permutation of the classes. Costs K^m a group.
    """

    table: tuple[int, ...]
    m: int
    classes: int
    identifies_classes: bool = True

    def __post_init__(self) -> None:
        _group_size(self.m)
        if self.classes < 2 or self.m * math.log(self.classes) > math.log(MOST_ASSIGNMENTS):
            raise LabError(
                f"observation.classes={self.classes} and observation.m={self.m} must give at least 2 and at most "
                f"{count(MOST_ASSIGNMENTS)} assignments; got {self.classes}^{self.m}"
            )
        if len(self.table) != self.classes**self.m:
            raise LabError(
                f"observation.table must hold the value of each of the {self.classes}^{self.m} = "
                f"{self.classes**self.m} assignments; got {len(self.table)} values"
            )

    @property
    def identifies(self) -> str:
        return CLASSES if self.identifies_classes else PERMUTATION

    def check(self, classes: int) -> None:
        if classes != self.classes:
            raise LabError(f"observation.classes={self.classes}, but the task has {classes} classes")

    def observe(self, labels: torch.Tensor) -> torch.Tensor:
        place = torch.zeros_like(labels[:, 0])
        for i in range(self.m):
            place = place * self.classes + labels[:, i]
        return torch.tensor(self.table)[place]

    def log_joint(self, logp: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        shape = (self.classes,) * self.m
        product = torch.zeros(len(logp), *shape, dtype=logp.dtype)
        for i in range(self.m):
            axis = [1] * self.m
            axis[i] = self.classes
            product = product + logp[:, i].reshape(-1, *axis)
        fits = (torch.tensor(self.table)[None] == z[:, None]).reshape(-1, *shape)
        product = product.masked_fill(~fits, IMPOSSIBLE)
        rows = [log_sum(product.movedim(1 + i, 1).flatten(2)) for i in range(self.m)]
        return torch.stack(rows, 1)
