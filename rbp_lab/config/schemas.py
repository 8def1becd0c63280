"""The small choices a measurement is composed of; each is the schema of a YAML group or node."""

from __future__ import annotations

from dataclasses import dataclass, field

from rbp_lab.errors import LabError

DTYPES = ("float32", "bfloat16", "float16")
LOGITS = ("float32", "model")
IMPLEMENTATIONS = ("auto", "reference", "tiled", "native", "chunked", "fused")
CANDIDATES = ("rows", "tokenizer")
DEVICES = ("auto", "cpu", "cuda")


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
        for name, values in (("thresholds", self.thresholds), ("windows", self.windows)):
            if not values or sorted(set(values)) != list(values) or min(values) < 1:
                raise LabError(f"k.{name} must be a rising list of integers of at least 1; got {list(values)}")


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
        if self.dtype not in DTYPES:
            raise LabError(f"precision.dtype must be one of {', '.join(DTYPES)}; got {self.dtype!r}")
        if self.logits not in LOGITS:
            raise LabError(f"precision.logits must be one of {', '.join(LOGITS)}; got {self.logits!r}")


@dataclass(frozen=True)
class Launch:
    """Where a measurement runs; never changes its numbers. processes: one per device. device: auto, cpu or cuda."""

    processes: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise LabError(f"launch.processes must be at least 1; got {self.processes}")
        if self.device not in DEVICES:
            raise LabError(f"launch.device must be one of {', '.join(DEVICES)}; got {self.device!r}")


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
        if self.candidates not in CANDIDATES:
            raise LabError(f"scoring.candidates must be one of {', '.join(CANDIDATES)}; got {self.candidates!r}")
        if self.implementation not in IMPLEMENTATIONS:
            raise LabError(
                f"scoring.implementation must be one of {', '.join(IMPLEMENTATIONS)}; got {self.implementation!r}"
            )
