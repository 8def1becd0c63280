"""From the results of an analysis to the sections of its report, and to where every point came from."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from rbp_lab.figures.style import family_styles
from rbp_lab.fits.result import FitResult
from rbp_lab.records import RunRecord
from rbp_lab.report.ranks import calibration_section, decomposition_section, emergence_section, lognormal_section
from rbp_lab.report.sections import ReportTable, Section
from rbp_lab.report.values import (
    Tables,
    against_k_section,
    differences_section,
    forecast_section,
    over_k_section,
    overview_section,
    scaling_section,
)

# Laws that values alone cannot give, and what they lack.
NEED_RUNS = {
    "exponents from counts": "they need hits and misses per model and the design effect of documents",
    "emergence": "p_{N,k} needs the ranks of consecutive tokens; RBP_k^N would assume what is to be tested",
    "lognormal ranks": "the fit needs the whole histogram of ranks",
    "the parts of cross-entropy": "they need Σ nll by rank",
    "entropy calibration": "it needs the entropy of the predictive distributions",
    "ties and single documents": "whether they decide an exponent is only visible in runs",
}


def sections(
    points: pd.DataFrame,
    fits: Sequence[FitResult],
    tables: Tables,
    records: Sequence[RunRecord] = (),
    ks: Sequence[int] = (1, 10, 100),
    size_name: str = "",
    confidence: float = 0.95,
) -> list[Section]:
    """The sections of a report, in order: overview, then one per law that these results allow.

    tables: of ``stages.laws`` by name; empty when only the power laws in S were asked for. records: the runs behind
    the points, none for published values: then the last section says which laws are ruled out and why. ks: shown at
    length; every k is in the tables.
    """
    styles = family_styles(points["family"])
    found = [
        overview_section(fits, ks),
        scaling_section(fits, tables, ks, styles, size_name),
        over_k_section(fits, tables, styles),
        against_k_section(points, tables, styles, ks),
        differences_section(fits, tables, styles, ks),
    ]
    if records and "emergence" in tables:
        found += [
            emergence_section(records, tables, confidence),
            lognormal_section(records, tables, styles),
            decomposition_section(records, tables, styles, confidence),
            calibration_section(tables, styles),
        ]
    if tables:
        found.append(forecast_section(fits, tables, styles, ks))
    if not records:
        found.append(ruled_out_section(points))
    return [section for section in found if section is not None]


def ruled_out_section(points: pd.DataFrame) -> Section:
    """What values without runs cannot tell, and why."""
    rows = [{"law": name, "why not": why} for name, why in NEED_RUNS.items()]
    if not (points["metric"] == "ce").any():
        rows.append({"law": "cross-entropy against −log RBP", "why not": "the points hold no cross-entropy"})
    lead = (
        "These points are values without the runs behind them, so some laws cannot be had from them. Measure the "
        "models with rbp-lab measure to get those laws."
    )
    table = ReportTable("Laws ruled out", pd.DataFrame(rows))
    return Section("ruled-out", "What these points cannot tell", lead, tables=(table,))


def provenance(points: pd.DataFrame, records: Sequence[RunRecord] = (), source: str = "") -> pd.DataFrame:
    """One row per measurement: model, key, tokens, data set and its fingerprint, precision, protocol, date, versions.

    Points of a model on a data set without a record get a row with their source: a file, or where runs were read from.
    """
    used, known = set(points["key"]), {r.key for r in records}
    rows: list[dict[str, object]] = [
        {
            "model": r.model.name,
            "family": r.model.family,
            "S": f"{r.model.params.non_embedding:,}",
            "weights": r.model.revision or r.model.fingerprint[:12],
            "key": r.key,
            "data set": r.dataset.name,
            "data set fingerprint": r.dataset.fingerprint[:12],
            "documents": r.stats.num_documents,
            "tokens": r.stats.num_tokens,
            "precision": f"{r.scoring.dtype}, logits {r.scoring.logits}",
            "protocol": ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in r.scoring.protocol.items() if v is not None),
            "finished": str(r.provenance.get("finished", ""))[:16].replace("T", " ") or None,
            "rbp_lab": r.provenance.get("rbp_lab"),
            "torch": r.provenance.get("torch"),
            "transformers": r.provenance.get("transformers"),
            "device": r.provenance.get("device"),
        }
        for r in records
        if r.key in used
    ]
    others = points[~points["key"].isin(known)].groupby(["dataset", "family", "model"], sort=False)
    for (dataset, family, model), group in others:
        n = group["n"].dropna()
        row = {"model": model, "family": family, "S": f"{group['size'].iloc[0]:,.0f}", "data set": dataset}
        row |= {"key": group["key"].iloc[0] or None, "tokens": int(n.max()) if len(n) else None, "values": len(group)}
        rows.append(row | {"source": source or "given as a table"})
    return pd.DataFrame(rows).convert_dtypes().dropna(axis=1, how="all")
