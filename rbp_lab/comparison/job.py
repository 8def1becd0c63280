"""What a comparison of two models in one pass is asked for, and what it is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from rbp_lab.comparison.record import PERTURBATIONS, PairHeader
from rbp_lab.config.build import MADE
from rbp_lab.config.schemas import STATES, Precision, check_rising, check_size
from rbp_lab.data.corpus import Corpus
from rbp_lab.errors import LabError, one_of
from rbp_lab.measurement.job import Choices, Identity, identify
from rbp_lab.models.source import ModelSource, OpenModel


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two models, in a precision."""

    model: Annotated[ModelSource, MADE]
    precision: Precision = field(default_factory=Precision)


@dataclass(frozen=True, kw_only=True)
class PairJob(Choices):
    """Two models on one corpus in one pass. ks: of hits and overlaps. perturbation: None, or what b, which is then the
    same model as a, is computed with. config: as composed, which worker processes are given.

    states: where hidden states of a wait for those of b. "memory": both models are loaded; "stored": one at a time, and
    they wait on disk; "auto": as the models fit on a device. max_disk: the most bytes, or such as "4GB", that they take
    there, all processes together. Neither changes the numbers.
    """

    command: ClassVar[str] = "compare_models"
    worker: ClassVar[str] = "rbp_lab.comparison.work"
    a: Side
    b: Side
    ks: tuple[int, ...] = (1, 10, 100)
    perturbation: str | None = None
    states: str = "auto"
    max_disk: int | str = "4GB"
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_rising("ks", self.ks)
        one_of("states", self.states, STATES)
        check_size("max_disk", self.max_disk)

    def identify(self, corpus: Corpus) -> PairIdentity:
        """What the record will be of; LabError when a model and the protocol do not fit together."""
        a, b = (identify(self, corpus, side.model, side.precision) for side in (self.a, self.b))
        if self.perturbation is not None:
            one_of("perturbation", self.perturbation, tuple(PERTURBATIONS))
            if a.key != b.key:
                raise LabError("perturbation compares a model with itself, so a and b must be the same")
        every = self.scoring.candidates == "rows"
        infos = [one.header.model for one in (a, b)]
        candidates = [one.vocab_rows if every else min(one.vocab_rows, one.tokenizer_size) for one in infos]
        if candidates[0] != candidates[1]:
            masked = "; scoring.candidates=tokenizer leaves out padded rows" if every else ""
            raise LabError(
                f"models {infos[0].name} and {infos[1].name} choose among {candidates[0]} and "
                f"{candidates[1]} candidates, so their distributions cannot be compared in one pass{masked}"
            )
        if a.header.scoring.tf32 != b.header.scoring.tf32:
            raise LabError("a.precision.tf32 and b.precision.tf32 must be the same: torch has one setting for both")
        return PairIdentity(PairHeader(a.header, b.header, tuple(self.ks), self.perturbation), a, b)


@dataclass(frozen=True)
class PairIdentity:
    """What a comparison will be of, known before any weight is loaded, and the models that were opened for it."""

    header: PairHeader
    a: Identity
    b: Identity

    @property
    def key(self) -> str:
        return self.header.key

    @property
    def is_of_one(self) -> bool:
        """Whether b is a itself."""
        return self.a.key == self.b.key

    @property
    def models(self) -> tuple[OpenModel, ...]:
        return self.a.opened, self.b.opened

    @property
    def dtypes(self) -> tuple[str, ...]:
        return self.header.a.scoring.dtype, self.header.b.scoring.dtype

    @property
    def in_formats(self) -> list[tuple[OpenModel, str]]:
        """Both models, each with its dtype."""
        return list(zip(self.models, self.dtypes, strict=True))

    @property
    def about(self) -> dict[str, str]:
        return {"model": f"{self.header.a.model.name} against {self.header.b.model.name}",
                "dataset": self.header.a.dataset.name}  # fmt: skip
