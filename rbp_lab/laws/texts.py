"""What stands behind the values: how much text in how many documents, and how long the models were trained."""

from __future__ import annotations

import pandas as pd

from rbp_lab import metrics
from rbp_lab.laws.base import Inputs, LawResult
from rbp_lab.quantities import WINDOW_RBP
from rbp_lab.report.sections import ReportTable, Section, some
from rbp_lab.text import count, number, percent

name = "texts"
needs_runs = ""
CLAIMED_TOKENS = 500_000  # of a point, as [RBP] arXiv 2510.20387 states
ENOUGH_TRAINING = 20.0  # tokens per parameter, about where training compute is best spent (arXiv 2203.15556)


def compute(inputs: Inputs) -> LawResult:
    """Tokens and documents of each data set, training tokens per parameter of each family."""
    tables = {"texts": _texts(inputs), "training": _training(inputs.points)}
    return LawResult(inputs=inputs, tables=tables)


def _texts(inputs: Inputs) -> pd.DataFrame:
    """By data set: tokens of the model with least and most; of runs, documents by number and by weight."""
    per_token = inputs.points[inputs.points["metric"] != WINDOW_RBP.name]
    rows = []
    for dataset, mine in per_token.groupby("dataset"):
        tokens = mine["n"].dropna()
        scored = [r.documents.num_scored for r in inputs.records if r.dataset.name == dataset]
        rows.append({
            "dataset": dataset, "tokens_low": tokens.min() if len(tokens) else None,
            "tokens_high": tokens.max() if len(tokens) else None,
            "claim_met": bool(tokens.min() >= CLAIMED_TOKENS) if len(tokens) else None,
            "documents": min((int((n > 0).sum()) for n in scored), default=None),
            "effective_documents": min((metrics.effective_documents(n) for n in scored), default=None),
            "largest_share": max((float(n.max() / n.sum()) for n in scored if n.any()), default=None),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _training(points: pd.DataFrame) -> pd.DataFrame:
    """By family: training tokens per parameter of the model with least and most, missing where unknown."""
    models = points.drop_duplicates(["family", "model"])
    ratio = (models["training_tokens"].astype("Float64") / models["size"]).groupby(models["family"])
    table = pd.DataFrame({"tokens_per_parameter_low": ratio.min(), "tokens_per_parameter_high": ratio.max()})
    return table.reset_index()


def section(result: LawResult) -> Section:
    """How much text, and how long the models were trained."""
    texts = pd.DataFrame([
        {"data set": r.dataset, "tokens": _span(count(r.tokens_low), count(r.tokens_high)),
         f"≥ {count(CLAIMED_TOKENS)}?": r.claim_met, "documents": r.documents,
         "of equal weight": None if pd.isna(r.effective_documents) else number(r.effective_documents, 1),
         "largest document": None if pd.isna(r.largest_share) else percent(round(r.largest_share, 4))}
        for r in result.tables["texts"].itertuples()
    ])  # fmt: skip
    training = list(result.tables["training"].itertuples())
    notes = [_training_note(r) for r in training if not pd.isna(r.tokens_per_parameter_high)]
    if unknown := [r.family for r in training if pd.isna(r.tokens_per_parameter_high)]:
        notes.append(
            f"{some(unknown)}: training tokens are unknown, and with them whether small and large models are trained "
            "alike."
        )
    notes.append(
        "Contamination is not measured: a text that a model has seen in training raises its RBP_k, and neither values "
        "nor runs show it. A law over families trained before and after a text was published may bend for that reason."
    )
    lead = (
        f"The paper states at least {count(CLAIMED_TOKENS)} tokens a point. Intervals rest on documents, and on their "
        "number by weight, (Σn)²/Σn² of their tokens n, rather than on their count."
    )
    return Section(
        "texts", "What stands behind the values", lead,
        tables=(ReportTable("Texts", texts.dropna(axis=1, how="all")),), notes=tuple(notes),
    )  # fmt: skip


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} … {high}"


def _training_note(row: object) -> str:
    low, high = row.tokens_per_parameter_low, row.tokens_per_parameter_high
    span = _span(number(low, 1), number(high, 1))
    if low < ENOUGH_TRAINING:
        return (
            f"{row.family}: undertrained, {span} training tokens per parameter; below about {ENOUGH_TRAINING:g} a "
            "model's size is not what limits it, and the exponent in S is of the training as well (arXiv 2203.15556)."
        )
    return f"{row.family}: {span} training tokens per parameter."
