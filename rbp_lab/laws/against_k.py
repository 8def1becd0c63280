"""RBP against k ([RBP] appendix B, table 1): the law in k of every model, equal RBP, and the trade-off with S."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from rbp_lab.errors import LabError
from rbp_lab.figures.against_k import curves_figure, iso_figure
from rbp_lab.fits.against_k import fit_against_k, iso_rbp, table1, trade_off
from rbp_lab.fits.result import FitResult
from rbp_lab.laws.base import Inputs, LawResult, by_family, join
from rbp_lab.quantities import RBP
from rbp_lab.report.sections import Drawing, ReportTable, Section, switched
from rbp_lab.text import interval, si, significant

name = "against_k"
needs_runs = ""
ISO_LEVELS = (0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True, eq=False, kw_only=True)
class AgainstK(LawResult):
    """laws: the power law in k of one model, by (model, data set)."""

    laws: dict[tuple[str, str], FitResult]


def compute(inputs: Inputs) -> AgainstK:
    """Fit −log RBP_k against k for every model, and set it beside the laws in S."""
    models = inputs.points[["model", "dataset"]].drop_duplicates()
    laws = {
        (model, dataset): fit_against_k(inputs.points, model, dataset, confidence=inputs.confidence)
        for model, dataset in models.itertuples(index=False, name=None)
    }
    in_size = by_family(f for f in inputs.fits if f.label.metric == RBP.name)
    tables = {
        "against_k": table1(inputs.points, laws),
        "trade_off": join(_trade_offs(f, laws).assign(dataset=d, family=name) for (d, name), f in in_size.items()),
        "iso_rbp": join(iso_rbp(f, ISO_LEVELS).assign(dataset=d, family=name) for (d, name), f in in_size.items()),
    }
    return AgainstK(inputs=inputs, tables=tables, laws=laws)


def _trade_offs(in_size: Sequence[FitResult], laws: dict[tuple[str, str], FitResult]) -> pd.DataFrame:
    rows = []
    for law in in_size:
        for model, size in zip(law.points.names, law.points.x, strict=True):
            try:
                trade = trade_off(law, laws[model, law.label.dataset], size)
            except LabError:  # one of the two laws was refused, which its own table says
                continue
            rows.append({"model": model, **vars(trade)})
    return pd.DataFrame(rows, columns=["model", "exponent", "low", "high", "k", "size"])


def section(result: AgainstK) -> Section | None:
    """The curves with their laws, equal RBP and the trade-off; None when no model has three k."""
    slopes = result.tables["against_k"]
    if not slopes["slope"].notna().any():
        return None
    curves: dict[str, Drawing] = {}
    iso: dict[str, Drawing] = {}
    equal = result.tables["iso_rbp"]
    for dataset, rows in slopes.groupby("dataset"):
        laws: dict[str, list[tuple[float, FitResult]]] = {}
        for r in rows.itertuples():
            laws.setdefault(r.family, []).append((r.size, result.laws[r.model, dataset]))
        curves[dataset] = partial(curves_figure, laws, f"RBP against k on {dataset}")
        lines = equal[equal["dataset"] == dataset] if len(equal) else equal
        if len(lines):
            iso[dataset] = partial(iso_figure, lines, f"Equal RBP on {dataset}", result.inputs.styles)
    lead = (
        "For one model, −log RBP_k is close to a power of k on 1 ≤ k ≤ 100 ([RBP] appendix B). Both laws together tell "
        "what k is worth in size: ΔS/S ≈ −(α_k/α_S)·Δk/k, taken at the (k, S) that each row names. The intervals speak "
        "of scatter around the lines; the residuals in k are a smooth curve, not noise."
    )
    return Section(
        "against-k", "RBP against k, and the trade-off", lead,
        (*switched("rbp_of_k", curves, "−log RBP_k of every model (dots) with its power law in k (lines); darker is "
                   "larger. Bars of documents are smaller than the dots and left out."),
         *switched("iso_rbp", iso, "Pairs (k, S) with the same RBP, by the laws in S of each k; each line carries its "
                   "RBP. Dashed: S outside the sizes measured, an extrapolation.")),
        (_slopes_table(slopes), *_trade_off_table(result)),
    )  # fmt: skip


def _slopes_table(slopes: pd.DataFrame) -> ReportTable:
    names = {"dataset": "data set", "size": "S", "r2": "R²", "rmse_percent": "RMSE %", "num_k": "k used",
             "message": "result"}  # fmt: skip
    title = "Slopes of log(−log RBP_k) on log k, k ≤ 100 (table 1)"
    formats = {"S": si, "slope": 3, "R²": 4, "RMSE %": 1}
    return ReportTable(title, slopes.rename(columns=names), formats, folded=len(slopes) > 12)


def _trade_off_table(result: AgainstK) -> tuple[ReportTable, ...]:
    trades = result.tables["trade_off"]
    if not len(trades):
        return ()
    rows = [
        {"data set": r.dataset, "family": r.family, "model": r.model, "S": r.size, "k": r.k,
         "α_k/α_S": interval(r.exponent, r.low, r.high, 2), "S for twice k": f"× {significant(2**-r.exponent, 3)}"}
        for r in trades[trades["k"].isin(list(result.inputs.shown))].itertuples()
    ]  # fmt: skip
    title = "Trade-off: what a larger k is worth in model size at equal RBP"
    return (ReportTable(title, pd.DataFrame(rows), {"S": si}, folded=True),)
