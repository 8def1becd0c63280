"""One process's part of a measurement, from texts to the record that process 0 writes."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from rbp_lab import __version__, metrics
from rbp_lab.data.corpus import Corpus
from rbp_lab.data.tokenize import tokenize
from rbp_lab.data.windows import TokenizedCorpus, WindowPlan, plan_windows
from rbp_lab.errors import LabError, note
from rbp_lab.measurement.devices import Runtime
from rbp_lab.measurement.job import Identity, Job
from rbp_lab.measurement.loop import NonFiniteScores
from rbp_lab.measurement.loop import measure as measure_plan
from rbp_lab.measurement.observers import Measurement, Observers, RunInfo
from rbp_lab.models.row_probe import probe_rows, row_lengths
from rbp_lab.models.scorer import Scorer, describe_head
from rbp_lab.models.source import LoadedModel, OpenModel
from rbp_lab.models.weights import coarsest_eps, why_not_finite
from rbp_lab.records import RunHeader, RunRecord
from rbp_lab.store.layout import Store
from rbp_lab.store.records import record_path, write_record


def measure_shard(job: Job, corpus: Corpus, identity: Identity, runtime: Runtime) -> Path:
    """This process's part of the measurement; all parts are merged and process 0 writes the record.

    Every process calls it with the same job. Raises RuntimeError unless every document was counted exactly once.
    """
    begin = time.monotonic()
    header = identity.header
    tokens = _tokens(job, corpus, identity, runtime)
    plan = plan_windows(tokens, job.dataset.protocol)
    _refuse_ids_beyond(plan, tokens, corpus, identity.opened)
    loaded, scorer = _load(job, identity, runtime, sorted({*row_lengths(plan), int(plan.width.max())}))
    rules = probe_rows(plan, scorer, coarsest_eps(loaded.network), scorer.reset)
    plan = plan if rules.padded else plan.unpadded()
    notes = [*identity.opened.notes, *loaded.notes]
    notes += [describe_head(scorer.plan)] if scorer.plan.kind != "head" else []
    notes += [rules.sentence()] if rules.sentence() else []
    if runtime.is_main:
        for line in notes:
            note(f"model {header.model.name}: {line}")
    shard = plan.shard(runtime.rank, runtime.world)
    run = RunInfo(
        model=header.model.name,
        dataset=header.dataset.name,
        num_rows=len(shard),
        num_positions=shard.num_positions,
        vocab_rows=header.model.vocab_rows,
        thresholds=header.scoring.thresholds,
        window_lengths=header.scoring.window_lengths,
        rank=runtime.rank,
        world=runtime.world,
        header=header,
    )
    path = record_path(job.store, identity.key)
    with Observers(job.callbacks) as observers:
        try:
            result = measure_plan(shard, scorer, run, observers, job.scoring.batch_tokens if rules.together else 1)
        except NonFiniteScores as error:
            raise LabError(f"model {header.model.name}: {error}: {why_not_finite(loaded.network)}") from None
        identity.opened.verify()
        merged: Measurement = runtime.merge(result)
        _assert_counted_once(merged, plan)
        if runtime.is_main:
            ran = {
                "head": describe_head(scorer.plan),
                "implementation": scorer.implementation,
                "product": scorer.product,
                "attention": getattr(loaded.network.config, "_attn_implementation", None),
                "rows": asdict(rules),
                "notes": notes,
                "seconds": round(time.monotonic() - begin, 3),
            }
            record = _record(job, corpus, header, merged, runtime, ran)
            path = write_record(job.store, record)
            observers.notify("on_record", record, path)
    runtime.wait()
    return path


def _tokens(job: Job, corpus: Corpus, identity: Identity, runtime: Runtime) -> TokenizedCorpus:
    """The corpus as token ids. Process 0 tokenizes; the others wait and read what it kept."""
    if not runtime.is_main:
        runtime.wait()
    tokens = tokenize(corpus, identity.opened.tokenizer, job.dataset.protocol, Store(job.store))
    if runtime.is_main:
        runtime.wait()
    return tokens


def _load(job: Job, identity: Identity, runtime: Runtime, lengths: list[int]) -> tuple[LoadedModel, Scorer]:
    """The model on this process's device, and what scores with it rows of these lengths."""
    model, spec = identity.header.model, identity.header.scoring
    torch.set_float32_matmul_precision("high" if spec.tf32 else "highest")
    loaded = identity.opened.load(getattr(torch, spec.dtype), runtime.device)
    scorer = Scorer(
        loaded.network,
        runtime.device,
        num_candidates=min(model.vocab_rows, model.tokenizer_size) if spec.candidates == "tokenizer" else None,
        logits=spec.logits,
        budget=None if job.scoring.logits_mb is None else int(job.scoring.logits_mb * 2**20),
        implementation=job.scoring.implementation,
        lengths=lengths,
    )
    return loaded, scorer


def _refuse_ids_beyond(plan: WindowPlan, tokens: TokenizedCorpus, corpus: Corpus, opened: OpenModel) -> None:
    """Raise LabError when a text yields an id for which the head has no row, naming document and token."""
    rows = opened.info.vocab_rows
    if len(plan.tokens) == 0 or plan.tokens.max() < rows:
        return
    beyond = np.flatnonzero(tokens.tokens >= rows)
    if len(beyond):
        document = int(np.searchsorted(tokens.offsets, beyond[0], side="right")) - 1
        id = int(tokens.tokens[beyond[0]])
        where = f"token {beyond[0] - tokens.offsets[document]} of document {corpus.ids[document]!r}"
    else:
        id, where = int(plan.tokens.max()), "the token between packed documents"
    token = opened.tokenizer.convert_ids_to_tokens(id)
    raise LabError(
        f"{where} has id {id} ({token!r}), but the head of model {opened.info.name} has only {rows} rows; tokenizer "
        "and weights do not belong together, or tokens were added without resizing the model"
    )


def _assert_counted_once(merged: Measurement, plan: WindowPlan) -> None:
    expected = np.unique(plan.document_id)
    if not np.array_equal(merged.documents.document_id, expected):
        raise RuntimeError(f"{len(merged.documents)} documents were counted, {len(expected)} expected")
    if merged.stats.num_tokens != merged.documents.num_scored.sum():
        raise RuntimeError("corpus totals and document table disagree on the number of tokens")


def _record(
    job: Job, corpus: Corpus, header: RunHeader, merged: Measurement, runtime: Runtime, ran: Mapping[str, Any]
) -> RunRecord:
    """ran: what computed the numbers, and how long it took."""
    packed = job.dataset.protocol.windows == "packed"
    top = int(merged.documents.document_id.max()) + 1
    names = tuple(f"window {i}" for i in range(top)) if packed else corpus.ids
    return RunRecord(
        header=header,
        stats=merged.stats,
        documents=merged.documents,
        document_names=names,
        summary=metrics.summary(merged.stats, header.scoring.thresholds),
        provenance={
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "processes": runtime.world,
            "device": runtime.device,
            "machine": platform.processor() or platform.machine(),
            "batch_tokens": job.scoring.batch_tokens,
            **ran,
            "documents_without_tokens": 0 if packed else len(corpus) - len(merged.documents),
            "rbp_lab": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    )
