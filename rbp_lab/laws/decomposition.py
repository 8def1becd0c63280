"""The three parts of cross-entropy ([EE] arXiv 2510.04067): how each scales, by rank, and along training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pandas as pd

from rbp_lab.figures.decomposition import checkpoints_figure, error_curves_figure, parts_figure, shares_figure
from rbp_lab.fits.decomposition import PartScaling, checkpoints, decomposition_table, error_curves, part_scalings
from rbp_lab.fits.points import POOLED, family_name
from rbp_lab.laws.base import Inputs, LawResult, families, join
from rbp_lab.points import longest_trained, may_be_pooled
from rbp_lab.report.sections import Drawing, ReportTable, Section, switched
from rbp_lab.text import interval, si, significant

name = "decomposition"
needs_runs = "it needs Σ nll by rank"


@dataclass(frozen=True, eq=False, kw_only=True)
class Decomposition(LawResult):
    """parts: the laws of all parts, by data set and family; POOLED where families may be pooled."""

    parts: dict[tuple[str, str | None], list[PartScaling]]


def compute(inputs: Inputs) -> Decomposition:
    """Split the cross-entropy of every run and fit the parts of every family."""
    split = decomposition_table(inputs.records, inputs.size, inputs.confidence)
    in_size = longest_trained(split)
    groups = [(dataset, family) for dataset, family, _ in families(inputs.records)]
    pooled = [dataset for dataset, here in inputs.points.groupby("dataset") if may_be_pooled(here)]
    groups += [(dataset, POOLED) for dataset in pooled if dataset in inputs.effects]
    parts = {group: part_scalings(in_size, *group, inputs.confidence, inputs.effects[group[0]]) for group in groups}
    scaling = join(part.to_frame() for mine in parts.values() for part in mine)
    tables = {"decomposition": split, "parts": scaling}
    return Decomposition(inputs=inputs, tables=tables, over_documents=True, parts=parts)


def section(result: Decomposition) -> Section:
    """The scaling of the parts, curves by rank, shares, and checkpoints where there are some."""
    inputs, table = result.inputs, result.tables["decomposition"]
    parts: dict[str, Drawing] = {}
    shares: dict[str, Drawing] = {}
    curves: dict[str, Drawing] = {}
    along: dict[str, Drawing] = {}
    for dataset, rows in table.groupby("dataset"):
        mine = [found for (d, family), found in result.parts.items() if d == dataset and family is not POOLED]
        parts[dataset] = partial(parts_figure, mine, f"Parts of cross-entropy on {dataset}")
        title = f"Share of error entropy on {dataset}"
        shares[dataset] = partial(shares_figure, rows, title, inputs.styles)
    steps = checkpoints(table)
    for dataset, family, mine in families(inputs.records):
        where = f"{dataset}: {family}"
        curves[f"{dataset}, {family}"] = partial(
            error_curves_figure,
            [(r.model.name, inputs.size_of(r), error_curves(r.stats)) for r in mine],
            f"Errors by rank on {where}",
        )
        at = steps[(steps["dataset"] == dataset) & (steps["family"] == family)]
        along[f"{dataset}, {family}"] = partial(checkpoints_figure, at, f"Along training on {where}")
    lead = (
        "Cross-entropy = error entropy + self-alignment − confidence, exactly, when tokens are grouped by their "
        "optimistic rank ([EE] arXiv 2510.04067). A part scales like cross-entropy when its R² is high and its "
        "distance |α − α_CE| small. The share of error entropy is given in both conventions; above 1 in the "
        "first is no mistake."
    )
    off = significant(table["identity_error"].max(), 1)
    note = f"The parts sum to the cross-entropy within {off} nats in every run."
    return Section(
        "split", "What scales in cross-entropy", lead,
        (*switched("parts", parts, "The parts against S in nats, by absolute value, with their power laws."),
         *switched("errors", curves, "p_e and q_e by rank, in bins that grow: where the line is above the dots, the "
                   "model expects more such errors than there are.", "runs"),
         *switched("shares", shares, "Left: EE/CE. Right: EE over the sum of the absolute parts."),
         *switched("training", along, "The parts along training; every size by itself.", "runs")),
        (_scaling_table(result), _split_table(table)), (note,),
    )  # fmt: skip


def _scaling_table(result: Decomposition) -> ReportTable:
    rows = [
        {"data set": dataset, "family": family_name(family), "part": part.part.replace("_", " "), "n": part.law.n,
         "α": interval(part.law.params.get("alpha"), *part.law.intervals.get("alpha", (None, None))),
         "R²": part.law.r2,
         "α − α_CE": interval(part.difference.difference, part.difference.low, part.difference.high),
         "distance": part.distance, "result": part.law.message}
        for (dataset, family), mine in result.parts.items() for part in mine
    ]  # fmt: skip
    return ReportTable("How the parts scale", pd.DataFrame(rows), {"R²": 3, "distance": 4})


def _split_table(table: pd.DataFrame) -> ReportTable:
    names = {
        "dataset": "data set", "size": "S", "cross_entropy": "CE", "error_entropy": "EE", "self_alignment": "SA",
        "confidence": "Conf", "error_entropy_corrected": "EE corrected", "share_of_ce": "EE/CE",
        "share_of_parts": "EE/Σ|parts|", "training_tokens": "training tokens",
    }  # fmt: skip
    formats = {"S": si} | dict.fromkeys(("CE", "EE", "SA", "Conf", "EE/CE", "EE/Σ|parts|"), 4)
    ends = [f"error_entropy_corrected_{end}" for end in ("low", "high")]
    corrected = table[["error_entropy_corrected", *ends]].itertuples(index=False)
    table = table.assign(error_entropy_corrected=[interval(*row) for row in corrected])
    split = table.drop(columns=["identity_error", *ends]).rename(columns=names).dropna(axis=1, how="all")
    return ReportTable("The parts of every run (nats)", split, formats, folded=len(split) > 12)
