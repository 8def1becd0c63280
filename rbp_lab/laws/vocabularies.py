"""Models with different vocabularies on the same texts: bits per byte, which no tokenizer changes the meaning of."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from rbp_lab.laws.base import Inputs, LawResult
from rbp_lab.metrics import bits_per_byte_estimate
from rbp_lab.records import RunRecord
from rbp_lab.report.sections import ReportTable, Section
from rbp_lab.text import count, interval, percent, visible

name = "vocabularies"
needs_runs = "tokens and bytes of the texts are counted by runs"
# What a table that mixes vocabularies must say.
NOT_COMPARABLE = (
    "RBP_k and cross-entropy per token are of each model's own tokens: between vocabularies only bits per byte compare"
)


def compute(inputs: Inputs) -> LawResult:
    """Total bits, bytes and bits per byte, with intervals over documents, where models cut a data set differently."""
    rows = [
        _row(record, inputs.confidence)
        for _, mine in sorted(mixed(inputs.records).items())
        for record in sorted(mine, key=lambda r: r.model.name)
    ]
    return LawResult(inputs=inputs, tables={"bits_per_byte": pd.DataFrame(rows).convert_dtypes()} if rows else {})


def mixed(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """The runs of each data set on which models cut the same texts into different tokens."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(record.dataset.name, []).append(record)
    return {name: mine for name, mine in groups.items() if len({_tokens(record) for record in mine}) > 1}


def _tokens(record: RunRecord) -> tuple[int, int, int]:
    """What equals when two models cut a data set alike: the ids they know, the tokens and the bytes scored."""
    return record.model.tokenizer_size, record.stats.num_tokens, record.stats.num_bytes


def _row(record: RunRecord, confidence: float) -> dict[str, object]:
    estimate = bits_per_byte_estimate(record.documents, confidence)
    return {
        "dataset": record.dataset.name,
        "family": record.model.family,
        "model": record.model.name,
        "vocabulary": record.model.tokenizer_size,
        "tokens": record.stats.num_tokens,
        "bytes": record.stats.num_bytes or None,
        "bits": float(record.stats.nll_sum.sum() / math.log(2)),
        "bits_per_byte": None if estimate is None else estimate.value,
        "low": None if estimate is None else estimate.lower,
        "high": None if estimate is None else estimate.upper,
    }


def section(result: LawResult) -> Section | None:
    """Bits per byte beside tokens and bytes; None when every data set is cut into the same tokens by all models."""
    if "bits_per_byte" not in result.tables:
        return None
    rows = [
        {"data set": r.dataset, "model": visible(r.model), "vocabulary": count(r.vocabulary), "tokens": count(r.tokens),
         "bytes": count(r.bytes), "total bits": count(round(r.bits)),
         "bits per byte": interval(r.bits_per_byte, r.low, r.high)}
        for r in result.tables["bits_per_byte"].itertuples()
    ]  # fmt: skip
    lead = (
        f"Here models cut the same texts into different tokens. {NOT_COMPARABLE}, with intervals over documents at "
        f"{percent(result.inputs.confidence)}. Bytes are of the text that is scored; the first token of "
        "a document is not, and is not as long in every vocabulary."
    )
    table = ReportTable("Bits per byte", pd.DataFrame(rows))
    return Section("vocabularies", "Across vocabularies", lead, tables=(table,))
