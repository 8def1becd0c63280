"""Token blocks: how documents become rows of a forward pass, and which positions are scored.

Pure index arithmetic on numpy arrays; the tokenizer itself lives in ``rbp_lab.corpora``.
Legend: B blocks in a batch, T tokens in a block, S = T−1 positions with a next token, M documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rbp_lab.errors import LabError

WINDOWS = ("truncate", "rolling", "packed")
BOS = ("tokenizer", "always", "never")


@dataclass(frozen=True)
class Protocol:
    """How a document is cut and which of its tokens count.

    windows: "truncate" scores the first max_tokens tokens of each document, one document a row (the protocol of
      [RBP] section 4); "rolling" covers a long document by windows of max_tokens that advance by ``stride`` scored
      tokens, so every token but the first is scored exactly once with at least max_tokens − stride − 1 tokens of
      context once the first window is full; "packed" joins all documents with the end-of-text token and cuts the
      stream into windows that share one token, every token but the first scored exactly once. In "packed" the window
      is the unit of resampling and of N-in-a-row, since it may hold pieces of several documents.
    max_tokens: T, tokens of a row. stride: scored tokens a rolling window adds; None means max_tokens // 2.
    bos: "tokenizer" keeps what the tokenizer adds by itself, "always" makes sure that the beginning-of-text token
      leads each document, "never" adds no special token.
    mask_special: a position counts only if neither its input nor its label is a special token ([RBP] section 4).
    """

    windows: str = "truncate"
    max_tokens: int = 512
    stride: int | None = None
    bos: str = "tokenizer"
    mask_special: bool = True

    def __post_init__(self) -> None:
        if self.windows not in WINDOWS:
            raise LabError(f"protocol.windows must be one of {', '.join(WINDOWS)}; got {self.windows!r}")
        if self.bos not in BOS:
            raise LabError(f"protocol.bos must be one of {', '.join(BOS)}; got {self.bos!r}")
        if self.max_tokens < 2:
            raise LabError(f"protocol.max_tokens must be at least 2 (one input and one label); got {self.max_tokens}")
        if self.stride is not None and not 1 <= self.stride <= self.max_tokens - 1:
            raise LabError(f"protocol.stride must lie in 1…max_tokens−1 = {self.max_tokens - 1}; got {self.stride}")


@dataclass(frozen=True, eq=False)
class TokenizedCorpus:
    """A corpus as token ids.

    tokens: int32 [n], all documents one after another. offsets: int64 [M+1], document m is
    ``tokens[offsets[m]:offsets[m+1]]``. token_bytes: int32 [n], UTF-8 bytes of the text each token stands for (their
    sum over a document is the document's size), or None when the tokenizer does not tell. special_ids: int64, the
    tokenizer's ``all_special_ids``, sorted. eos_id: separator of packed documents, None when the tokenizer has none.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    token_bytes: np.ndarray | None
    special_ids: np.ndarray
    eos_id: int | None

    @property
    def num_documents(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, eq=False)
class TokenBlocks:
    """One batch, right-padded with token 0.

    tokens: int64 [B,T]. scored: bool [B,S], whether the prediction of ``tokens[:, j+1]`` at position j counts.
    document_id: int64 [B], the document (packed: the window) each row belongs to. num_bytes: int64 [B], bytes of
    the scored labels, 0 when unknown.
    """

    tokens: np.ndarray
    scored: np.ndarray
    document_id: np.ndarray
    num_bytes: np.ndarray

    @property
    def targets(self) -> np.ndarray:
        """Labels of the scored positions in row-major order, int64 [scored.sum()]."""
        return self.tokens[:, 1:][self.scored]


@dataclass(frozen=True, eq=False)
class BlockPlan:
    """Where each row of a corpus begins and ends, for any batching and any sharding.

    tokens, token_bytes, special_ids: as in TokenizedCorpus (packed: with separators inserted). Per row: document_id,
    start and length (a slice of ``tokens``), skip (leading positions that are context only). Rows of one document are
    adjacent and in reading order; documents are sorted by falling length, so that batches hold rows of like length.
    num_documents: of the corpus; documents with fewer than two tokens have no row.
    """

    tokens: np.ndarray
    token_bytes: np.ndarray | None
    special_ids: np.ndarray
    mask_special: bool
    document_id: np.ndarray
    start: np.ndarray
    length: np.ndarray
    skip: np.ndarray
    num_documents: int

    def __len__(self) -> int:
        return len(self.start)

    def shard(self, rank: int, world: int) -> BlockPlan:
        """The share of process ``rank`` of ``world``: every world-th document, all rows of a document together."""
        _, first = np.unique(self.document_id, return_index=True)
        order = np.empty(len(self), np.int64)
        starts = np.sort(first)
        order[:] = np.searchsorted(starts, np.arange(len(self)), side="right") - 1
        return self.take(np.flatnonzero(order % world == rank))

    def take(self, rows: np.ndarray) -> BlockPlan:
        """The plan restricted to ``rows`` (int64 indices)."""
        return BlockPlan(
            self.tokens, self.token_bytes, self.special_ids, self.mask_special,
            self.document_id[rows], self.start[rows], self.length[rows], self.skip[rows], self.num_documents,
        )  # fmt: skip

    def batches(self, batch_tokens: int) -> Iterator[TokenBlocks]:
        """Rows in order, as many to a batch as fit ``batch_tokens`` padded tokens (at least one)."""
        row = 0
        while row < len(self):
            width, end = int(self.length[row]), row + 1
            while end < len(self):
                wider = max(width, int(self.length[end]))
                if wider * (end + 1 - row) > batch_tokens:
                    break
                width, end = wider, end + 1
            yield self.blocks(np.arange(row, end))
            row = end

    def blocks(self, rows: np.ndarray) -> TokenBlocks:
        """The batch made of ``rows``."""
        lengths, width = self.length[rows], int(self.length[rows].max())
        column = np.arange(width)
        inside = column < lengths[:, None]
        index = np.where(inside, self.start[rows, None] + column, 0)
        tokens = np.where(inside, self.tokens[index], 0).astype(np.int64)
        # Padding is known from lengths, never from token ids: an end-of-text token inside a document stays a token.
        scored = inside[:, 1:] & (column[:-1] >= self.skip[rows, None])
        if self.mask_special:
            special = np.isin(tokens, self.special_ids)
            scored &= ~special[:, :-1] & ~special[:, 1:]
        if self.token_bytes is None:
            num_bytes = np.zeros(len(rows), np.int64)
        else:
            num_bytes = np.where(scored, self.token_bytes[index[:, 1:]], 0).sum(1, dtype=np.int64)
        return TokenBlocks(tokens, scored, self.document_id[rows], num_bytes)

    @property
    def num_positions(self) -> int:
        """Rows' tokens in all: the work of a forward pass over the plan, without padding."""
        return int(self.length.sum())


def plan_blocks(corpus: TokenizedCorpus, protocol: Protocol) -> BlockPlan:
    """Cut a tokenized corpus into rows as ``protocol`` says; every scored token belongs to exactly one row.

    Raises LabError when no document has two tokens, or when packing is asked of a tokenizer without end-of-text token.
    """
    tokens, token_bytes, offsets = corpus.tokens, corpus.token_bytes, corpus.offsets
    width = protocol.max_tokens
    if protocol.windows == "packed":
        if corpus.eos_id is None:
            raise LabError("protocol.windows=packed needs a tokenizer with an end-of-text token; use rolling instead")
        tokens, token_bytes = _joined(corpus)
        offsets = np.array([0, len(tokens)], np.int64)
    stride = width - 1 if protocol.windows == "packed" else (protocol.stride or width // 2)
    rows: list[tuple[int, int, int, int]] = []
    for document, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        if end - begin < 2:
            continue
        rows.append((document, begin, min(width, end - begin), 0))
        if protocol.windows == "truncate":
            continue
        done = begin + min(width, end - begin)  # the first token not yet scored
        while done < end:
            stop = min(done + stride, end)
            first = max(begin, stop - width)
            rows.append((document, first, stop - first, done - first - 1))
            done = stop
    if not rows:
        raise LabError(
            f"none of the {corpus.num_documents} documents has two tokens to predict from; "
            "check the dataset's field or template and its filters"
        )
    table = np.array(rows, np.int64)
    if protocol.windows == "packed":
        table[:, 0] = np.arange(len(table))
    else:
        size = np.diff(corpus.offsets)[table[:, 0]]
        longest = np.minimum(size, width) if protocol.windows == "truncate" else size
        table = table[np.lexsort((np.arange(len(table)), table[:, 0], -longest))]
    return BlockPlan(
        tokens, token_bytes, corpus.special_ids, protocol.mask_special,
        table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy(), table[:, 3].copy(), corpus.num_documents,
    )  # fmt: skip


def _joined(corpus: TokenizedCorpus) -> tuple[np.ndarray, np.ndarray | None]:
    """All documents as one stream, each followed by the end-of-text token."""
    ends = corpus.offsets[1:]
    tokens = np.insert(corpus.tokens, ends, corpus.eos_id)
    return tokens, None if corpus.token_bytes is None else np.insert(corpus.token_bytes, ends, 0)
