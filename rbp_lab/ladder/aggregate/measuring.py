"""A trained classifier measured as a language model is: ranks of the true class among K, by document."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from rbp_lab import __version__, metrics
from rbp_lab.config.schemas import KSpec
from rbp_lab.counting import DocumentScores, document_table, rank_stats
from rbp_lab.errors import LabError, note
from rbp_lab.ladder.aggregate.configuration import Configuration
from rbp_lab.ladder.aggregate.members import Member
from rbp_lab.ladder.aggregate.observations import Observation, log_likelihood
from rbp_lab.ladder.aggregate.tasks import Split
from rbp_lab.ladder.aggregate.training import CHUNK
from rbp_lab.records import DatasetInfo, ModelInfo, ParamCounts, RunHeader, RunRecord, ScoringSpec, record_key
from rbp_lab.scoring.reference import score_logits
from rbp_lab.scoring.types import NonFiniteLogits, TokenScores, check_finite
from rbp_lab.store.layout import Store
from rbp_lab.store.records import DamagedRecord, has_record, read_record, record_path, write_record
from rbp_lab.text import number


@dataclass(frozen=True, eq=False)
class Measured:
    """A record and where it lies. measured: False when it was found finished."""

    record: RunRecord
    path: Path
    measured: bool


def measure_member(
    member: Member, configuration: Configuration, split: Split, k: KSpec, store: Store, force: bool
) -> Measured:
    """The record of a member on the test instances of its split: found, or made.

    k: thresholds of the record's tables. Raises LabError when the member's classes are merged, or its logits are not
    finite.
    """
    if member.merged:
        about = member.record["alignment"]
        empty = f", and no class has output {', '.join(map(str, about['empty']))}" if about["empty"] else ""
        raise LabError(
            f"{member.name} does not tell all classes apart (margin {number(about['margin'], 2)}{empty}), so ranks of "
            "its classes mean nothing; train it with more restarts (training.restarts) or reuse (training.reuse)"
        )
    header = _header(member, split, k)
    if has_record(store.root, header.key) and not force:
        try:
            path = record_path(store.root, header.key)
            return Measured(read_record(path, header.key), path, measured=False)
        except DamagedRecord as error:
            note(f"{error}; doing so now")
    record = _record(header, member, score(member, configuration, split), split)
    return Measured(record, write_record(store.root, record), measured=True)


def score(member: Member, configuration: Configuration, split: Split) -> DocumentScores:
    """Scores of the true class of every test instance; documents in rising order, each with its instances."""
    network, inputs = member.network(configuration, split), torch.from_numpy(split.test_inputs)
    labels = torch.from_numpy(split.test_labels)
    with torch.no_grad():
        logits = [network(inputs[None, i : i + CHUNK])[0] for i in range(0, len(inputs), CHUNK)]
        if split.bags is not None:
            logits = [_of_bags(torch.cat(logits), torch.from_numpy(split.bags.test_groups), configuration.observed)]
        parts = [score_logits(part, labels[i * CHUNK : i * CHUNK + len(part)]) for i, part in enumerate(logits)]
    try:
        scores = check_finite(TokenScores.join(parts))
    except NonFiniteLogits as error:
        raise LabError(f"{member.name}: non-finite logits at test instance {error.index}; train it again") from None
    order = np.argsort(split.documents, kind="stable")
    documents, sizes = np.unique(split.documents, return_counts=True)
    arrays = [value.numpy()[order] for value in (scores.nll, scores.num_greater, scores.num_equal, scores.entropy)]
    return DocumentScores(documents, sizes, np.zeros_like(sizes), *arrays)


def _of_bags(logits: torch.Tensor, bags: torch.Tensor, observation: Observation) -> torch.Tensor:
    """log p(z | x) of both values of z for each bag, float64 [N, 2], from logits [n, K]; bags [N, m], n for none."""
    logp = logits.double().log_softmax(-1)
    none = torch.zeros_like(logp[:1])
    of_groups = observation.absent(torch.cat([logp, none])[bags], bags == len(logp))
    values = [torch.full((len(bags),), z) for z in (0, 1)]
    return torch.stack([log_likelihood(observation, of_groups, z) for z in values], 1)


def _header(member: Member, split: Split, k: KSpec) -> RunHeader:
    classes, about = len(split.classes), member.record
    params = ParamCounts(**about["parameters"])
    model = ModelInfo(
        name=member.name, family=member.family, path=str(member.directory), revision=None,
        fingerprint=member.fingerprint, architecture=about["settings"]["classifier"]["kind"], stored_dtype="float32",
        vocab_rows=classes, tokenizer_size=classes, max_positions=None, params=params,
        training_tokens=about["training_instances"],
    )  # fmt: skip
    dataset = DatasetInfo(
        split.name, split.fingerprint("test"), len(split.document_names),
        {**split.info, "classes": list(split.classes), "instances": len(split.test_labels)},
    )  # fmt: skip
    scoring = ScoringSpec(
        dtype="float32", tf32=False, logits="float32", candidates="rows", protocol={"windows": "instances"},
        thresholds=tuple(k.thresholds), window_lengths=tuple(k.windows),
    )  # fmt: skip
    return RunHeader(record_key(model, dataset, scoring), model, dataset, scoring)


def _record(header: RunHeader, member: Member, scores: DocumentScores, split: Split) -> RunRecord:
    stats = rank_stats(scores, header.model.vocab_rows, header.scoring.window_lengths)
    left_out = ("risk",)  # the curve stays with the model
    return RunRecord(
        header=header,
        stats=stats,
        documents=document_table(scores, header.scoring.thresholds),
        document_names=split.document_names,
        summary=metrics.summary(stats, header.scoring.thresholds),
        provenance={
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "processes": 1,
            "device": "cpu",
            "machine": platform.processor() or platform.machine(),
            "implementation": "torch",
            "classifier": {name: value for name, value in member.record.items() if name not in left_out},
            "rbp_lab": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    )
