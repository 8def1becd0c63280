"""Windows of tokens: how documents become rows of a forward pass, and which positions are scored.

Pure index arithmetic on numpy arrays; the tokenizer itself lives in ``rbp_lab.data``.
Legend: B rows in a batch, T tokens in a row, S = T−1 positions with a next token, M documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from rbp_lab.data.streams import Separated, Stream, pieces
from rbp_lab.errors import LabError

# Rows are padded to a multiple of this many tokens (at most max_tokens), and a batch holds rows of one width only. The
# shape a row is computed in then depends on the row alone; attention kernels round differently at different widths,
# so this is what makes scores independent of batch size and number of processes.
WIDTH_STEP = 32

WINDOWS = ("truncate", "rolling", "packed")
BOS = ("tokenizer", "always", "never")


@dataclass(frozen=True)
class Windowing:
    """How a document is cut and which of its tokens count.

    windows: "truncate" scores the first max_tokens tokens of each document, one document a row (the protocol of
      [RBP] section 4); "rolling" covers a long document by windows of max_tokens that advance by ``stride`` scored
      tokens, so every token but the first is scored exactly once with at least max_tokens − stride − 1 tokens of
      context once the first window is full; "packed" joins all documents with the end-of-text token and cuts the
      stream into windows that share one token (the last reaches back to be full), every token but the first scored
      exactly once. In "packed" the window is the unit of resampling and of N-in-a-row, and stands for a document
      everywhere, since it may hold pieces of several.
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

    tokens: int32 [n], all documents one after another, in memory or in a file. offsets: int64 [M+1], document m is
    ``tokens[offsets[m]:offsets[m+1]]``. token_bytes: int32 [n], UTF-8 bytes of the text each token stands for (their
    sum over a document is the document's size), or None when the tokenizer gives no offsets. special_ids: int64, the
    tokenizer's ``all_special_ids``, sorted. eos_id: separator of packed documents, None when the tokenizer has none.
    """

    tokens: Stream
    offsets: np.ndarray
    token_bytes: Stream | None
    special_ids: np.ndarray
    eos_id: int | None

    @property
    def num_documents(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, eq=False)
class TokenBatch:
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
class WindowPlan:
    """Where each row of a corpus begins and ends, for any batching and any sharding.

    tokens, token_bytes, special_ids: as in TokenizedCorpus (packed: with separators inserted). Per row: document_id,
    start and length (a slice of ``tokens``), skip (leading positions that are context only), width (padded length, a
    function of the row alone). Rows of one document are adjacent and in reading order; rows are sorted by falling
    width. num_documents: of the corpus; documents with fewer than two tokens have no row.
    """

    tokens: Stream
    token_bytes: Stream | None
    special_ids: np.ndarray
    mask_special: bool
    document_id: np.ndarray
    start: np.ndarray
    length: np.ndarray
    skip: np.ndarray
    width: np.ndarray
    num_documents: int

    def __len__(self) -> int:
        return len(self.start)

    def cut(self, tokens: int) -> tuple[int, ...]:
        """Document ids that cut the plan into shards of about ``tokens`` tokens each, a longer document by itself.

        Shard i holds the documents from the i-th of these ids to before the next one. The cut depends on the lengths of
        the rows alone, not on how they are padded.
        """
        order = np.argsort(self.document_id, kind="stable")
        documents, first = np.unique(self.document_id[order], return_index=True)
        sizes = np.add.reduceat(self.length[order], first)
        bounds, filled = [int(documents[0])], 0
        for document, size in zip(documents.tolist(), sizes.tolist(), strict=True):
            if filled and filled + size > tokens:
                bounds.append(document)
                filled = 0
            filled += size
        return (*bounds, int(documents[-1]) + 1)

    def documents(self, first: int, last: int) -> WindowPlan:
        """The rows of the documents from ``first`` to ``last`` − 1, and of the tokens those of these documents only,
        in memory."""
        plan = self.take(np.flatnonzero((self.document_id >= first) & (self.document_id < last)))
        begin, end = plan._span()
        token_bytes = None if self.token_bytes is None else self.token_bytes[begin:end]
        return replace(plan, tokens=self.tokens[begin:end], token_bytes=token_bytes, start=plan.start - begin)

    def _span(self, rows: np.ndarray | slice = np.s_[:]) -> tuple[int, int]:
        """The slice of ``tokens`` in which the rows lie."""
        start, length = self.start[rows], self.length[rows]
        return int(start.min(initial=len(self.tokens))), int((start + length).max(initial=0))

    def digest(self) -> str:
        """SHA-256 (64 hexadecimal digits) over every token id and where its row begins: what will be scored."""
        digest = hashlib.sha256(f"{self.mask_special} {self.special_ids.tolist()}\n".encode())
        order = np.lexsort((self.start, self.document_id))
        for array in (self.document_id[order], self.start[order], self.length[order], self.skip[order]):
            digest.update(np.ascontiguousarray(array).data)
        for _, tokens in pieces(self.tokens):
            digest.update(np.ascontiguousarray(tokens).data)
        return digest.hexdigest()

    def take(self, rows: np.ndarray) -> WindowPlan:
        """The plan restricted to ``rows`` (int64 indices)."""
        per_row = {name: getattr(self, name)[rows] for name in ("document_id", "start", "length", "skip", "width")}
        return replace(self, **per_row)

    def batches(self, batch_tokens: int) -> Iterator[TokenBatch]:
        """Rows in order, as many of one width to a batch as fit ``batch_tokens`` padded tokens (at least one)."""
        row = 0
        while row < len(self):
            width = self.width[row]
            same = int(np.searchsorted(-self.width, -width, side="right"))
            end = min(same, row + max(1, batch_tokens // int(width)))
            yield self.batch(np.arange(row, end))
            row = end

    def batch(self, rows: np.ndarray) -> TokenBatch:
        """The batch made of ``rows``."""
        begin, end = self._span(rows)
        column = np.arange(int(self.width[rows].max()))
        inside = column < self.length[rows, None]
        index = np.where(inside, self.start[rows, None] - begin + column, 0)
        tokens = np.where(inside, self.tokens[begin:end][index], 0).astype(np.int64)
        # Padding is known from lengths, never from token ids: an end-of-text token inside a document stays a token.
        scored = inside[:, 1:] & (column[:-1] >= self.skip[rows, None])
        if self.mask_special:
            special = np.isin(tokens, self.special_ids)
            scored &= ~special[:, :-1] & ~special[:, 1:]
        if self.token_bytes is None:
            num_bytes = np.zeros(len(rows), np.int64)
        else:
            num_bytes = np.where(scored, self.token_bytes[begin:end][index[:, 1:]], 0).sum(1, dtype=np.int64)
        return TokenBatch(tokens, scored, self.document_id[rows], num_bytes)

    def unpadded(self) -> WindowPlan:
        """The same rows, each as wide as it is long, sorted by falling width again."""
        return replace(self, width=self.length).take(np.argsort(-self.length, kind="stable"))

    @property
    def num_positions(self) -> int:
        """Tokens of all rows, padding included: the work of one pass over the plan."""
        return int(self.width.sum())


def plan_windows(corpus: TokenizedCorpus, protocol: Windowing) -> WindowPlan:
    """Cut a tokenized corpus into rows as ``protocol`` says; every scored token belongs to exactly one row.

    Raises LabError when no document has two tokens, or when packing is asked of a tokenizer without end-of-text token.
    """
    tokens, token_bytes, offsets = corpus.tokens, corpus.token_bytes, corpus.offsets
    width = protocol.max_tokens
    if protocol.windows == "packed":
        if corpus.eos_id is None:
            raise LabError("protocol.windows=packed needs a tokenizer with an end-of-text token; use rolling instead")
        # All documents as one stream, each that is not empty followed by the end-of-text token.
        ends = offsets[1:][np.diff(offsets) > 0]
        tokens = Separated(tokens, ends, corpus.eos_id)
        token_bytes = None if token_bytes is None else Separated(token_bytes, ends, 0)
        offsets = np.array([0, len(tokens)], np.int64)
    size = np.diff(offsets)
    if not (size >= 2).any():
        raise LabError(
            f"none of the {corpus.num_documents} documents has two tokens to predict from; "
            "check the dataset's field or template and its filters"
        )
    stride = width - 1 if protocol.windows == "packed" else (protocol.stride or width // 2)
    beyond = 0 if protocol.windows == "truncate" else np.maximum(size - width, 0)  # tokens that further rows score
    rows = np.where(size >= 2, 1 - (-beyond // stride), 0)
    document = np.repeat(np.arange(len(rows)), rows)
    number = np.arange(len(document)) - np.repeat(np.cumsum(rows) - rows, rows)  # of the row in its document
    stop = np.minimum(offsets[document] + width + number * stride, offsets[document + 1])
    start = np.maximum(offsets[document], stop - width)
    scored_before = offsets[document] + width + (number - 1) * stride  # the first token that no earlier row scores
    skip = np.where(number == 0, 0, scored_before - start - 1)
    length = stop - start
    if protocol.windows == "packed":
        document = number
    padded = np.minimum(-(-length // WIDTH_STEP) * WIDTH_STEP, width)
    # All rows of a document have one width (a long document's last window reaches back), so a stable sort keeps them
    # adjacent and in reading order.
    order = np.argsort(-padded, kind="stable")
    return WindowPlan(
        tokens=tokens,
        token_bytes=token_bytes,
        special_ids=corpus.special_ids,
        mask_special=protocol.mask_special,
        document_id=document[order],
        start=start[order],
        length=length[order],
        skip=skip[order],
        width=padded[order],
        num_documents=corpus.num_documents,
    )
