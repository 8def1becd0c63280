"""The runs of classifiers as a tidy table: one row per run, with what it was trained on beside what it scores."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from rbp_lab import metrics
from rbp_lab.quantities import neg_log
from rbp_lab.records import RunRecord

# Of runs that differ in the objective alone; the seed decides split, groups and first weights.
SETTING = ["task", "classifier", "size", "instances"]
SUPERVISED = "supervised"


def classifier_runs(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row per run of a classifier; no row for language models.

    task, classifier: names. size: S. instances: trained on. family: what was observed, loss and weights. kind: of the
    objective. observation, m (None: bags of whatever size), loss, noise, seed. groups: the same for runs that see the
    same groups. classes: K. rbp: RBP_k by k. ce: nats. value: −log RBP_1, nats. entropy: residual label entropy, nats.
    key: of the record.
    """
    rows = []
    for record in records:
        about = record.provenance.get("classifier")
        if about is None:
            continue
        settings = about["settings"]
        objective, observation = settings["objective"], settings["observation"]
        loss = objective["loss"] if isinstance(objective["loss"], str) else objective["loss"]["function"]
        noise = float(settings["task"].get("label_noise", 0.0))
        groups = json.dumps([observation, settings["training"]["reuse"], noise], sort_keys=True)
        rows.append({
            "task": record.dataset.source.get("set", record.dataset.name),
            "classifier": settings["classifier"]["kind"], "size": record.model.params.non_embedding,
            "instances": about["training_instances"], "family": record.model.family, "kind": objective["kind"],
            "observation": observation["kind"] if objective["kind"] != SUPERVISED else SUPERVISED,
            "m": observation["m"], "loss": loss, "noise": noise, "seed": settings["seed"], "groups": groups,
            "classes": record.stats.vocab_rows,
            "rbp": {k: metrics.rbp(record.stats, k) for k in record.scoring.thresholds if k < record.stats.vocab_rows},
            "ce": metrics.cross_entropy(record.stats), "value": neg_log(metrics.rbp(record.stats, 1)),
            "entropy": about["residual_label_entropy"], "key": record.key,
        })  # fmt: skip
    return pd.DataFrame(rows)


def is_reference(runs: pd.DataFrame) -> pd.Series:
    """Which runs others are compared with: supervised cross-entropy."""
    return (runs["kind"] == SUPERVISED) & (runs["loss"] == "cross_entropy")


def beside(runs: pd.DataFrame, others: pd.DataFrame, on: Sequence[str]) -> pd.DataFrame:
    """``runs`` with the columns ``rbp_1`` and ``other`` (RBP_1 of the run of ``others`` that agrees in ``on``)."""
    mine = runs.assign(rbp_1=[r[1] for r in runs["rbp"]])
    theirs = others.assign(other=[r[1] for r in others["rbp"]]).drop_duplicates(list(on))
    return mine.merge(theirs[[*on, "other"]], on=list(on), how="left")
