"""Emergence ([RBP] section 5.1, figure 7): p_{N,k}, its law with a free exponent of N, and where it appears."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from rbp_lab.figures.emergence import FIGURE7_KS, emergence_figure
from rbp_lab.fits.emergence import COLUMNS, EmergenceFit, emergence_table, fit_emergence
from rbp_lab.fits.levels import SizeAtLevel, size_at_level
from rbp_lab.laws.base import Inputs, LawResult, join
from rbp_lab.points import longest_trained
from rbp_lab.quantities import RBP, WINDOW_RBP
from rbp_lab.report.sections import Drawing, ReportFigure, ReportTable, Section, unique_stems, warning_note
from rbp_lab.text import interval, is_missing, number, percent, si, significant

name = "emergence"
needs_runs = ""
LEVEL = 0.5
REACH = 1000.0  # a size so many times beyond the models is no number to print


@dataclass(frozen=True, eq=False, kw_only=True)
class Emergence(LawResult):
    """table: measured p_{N,k}. fits: per data set, family and k. levels: of the law of each N, at LEVEL."""

    table: pd.DataFrame
    fits: tuple[EmergenceFit, ...] = ()
    levels: tuple[tuple[EmergenceFit, int, SizeAtLevel], ...] = ()


def compute(inputs: Inputs) -> Emergence:
    """Fit p_{N,k} of runs, or of points that hold it."""
    if inputs.records:
        table = emergence_table(inputs.records, inputs.windows, inputs.thresholds, inputs.size, inputs.confidence)
        models = {(r.dataset.name, r.model.name) for r in inputs.runs}
    else:
        table = table_of_points(inputs.points, inputs.confidence)
        models = set(longest_trained(inputs.points)[["dataset", "model"]].itertuples(index=False, name=None))
    if not len(table):
        why = "the points hold no p_{N,k}, and RBP_k^N would assume what is to be tested"
        return Emergence(inputs=inputs, table=table, lacks={"emergence": why})
    fitted = table[[pair in models for pair in zip(table["dataset"], table["model"], strict=True)]]
    groups = fitted[["dataset", "family", "k"]].drop_duplicates().sort_values(["dataset", "family", "k"])
    fits = tuple(
        fit_emergence(fitted, family, dataset, int(k), inputs.confidence, inputs.effects.get(dataset))
        for dataset, family, k in groups.itertuples(index=False, name=None)
    )
    levels = tuple((f, n, size_at_level(law, LEVEL)) for f in fits for n, law in f.by_window.items())
    tables = {
        "emergence": table,
        "emergence_fits": join(f.to_frame() for f in fits),
        "emergence_local": _local(fits),
        "emergence_levels": join([pd.DataFrame([
            {"family": f.family, "dataset": f.dataset, "k": f.k, "window": n, **vars(level)} for f, n, level in levels
        ])]),
    }  # fmt: skip
    over_documents = bool(inputs.records)
    return Emergence(inputs=inputs, tables=tables, over_documents=over_documents, table=table, fits=fits, levels=levels)


def _local(fits: Iterable[EmergenceFit]) -> pd.DataFrame:
    """Exponents of N between neighbouring N, and of S at each N, with their intervals."""
    rows = []
    for f in fits:
        of_size = [(n, n, law.params["alpha"], *law.intervals["alpha"]) for n, law in f.by_window.items() if law.ok]
        of_windows = [(*pair, *found) for pair, found in f.local.items()]
        for exponent, found in (("N", of_windows), ("S", of_size)):
            rows += [(f.dataset, f.family, f.k, exponent, *row) for row in found]
    return pd.DataFrame(rows, columns=["dataset", "family", "k", "exponent", "from", "to", "value", "low", "high"])


def table_of_points(points: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """The rows of ``emergence_table`` from points that hold −log p_{N,k}; N = 1 is RBP_k, where it is there.

    low, high: intervals from se_log, t(documents − 1), or normal where documents are unknown; missing without it.
    independent, ratio: missing without RBP_k. windows: n of the point.
    """
    rows = points[points["metric"] == WINDOW_RBP.name]
    tokens = points[points["metric"] == RBP.name]
    rbp = {(r.dataset, r.model, r.k): r.value for r in tokens.itertuples()}
    wanted = set(zip(rows["dataset"], rows["k"], strict=True))
    tokens = tokens[[pair in wanted for pair in zip(tokens["dataset"], tokens["k"], strict=True)]]
    found = []
    for r in pd.concat([tokens, rows]).itertuples():
        one = rbp.get((r.dataset, r.model, r.k), math.nan)
        freedom = math.inf if is_missing(r.documents) else r.documents - 1
        z = stdtrit(freedom, 0.5 + confidence / 2)
        low, high = (math.exp(-r.value * math.exp(sign * z * r.se_log)) for sign in (1, -1))
        ratio = r.value / (r.window * one) if 0 < one < math.inf and r.value < math.inf else math.nan
        found.append((
            r.model, r.family, r.size, r.dataset, int(r.k), int(r.window), math.exp(-r.value), low, high,
            math.isinf(r.value), math.exp(-r.window * one), ratio, r.n, r.documents, r.se_log,
        ))  # fmt: skip
    return pd.DataFrame(found, columns=list(COLUMNS))


def section(result: Emergence) -> Section | None:
    """p_{N,k} measured, fitted, and under independence, a figure per family with a switch over k."""
    if not result.fits:
        return None
    shown = [_exponents(result), *_levels(result), *_local_table(result), _measured(result)]
    lead = (
        "The probability that N tokens in a row are all ranked within k rises steeply with model size, which looks "
        "like a sudden ability ([RBP] section 5.1). The paper takes tokens as independent, p = RBP_k^N; successes "
        "cluster, so the exponent of N is fitted freely and tested against 1."
    )
    title = "Emergence: N right tokens in a row"
    return Section("emergence", title, lead, tuple(_figures(result)), tuple(shown), _notes(result))


def _figures(result: Emergence) -> list[ReportFigure]:
    groups: dict[tuple[str, str], list[EmergenceFit]] = {}
    for fit in result.fits:
        groups.setdefault((fit.dataset, fit.family), []).append(fit)
    figures = []
    for ((dataset, family), fits), stem in zip(groups.items(), unique_stems(groups), strict=True):
        rows = result.table[(result.table["dataset"] == dataset) & (result.table["family"] == family)]
        panels: dict[str, Drawing] = {}
        for fit in _drawn(fits, result.inputs):
            where = f"Emergence on {dataset}: {family}"
            panels[str(fit.k)] = partial(emergence_figure, rows, [fit], where)
        if panels:
            figures.append(ReportFigure(
                f"emergence_{stem}", None,
                f"Share of windows of N tokens whose ranks are all ≤ k ({family}, {dataset}): left from 0 to 1, as the "
                "paper draws it, right on a logarithmic axis, where small shares are seen as well. Bars: "
                f"{percent(result.inputs.confidence)} over documents; an arrow hangs from an upper bound where no "
                "window was hit. Solid: the fitted law. Dashed: RBP_k^N, what independent tokens would give.", panels,
            ))  # fmt: skip
    return figures


def _drawn(fits: Sequence[EmergenceFit], inputs: Inputs) -> Sequence[EmergenceFit]:
    """The k of figure 7 when every figure is asked for, else those shown; of others the first few."""
    ks = FIGURE7_KS if inputs.choices.every_figure else inputs.shown
    return [f for f in fits if f.k in ks] or fits[: len(ks)]


def _exponents(result: Emergence) -> ReportTable:
    none = (None, None)
    rows = [
        {"data set": f.dataset, "family": f.family, "k": f.k, "models": f.models,
         "exponent of N": interval(f.beta, *(f.beta_interval or none), 3), "independent (1)?": f.independent,
         "exponent of S": interval(f.alpha, *(f.alpha_interval or none)),
         "RMSE %": f.rmse_percent,
         "one exponent for all N: p": None if f.lack_of_fit is None else significant(f.lack_of_fit, 2),
         "N used": " ".join(map(str, f.windows)), "N dropped": " ".join(map(str, f.dropped)) or None,
         "result": f.message}
        for f in result.fits
    ]  # fmt: skip
    return ReportTable("−log p = c·N^β·S^−α, the exponent of N free", pd.DataFrame(rows), {"RMSE %": 2})


def _local_table(result: Emergence) -> list[ReportTable]:
    rows = [
        {"data set": r.dataset, "family": r.family, "k": r.k, "exponent of": r.exponent,
         "N": f"{r.at} … {r.to}" if r.exponent == "N" else str(r.at), "value": interval(r.value, r.low, r.high, 3)}
        for r in result.tables["emergence_local"].rename(columns={"from": "at"}).itertuples()
    ]  # fmt: skip
    title = "Exponents of N between neighbouring N, and of S at each N"
    return [ReportTable(title, pd.DataFrame(rows), folded=True)] if rows else []


def _levels(result: Emergence) -> list[ReportTable]:
    rows = [
        {"data set": f.dataset, "family": f.family, "k": f.k, "N": n, "level": level.level,
         **place(level, f.by_window[n].points.x), "what to read into it": level.message}
        for f, n, level in result.levels
    ]  # fmt: skip
    title = "When it emerges: S at which p reaches the level"
    return [ReportTable(title, pd.DataFrame(rows), {"level": 2}, folded=True)] if rows else []


def place(level: SizeAtLevel, sizes: np.ndarray) -> dict[str, str | None]:
    """S and its interval in print; an end that lies a thousand times beyond the models is named as such."""
    low = f"< {si(float(sizes.min()) / REACH)}" if is_missing(level.low) else si(level.low)
    high = f"> {si(float(sizes.max()) * REACH)}" if is_missing(level.high) else si(level.high)
    unknown = is_missing(level.low) and is_missing(level.high)
    return {"S": None if is_missing(level.size) else si(level.size), "interval": None if unknown else f"{low} … {high}"}


def _measured(result: Emergence) -> ReportTable:
    table = result.table
    printed = [interval(r.p, r.low, r.high) if not r.bound else f"0\n≤ {number(r.high)}" for r in table.itertuples()]
    frame = table.assign(p=printed)[[
        "dataset", "family", "model", "size", "k", "window", "p", "independent", "ratio", "windows", "documents",
    ]]  # fmt: skip
    names = {"dataset": "data set", "size": "S", "window": "N", "independent": "RBP_k^N", "ratio": "independence ratio"}
    formats = {"S": si, "RBP_k^N": 4, "independence ratio": 3}
    return ReportTable("Measured p", frame.rename(columns=names).dropna(axis=1, how="all"), formats, folded=True)


def _notes(result: Emergence) -> tuple[str, ...]:
    bent = [f"k = {f.k}, {f.family}, {f.dataset}" for f in result.fits if "lack_of_fit" in f.warnings]
    lack = (warning_note("lack_of_fit", bent),) if bent else ()
    table = result.table
    ratio = table.loc[(table["window"] > 1) & table["ratio"].notna() & (table["p"] < 1), "ratio"].astype(float)
    if not len(ratio):
        return lack
    return (
        *lack,
        f"The independence ratio ln p/(N·ln RBP_k) runs from {significant(ratio.min(), 2)} to "
        f"{significant(ratio.max(), 2)} for N > 1; 1 would be independence, less means that successes cluster.",
    )
