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
