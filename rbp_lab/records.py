"""The values that describe a measurement, and the key that names it.

Everything here is frozen, plain and JSON-ready. A record's key is a hash of what determines its numbers and of
nothing else: not the batch size, the number of processes, the machine or the date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rbp_lab.stats import DocumentTable, RankStats

# Raised whenever the meaning of a stored number changes, so that old records are measured anew rather than misread.
RECORD_VERSION = 1
SIZES = ("non_embedding_params", "total_params")  # what S may be, the paper's choice first


@dataclass(frozen=True)
class ParamCounts:
    """Parameter counts of a causal LM; a tensor shared by several modules counts once.

    total: every parameter of the text model; towers for pictures and sound do not count.
    embedding: token and learned position embeddings.
    head: the output projection, 0 when it is tied to the token embedding (already in ``embedding``).
    non_embedding: total − embedding − head, the model size S of [RBP] (arXiv 2510.20387, section 4).
    """

    total: int
    embedding: int
    head: int

    @property
    def non_embedding(self) -> int:
        return self.total - self.embedding - self.head

    def size(self, which: str) -> float:
        """S: the count that one of SIZES names."""
        return float(self.non_embedding if which == "non_embedding_params" else self.total)


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model from its files, without its weights.

    name, family: as in the config. path, revision: where it came from (hub id or directory; commit for the hub).
    fingerprint: identifies the weights and the tokenizer (hub commit, or a hash over the files of a directory).
    architecture: the transformers class. stored_dtype: the checkpoint's own dtype, None when it states none.
    vocab_rows: V, rows of the head. tokenizer_size: ids the tokenizer can produce; rows beyond are padding.
    max_positions: longest input the architecture states, None when it states none.
    training_tokens: tokens seen in training when known (ladder models, checkpoints). step: of the training, when known.
    warmup_tokens: tokens after which the learning rate of that training had reached its peak, when known.
    quantisation: the format that the weights were rounded to ("Q4_1", "int8"), None when they are what was trained.
    """

    name: str
    family: str
    path: str
    revision: str | None
    fingerprint: str
    architecture: str
    stored_dtype: str | None
    vocab_rows: int
    tokenizer_size: int
    max_positions: int | None
    params: ParamCounts
    training_tokens: int | None = None
    quantisation: str | None = None
    step: int | None = None
    warmup_tokens: int | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """The corpus that was scored. fingerprint: hash over ids and texts of the selected documents, in order."""

    name: str
    fingerprint: str
    num_documents: int
    source: dict[str, Any]


@dataclass(frozen=True)
class ScoringSpec:
    """Every choice that changes the numbers beyond model and corpus.

    dtype: of weights and activations of the body. tf32: whether CUDA products in fp32 may use TF32.
    logits: "float32" (head product in fp32) or "model" (rounded to the body's dtype, as the model itself would).
    candidates: "rows" (every row of the head competes, as in the paper) or "tokenizer" (padded rows masked).
    protocol: the fields of ``data.windows.Windowing``. thresholds, window_lengths: of the per-document and window
    tables.
    attention: attention implementation asked of transformers, None for its default.
    """

    dtype: str
    tf32: bool
    logits: str
    candidates: str
    protocol: dict[str, Any]
    thresholds: tuple[int, ...]
    window_lengths: tuple[int, ...]
    attention: str | None = None


@dataclass(frozen=True)
class RunHeader:
    """What a measurement is of, known before its first token is scored.

    key: ``record_key`` of the next three. other_models, other_datasets: the names, (model, family) and data set, under
    which the same key was asked for before; names are not part of the key.
    """

    key: str
    model: ModelInfo
    dataset: DatasetInfo
    scoring: ScoringSpec
    other_models: tuple[tuple[str, str], ...] = ()
    other_datasets: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, str, str]:
        """Model, family and data set, as they are called now."""
        return self.model.name, self.model.family, self.dataset.name

    @property
    def order(self) -> tuple[str, str, int, str]:
        """Sorts runs by data set, family and model size, and by key for good."""
        return self.dataset.name, self.model.family, self.model.params.non_embedding, self.key

    def named(self, model: str, family: str, dataset: str) -> RunHeader:
        """The same run under these names; those it has now join the others."""
        models = [(self.model.name, self.model.family), *self.other_models]
        datasets = [self.dataset.name, *self.other_datasets]
        return replace(
            self,
            model=replace(self.model, name=model, family=family),
            dataset=replace(self.dataset, name=dataset),
            other_models=tuple(m for m in dict.fromkeys(models) if m != (model, family)),
            other_datasets=tuple(d for d in dict.fromkeys(datasets) if d != dataset),
        )

    def told(self, model: ModelInfo) -> RunHeader:
        """The same run with what ``model`` knows of the training, which is not part of the key either."""
        names = ("training_tokens", "step", "warmup_tokens")
        known = {name: value for name in names if (value := getattr(model, name)) is not None}
        return replace(self, model=replace(self.model, **known))

    def named_to_pass(self, model: Callable[[str, str], bool], dataset: Callable[[str], bool]) -> RunHeader | None:
        """The run under the first of its names, the present ones first, that pass; None when none do.

        model: whether a name and family pass. dataset: whether a data set's name does.
        """
        models = [(self.model.name, self.model.family), *self.other_models]
        datasets = [self.dataset.name, *self.other_datasets]
        m = next((m for m in models if model(*m)), None)
        d = next((d for d in datasets if dataset(d)), None)
        return None if m is None or d is None else self.named(*m, d)


@dataclass(frozen=True)
class RunRecord:
    """One finished measurement: what was measured, the sufficient statistics, and where they came from.

    stats: corpus totals. documents: one row per document. document_names: names of the documents by ``document_id``.
    summary: headline numbers for a reader (recomputable from ``stats``). provenance: versions, machine, date,
    duration; never part of the key.
    """

    header: RunHeader
    stats: RankStats
    documents: DocumentTable
    document_names: tuple[str, ...]
    summary: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.header.key

    @property
    def model(self) -> ModelInfo:
        return self.header.model

    @property
    def dataset(self) -> DatasetInfo:
        return self.header.dataset

    @property
    def scoring(self) -> ScoringSpec:
        return self.header.scoring


def record_key(model: ModelInfo, dataset: DatasetInfo, scoring: ScoringSpec) -> str:
    """Hexadecimal hash (16 digits) of what determines a measurement's numbers.

    Two requests with the same key would give the same record; display names, batch size and world size do not enter.
    """
    what = {
        "version": RECORD_VERSION,
        "model": {"fingerprint": model.fingerprint, "vocab_rows": model.vocab_rows, "tokenizer": model.tokenizer_size}
        | ({} if model.quantisation is None else {"quantisation": model.quantisation}),
        "dataset": {"fingerprint": dataset.fingerprint},
        "scoring": asdict(scoring),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
