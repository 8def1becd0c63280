"""What a law is: a computation, its result, and a section of the report. ``registry`` lists the laws.

A law is a module of this package that satisfies ``Law``. Its result keeps its fits, so the section, the papers'
comparison and the figures fit nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import pandas as pd

from rbp_lab.comparison.record import StoredPair
from rbp_lab.config.schemas import FitChoices
from rbp_lab.dimensions import Dimension
from rbp_lab.figures.style import FamilyStyle, family_styles
from rbp_lab.fits.documents import DocumentEffects, effects_by_dataset
from rbp_lab.fits.fit import Comparison, compare
from rbp_lab.fits.influence import few_documents
from rbp_lab.fits.points import Label
from rbp_lab.fits.result import FitResult
from rbp_lab.points import longest_trained
from rbp_lab.records import RunRecord
from rbp_lab.report.sections import Section

Styles = dict[str, FamilyStyle]


@dataclass(frozen=True, eq=False)
class Inputs:
    """What every law is computed from.

    points: the tidy table. fits: the power laws of ``points`` in S. records: the runs behind the points, none for
    published values. shown: the k drawn and listed at length. size: what S is. choices: how laws are fitted and shown;
    without ``laws`` only the power laws in S are, without other forms, bands and counts. compared: comparisons in one
    pass whose a is one of the records.
    """

    points: pd.DataFrame
    fits: Sequence[FitResult]
    records: Sequence[RunRecord] = ()
    shown: Sequence[int] = (1, 10, 100)
    size: str = "non_embedding_params"
    choices: FitChoices = field(default_factory=FitChoices)
    compared: Sequence[StoredPair] = ()
    _results: dict[str, LawResult] = field(default_factory=dict, init=False, repr=False)

    def of(self, law: Law) -> LawResult:
        """The law's result for these inputs, computed once: a law may use another's."""
        if law.name not in self._results:
            self._results[law.name] = law.compute(self)
        return self._results[law.name]

    @property
    def confidence(self) -> float:
        """How sure every interval is: the share of such intervals that hold the true value."""
        return self.choices.confidence

    @cached_property
    def ks(self) -> list[int]:
        """Every k that was measured."""
        return sorted(int(k) for k in self.points["k"].dropna().unique())

    @cached_property
    def windows(self) -> list[int]:
        """The window lengths that every run keeps, and 1."""
        return sorted(set.intersection(*(set(r.scoring.window_lengths) for r in self.records)) | {1})

    @cached_property
    def thresholds(self) -> list[int]:
        """The k for which every run keeps runs of hits, and which some rank of its vocabulary can miss."""
        return sorted(
            set.intersection(*({k for k in r.documents.thresholds if k < r.stats.vocab_rows} for r in self.records))
        )

    @cached_property
    def runs(self) -> list[RunRecord]:
        """The records that take part in laws in S: of the checkpoints of one size, the longest trained."""
        about = pd.DataFrame({
            "dataset": [r.dataset.name for r in self.records], "family": [r.model.family for r in self.records],
            "size": [self.size_of(r) for r in self.records],
            "training_tokens": [r.model.training_tokens for r in self.records],
        })  # fmt: skip
        return [self.records[i] for i in longest_trained(about).index]

    @cached_property
    def effects(self) -> dict[str, DocumentEffects]:
        """What the documents of each data set do to the values of ``runs``."""
        return effects_by_dataset(self.runs if self.records else ())

    def told_apart(self, label: Label) -> Dimension:
        """What tells the runs behind a law of one family apart from others."""
        here = (self.points["family"] == label.family) & (self.points["dataset"] == label.dataset)
        return Dimension(*self.points.loc[here, ["precision", "protocol"]].iloc[0])

    @cached_property
    def few_documents(self) -> list[str]:
        """The data sets of whose documents some run has too few for intervals over them."""
        return sorted({r.dataset.name for r in self.records if few_documents([r])})

    @cached_property
    def styles(self) -> Styles:
        """Colour and marker of each family, the same in every figure."""
        return family_styles(self.points["family"])

    @cached_property
    def forms(self) -> dict[Label, Comparison]:
        """What other forms make of the points of every power law of a family; empty for the power laws alone."""
        laws = [f for f in self.fits if f.label.family is not None] if self.choices.laws else []
        return {law.label: compare(law) for law in laws}

    @property
    def size_name(self) -> str:
        """What S is, in words: "non-embedding parameters"."""
        return self.size.replace("_", " ").replace("params", "parameters").replace("non ", "non-")

    def size_of(self, record: RunRecord) -> float:
        """S of a run."""
        return record.model.params.size(self.size)


@dataclass(frozen=True, eq=False, kw_only=True)
class LawResult:
    """What a law found; each law adds its fits.

    tables: by name, each becomes law_<name>.csv. lacks: what of the law these inputs cannot give → why.
    over_documents: whether intervals of it are over the documents of the runs.
    """

    inputs: Inputs
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)
    over_documents: bool = False


class Law(Protocol):
    """A law. name: short and unique. needs_runs: why values alone cannot give it, "" when they can."""

    name: str
    needs_runs: str

    def compute(self, inputs: Inputs) -> LawResult:
        """Fit the law to the inputs."""

    def section(self, result: LawResult) -> Section | None:
        """The law in the report; None when there is nothing to show. Fits nothing."""


def families(records: Iterable[RunRecord]) -> Iterator[tuple[str, str, list[RunRecord]]]:
    """(data set, family, its runs) in order."""
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        groups.setdefault((record.dataset.name, record.model.family), []).append(record)
    for (dataset, family), mine in sorted(groups.items()):
        yield dataset, family, mine


def by_dataset(fits: Iterable[FitResult]) -> dict[str, list[FitResult]]:
    """The fits of each data set, data sets in order."""
    groups: dict[str, list[FitResult]] = {}
    for fit in fits:
        groups.setdefault(fit.label.dataset, []).append(fit)
    return dict(sorted(groups.items()))


def by_family(fits: Iterable[FitResult]) -> dict[tuple[str, str], list[FitResult]]:
    """The fits of each (data set, family), in order; fits over all families are left out."""
    groups: dict[tuple[str, str], list[FitResult]] = {}
    for fit in fits:
        if fit.label.family is not None:
            groups.setdefault((fit.label.dataset, fit.label.family), []).append(fit)
    return dict(sorted(groups.items()))


def join(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One table of all that have rows; an empty one when none has."""
    filled = [frame.astype(object) for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True).convert_dtypes() if filled else pd.DataFrame()
