"""Small classifiers, several of one shape side by side: one set of weights per member, one product for all.

Legend: E members, B instances of a batch, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn import functional

from rbp_lab.errors import LabError
from rbp_lab.names import check_name
from rbp_lab.records import ParamCounts

HEAD = "head"


@dataclass(frozen=True)
class InputShape:
    """What an instance is: sizes of its array; vocabulary: of ids, None for numbers."""

    sizes: tuple[int, ...]
    vocabulary: int | None = None


@runtime_checkable
class Architecture(Protocol):
    """A kind of classifier (group ``classifier``)."""

    name: str

    def build(self, shape: InputShape, classes: int, seeds: Sequence[int]) -> StackedNetwork:
        """Untrained members, one per seed; a member's weights depend on its own seed alone. LabError on a misfit."""
        ...


class StackedNetwork(nn.Module):
    """E members of one shape. Every parameter has the member as its first axis; ``head`` holds the output layer."""

    head: nn.ParameterDict

    def member(self, e: int) -> dict[str, torch.Tensor]:
        """The weights of one member, with a first axis of 1."""
        return {name: value[e : e + 1].detach().clone() for name, value in self.state_dict().items()}

    def params(self) -> ParamCounts:
        """Parameters of one member: S leaves out the embedding and the output layer, as for language models."""
        sizes = {name: p[0].numel() for name, p in self.named_parameters()}
        embedding = sum(n for name, n in sizes.items() if name.startswith("embedding"))
        head = sum(n for name, n in sizes.items() if name.startswith(HEAD))
        return ParamCounts(total=sum(sizes.values()), embedding=embedding, head=head)


def _drawn(seeds: Sequence[int], layers: Sequence[tuple[tuple[int, ...], float]]) -> list[nn.Parameter]:
    """Normal weights [E, *shape] for each (shape, standard deviation); member e is drawn by seeds[e] alone."""
    members = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        members.append([torch.randn(shape, generator=generator) * scale for shape, scale in layers])
    return [nn.Parameter(torch.stack(layer)) for layer in zip(*members, strict=True)]


def _head(weight: nn.Parameter) -> nn.ParameterDict:
    members, _, classes = weight.shape
    return nn.ParameterDict({"weight": weight, "bias": nn.Parameter(torch.zeros(members, 1, classes))})


def _numbers(x: torch.Tensor) -> torch.Tensor:
    """Instances as numbers: pixels of 8 bits become shares of the brightest."""
    return x.float() / 255 if x.dtype == torch.uint8 else x


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.baddbmm(bias, x, weight)


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron with ReLU. width: of its ``hidden`` layers. embedding: dimensions of an id, where
    instances are ids. S = (d + 1)·width + (hidden − 1)(width² + width) for d inputs."""

    name: str
    width: int
    hidden: int = 2
    embedding: int = 8

    def __post_init__(self) -> None:
        check_name(self.name, "classifier.name")
        for field in ("width", "hidden", "embedding"):
            if getattr(self, field) < 1:
                raise LabError(f"classifier.{field} must be at least 1; got {getattr(self, field)}")

    def build(self, shape: InputShape, classes: int, seeds: Sequence[int]) -> StackedNetwork:
        return _StackedMLP(self, shape, classes, seeds)


class _StackedMLP(StackedNetwork):
    def __init__(self, spec: MLP, shape: InputShape, classes: int, seeds: Sequence[int]):
        super().__init__()
        ids = shape.vocabulary is not None
        inputs = 1
        for size in shape.sizes:
            inputs *= size
        inputs *= spec.embedding if ids else 1
        sizes = [inputs, *[spec.width] * spec.hidden]
        layers = [((a, b), (2 / a) ** 0.5) for a, b in pairwise(sizes)]
        layers.append(((spec.width, classes), spec.width**-0.5))
        if ids:
            layers.append(((shape.vocabulary, spec.embedding), 1.0))
        drawn = _drawn(seeds, layers)
        self.embedding = drawn.pop() if ids else None
        self.head = _head(drawn.pop())
        self.weights = nn.ParameterList(drawn)
        self.biases = nn.ParameterList(torch.zeros(len(seeds), 1, spec.width) for _ in drawn)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [E, B, K] of instances [E, B, …]."""
        if self.embedding is not None:
            members, rows, width = self.embedding.shape
            first = torch.arange(members).view(-1, *[1] * (x.dim() - 1)) * rows
            x = functional.embedding(x.long() + first, self.embedding.view(members * rows, width))
        x = _numbers(x).flatten(2)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = _linear(x, weight, bias).relu()
        return _linear(x, self.head["weight"], self.head["bias"])


@dataclass(frozen=True)
class CNN:
    """Two convolutions of 3 × 3 (c and 2c channels), each with ReLU and a maximum over 2 × 2. channels: c."""

    name: str
    channels: int = 16

    def __post_init__(self) -> None:
        check_name(self.name, "classifier.name")
        if self.channels < 1:
            raise LabError(f"classifier.channels must be at least 1; got {self.channels}")

    def build(self, shape: InputShape, classes: int, seeds: Sequence[int]) -> StackedNetwork:
        if shape.vocabulary is not None or len(shape.sizes) != 3 or min(shape.sizes[1:]) < 4:
            raise LabError(
                f"classifier {self.name} takes images of at least 4 × 4; the task's instances have the sizes "
                f"{list(shape.sizes)}; choose classifier=mlp"
            )
        return _StackedCNN(self, shape, classes, seeds)


class _StackedCNN(StackedNetwork):
    def __init__(self, spec: CNN, shape: InputShape, classes: int, seeds: Sequence[int]):
        super().__init__()
        colours, high, wide = shape.sizes
        c = spec.channels
        features = 2 * c * (high // 4) * (wide // 4)
        drawn = _drawn(seeds, [
            ((c, colours, 3, 3), (2 / (9 * colours)) ** 0.5), ((2 * c, c, 3, 3), (2 / (9 * c)) ** 0.5),
            ((features, classes), features**-0.5),
        ])  # fmt: skip
        self.head = _head(drawn.pop())
        self.weights = nn.ParameterList(drawn)
        self.biases = nn.ParameterList(torch.zeros(len(seeds), w.shape[1]) for w in drawn)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [E, B, K] of images [E, B, colours, height, width]."""
        members, batch = x.shape[:2]
        # The members' channels stand side by side: one grouped convolution for all.
        x = _numbers(x).transpose(0, 1).flatten(1, 2)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = functional.conv2d(x, weight.flatten(0, 1), bias.flatten(), padding=1, groups=members)
            x = functional.max_pool2d(x.relu(), 2)
        x = x.view(batch, members, -1).transpose(0, 1)
        return _linear(x, self.head["weight"], self.head["bias"])
