"""Sections about the laws that need values alone: scaling in S, in k, trade-offs, paired exponents, forecasts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.figure import Figure

from rbp_lab.errors import LabError
from rbp_lab.figures.against_k import curves_figure, iso_figure
from rbp_lab.figures.forecast import backtest_figure, forecast_figure
from rbp_lab.figures.paired import differences_figure
from rbp_lab.figures.scaling import against_k_figure, scaling_figure
from rbp_lab.figures.style import FamilyStyle, si
from rbp_lab.fits.against_k import fit_against_k
from rbp_lab.fits.result import POOLED, FitResult, Label, family_name
from rbp_lab.report.sections import ReportFigure, ReportTable, Section
from rbp_lab.report.words import exponent, fixed, interval, refusal_notes, switched, warning_notes

Tables = dict[str, pd.DataFrame]
Styles = dict[str, FamilyStyle]


def overview_section(fits: Sequence[FitResult], ks: Sequence[int]) -> Section:
    """The exponents that matter, one row per data set and family, with all warnings in words."""
    by = {(f.label.dataset, f.label.family, f.label.metric, f.label.k): f for f in fits if f.label.window == 1}
    quantities = [("ce", None, "α of CE"), *(("neg_log_rbp", k, f"α of −log RBP_{k}") for k in ks)]
    rows, shown = [], []
    for dataset, family in dict.fromkeys((f.label.dataset, f.label.family) for f in fits):
        mine = [by.get((dataset, family, metric, k)) for metric, k, _ in quantities]
        there = [f for f in mine if f is not None]
        shown += there
        row = {"data set": dataset, "family": family_name(family), "models": max((f.n for f in there), default=0)}
        row |= {name: exponent(f) if f else None for f, (_, _, name) in zip(mine, quantities, strict=True)}
        row["warnings"] = ", ".join(dict.fromkeys(code for f in there for code in f.warnings)) or "none"
        rows.append(row)
    frame = pd.DataFrame(rows).dropna(axis=1, how="all")
    level = f"{fits[0].confidence:.0%}" if fits else "95%"
    lead = (
        "Exponents α of value = a·S^−α, by least squares of log10 value on log10 S over the models of a family, with "
        f"t(n−2) intervals at {level} in brackets. Residuals between models set the intervals; R² is taken in "
        "log10-log10 space and says little about the form of a law."
    )
    return Section(
        "overview", "Overview", lead, tables=(ReportTable("Exponents by data set and family", frame),),
        notes=(*warning_notes(shown), *refusal_notes(shown)),
    )  # fmt: skip


def scaling_section(
    fits: Sequence[FitResult], tables: Tables, ks: Sequence[int], styles: Styles, size_name: str
) -> Section:
    """Values against S at the chosen k and, by switch, at every k; every fit; other forms."""
    figures: dict[str, Figure] = {}
    every: dict[str, Figure] = {}
    for dataset, mine in _by_dataset(fits):
        mine = [f for f in mine if f.label.metric in ("ce", "neg_log_rbp")]
        chosen = [f for f in mine if f.label.metric == "ce" or f.label.k in ks]
        title = f"Scaling laws on {dataset}"
        draw(figures, dataset, lambda c=chosen, t=title: scaling_figure(c, t, styles, size_name))
    for k in sorted({f.label.k for f in fits if f.label.metric == "neg_log_rbp"}):
        at = [f for f in fits if f.label.k == k and f.label.metric == "neg_log_rbp"]
        draw(every, str(k), lambda a=at: scaling_figure(a, "One k at a time", styles, size_name))
    each = "−log RBP_k against S at one k at a time; lines, bars and numbers as above."
    one = (ReportFigure("each_k", None, each, every, files=False),) if len(every) > 1 else ()
    caption = (
        "Values against model size S with the fitted power laws. Bars: 95 % intervals over documents, where documents "
        "are known; the numbers give α with half of its interval, and R² in log10-log10 space."
    )
    lead = (
        "Cross-entropy and −log RBP_k fall as powers of model size ([RBP] arXiv 2510.20387, section 4). Beside R² "
        "stand the root mean square error, the error at the largest model when it is left out of the fit, and ΔAICc of "
        "two other forms against the power law: above 4 the other form is excluded, below −4 it fits better."
    )
    return Section(
        "scaling", "RBP_k and cross-entropy against model size", lead,
        (*switched("scaling", figures, caption), *one), (_fits_table(fits, tables),), tuple(refusal_notes(fits)),
    )  # fmt: skip


def _fits_table(fits: Sequence[FitResult], tables: Tables) -> ReportTable:
    forms = tables.get("forms", pd.DataFrame())
    delta, verdict = {}, {}
    for r in forms.itertuples():
        key = (r.dataset, r.family, r.metric, None if pd.isna(r.k) else int(r.k))
        delta[(*key, r.form)], verdict[key] = r.delta_aicc, r.verdict
    rows = []
    for f in fits:
        key = (f.label.dataset, f.label.family, f.label.metric, f.label.k)
        row = {
            "data set": f.label.dataset, "family": family_name(f.label.family), "quantity": f.label.quantity, "n": f.n,
            "α": interval(f.params["alpha"], *f.intervals["alpha"]) if f.ok else None, "R²": f.r2,
            "RMSE %": f.rmse_percent, "largest left out %": f.leave_largest_out,
        }  # fmt: skip
        if len(forms):
            row |= {
                "ΔAICc log-linear": delta.get((*key, "log_linear")),
                "ΔAICc + constant": delta.get((*key, "power_constant")), "form": verdict.get(key),
            }  # fmt: skip
        rows.append(row | {"warnings": ", ".join(f.warnings), "fit": "ok" if f.ok else f.status})
    formats = {"R²": 4, "RMSE %": 2, "largest left out %": 1, "ΔAICc log-linear": 1, "ΔAICc + constant": 1}
    return ReportTable("Every fit", pd.DataFrame(rows), formats, folded=len(rows) > 12)


def over_k_section(fits: Sequence[FitResult], tables: Tables, styles: Styles) -> Section | None:
    """R² and exponent over k ([RBP] figure 6), and exponents from counts; None with fewer than two fitted k."""
    figures: dict[str, Figure] = {}
    for dataset, mine in _by_dataset(fits):
        mine = [f for f in mine if f.label.metric in ("ce", "neg_log_rbp")]
        bands = _of(tables.get("bands"), dataset)
        if len({f.label.k for f in mine if f.ok and f.label.k is not None}) > 1:
            joint = bands if bands is not None and len(bands) else None
            draw(figures, dataset, lambda m=mine, d=dataset, j=joint: against_k_figure(
                m, f"The law against k on {d}", styles, j
            ))  # fmt: skip
    if not figures:
        return None
    shown: list[ReportTable] = []
    counts = tables.get("counts")
    if counts is not None and len(counts):
        rows = [
            {"data set": r.dataset, "family": r.family, "k": r.k, "n": r.n,
             "α from counts": interval(*(getattr(r, name, None) for name in ("alpha", "alpha_low", "alpha_high"))),
             "warnings": r.warnings, "result": "fitted" if r.status == "ok" else r.message}
            for r in counts.itertuples()
        ]  # fmt: skip
        title = "Exponents from counts: binomial likelihood with scatter between models"
        shown.append(ReportTable(title, pd.DataFrame(rows), folded=True))
    caption = (
        "Left: R² of the power law. Right: its exponent; bands hold for each k by itself, thin dashed lines bound the "
        "band that holds for all k at once. Dotted: cross-entropy. A gap is a refused fit."
    )
    lead = (
        "The law holds for k far below the vocabulary and breaks down as k approaches it ([RBP] figure 6). Where "
        "misses are few, the exponent is fitted to counts instead, and refused when fewer than three models have five "
        "effective events on both sides of the threshold."
    )
    return Section("over-k", "The law over k", lead, switched("against_k", figures, caption), tuple(shown))


def against_k_section(points: pd.DataFrame, tables: Tables, styles: Styles, ks: Sequence[int]) -> Section | None:
    """RBP against k ([RBP] appendix B, table 1), equal RBP and the trade-off; None when no model has three k."""
    table1, trades = tables.get("against_k"), tables.get("trade_off")
    if table1 is None or not table1["slope"].notna().any():
        return None
    curves: dict[str, Figure] = {}
    iso: dict[str, Figure] = {}
    for dataset, rows in table1.groupby("dataset"):
        families: dict[str, list] = {}
        for r in rows.itertuples():
            families.setdefault(r.family, []).append((r.size, fit_against_k(points, r.model, dataset)))
        draw(curves, dataset, lambda f=families, d=dataset: curves_figure(f, f"RBP against k on {d}"))
        lines = _of(tables.get("iso_rbp"), dataset)
        if lines is not None and len(lines):
            draw(iso, dataset, lambda r=lines, d=dataset: iso_figure(r, f"Equal RBP on {d}", styles))
    shown = [ReportTable(
        "Slopes of log(−log RBP_k) on log k, k ≤ 100 (table 1)",
        table1.rename(columns={"dataset": "data set", "size": "S", "r2": "R²", "rmse_percent": "RMSE %",
                               "num_k": "k used", "message": "result"}),
        {"S": si, "slope": 3, "R²": 4, "RMSE %": 1}, folded=len(table1) > 12,
    )]  # fmt: skip
    if trades is not None and len(trades):
        here = trades[trades["k"].isin(list(ks))]
        rows = [
            {"data set": r.dataset, "family": r.family, "model": r.model, "S": r.size, "k": r.k,
             "α_k/α_S": interval(r.exponent, r.low, r.high, 2), "S for twice k": f"× {2 ** -r.exponent:.3g}"}
            for r in here.itertuples()
        ]  # fmt: skip
        shown.append(ReportTable(
            "Trade-off: what a larger k is worth in model size at equal RBP", pd.DataFrame(rows), {"S": si}, folded=True
        ))  # fmt: skip
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
        tuple(shown),
    )  # fmt: skip


def differences_section(fits: Sequence[FitResult], tables: Tables, styles: Styles, ks: Sequence[int]) -> Section | None:
    """Cross-entropy against −log RBP_k on the same models ([RBP] figure 8a); None without a cross-entropy."""
    table = tables.get("differences")
    if table is None or not len(table) or not table["difference"].notna().any():
        return None
    by = {(f.label.dataset, f.label.family, f.label.metric, f.label.k): f for f in fits}
    figures: dict[str, Figure] = {}
    for dataset, rows in table.groupby("dataset"):
        k = min(ks) if ks else int(rows["k"].min())
        pairs = {
            family: (by[dataset, family, "ce", None], by[dataset, family, "neg_log_rbp", k])
            for family in sorted(rows["family"].unique()) if (dataset, family, "neg_log_rbp", k) in by
        }  # fmt: skip
        draw(figures, dataset, lambda p=pairs, r=rows, d=dataset: differences_figure(
            p, r, f"Cross-entropy and −log RBP on {d}", styles
        ))  # fmt: skip
    rows = [
        {"data set": r.dataset, "family": r.family, "k": r.k, "models": r.models,
         "α_CE − α_k": interval(r.difference, r.low, r.high),
         "result": r.message if pd.isna(r.difference) else "equal within error" if r.low <= 0 <= r.high else "differ"}
        for r in table.itertuples()
    ]  # fmt: skip
    lead = (
        "Do cross-entropy and −log RBP_k scale alike? The ratio of the two is fitted over the same models, so that "
        "what both share, documents and the luck of each model, cancels: intervals are three to four times narrower "
        "than those of two separate exponents."
    )
    caption = "Left: the ratio per model; a level line means equal exponents. Right: bars are paired t(n−2) intervals."
    return Section(
        "paired", "Cross-entropy against −log RBP", lead, switched("paired", figures, caption),
        (ReportTable("Differences of exponents", pd.DataFrame(rows), folded=len(rows) > 12),),
    )  # fmt: skip


def forecast_section(fits: Sequence[FitResult], tables: Tables, styles: Styles, ks: Sequence[int]) -> Section | None:
    """Laws beyond their models with prediction intervals, and the backtest; None when nothing could be fitted."""
    ahead: dict[str, Figure] = {}
    back: dict[str, Figure] = {}
    table = tables.get("backtest")
    if table is not None and len(table):
        names = [Label(metric=m, k=None if pd.isna(k) else int(k)).quantity
                 for m, k in zip(table["metric"], table["k"], strict=True)]  # fmt: skip
        table = table.assign(quantity=names)[table["k"].isna() | table["k"].isin(list(ks))]
    for dataset, mine in _by_dataset(fits):
        laws = [f for f in mine if f.label.family is not POOLED and (f.label.k in ks or f.label.metric == "ce")]
        draw(ahead, dataset, lambda f=laws, d=dataset: forecast_figure(f, f"Forecasts on {d}", styles))
        rows = _of(table, dataset)
        if rows is not None and len(rows):
            draw(back, dataset, lambda r=rows, d=dataset: backtest_figure(r, f"Backtest on {d}", styles))
    if not ahead:
        return None
    shown: list[ReportTable] = []
    notes: list[str] = []
    if table is not None and len(table):
        frame = pd.DataFrame([
            {"data set": r.dataset, "family": r.family, "quantity": r.quantity, "held out": r.held, "model": r.model,
             "S": r.size, "measured": r.actual, "forecast": interval(r.forecast, r.low, r.high),
             "error %": r.error_percent, "inside": bool(r.inside), "beyond": f"× {r.beyond:.3g}"}
            for r in table.itertuples()
        ])  # fmt: skip
        shown.append(ReportTable("Backtest", frame, {"S": si, "measured": 4, "error %": 1}, folded=True))
        notes.append(
            f"Of {len(frame)} forecasts of held-out models, {int(frame['inside'].sum())} had the measured value in "
            f"their {fits[0].confidence:.0%} interval; the median absolute error was "
            f"{fixed(frame['error %'].abs().median(), 1)} %."
        )
    lead = (
        "What the laws say of a model ten times larger than the largest, with an interval for one new model of the "
        "family: it counts the uncertainty of the line and the scatter between models, and holds only if the law does. "
        "The backtest drops the one, two and three largest models, refits, and compares."
    )
    return Section(
        "forecast", "Forecasts and how they did", lead,
        (*switched("forecast", ahead, "Solid within the sizes measured, dashed beyond: an extrapolation."),
         *switched("backtest", back, "A bar is the prediction interval; one that misses 0 is a forecast that failed.")),
        tuple(shown), tuple(notes),
    )  # fmt: skip


def _by_dataset(fits: Sequence[FitResult]) -> list[tuple[str, list[FitResult]]]:
    names = sorted({f.label.dataset for f in fits})
    return [(name, [f for f in fits if f.label.dataset == name]) for name in names]


def _of(table: pd.DataFrame | None, dataset: str) -> pd.DataFrame | None:
    return None if table is None or not len(table) else table[table["dataset"] == dataset]


def draw(into: dict[str, Figure], name: str, make: Callable[[], Figure]) -> None:
    """Draw one choice of a switch; a figure that has nothing to show is left out, its table says why."""
    try:
        into[name] = make()
    except LabError:
        return
