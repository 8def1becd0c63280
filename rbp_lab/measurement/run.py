"""Measure one model on one corpus: find the finished record or make it."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rbp_lab import __version__, metrics
from rbp_lab.config.schemas import KSpec, Launch, Precision, Scoring
from rbp_lab.data.corpus import Corpus, TextSource
from rbp_lab.data.tokenize import tokenize
from rbp_lab.data.windows import BlockPlan, TokenizedCorpus, plan_blocks
from rbp_lab.errors import LabError
from rbp_lab.measurement.devices import Runtime, choose_device
from rbp_lab.measurement.observers import Callback, Measurement, Observers, RunPlan
from rbp_lab.measurement.pool import launch
from rbp_lab.models.source import ModelSource, OpenModel
from rbp_lab.records import DatasetInfo, ModelInfo, RunHeader, RunRecord, ScoringSpec, record_key
from rbp_lab.store.atomic import may_be_written
from rbp_lab.store.layout import Store
from rbp_lab.store.records import DamagedRecord, has_record, read_record, record_path, rename_record, write_record


@dataclass(frozen=True)
class Job:
    """One measurement, as the command line composes it: sources, choices and where to keep the record."""

    model: ModelSource
    dataset: TextSource
    k: KSpec
    precision: Precision
    scoring: Scoring
    launch: Launch
    store: str
    callbacks: tuple[Callback, ...] = ()
    force: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)  # as composed: what worker processes are given


@dataclass(frozen=True)
class Outcome:
    """A record and where it lies. measured: False when it was found finished."""

    record: RunRecord
    path: Path
    measured: bool

    def line(self) -> str:
        """The outcome as one line for a terminal."""
        stats, seconds = self.record.stats, self.record.provenance.get("seconds", 0)
        numbers = "  ".join(f"RBP_{k} {metrics.rbp(stats, k):.4f}" for k in (1, 10, 100))
        what = f"measured in {seconds:.0f} s" if self.measured else "found measured"
        return (
            f"{self.record.model.name} on {self.record.dataset.name}: {what}, {stats.num_tokens:,} tokens, "
            f"CE {metrics.cross_entropy(stats):.4f}  {numbers}, {self.path}"
        )


def run_job(job: Job) -> Outcome:
    """Run the measurement in this process or in ``launch.processes`` of them.

    A finished record of the same key is returned without measuring unless ``force``; it takes the names that are asked
    for. A damaged one is measured again. Raises LabError on anything the user can put right; the store then holds
    nothing new.
    """
    corpus = job.dataset.corpus()
    identity = identify(job, corpus)
    if has_record(job.store, identity.key) and not job.force:
        path = record_path(job.store, identity.key)
        try:
            found = read_record(path, identity.key)
            return Outcome(_named_as_asked(job.store, found, identity.header), path, measured=False)
        except DamagedRecord as error:
            print(f"note: {error}; doing so now", file=sys.stderr)
    if not may_be_written(job.store):
        raise LabError(f"nothing may be written to the store {job.store}; choose another one with store=DIR")
    if note := corpus.left_out_note():
        print(f"note: {note}", file=sys.stderr)
    if job.launch.processes == 1:
        path = measure_share(job, corpus, identity, Runtime(device=choose_device(job.launch.device)))
    else:
        choose_device(job.launch.device)
        launch(job.config, identity.key, job.launch.processes, Store(job.store))
        path = record_path(job.store, identity.key)
    return Outcome(read_record(path), path, measured=True)


def _named_as_asked(store: str, record: RunRecord, asked: RunHeader) -> RunRecord:
    """The found record under the names that are asked for; they are not part of the key."""
    if record.header.names == asked.names:
        return record
    before, now = ("{} of family {} on {}".format(*names) for names in (record.header.names, asked.names))
    what = f"run {asked.key} was measured as {before}; it is now called {now}, and filters find it under either name"
    try:
        record = rename_record(store, record, *asked.names)
    except LabError as error:
        record = replace(record, header=record.header.named(*asked.names))
        what = f"run {asked.key} stays called {before} in the store, and is called {now} here only: {error}"
    print(f"note: {what}", file=sys.stderr)
    return record


@dataclass(frozen=True)
class Identity:
    """What a record is of, known before any weight is loaded."""

    key: str
    model: ModelInfo
    dataset: DatasetInfo
    scoring: ScoringSpec
    opened: OpenModel

    @property
    def header(self) -> RunHeader:
        return RunHeader(self.key, self.model, self.dataset, self.scoring)


def identify(job: Job, corpus: Corpus) -> Identity:
    """Key and infos of the record that ``job`` asks for; LabError when model and protocol do not fit together."""
    opened, protocol = job.model.open(), job.dataset.protocol
    model = opened.info
    if model.max_positions is not None and protocol.max_tokens > model.max_positions:
        raise LabError(
            f"dataset.protocol.max_tokens={protocol.max_tokens}, but model {model.name} has only "
            f"{model.max_positions} positions; choose at most that many"
        )
    dataset = DatasetInfo(job.dataset.name, corpus.fingerprint, len(corpus), corpus.info)
    scoring = ScoringSpec(
        dtype=opened.dtype or job.precision.dtype,
        tf32=job.precision.tf32,
        logits=job.precision.logits,
        candidates=job.scoring.candidates,
        protocol=asdict(protocol),
        thresholds=tuple(job.k.thresholds),
        window_lengths=tuple(job.k.windows),
        attention=opened.attention,
    )
    return Identity(record_key(model, dataset, scoring), model, dataset, scoring, opened)


def measure_share(job: Job, corpus: Corpus, identity: Identity, runtime: Runtime) -> Path:
    """This process's part of the measurement; all parts are merged and process 0 writes the record.

    Every process calls it with the same job. Raises RuntimeError unless every document was counted exactly once.
    """
    import torch

    from rbp_lab.measurement.loop import NonFiniteScores
    from rbp_lab.measurement.loop import measure as measure_plan
    from rbp_lab.models.row_probe import probe_rows
    from rbp_lab.models.scorer import Scorer, describe_head
    from rbp_lab.models.weights import coarsest_eps, why_not_finite

    begin = time.monotonic()
    model_info, spec = identity.model, identity.scoring
    store = Store(job.store)
    if runtime.is_main:
        tokens = tokenize(corpus, identity.opened.tokenizer, job.dataset.protocol, store)
        runtime.wait()
    else:
        runtime.wait()  # process 0 tokenizes; the others read what it kept
        tokens = tokenize(corpus, identity.opened.tokenizer, job.dataset.protocol, store)
    plan = plan_blocks(tokens, job.dataset.protocol)
    _refuse_ids_beyond(plan, tokens, corpus, identity.opened)
    torch.set_float32_matmul_precision("high" if spec.tf32 else "highest")
    loaded = identity.opened.load(getattr(torch, spec.dtype), runtime.device)
    network, notes = loaded.network, (*identity.opened.notes, *loaded.notes)
    if runtime.is_main:
        for note in notes:
            print(f"note: model {model_info.name}: {note}", file=sys.stderr)
    sizes = (model_info.vocab_rows, model_info.tokenizer_size)
    num_candidates = min(sizes) if spec.candidates == "tokenizer" else None
    scorer = Scorer(
        network,
        runtime.device,
        num_candidates=num_candidates,
        logits=spec.logits,
        budget=None if job.scoring.logits_mb is None else int(job.scoring.logits_mb * 2**20),
        implementation=job.scoring.implementation,
    )
    rules = probe_rows(plan, scorer, coarsest_eps(network))
    plan = plan if rules.padded else plan.unpadded()
    batch_tokens = job.scoring.batch_tokens if rules.together else 1
    if runtime.is_main:
        for note in (describe_head(scorer.plan) if scorer.plan.kind != "head" else "", rules.sentence()):
            if note:
                print(f"note: model {model_info.name} {note}", file=sys.stderr)
    share = plan.shard(runtime.rank, runtime.world)
    run = RunPlan(
        model=model_info.name,
        dataset=identity.dataset.name,
        num_rows=len(share),
        num_positions=share.num_positions,
        vocab_rows=model_info.vocab_rows,
        thresholds=spec.thresholds,
        window_lengths=spec.window_lengths,
        rank=runtime.rank,
        world=runtime.world,
        header=identity.header,
    )
    path = record_path(job.store, identity.key)
    with Observers(job.callbacks) as observers:
        try:
            result = measure_plan(share, scorer, run, observers, batch_tokens)
        except NonFiniteScores as error:
            raise LabError(f"model {model_info.name}: {error}: {why_not_finite(network)}") from None
        identity.opened.verify()
        merged: Measurement = runtime.merge(result)
        _assert_counted_once(merged, plan)
        if runtime.is_main:
            seconds = time.monotonic() - begin
            ran = {
                "head": describe_head(scorer.plan),
                "implementation": scorer.implementation,
                "product": scorer.product,
                "attention": getattr(network.config, "_attn_implementation", None),
                "rows": asdict(rules),
                "notes": list(notes),
            }
            record = _record(job, corpus, identity, merged, runtime, ran, seconds)
            path = write_record(job.store, record)
            observers.notify("on_record", record, path)
    runtime.wait()
    return path


def _refuse_ids_beyond(plan: BlockPlan, tokens: TokenizedCorpus, corpus: Corpus, opened: OpenModel) -> None:
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


def _assert_counted_once(merged: Measurement, plan: BlockPlan) -> None:
    expected = np.unique(plan.document_id)
    if not np.array_equal(merged.documents.document_id, expected):
        raise RuntimeError(f"{len(merged.documents)} documents were counted, {len(expected)} expected")
    if merged.stats.num_tokens != merged.documents.num_scored.sum():
        raise RuntimeError("corpus totals and document table disagree on the number of tokens")


def _record(
    job: Job,
    corpus: Corpus,
    identity: Identity,
    merged: Measurement,
    runtime: Runtime,
    ran: Mapping[str, Any],
    seconds: float,
) -> RunRecord:
    """ran: what computed the numbers, as found when the model was loaded."""
    import torch
    import transformers

    packed = job.dataset.protocol.windows == "packed"
    top = int(merged.documents.document_id.max()) + 1
    names = tuple(f"window {i}" for i in range(top)) if packed else corpus.ids
    return RunRecord(
        header=identity.header,
        stats=merged.stats,
        documents=merged.documents,
        document_names=names,
        summary=metrics.summary(merged.stats, identity.scoring.thresholds),
        provenance={
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
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
