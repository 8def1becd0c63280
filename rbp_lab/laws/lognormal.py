"""The lognormal of ranks ([RBP] section 5.2, figures 8b–d): both laws of that name per run, and what they imply."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import pandas as pd

from rbp_lab.figures.lognormal import implied_figure, parameters_figure, rank_figure
from rbp_lab.fits.lognormal import LognormalFit, fit_lognormal, neg_log_p1, rank_bins, rank_entropy, rank_pairs
from rbp_lab.laws.base import Inputs, LawResult, families, join
from rbp_lab.metrics import cross_entropy
from rbp_lab.records import RunRecord
from rbp_lab.report.sections import Drawing, ReportTable, Section, some, switched
from rbp_lab.text import is_missing, number, percent, si

name = "lognormal"
needs_runs = "the fit needs the whole histogram of ranks"
LAWS = (("rounded", 2), ("pmf", 1))  # as published, from rank 2; and on all ranks 1…V
KS_CRITICAL = 1.358  # of √n · the distance at the 5 % level for a law known beforehand and independent tokens


@dataclass(frozen=True, eq=False, kw_only=True)
class Lognormal(LawResult):
    """fits: (run, law) for both laws of every run."""

    fits: tuple[tuple[RunRecord, LognormalFit], ...]


def compute(inputs: Inputs) -> Lognormal:
    """Fit both lognormals to the ranks of every run."""
    fits = []
    for record in inputs.records:
        ranks, counts, block = rank_pairs(record.documents)
        for model, xmin in LAWS:
            law = fit_lognormal(ranks, counts, model, xmin, record.stats.vocab_rows, block, inputs.confidence)
            fits.append((record, law))
    table = join(_row(record, law, inputs.size_of(record)) for record, law in fits)
    return Lognormal(inputs=inputs, tables={"lognormal": table}, over_documents=True, fits=tuple(fits))


def _row(record: RunRecord, law: LognormalFit, size: float) -> pd.DataFrame:
    """The parameters, what the pmf implies by [RBP] appendix D, and what was measured."""
    known = law.mu is not None and law.model == "pmf"
    return law.to_frame().assign(
        name=record.model.name, family=record.model.family, dataset=record.dataset.name, size=size,
        implied_neg_log_p1=neg_log_p1(law.mu, law.sigma) if known else None,
        implied_rank_entropy=rank_entropy(law.mu, law.sigma) if known else None,
        measured_rbp_1=record.stats.counts[0] / record.stats.num_tokens,
        measured_cross_entropy=cross_entropy(record.stats),
        ks_over_critical=distance_over_critical(law),
    )  # fmt: skip


def distance_over_critical(law: LognormalFit) -> float | None:
    """The Kolmogorov–Smirnov distance over its 5 % critical value for so many independent tokens."""
    return None if law.ks is None else law.ks * math.sqrt(law.n) / KS_CRITICAL


def section(result: Lognormal) -> Section:
    """Rank distributions with their lognormal, its parameters over S, and what it implies."""
    inputs, table = result.inputs, result.tables["lognormal"]
    rounded = {id(record): law for record, law in result.fits if law.model == "rounded"}
    ranks: dict[str, Drawing] = {}
    for dataset, family, mine in families(inputs.records):
        runs = [
            (r.model.name, inputs.size_of(r), r.stats.vocab_rows, rank_bins(r.stats.counts, rounded[id(r)]))
            for r in mine
        ]  # fmt: skip
        ranks[f"{dataset}, {family}"] = partial(rank_figure, runs, f"Ranks on {dataset}: {family}")
    parameters: dict[str, Drawing] = {}
    implied: dict[str, Drawing] = {}
    for dataset, rows in table.groupby("dataset"):
        title = f"Lognormal of ranks on {dataset}"
        parameters[dataset] = partial(parameters_figure, rows, title, inputs.styles)
        title = f"What it implies on {dataset}"
        implied[dataset] = partial(implied_figure, rows, title, inputs.styles)
    troubled: dict[tuple[str, str], list[str]] = {}
    for r, law in result.fits:
        if law.status != "ok":
            troubled.setdefault((law.model, law.message), []).append(f"{r.model.name} on {r.dataset.name}")
    notes = tuple(f"{model}: {why} ({some(runs)})." for (model, why), runs in troubled.items())
    lead = (
        "The paper finds ranks close to lognormal ([RBP] section 5.2). Two laws share the name: the rounded continuous "
        "lognormal from rank 2 on, whose parameters the paper published, and the pmf on 1…V, from which its appendix "
        "derives formulas. Both end at V here; the paper's first law has no end, which moves its parameters where V is "
        f"small. {_how_far(result)} Standard errors come from blocks of documents. A fit that runs off "
        "along the ridge to a power law says so."
    )
    return Section(
        "ranks", "Lognormal ranks", lead,
        (*switched("ranks", ranks, "Share of tokens per rank, in bins that grow, with the rounded lognormal; below, "
                   "the logarithm of measured over law, bins of 10 tokens or more.", "runs"),
         *switched("lognormal", parameters, f"Bars: {percent(inputs.confidence)} over blocks of documents, cut where "
                   "they leave the panel. Only fits that converged are drawn."),
         *switched("implied", implied, "What the pmf lognormal implies beside what was measured. The appendix of the "
                   "paper calls the right-hand quantity cross-entropy; it is the entropy of the rank law.")),
        (_fits_table(result),), notes,
    )  # fmt: skip


def _how_far(result: Lognormal) -> str:
    """How far the measured ranks are from the laws, in words."""
    far = []
    for model, _ in LAWS:
        fits = [law for _, law in result.fits if law.model == model and law.ks is not None]
        if not fits:
            continue
        most = max(fits, key=lambda law: law.ks)
        ratios = [distance_over_critical(law) for law in fits]
        times = f"{number(min(ratios), 1)} to {number(max(ratios), 1)}"
        far.append(f"{number(most.ks, 3)} ({model}; {times} × the 5 % critical value)")
    if not far:
        return "No law could be fitted here."
    ratios = [distance_over_critical(law) for _, law in result.fits if law.ks is not None]
    beyond = sum(ratio > 1 for ratio in ratios)
    verdict = f"{beyond} of {len(ratios)} fits exceed it, and their ranks are not lognormal within error"
    return (
        f"Here the largest distance between measured and fitted cumulative shares is {' and '.join(far)}. That value "
        f"takes tokens as independent; {verdict if beyond else 'no fit exceeds it'}."
    )


def _fits_table(result: Lognormal) -> ReportTable:
    rows = [
        {"data set": r.dataset.name, "family": r.model.family, "model": r.model.name, "S": result.inputs.size_of(r),
         "law": f"{law.model}, ranks ≥ {law.xmin}", "V": law.vocab, "tokens": law.n,
         "μ": _with_error(law.mu, law.se_mu), "σ": _with_error(law.sigma, law.se_sigma),
         "μ/σ": _with_error(law.ratio, law.se_ratio), "first rank: law": law.p1_fit, "measured": law.p1_observed,
         "KS": None if law.ks is None else f"{number(law.ks)}\nat rank {law.ks_rank}",
         "KS over critical": distance_over_critical(law), "result": law.message}
        for r, law in result.fits
    ]  # fmt: skip
    formats = {"S": si, "first rank: law": 4, "measured": 4, "KS over critical": 1}
    return ReportTable("Fits", pd.DataFrame(rows), formats, folded=len(rows) > 12)


def _with_error(value: float | None, error: float | None) -> str | None:
    if is_missing(value):
        return None
    return number(value, 3) + ("" if is_missing(error) else f"\n± {number(error, 3)}")
