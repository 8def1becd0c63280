"""Sections about the laws that need the statistics of runs: emergence, lognormal ranks, the split, calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib.figure import Figure

from rbp_lab.figures.decomposition import calibration_figure, checkpoints_figure, error_curves_figure, shares_figure
from rbp_lab.figures.emergence import FIGURE7_KS, emergence_figure
from rbp_lab.figures.lognormal import implied_figure, parameters_figure
from rbp_lab.figures.ranks import parts_figure, rank_figure
from rbp_lab.figures.style import si
from rbp_lab.fits import lognormal
from rbp_lab.fits.decomposition import checkpoints, error_curves, part_scalings
from rbp_lab.fits.emergence import fit_emergence
from rbp_lab.fits.result import family_name
from rbp_lab.records import RunRecord
from rbp_lab.report.sections import ReportFigure, ReportTable, Section, file_stem
from rbp_lab.report.values import Styles, Tables, draw
from rbp_lab.report.words import fixed, interval, switched


def emergence_section(records: Sequence[RunRecord], tables: Tables, confidence: float) -> Section:
    """p_{N,k} measured, fitted, and under independence ([RBP] figure 7), a figure per family with a switch over k."""
    table, laws, levels = tables["emergence"], tables["emergence_fits"], tables["emergence_levels"]
    figures = []
    for dataset, family, _ in families(records):
        rows = table[(table["dataset"] == dataset) & (table["family"] == family)]
        panels: dict[str, Figure] = {}
        measured = sorted(int(k) for k in rows["k"].unique())
        for k in [k for k in measured if k in FIGURE7_KS] or measured[:8]:
            law = fit_emergence(rows, family, dataset, k, confidence)
            where = f"Emergence on {dataset}: {family}"
            draw(panels, str(k), lambda r=rows, f=law, w=where: emergence_figure(r, [f], w))
        if panels:
            figures.append(ReportFigure(
                f"emergence_{file_stem(f'{dataset}_{family}')}", None,
                f"Share of windows of N tokens whose ranks are all ≤ k ({family}, {dataset}). Bars: {confidence:.0%} "
                "over documents; an arrow hangs from an upper bound where no window was hit. Solid: the fitted law. "
                "Dashed: RBP_k^N, what independent tokens would give.", panels,
            ))  # fmt: skip
    exponents = pd.DataFrame([
        {"data set": r.dataset, "family": r.family, "k": r.k, "models": r.models,
         "exponent of N": interval(r.beta, r.beta_low, r.beta_high, 3),
         "independent (1)?": None if pd.isna(r.beta) else bool(r.beta_low <= 1 <= r.beta_high),
         "exponent of S": interval(r.alpha, r.alpha_low, r.alpha_high), "N used": r.windows, "N dropped": r.dropped,
         "result": r.message}
        for r in laws.itertuples()
    ])  # fmt: skip
    shown = [ReportTable("−log p = c·N^β·S^−α, the exponent of N free", exponents)]
    if len(levels):
        frame = pd.DataFrame([
            {"data set": r.dataset, "family": r.family, "k": r.k, "N": r.window, "level": r.level,
             "S": None if pd.isna(r.size) else si(r.size),
             "interval": None if pd.isna(r.low) else f"{si(r.low)} … {si(r.high)}", "what to read into it": r.message}
            for r in levels.itertuples()
        ])  # fmt: skip
        shown.append(ReportTable("When it emerges: S at which p reaches the level", frame, {"level": 2}, folded=True))
    frame = table.assign(
        p=[interval(r.p, r.low, r.high) if not r.bound else f"0\n≤ {fixed(r.high)}" for r in table.itertuples()]
    )[["dataset", "family", "model", "size", "k", "window", "p", "independent", "ratio", "windows", "documents"]]
    names = {"dataset": "data set", "size": "S", "window": "N", "independent": "RBP_k^N", "ratio": "independence ratio"}
    formats = {"S": si, "RBP_k^N": 4, "independence ratio": 3}
    shown.append(ReportTable("Measured p", frame.rename(columns=names), formats, folded=True))
    ratio = table.loc[(table["window"] > 1) & table["ratio"].notna(), "ratio"].astype(float)
    notes = ()
    if len(ratio):
        notes = (
            f"The independence ratio ln p/(N·ln RBP_k) runs from {fixed(ratio.min(), 2)} to {fixed(ratio.max(), 2)} "
            "for N > 1; 1 would be independence, less means that successes cluster.",
        )
    lead = (
        "The probability that N tokens in a row are all ranked within k rises steeply with model size, which looks "
        "like a sudden ability ([RBP] section 5.1). The paper takes tokens as independent, p = RBP_k^N; successes "
        "cluster, so the exponent of N is fitted freely and tested against 1."
    )
    return Section("emergence", "Emergence: N right tokens in a row", lead, tuple(figures), tuple(shown), notes)


def lognormal_section(records: Sequence[RunRecord], tables: Tables, styles: Styles) -> Section:
    """Rank distributions with their lognormal, its parameters over S, and what it implies ([RBP] figures 8b–d)."""
    table = tables["lognormal"]
    ranks: dict[str, Figure] = {}
    for dataset, family, mine in families(records):
        runs = []
        for record in mine:
            pairs = lognormal.rank_pairs(record.documents)[:2]
            law = lognormal.fit_lognormal(*pairs, vocab=record.stats.vocab_rows)
            runs.append((record.model.name, record.model.params.non_embedding, record.stats, law))
        draw(ranks, f"{dataset}, {family}", lambda r=runs, w=f"Ranks on {dataset}: {family}": rank_figure(r, w))
    parameters: dict[str, Figure] = {}
    implied: dict[str, Figure] = {}
    for dataset, rows in table.groupby("dataset"):
        draw(parameters, dataset, lambda r=rows, d=dataset: parameters_figure(r, f"Lognormal of ranks on {d}", styles))
        draw(implied, dataset, lambda r=rows, d=dataset: implied_figure(r, f"What it implies on {d}", styles))
    frame = pd.DataFrame([
        {"data set": r.dataset, "family": r.family, "model": r.name, "S": r.size,
         "law": f"{r.model}, ranks ≥ {r.xmin}", "V": r.vocab, "tokens": r.n,
         "μ": _with_error(r.mu, r.se_mu), "σ": _with_error(r.sigma, r.se_sigma),
         "μ/σ": _with_error(r.ratio, r.se_ratio), "first rank: law": r.p1_fit, "measured": r.p1_observed,
         "KS": None if pd.isna(r.ks) else f"{r.ks:.4f}\nat rank {r.ks_rank}", "result": r.message}
        for r in table.itertuples(index=False)
    ])  # fmt: skip
    failed = table[table["status"] != "ok"]
    notes = tuple(f"{r.name}, {r.model}: {r.message}." for r in failed.itertuples())
    lead = (
        "Ranks are close to lognormal ([RBP] section 5.2). Two laws share the name: the rounded continuous lognormal "
        "from rank 2 on, whose parameters the paper published, and the pmf on 1…V, which its appendix derives "
        "formulas from. Standard errors come from blocks of documents. A fit that runs off along the ridge to a power "
        "law says so."
    )
    return Section(
        "ranks", "Lognormal ranks", lead,
        (*switched("ranks", ranks, "Share of tokens per rank, in bins that grow, with the rounded lognormal; below, "
                   "the logarithm of measured over law, bins of 10 tokens or more.", "runs"),
         *switched("lognormal", parameters, "Bars: 95 % over blocks of documents, cut where they leave the panel. Only "
                   "fits that converged are drawn."),
         *switched("implied", implied, "What the pmf lognormal implies beside what was measured. The appendix of the "
                   "paper calls the right-hand quantity cross-entropy; it is the entropy of the rank law.")),
        (ReportTable("Fits", frame, {"S": si, "first rank: law": 4, "measured": 4}, folded=len(frame) > 12),), notes,
    )  # fmt: skip


def decomposition_section(records: Sequence[RunRecord], tables: Tables, styles: Styles, confidence: float) -> Section:
    """The three parts of cross-entropy ([EE]): scaling, curves, shares, and checkpoints where there are some."""
    table, laws = tables["decomposition"], tables["parts"]
    parts: dict[str, Figure] = {}
    shares: dict[str, Figure] = {}
    curves: dict[str, Figure] = {}
    along: dict[str, Figure] = {}
    for dataset, rows in table.groupby("dataset"):
        scalings = [part_scalings(table, dataset, family, confidence) for family in sorted(rows["family"].unique())]
        draw(parts, dataset, lambda s=scalings, d=dataset: parts_figure(s, f"Parts of cross-entropy on {d}"))
        draw(shares, dataset, lambda r=rows, d=dataset: shares_figure(r, f"Share of error entropy on {d}", styles))
    steps = checkpoints(table)
    for dataset, family, mine in families(records):
        runs = [(r.model.name, r.model.params.non_embedding, error_curves(r.stats)) for r in mine]
        where = f"{dataset}: {family}"
        draw(curves, f"{dataset}, {family}", lambda r=runs, w=where: error_curves_figure(r, f"Errors by rank on {w}"))
        at = steps[(steps["dataset"] == dataset) & (steps["family"] == family)]
        draw(along, f"{dataset}, {family}", lambda r=at, w=where: checkpoints_figure(r, f"Along training on {w}"))
    formats = {"S": si} | dict.fromkeys(("CE", "EE", "SA", "Conf", "EE corrected", "EE/CE", "EE/Σ|parts|"), 4)
    names = {
        "dataset": "data set", "size": "S", "cross_entropy": "CE", "error_entropy": "EE", "self_alignment": "SA",
        "confidence": "Conf", "error_entropy_corrected": "EE corrected", "share_of_ce": "EE/CE",
        "share_of_parts": "EE/Σ|parts|", "training_tokens": "training tokens",
    }  # fmt: skip
    split = table.drop(columns="identity_error").rename(columns=names).dropna(axis=1, how="all")
    scaling = pd.DataFrame([
        {"data set": r.dataset, "family": family_name(r.family), "part": r.metric.replace("_", " "), "n": r.n,
         "α": interval(getattr(r, "alpha", None), getattr(r, "alpha_low", None), getattr(r, "alpha_high", None)),
         "R²": r.r2, "α − α_CE": interval(r.alpha_minus_ce, r.alpha_minus_ce_low, r.alpha_minus_ce_high),
         "distance": r.distance, "result": r.message}
        for r in laws.itertuples()
    ])  # fmt: skip
    lead = (
        "Cross-entropy = error entropy + self-alignment − confidence, exactly, when tokens are grouped by their "
        "optimistic rank ([EE] arXiv 2510.04067). A part scales like cross-entropy when its R² is high and its "
        "distance |α − α_CE| small. The share of error entropy is given in both conventions; above 1 in the "
        "first is no mistake."
    )
    note = f"The parts sum to the cross-entropy within {float(table['identity_error'].max()):.0e} nats in every run."
    return Section(
        "split", "What scales in cross-entropy", lead,
        (*switched("parts", parts, "The parts against S in nats, by absolute value, with their power laws."),
         *switched("errors", curves, "p_e and q_e by rank, in bins that grow: where the line is above the dots, the "
                   "model expects more such errors than there are.", "runs"),
         *switched("shares", shares, "Left: EE/CE. Right: EE over the sum of the absolute parts."),
         *switched("training", along, "The parts along training; every size by itself.", "runs")),
        (ReportTable("How the parts scale", scaling, {"R²": 3, "distance": 4}),
         ReportTable("The parts of every run (nats)", split, formats, folded=len(split) > 12)), (note,),
    )  # fmt: skip


def calibration_section(tables: Tables, styles: Styles) -> Section:
    """Mean predictive entropy − cross-entropy per model, and its trend in S."""
    figures: dict[str, Figure] = {}
    for dataset, rows in tables["calibration"].groupby("dataset"):
        draw(figures, dataset, lambda r=rows, d=dataset: calibration_figure(r, f"Calibration on {d}", styles))
    trends = pd.DataFrame([
        {"data set": r.dataset, "family": r.family, "models": r.models,
         "nats per decade of S": interval(r.per_decade, r.low, r.high), "result": r.message}
        for r in tables["calibration_trends"].itertuples()
    ])  # fmt: skip
    lead = (
        "Mean entropy of the predictive distribution minus cross-entropy, teacher-forced (after arXiv 2511.11966): 0 "
        "for a calibrated model, below 0 the model is surer than it should be. The gap changes sign, so its trend is a "
        "straight line in log10 S, not a power law."
    )
    caption = "Bars: interval over documents."
    return Section(
        "calibration", "Entropy calibration", lead, switched("calibration", figures, caption),
        (ReportTable("Trend", trends),),
    )  # fmt: skip


def families(records: Sequence[RunRecord]) -> Iterator[tuple[str, str, list[RunRecord]]]:
    """(data set, family, runs) in order."""
    for dataset, family in sorted({(r.dataset.name, r.model.family) for r in records}):
        yield dataset, family, [r for r in records if (r.dataset.name, r.model.family) == (dataset, family)]


def _with_error(value: object, error: object) -> str | None:
    if value is None or pd.isna(value):
        return None
    return fixed(value, 3) + (f"\n± {fixed(error, 3)}" if error is not None and not pd.isna(error) else "")
