"""What a measurement is asked for, what it is of, and what it came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

from rbp_lab import metrics
from rbp_lab.config.build import MADE
from rbp_lab.config.schemas import KSpec, Launch, Precision, Scoring
from rbp_lab.data.corpus import Corpus, TextSource
from rbp_lab.errors import LabError
from rbp_lab.measurement.observers import Callback
from rbp_lab.models.source import ModelSource, OpenModel
from rbp_lab.records import DatasetInfo, RunHeader, RunRecord, ScoringSpec, record_key
from rbp_lab.store.records import read_record, read_totals
from rbp_lab.text import count, number


class Subject(Protocol):
    """What a pass over a corpus is of, known before any weight is loaded.

    key: of its record. models: that are run. dtypes: of each. about: their names, for whoever lists unfinished work.
    """

    @property
    def key(self) -> str: ...

    @property
    def models(self) -> tuple[OpenModel, ...]: ...

    @property
    def dtypes(self) -> tuple[str, ...]: ...

    @property
    def about(self) -> Mapping[str, str]: ...


class Task(Protocol):
    """A pass over a corpus whose parts add up: ``Job`` measures a model, a comparison runs two.

    It has the fields of ``Choices``. command: the module of ``commands`` whose ``job_from_config`` makes it of config.
    worker: the module whose ``work`` does the part of one process, imported where that begins.
    """

    command: ClassVar[str]
    worker: ClassVar[str]
    config: Mapping[str, Any]

    def identify(self, corpus: Corpus) -> Subject: ...


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What is asked of a pass over a corpus, whatever the model. force: do it although a finished record is there."""

    dataset: Annotated[TextSource, MADE]
    k: KSpec
    store: str
    scoring: Scoring = field(default_factory=Scoring)
    launch: Launch = field(default_factory=Launch)
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Job(Choices):
    """One measurement, as the command line composes it. config: as composed, which worker processes are given."""

    command: ClassVar[str] = "measure"
    worker: ClassVar[str] = "rbp_lab.measurement.work"
    model: ModelSource
    precision: Precision = field(default_factory=Precision)
    callbacks: tuple[Callback, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    def identify(self, corpus: Corpus) -> Identity:
        """What the record will be of; LabError when model and protocol do not fit together."""
        return identify(self, corpus, self.model, self.precision)


@dataclass(frozen=True)
class Outcome:
    """Where a finished record lies, and its header with the names that were asked for.

    measured: False when it was found finished.
    """

    path: Path
    header: RunHeader
    measured: bool

    @cached_property
    def record(self) -> RunRecord:
        """The record with all its documents."""
        return replace(read_record(self.path, self.header.key), header=self.header)

    def line(self) -> str:
        """The outcome as one line for a terminal."""
        totals = read_totals(self.path, self.header.key)
        stats, seconds = totals.stats, totals.provenance.get("seconds", 0)
        numbers = "  ".join(f"RBP_{k} {number(metrics.rbp(stats, k))}" for k in (1, 10, 100))
        what = f"measured in {number(seconds, 0)} s" if self.measured else "found measured"
        return (
            f"{self.header.model.name} on {self.header.dataset.name}: {what}, {count(stats.num_tokens)} tokens, "
            f"CE {number(metrics.cross_entropy(stats))}  {numbers}, {self.path}"
        )


@dataclass(frozen=True)
class Identity:
    """What a record will be of, known before any weight is loaded, and the model that was opened for it."""

    header: RunHeader
    opened: OpenModel

    @property
    def key(self) -> str:
        return self.header.key

    @property
    def models(self) -> tuple[OpenModel, ...]:
        return (self.opened,)

    @property
    def dtypes(self) -> tuple[str, ...]:
        return (self.header.scoring.dtype,)

    @property
    def about(self) -> dict[str, str]:
        return {"model": self.header.model.name, "dataset": self.header.dataset.name}


def identify(job: Choices, corpus: Corpus, source: ModelSource, precision: Precision) -> Identity:
    """What the record of a model in a precision will be of; LabError when model and protocol do not fit together."""
    opened, protocol = source.open(), job.dataset.protocol
    model = opened.info
    if model.max_positions is not None and protocol.max_tokens > model.max_positions:
        raise LabError(
            f"dataset.protocol.max_tokens={protocol.max_tokens}, but model {model.name} has only "
            f"{model.max_positions} positions; choose at most that many"
        )
    dataset = DatasetInfo(job.dataset.name, corpus.fingerprint, len(corpus), corpus.info)
    scoring = ScoringSpec(
        dtype=opened.dtype or precision.dtype,
        tf32=precision.tf32,
        logits=precision.logits,
        candidates=job.scoring.candidates,
        protocol=asdict(protocol),
        thresholds=tuple(job.k.thresholds),
        window_lengths=tuple(job.k.windows),
        attention=opened.attention,
    )
    return Identity(RunHeader(record_key(model, dataset, scoring), model, dataset, scoring), opened)
