"""The small choices a measurement is composed of; each is the schema of a YAML group or node."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rbp_lab.errors import LabError, one_of, shown

DTYPES = ("float32", "bfloat16", "float16")
LOGITS = ("float32", "model")
IMPLEMENTATIONS = ("auto", "reference", "torch", "numba", "triton-chunked", "triton-fused")
CANDIDATES = ("rows", "tokenizer")
DEVICES = ("auto", "cpu", "cuda")
PLACEMENTS = ("auto", "single", "balanced")
STATES = ("auto", "stored", "memory")
LOSSES = ("log", "huber")  # of ln value: squares, or Huber's with delta 1e-3
FORMATS = ("png", "svg", "pdf")
LARGEST_K = 2**31 - 1  # ranks and window lengths are kept in 32 bits
MOST_MB = 2**30
MOST_PROCESSES = 1024


@dataclass(frozen=True)
class KSpec:
    """The thresholds k and window lengths N of the per-document tables (group ``k``).

    RBP_k of every k, listed or not, follows from the stored histogram; the list decides which k the analysis fits,
    and for which k runs of hits are kept, from which p_{N,k} of every N follows. windows: the N whose histogram of
    largest ranks is kept, which gives p_{N,k} of every k.
    """

    thresholds: list[int]
    windows: list[int] = field(default_factory=lambda: [1])

    def __post_init__(self) -> None:
        check_rising("k.thresholds", self.thresholds)
        check_rising("k.windows", self.windows)


def check_rising(path: str, values: Sequence[int]) -> None:
    """LabError unless values are a rising list of ranks or window lengths; path: of the configuration."""
    if not values or sorted(set(values)) != list(values) or min(values) < 1:
        raise LabError(f"{path} must be a rising list of integers of at least 1; got {shown(list(values))}")
    if max(values) > LARGEST_K:
        raise LabError(f"{path} must be at most {LARGEST_K}; got {max(values)}")


@dataclass(frozen=True)
class Precision:
    """Number formats (group ``precision``).

    dtype: weights and activations of the body. tf32: allow TF32 products in the body on CUDA. logits: "float32"
    takes the head's product in float32 (ranks of rounded logits would be decided by ties), "model" in ``dtype``.
    """

    dtype: str = "float32"
    tf32: bool = False
    logits: str = "float32"

    def __post_init__(self) -> None:
        one_of("precision.dtype", self.dtype, DTYPES)
        one_of("precision.logits", self.logits, LOGITS)


@dataclass(frozen=True)
class Launch:
    """Where a measurement runs; never changes its numbers.

    processes: that measure together, "auto" for one per GPU. device: auto, cpu or cuda. shard_tokens: tokens of the
    shards in which finished work is kept, None for some seconds of work; work that was begun stays cut as it was.
    placement: of a model in a process, see ``models.placement.place_model``. max_memory: the most that weights may take
    on a device ("0" is a process's first GPU, "cpu"), as a number of bytes or such as "20GB"; as much as is free
    elsewhere.
    """

    processes: int | Literal["auto"] = 1
    device: str = "auto"
    shard_tokens: int | None = None
    placement: str = "auto"
    max_memory: dict[str, int | str] | None = None

    def __post_init__(self) -> None:
        if self.processes != "auto" and not 1 <= self.processes <= MOST_PROCESSES:
            raise LabError(f"launch.processes must be auto or 1 to {MOST_PROCESSES}; got {shown(self.processes)}")
        if self.shard_tokens is not None and self.shard_tokens < 1:
            raise LabError(f"launch.shard_tokens must be at least 1, or null; got {self.shard_tokens}")
        one_of("launch.device", self.device, DEVICES)
        one_of("launch.placement", self.placement, PLACEMENTS)
        for device, size in (self.max_memory or {}).items():
            if device != "cpu" and not device.isdecimal():
                raise LabError(f"launch.max_memory: expected cpu or the number of a GPU; got {shown(device)}")
            check_size(f"launch.max_memory.{device}", size)


def check_size(path: str, size: int | str) -> None:
    """LabError unless ``size`` is a number of bytes, or one with a unit; path: of the configuration."""
    if not re.fullmatch(r"\d+|\d+(\.\d+)?[KMG]i?B", str(size)):
        raise LabError(f"{path} must be a number of bytes, or one with KB, MB, GB, KiB, MiB or GiB; got {shown(size)}")


@dataclass(frozen=True)
class Scoring:
    """How a batch is worked off (node ``scoring``).

    batch_tokens: padded tokens of a forward pass; changes speed and memory, not numbers. logits_mb: megabytes that
    logits may take, None for the device's default. candidates: "rows" lets every row of the head compete, as in
    [RBP]; "tokenizer" masks the padded rows beyond the tokenizer's ids. implementation: of the scores; "auto" is
    the fastest here, and all agree to rounding.
    """

    batch_tokens: int = 8192
    logits_mb: float | None = None
    candidates: str = "rows"
    implementation: str = "auto"

    def __post_init__(self) -> None:
        if self.batch_tokens < 1:
            raise LabError(f"scoring.batch_tokens must be at least 1; got {self.batch_tokens}")
        if self.logits_mb is not None and not 0 < self.logits_mb <= MOST_MB:
            raise LabError(f"scoring.logits_mb must be more than 0 and at most {MOST_MB}; got {shown(self.logits_mb)}")
        one_of("scoring.candidates", self.candidates, CANDIDATES)
        one_of("scoring.implementation", self.implementation, IMPLEMENTATIONS)


@dataclass(frozen=True)
class Filters:
    """Which runs an analysis takes (node ``filters``): shell patterns, of which one must match; None takes all.

    wandb: for source=wandb, a query of W&B's own (Mongo style), such as {"tags": "paper"}.
    """

    model: str | list[str] | None = None
    family: str | list[str] | None = None
    dataset: str | list[str] | None = None
    dtype: str | list[str] | None = None
    key: str | list[str] | None = None
    wandb: dict[str, Any] | None = None

    def as_list(self, name: str) -> list[str]:
        """The patterns of one filter; [] takes everything."""
        given = getattr(self, name)
        return [given] if isinstance(given, str) else list(given or ())

    def __str__(self) -> str:
        given = {name: self.as_list(name) for name in ("model", "family", "dataset", "dtype", "key")}
        return " and ".join(f"filters.{name}={' or '.join(p)}" for name, p in given.items() if p)


@dataclass(frozen=True)
class FitChoices:
    """How laws are fitted and shown (group ``fit``).

    confidence: of every interval. figure_ks: the k drawn against S and listed per model. laws: every law, not only the
    power laws in S. least_sizes: data sets on which no family has so many sizes take no part in laws in S. formats: of
    FORMATS, in which each figure is also a file of its own. every_figure: also figures of one k at a time. only: names
    of the laws to fit; none for all.

    For laws in tokens: least_tokens: checkpoints with fewer take no part. loss: of ln value in the law in size and
    tokens. E: the asymptote of cross-entropy there, when it is known, and E_source where from.
    """

    confidence: float = 0.95
    figure_ks: list[int] = field(default_factory=lambda: [1, 10, 100])
    laws: bool = True
    least_sizes: int = 1
    formats: list[str] = field(default_factory=list)
    every_figure: bool = False
    only: list[str] = field(default_factory=list)
    least_tokens: int = 0
    loss: str = "log"
    E: float | None = None
    E_source: str = ""

    def __post_init__(self) -> None:
        one_of("fit.loss", self.loss, LOSSES)
        if self.E is not None and not (self.E >= 0 and self.E_source.strip()):
            raise LabError(
                f"fit.E must be a cross-entropy of at least 0 nats, with where it is from: fit.E=1.69 "
                f"'fit.E_source=\"arXiv 2203.15556\"'; got {shown(self.E)} and {shown(self.E_source)}"
            )
        if not 0 < self.confidence < 1:
            raise LabError(f"fit.confidence must lie between 0 and 1; got {shown(self.confidence)}")
        if self.least_sizes < 1:
            raise LabError(f"fit.least_sizes must be at least 1; got {self.least_sizes}")
        for name in self.formats:
            one_of("fit.formats", name, FORMATS)


@dataclass(frozen=True)
class Panels:
    """Panels of the workspace (node ``panels``): ks of RBP_k against S, windows and emergence_k of p_{N,k}."""

    ks: list[int]
    windows: list[int]
    emergence_k: int
