"""A finished run as W&B has it: its record when the artifact is there, else what its summary still tells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rbp_lab.errors import LabError
from rbp_lab.records import DatasetInfo, ModelInfo, ParamCounts, RunHeader, RunRecord, ScoringSpec
from rbp_lab.stats import DocumentTable, RankStats
from rbp_lab.tracking.wandb.names import RECORD, STEP

# What only the record's tables give; a run without its artifact takes no part in these.
RULED_OUT = (
    "other k or N, the lognormal of ranks, fits to counts, emergence with its free exponent, the parts of "
    "cross-entropy by rank, calibration, the influence of documents"
)


@dataclass(frozen=True)
class PulledRun:
    """where: the run, for messages. config, summary: as W&B holds them. directory: the record's files, byte for byte
    those that were mirrored; None when they cannot be had, and then why."""

    where: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    directory: Path | None
    why: str = ""

    @property
    def key(self) -> str:
        return str(self.config["key"])

    @property
    def finished(self) -> bool:
        """Whether the summary is of a finished record; that of a broken-off run is not."""
        return RECORD in self.summary


def described(run: PulledRun) -> RunRecord:
    """What was measured, from the run's configuration alone: a record without statistics, for filters and checks.

    Raises LabError when the configuration is not one that rbp_lab wrote.
    """
    c = run.config
    try:
        model = ModelInfo(
            name=c["model"], family=c["family"], path="", revision=c["model_revision"],
            fingerprint=c["model_fingerprint"], architecture=c["architecture"], stored_dtype=None,
            vocab_rows=c["vocab_rows"], tokenizer_size=c["vocab_rows"], max_positions=None,
            params=ParamCounts(c["total_params"], c["total_params"] - c["non_embedding_params"], 0),
            training_tokens=c["training_tokens"],
        )  # fmt: skip
        scoring = ScoringSpec(
            dtype=c["precision"], tf32=c["tf32"], logits=c["logits"], candidates=c["candidates"],
            protocol=dict(c["protocol"]), thresholds=tuple(c["thresholds"]), window_lengths=tuple(c["windows"]),
            attention=c["attention"],
        )  # fmt: skip
        dataset = DatasetInfo(c["dataset"], c["dataset_fingerprint"], 0, {})
    except (KeyError, TypeError) as error:
        raise LabError(f"run {run.where} was not written by this rbp_lab: its configuration lacks {error}") from None
    return RunRecord(RunHeader(run.key, model, dataset, scoring), RankStats.zeros(1), DocumentTable.zeros(), ())


def summary_rows(run: PulledRun, ks: Sequence[int], size: str) -> list[dict[str, Any]]:
    """The points that a run's summary tells: cross-entropy, and −log RBP_k for the k of ``ks`` that it has."""
    about, summary = described(run), run.summary
    params = about.model.params
    base = {
        "model": about.model.name, "family": about.model.family, "dataset": about.dataset.name, "window": 1,
        "size": float(params.non_embedding if size == "non_embedding_params" else params.total),
        "n": int(summary[STEP]), "key": run.key,
    }  # fmt: skip

    def se(name: str) -> float:
        return float(summary.get(f"{name}/se_log", math.nan))

    rows = [base | {"metric": "ce", "k": pd.NA, "value": float(summary["ce"]), "se_log": se("ce")}]
    for k in ks:
        if f"rbp/{k}" in summary:
            p = float(summary[f"rbp/{k}"])
            value = abs(math.log(p)) if p > 0 else math.inf
            rows.append(base | {"metric": "neg_log_rbp", "k": k, "value": value, "se_log": se(f"rbp/{k}")})
    return rows
