"""What a coarser precision costs a model: differences to its finest run, over paired documents, by bits and size.

Comparisons in one pass that the store has of the same runs add what records cannot tell: the tokens whose rank moved,
KL, and the noise floor, by how much the finest run differs from itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from rbp_lab import metrics
from rbp_lab.comparison.differences import PairedSums, error
from rbp_lab.comparison.pairs import measured, of_documents
from rbp_lab.comparison.summary import Floor, distances_of, floor_of
from rbp_lab.dimensions import Dimension, told_apart, without_dimension
from rbp_lab.errors import LabError
from rbp_lab.figures.precision import precision_figure
from rbp_lab.laws.base import Inputs, LawResult
from rbp_lab.records import RunRecord
from rbp_lab.report.sections import Drawing, ReportTable, Section, switched
from rbp_lab.stats import UNIT, DocumentTable
from rbp_lab.text import decimals, interval, is_missing, percent, si, significant

name = "precision"
needs_runs = "what precision costs is measured over the documents of two runs"
KL, MOVED = "KL(a‖b)", "rank moved"  # names of distances in ``comparison.findings``
ASK = (
    "rbp-lab compare model@a=M model@b=M precision@b=… floor=true, on the same data set, adds the noise floor, KL and "
    "the tokens whose rank moved to the runs that lack them."
)
BITS = {"float32": 32, "bfloat16": 16, "float16": 16}


def compute(inputs: Inputs) -> LawResult:
    """Every run beside the finest run of its model on the same documents by the same protocol, where there are two."""
    told, known = told_apart(inputs.records), _Compared.of(inputs)
    rows = [
        {"precision": told[run.key].precision, "finest": told[finest.key].precision} | row
        for mine in _same_model(inputs.records, told)
        for finest, *coarser in [sorted(mine, key=_fineness)]
        for run in coarser
        for row in _rows(finest, run, inputs, known)
    ]
    tables = {"precision": pd.DataFrame(rows)} if rows else {}
    return LawResult(inputs=inputs, tables=tables, lacks=known.damaged, over_documents=True)


@dataclass(frozen=True)
class _Compared:
    """What comparisons in one pass add. floors: by run, of itself under each perturbation. passes: by two runs, over
    all tokens. damaged: what cannot be read → why."""

    floors: Mapping[object, Sequence[Floor]]
    passes: Mapping[tuple[object, object], Mapping[str, float]]
    damaged: Mapping[str, str]

    @classmethod
    def of(cls, inputs: Inputs) -> _Compared:
        floors: dict[object, list[Floor]] = {}
        passes, damaged = {}, {}
        for stored in inputs.compared:
            a, b = measured(stored.header.a), measured(stored.header.b)
            try:
                sums = stored.read().sums
            except LabError as error:
                damaged[f"comparison {stored.header.key}"] = str(error)
                continue
            if stored.header.perturbation is not None:
                floors.setdefault(a, []).append(floor_of(sums, inputs.confidence))
            else:
                passes[a, b] = distances_of(sums)
                passes.setdefault((b, a), distances_of(sums.mirrored()))
        return cls(floors, passes, damaged)

    def floor(self, run: RunRecord, quantity: str) -> float | None:
        """The most by which a run differs from itself in a quantity, over all perturbations; None when unknown."""
        found = [one.differences.get(quantity) for one in self.floors.get(measured(run), ())]
        return max((value for value in found if value is not None), default=None)

    def distance(self, a: RunRecord, b: RunRecord, name: str) -> float | None:
        return self.passes.get((measured(a), measured(b)), {}).get(name)

    def least(self, run: RunRecord, name: str) -> float | None:
        """A distance of a run from itself, the largest of all perturbations."""
        return max((one.distances[name] for one in self.floors.get(measured(run), ())), default=None)


def bits_of(run: RunRecord) -> int:
    """Nominal bits of a weight: of the format that weights were rounded to (Q4_K_M: 4), else of the dtype."""
    found = re.search(r"\d+", run.model.quantisation or "")
    return int(found.group()) if found else BITS[run.scoring.dtype]


def _fineness(run: RunRecord) -> tuple[object, ...]:
    """The finest first: many bits, no rounding of products or logits."""
    return -bits_of(run), -BITS[run.scoring.dtype], run.scoring.tf32, run.scoring.logits != "float32", run.key


def _same_model(runs: Sequence[RunRecord], told: Mapping[str, Dimension]) -> list[list[RunRecord]]:
    """The runs of each model on a data set that has several; of one precision each."""
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for run in runs:
        model = without_dimension(run.model.name, told[run.key].precision)
        groups.setdefault((run.dataset.name, model), []).append(run)
    return [mine for mine in groups.values() if len(mine) > 1]


def _rows(finest: RunRecord, run: RunRecord, inputs: Inputs, known: _Compared) -> Iterator[dict[str, object]]:
    """One row per quantity: its values, run − finest with its interval, ties, how many tokens moved, at least or, from
    a comparison in one pass, in all, and the floor: within what the finest run differs from itself."""
    a, b = _common(finest.documents, run.documents)
    if not len(a) or not np.array_equal(a.num_scored, b.num_scored):
        return  # other documents, or other tokens
    about = {
        "dataset": run.dataset.name, "model": run.model.name, "family": run.model.family, "size": inputs.size_of(run),
        "bits": bits_of(run), "documents": len(a), "tied": metrics.tie_rate(run.stats),
        "tied_finest": metrics.tie_rate(finest.stats), "moved_at_least": moved_at_least(a, b),
        "moved": known.distance(finest, run, MOVED), "moved_floor": known.least(finest, MOVED),
        "kl": known.distance(finest, run, KL), "kl_floor": known.least(finest, KL),
    }  # fmt: skip
    quantities = [PairedSums("CE", "nats", a.nll_units * UNIT, a.num_scored, b.nll_units * UNIT, b.num_scored)]
    quantities += [PairedSums(f"RBP_{k}", "", a.hits(k), a.num_scored, b.hits(k), b.num_scored) for k in inputs.shown]
    for q in quantities:
        first, second = q.x_a.sum() / q.n_a.sum(), q.x_b.sum() / q.n_b.sum()
        half = _half(q, inputs.confidence)
        apart = second - first
        low, high = (None, None) if half is None else (apart - half, apart + half)
        floor = known.floor(finest, "cross-entropy" if q.name == "CE" else q.name)
        yield about | {"quantity": q.name, "value_finest": first, "value": second, "difference": apart, "low": low,
                       "high": high, "floor": floor}  # fmt: skip


def _common(a: DocumentTable, b: DocumentTable) -> tuple[DocumentTable, DocumentTable]:
    """The rows of the documents that both have."""
    if np.array_equal(a.document_id, b.document_id):
        return a, b
    ids = np.intersect1d(a.document_id, b.document_id)
    return of_documents(a, ids), of_documents(b, ids)


def _half(quantity: PairedSums, confidence: float) -> float | None:
    """Half of the interval of b − a over paired documents (``comparison.differences``); None for one document."""
    known = error(quantity)
    return None if known is None else float(special.stdtrit(known[1], 0.5 + confidence / 2)) * known[0]


def moved_at_least(a: DocumentTable, b: DocumentTable) -> float:
    """The least share of tokens whose rank differs that the histograms of ranks by document allow, in [0, 1].

    Tables of the same tokens. Records keep how often a rank occurs in a document, not where: half of Σ|difference| is
    what must have moved, and tokens that changed places are not seen.
    """
    top = int(max(a.rank.max(initial=0), b.rank.max(initial=0))) + 1
    keys = [np.repeat(np.arange(len(t)), np.diff(t.indptr)) * top + t.rank for t in (a, b)]
    distinct, place = np.unique(np.concatenate(keys), return_inverse=True)
    signed = np.concatenate([a.count.astype(np.int64), -b.count.astype(np.int64)])
    difference = np.bincount(place, weights=signed, minlength=len(distinct))
    return float(np.abs(difference).sum() / 2 / max(int(a.num_scored.sum()), 1))


def section(result: LawResult) -> Section | None:
    """Differences against bits, by k and size, and everything in a table; None when no model has two precisions."""
    if "precision" not in result.tables:
        return None
    table, level = result.tables["precision"], percent(result.inputs.confidence)
    figures: dict[str, Drawing] = {}
    for dataset, rows in table.groupby("dataset"):
        figures[dataset] = partial(precision_figure, rows, f"What precision costs on {dataset}")
    rows = [
        {"data set": r.dataset, "model": r.model, "S": r.size, "bits": r.bits, "beside": r.finest,
         "quantity": r.quantity, "finest": r.value_finest, "coarser": r.value,
         "difference": _difference(r), "floor": _floor(r.floor),
         "tied, finest": percent(r.tied_finest), "tied, coarser": percent(r.tied),
         "ranks moved, at least": percent(r.moved_at_least), "ranks moved": _beside(percent, r.moved, r.moved_floor),
         "KL": _beside(lambda value: significant(value, 3), r.kl, r.kl_floor)}
        for r in table.itertuples()
    ]  # fmt: skip
    cost = table[table["quantity"] == "CE"]
    clear = int(((cost["low"] > 0) | (cost["high"] < 0)).sum())
    above = cost[cost["floor"].notna() & (cost["difference"].abs() > cost["floor"].astype(float))]
    lead = (
        "Each run beside the run of the same model with the most bits, on the same documents: coarser minus finest, "
        f"with intervals over paired documents at {level}. Bits are nominal, those in the name of the format. A record "
        "keeps how often each rank occurs in a document, so of ranks that moved it tells the least number. "
        f"Cross-entropy differs beyond its interval in {clear} of {len(cost)} runs; the "
        f"largest difference is {significant(cost['difference'].abs().max(), 2)} nats. "
    )
    if cost["floor"].notna().any():
        lead += (
            f"The floor is within what the finest run differs from itself under bf16's rounding of its hidden states "
            f"and in other batches: {len(above)} of {cost['floor'].notna().sum()} runs differ by more in cross-entropy."
        )
    caption = (
        f"Coarser minus finest against nominal bits; bars: {level} over paired documents; darker is larger; grey: "
        "within the noise floor, where it is known. Ranks moved: filled where all are known, hollow where only the "
        "least number."
    )
    formats = {"S": si, "finest": 4, "coarser": 4}
    frame = pd.DataFrame(rows)
    frame = frame.drop(columns=[name for name in ("floor", "ranks moved", "KL") if frame[name].isna().all()])
    notes = [f"{what} is left out: {why}." for what, why in result.lacks.items()]
    if table["floor"].isna().any() or table["moved"].isna().any():
        notes.append(ASK)
    return Section(
        "precision", "What precision costs", lead, switched("precision", figures, caption),
        (ReportTable("Differences to the finest run", frame, formats, folded=len(rows) > 40),), tuple(notes),
    )  # fmt: skip


def _difference(row: Any) -> str:
    """The difference and its interval, with as many decimals as the interval needs, at least 5."""
    digits = decimals(None if is_missing(row.low) else row.high - row.low, 5)
    return interval(row.difference, row.low, row.high, digits)


def _floor(value: float | None) -> str | None:
    return None if is_missing(value) else f"±\u00a0{significant(value, 2)}"


def _beside(how: Callable[[object], str], value: float | None, floor: float | None) -> str | None:
    """A distance with that of the finest run from itself below it."""
    if is_missing(value):
        return None
    return how(value) if is_missing(floor) else f"{how(value)}\nfloor {how(floor)}"
