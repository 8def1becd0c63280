"""What is known of a measurement before a weight is loaded: its tokens, how they are cut, and what is done already."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rbp_lab.data.corpus import Corpus
from rbp_lab.data.streams import pieces
from rbp_lab.data.tokenize import tokenize
from rbp_lab.data.windows import TokenizedCorpus, WindowPlan, plan_windows
from rbp_lab.errors import LabError
from rbp_lab.measurement.job import Choices, Subject
from rbp_lab.models.source import OpenModel
from rbp_lab.store.layout import Store
from rbp_lab.store.shards import Partial, Plan

# A shard is the work that a crash loses, so it takes seconds, not hours: about so many floating point operations, of a
# processor and of a GPU, within limits on its tokens below which writing it and filling its batches would be felt.
OPERATIONS = {"cpu": 2e13, "cuda": 2e15}
TOKENS = {"cpu": (2**12, 2**18), "cuda": (2**15, 2**22)}
# A small corpus is cut into so many shards, so that several processes have something to do, but none smaller than this.
SHARDS, SMALL = 16, 2**15


@dataclass(frozen=True)
class Prepared:
    """A pass that may begin, of one model or of two.

    identity: what it is of, as its kind of work has it. plan: every row to score. num_documents: of the corpus. names:
    of the documents, by document_id. partial: the shards, finished and not.
    """

    job: Choices
    identity: Subject
    plan: WindowPlan
    num_documents: int
    names: tuple[str, ...]
    partial: Partial

    @cached_property
    def shard_positions(self) -> np.ndarray:
        """Tokens, padding included, of each shard, int64."""
        return self.per_shard(self.plan.width)

    def per_shard(self, values: np.ndarray) -> np.ndarray:
        """The sum in each shard of whole numbers that the rows of the plan have, int64."""
        shard = np.searchsorted(self.partial.plan.bounds, self.plan.document_id, side="right") - 1
        return np.bincount(shard, weights=values, minlength=len(self.partial.plan)).astype(np.int64)

    def shard(self, index: int) -> WindowPlan:
        """The rows of one shard, with their tokens in memory."""
        return self.plan.documents(*self.partial.plan.bounds[index : index + 2])

    def positions(self, shards: set[int]) -> int:
        """Tokens, padding included, of some shards."""
        return int(self.shard_positions[sorted(shards)].sum())

    def shard_documents(self, index: int) -> np.ndarray:
        """The ids of the documents of one shard, rising, int64."""
        first, last = self.partial.plan.bounds[index : index + 2]
        ids = self.plan.document_id
        return np.unique(ids[(ids >= first) & (ids < last)])


def prepare(job: Choices, corpus: Corpus, identity: Subject, device: str) -> Prepared:
    """Tokenize the corpus and cut it, or find how it was cut before. device: "cpu" or "cuda".

    Raises LabError on anything the user can put right, and when two models do not see the same tokens.
    """
    plan, digest = plan_of(job, corpus, identity)
    parameters = sum(opened.info.params.total for opened in identity.models)
    size = job.launch.shard_tokens or shard_tokens(parameters, int(plan.length.sum()), device)
    names = corpus.ids
    if job.dataset.protocol.windows == "packed":
        names = tuple(f"window {i}" for i in range(int(plan.document_id.max()) + 1))
    partial = Partial.begin(Store(job.store), identity.key, Plan(digest, plan.cut(size), identity.about))
    return Prepared(job, identity, plan, len(corpus), names, partial)


def plan_of(job: Choices, corpus: Corpus, identity: Subject) -> tuple[WindowPlan, str]:
    """Every row of the corpus, and the digest of the plan; LabError when two models do not see the same tokens."""
    protocol, plans = job.dataset.protocol, []
    for opened in identity.models:
        tokens = tokenize(corpus, opened.tokenizer, protocol, Store(job.store))
        plans.append(plan_windows(tokens, protocol))
        _refuse_ids_beyond(tokens, protocol.windows == "packed", corpus, opened)
    plan, digest = plans[0], plans[0].digest()
    if any(other.digest() != digest for other in plans[1:]):
        names = " and ".join(opened.info.name for opened in identity.models)
        raise LabError(
            f"the tokenizers of {names} make other tokens of {job.dataset.name}, so only bits per byte of text can be "
            "compared: measure both models, then rbp-lab compare A B"
        )
    return plan, digest


def shard_tokens(parameters: int, tokens: int, device: str) -> int:
    """Tokens of a shard of a model of so many parameters, where the corpus has ``tokens`` of them.

    It does not depend on the number of processes, so that any number can go on with what another has begun.
    """
    kind = "cpu" if device == "cpu" else "cuda"
    least, most = TOKENS[kind]
    affordable = min(max(OPERATIONS[kind] / (2 * max(1, parameters)), least), most)
    return int(min(affordable, max(tokens // SHARDS, SMALL)))


def _refuse_ids_beyond(tokens: TokenizedCorpus, packed: bool, corpus: Corpus, opened: OpenModel) -> None:
    """Raise LabError when a text yields an id for which the head has no row, naming document and token."""
    rows = opened.info.vocab_rows
    beyond = next((first + int(np.argmax(p >= rows)) for first, p in pieces(tokens.tokens) if (p >= rows).any()), None)
    if beyond is not None:
        document = int(np.searchsorted(tokens.offsets, beyond, side="right")) - 1
        id = int(tokens.tokens[beyond : beyond + 1][0])
        where = f"token {beyond - tokens.offsets[document]} of document {corpus.ids[document]!r}"
    elif packed and tokens.eos_id >= rows:
        id, where = tokens.eos_id, "the token between packed documents"
    else:
        return
    token = opened.tokenizer.convert_ids_to_tokens(id)
    raise LabError(
        f"{where} has id {id} ({token!r}), but the head of model {opened.info.name} has only {rows} rows; tokenizer "
        "and weights do not belong together, or tokens were added without resizing the model"
    )
