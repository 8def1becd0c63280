"""Peak memory of measuring many documents with made-up scores: ``python -m tests.memory JSON`` prints a line for each.

Everything but the forward pass is real, and with ``tokens`` also the tokenizer, whose time would be minutes: the
memory of both does not depend on the number of documents.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from rbp_lab.commands.measure import measure
from rbp_lab.data import tokenize
from rbp_lab.data.corpus import Corpus, fingerprint
from rbp_lab.data.windows import TokenBatch, Windowing
from rbp_lab.measurement import work
from rbp_lab.scoring.types import TokenScores
from rbp_lab.store.records import read_totals


@dataclass(frozen=True)
class Numbers(Sequence):
    """The texts "0", "1", …, none of which is held."""

    length: int

    def __len__(self):
        return self.length

    def __getitem__(self, at):
        if not 0 <= at < self.length:
            raise IndexError(at)
        return str(at)


@dataclass(frozen=True)
class NumberedText:
    """Documents that are their numbers, for ``simulated_tokens``."""

    documents: int
    name: str = "numbers"
    protocol: Windowing = field(default_factory=Windowing)

    def corpus(self) -> Corpus:
        texts, ids = Numbers(self.documents), tuple(map(str, range(self.documents)))
        return Corpus(self.name, texts, ids, fingerprint(ids, texts), {})


def simulated_tokens(number: int, vocabulary: int):
    """What stands for ``tokenize.encode``: so many random ids for each text."""

    def encode(texts, tokenizer, add_special_tokens, keep):
        rng, sizes = np.random.default_rng(0), np.full(number, 4, np.int32)
        for _ in texts:
            yield rng.integers(1, vocabulary, number, np.int32), sizes

    return encode


def simulated_scores(vocabulary: int):
    """What stands for a scorer: ranks of which as many lie between 1 and 10 as between 10 and 100."""
    rng = np.random.default_rng(0)

    def score(batch: TokenBatch) -> TokenScores:
        n = int(batch.scored.sum())
        nll = rng.random(n, np.float32) * np.float32(np.log(vocabulary))
        above = torch.from_numpy(np.exp(nll).astype(np.int32) - 1)
        return TokenScores(torch.from_numpy(nll), above, torch.zeros(n, dtype=torch.int32), torch.from_numpy(nll))

    return score


def main(configs: list[dict], vocabulary: int, tokens: int | None) -> None:
    """Measure one configuration after another in this process; ``peak`` is the highest memory so far, in bytes."""
    real = work.load_instrument
    work.load_instrument = lambda *a: replace(real(*a), scorer=simulated_scores(vocabulary))
    if tokens:
        tokenize.encode = simulated_tokens(tokens, 300)
    for config in configs:
        begin = time.monotonic()
        stats = read_totals(measure(config).path).stats
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        seconds = round(time.monotonic() - begin, 1)
        print(json.dumps({"tokens": stats.num_tokens, "documents": stats.num_documents, "peak": peak, "s": seconds}))


def write_documents(path: Path, documents: int, words: int = 60) -> None:
    """JSON lines of so many different texts of ``words`` words."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for number in range(documents):
            text = " ".join(map(str, rng.integers(0, 300, words)))
            file.write(json.dumps({"text": f"{number}: {text}"}) + "\n")


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
