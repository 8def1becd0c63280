"""Shared by the tests of fits, points and figures: a few published values, and small synthetic runs."""

from __future__ import annotations

import numpy as np

from rbp_lab.counting import DocumentScores, document_table, rank_stats
from rbp_lab.fits.points import FitPoints
from rbp_lab.records import DatasetInfo, ModelInfo, ParamCounts, RunHeader, RunRecord, ScoringSpec, record_key

# −log RBP_1 on Wikipedia, read off figure 3 of [RBP] arXiv 2510.20387 (vector graphics, good to about 1e-4).
GPT2_K1 = {"gpt2": (85056000, 0.8769), "gpt2-medium": (302311424, 0.802867),
           "gpt2-large": (708390400, 0.769433), "gpt2-xl": (1475561600, 0.748368)}  # fmt: skip
PYTHIA_K1 = {
    "pythia-14m": (1189888, 1.10001), "pythia-31m": (4739072, 0.990516), "pythia-70m": (18915328, 0.895665),
    "pythia-160m": (85056000, 0.777784), "pythia-410m": (302311424, 0.682077), "pythia-1b": (805736448, 0.64126),
    "pythia-1.4b": (1208602624, 0.617858), "pythia-2.8b": (2517652480, 0.588063),
    "pythia-6.9b": (6444163072, 0.565374), "pythia-12b": (11327027200, 0.547339),
}  # fmt: skip


def fit_points(table: dict[str, tuple[float, float]]) -> FitPoints:
    size, value = zip(*table.values(), strict=True)
    return FitPoints(np.array(size), np.array(value), tuple(table))


def synthetic_record(
    name: str, size: int, seed: int, family: str = "ladder", dataset: str = "stdlib", vocab: int = 512,
    documents: int = 30, tokens: int = 120, sigma: float = 3.0, tied: bool = False, corpus_text: str = "",
    **scoring: object,
) -> RunRecord:  # fmt: skip
    """A run whose ranks are rounded lognormal with a median that falls with size; same documents for every model."""
    rng = np.random.default_rng(seed)
    n = documents * tokens
    rank0 = np.minimum(np.exp(rng.normal(30 * size**-0.1 - 8, sigma, n)).astype(np.int64), vocab - 1).astype(np.int32)
    equal = (rng.random(n) < 0.3).astype(np.int32) * (rank0 < vocab - 1) if tied else np.zeros(n, np.int32)
    nll = (0.2 + np.log1p(rank0) * 0.9).astype(np.float32)
    scores = DocumentScores(
        document_id=np.arange(documents), num_scored=np.full(documents, tokens), num_bytes=np.zeros(documents, int),
        nll=nll, num_greater=rank0, num_equal=equal.astype(np.int32), entropy=nll * np.float32(0.95),
    )  # fmt: skip
    choices = {
        "dtype": "float32", "tf32": False, "logits": "float32", "candidates": "rows",
        "protocol": {"windows": "truncate", "max_tokens": 512}, "thresholds": (1, 10, 100), "window_lengths": (1, 2, 5),
    }  # fmt: skip
    spec = ScoringSpec(**(choices | scoring))
    counts = ParamCounts(total=size + 5000, embedding=5000, head=0)
    model = ModelInfo(name, family, name, None, name, "GPTNeoXForCausalLM", None, vocab, vocab, 512, counts)
    corpus = DatasetInfo(dataset, f"fingerprint of {dataset}{corpus_text}", documents, {})
    stats = rank_stats(scores, vocab, spec.window_lengths)
    names = tuple(f"doc{i}" for i in range(documents))
    header = RunHeader(record_key(model, corpus, spec), model, corpus, spec)
    return RunRecord(header, stats, document_table(scores, spec.thresholds), names)


def ladder(count: int = 6, **kwargs: object) -> list[RunRecord]:
    return [synthetic_record(f"ladder-{i}", int(1e4 * 2.5**i), seed=i, **kwargs) for i in range(count)]
