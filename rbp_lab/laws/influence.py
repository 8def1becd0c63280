"""What the exponents hang on: single models, single documents, values that stand out; and what takes no part."""

from __future__ import annotations

import math

import pandas as pd

from rbp_lab.fits.influence import carrying_documents, document_influence, leave_one_out, odd_values
from rbp_lab.fits.points import Label
from rbp_lab.laws.base import Inputs, LawResult, by_family, families, join
from rbp_lab.points import longest_trained
from rbp_lab.quantities import QUANTITIES, RBP
from rbp_lab.report.sections import ReportTable, Section, some
from rbp_lab.text import number, significant

name = "influence"
needs_runs = ""
TOP = 5  # documents that are listed

# Why a point takes no part in a law, by code.
REASONS = {
    "earlier_checkpoint": "of the checkpoints of one size only the longest trained takes part",
    "never_missed": "every token (window) was a hit: −log 1 = 0 has no logarithm, and the law of this quantity is "
    "refused; with runs, that of −log RBP_k is fitted to counts as well",
    "never_hit": "no window was a hit: the value is only a bound, and the law of this quantity is refused",
}
ODD = {
    "off_the_line": "farther from the line through the other models than chance allows at the 1 % level",
    "off_its_k": "its step to the neighbouring k is not that of the other models",
}


def compute(inputs: Inputs) -> LawResult:
    """Leave out each model, and of runs each document; look for values that stand out.

    Tables: leave_one_out, excluded; of runs documents_of_alpha, documents_of_p; without runs odd_values.
    """
    laws = [f for f in inputs.fits if f.label.family is not None]
    tables = {
        "leave_one_out": join(
            leave_one_out(law).assign(**law.label.columns, quantity=law.label.quantity) for law in laws
        ),
        "excluded": excluded(inputs.points),
    }
    if not inputs.records:  # values of runs are computed, not typed
        odd = [odd_values(f).assign(dataset=d, family=n) for (d, n), f in by_family(laws).items()]
        tables["odd_values"] = join(odd)
    else:
        tables |= {"documents_of_alpha": _documents_of_alpha(inputs), "documents_of_p": _documents_of_p(inputs)}
    return LawResult(inputs=inputs, tables=tables)


def excluded(points: pd.DataFrame) -> pd.DataFrame:
    """Points that take no part in a law in S: columns dataset, family, model, quantity, reason (a code of REASONS)."""
    rows = []
    last = set(longest_trained(points).index)
    for r in points.itertuples():
        code = "earlier_checkpoint" if r.Index not in last else "never_missed" if r.value == 0 else "never_hit"
        if r.Index in last and 0 < r.value < math.inf:
            continue
        quantity = QUANTITIES[r.metric].printed(None if pd.isna(r.k) else int(r.k), r.window)
        rows.append((r.dataset, r.family, r.model, quantity, code))
    return pd.DataFrame(rows, columns=["dataset", "family", "model", "quantity", "reason"])


def _documents_of_alpha(inputs: Inputs) -> pd.DataFrame:
    """The documents without which the exponent of −log RBP_k moves most, at the k shown."""
    halves = {f.label: (f.intervals["alpha"][1] - f.intervals["alpha"][0]) / 2 for f in inputs.fits if f.ok}
    rows = []
    for dataset, family, runs in families(inputs.runs):
        for k in inputs.shown:
            half = halves.get(Label(family, dataset, RBP.name, k))
            if half:
                table = document_influence(runs, k, inputs.size).head(TOP)
                rows.append(table.assign(dataset=dataset, family=family, k=k, share_of_half=table["shift"] / half))
    return join(rows)


def _documents_of_p(inputs: Inputs) -> pd.DataFrame:
    """The documents that hold most of the windows hit by the largest model, at its largest N with a hit."""
    rows = []
    for dataset, family, runs in families(inputs.runs):
        largest = max(runs, key=inputs.size_of)
        for k in [k for k in inputs.shown if k in inputs.thresholds]:
            for n in sorted(inputs.windows, reverse=True):
                table = carrying_documents(largest, n, k, TOP)
                if len(table):
                    about = {"dataset": dataset, "family": family, "model": largest.model.name, "k": k, "window": n}
                    rows.append(table.assign(**about))
                    break
    return join(rows)


def section(result: LawResult) -> Section | None:
    """Leave-one-out at the k shown, values that stand out, documents, and the points left out; None without a law."""
    tables, shown = result.tables, result.inputs.shown
    left = tables["leave_one_out"]
    if not len(left):
        return None
    mine = left[left["k"].isna() | left["k"].isin(shown)]
    frame = pd.DataFrame([
        {"data set": r.dataset, "family": r.family, "quantity": r.quantity, "model": r.model,
         "off the line %": r.residual_percent, "α without it": r.alpha_without, "moves α by": r.shift,
         "in half intervals": r.share_of_half}
        for r in mine.itertuples()
    ])  # fmt: skip
    formats = {"off the line %": 2, "α without it": 4, "moves α by": 4, "in half intervals": 2}
    shown_tables = [ReportTable("Each exponent without each of its models", frame, formats, folded=True)]
    shown_tables += [table for table in (_odd(result), *_documents(result), _left_out(result)) if table is not None]
    lead = (
        "What moves an exponent: each model left out in turn, and of runs each document. A model that moves α by about "
        "one half interval decides it."
    )
    notes = ()
    if "odd_values" in tables:
        lead += (
            " Of values that were typed, those that stand out from the other models or from the neighbouring k are "
            "listed, since a misprint looks like that."
        )
        found = tables["odd_values"]
        odd = len(found.drop_duplicates(["dataset", "family", "model", "quantity"])) if len(found) else 0
        looked = len(result.inputs.points)
        notes = (f"Values that stand out: {odd} of {looked}.",)
    return Section("influence", "What the exponents hang on", lead, tables=tuple(shown_tables), notes=notes)


def _odd(result: LawResult) -> ReportTable | None:
    odd = result.tables.get("odd_values", pd.DataFrame())
    if not len(odd):
        return None
    rows = [
        {"data set": r.dataset, "family": r.family, "model": r.model, "quantity": r.quantity,
         "value": number(r.value), "expected": number(r.expected), "reason": f"{r.reason}\n{ODD[r.reason]}"}
        for r in odd.itertuples()
    ]  # fmt: skip
    return ReportTable("Values that stand out", pd.DataFrame(rows))


def _documents(result: LawResult) -> list[ReportTable]:
    found = []
    alpha = result.tables.get("documents_of_alpha", pd.DataFrame())
    if len(alpha):
        rows = [
            {"data set": r.dataset, "family": r.family, "k": r.k, "document": r.document,
             "moves α by": "decides it" if pd.isna(r.shift) else significant(r.shift, 2),
             "in half intervals": r.share_of_half}
            for r in alpha.itertuples()
        ]  # fmt: skip
        title = "Documents that move the exponent of −log RBP_k most when left out"
        found.append(ReportTable(title, pd.DataFrame(rows), {"in half intervals": 2}, folded=True))
    carried = result.tables.get("documents_of_p", pd.DataFrame())
    if len(carried):
        rows = [
            {"data set": r.dataset, "family": r.family, "model": r.model, "k": r.k, "N": r.window,
             "document": r.document, "share of the windows hit": f"{number(100 * r.share, 1)}%", "windows hit": r.hits}
            for r in carried.itertuples()
        ]  # fmt: skip
        title = "Documents that carry the longest windows hit by the largest model"
        found.append(ReportTable(title, pd.DataFrame(rows), folded=True))
    return found


def _left_out(result: LawResult) -> ReportTable | None:
    table = result.tables["excluded"]
    if not len(table):
        return None
    rows = [
        {"data set": dataset, "family": family, "model": model, "reason": f"{reason}\n{REASONS[reason]}",
         "values": len(mine), "of": some(list(mine["quantity"]), 3)}
        for (dataset, family, model, reason), mine in table.groupby(
            ["dataset", "family", "model", "reason"], dropna=False, sort=False)
    ]  # fmt: skip
    return ReportTable("Points that take no part in a law in S", pd.DataFrame(rows), folded=True)
