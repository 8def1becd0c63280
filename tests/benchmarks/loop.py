"""The whole measuring loop on a made corpus: tokens a second, and what of the time is not scoring."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rbp_lab.data.windows import TokenBatch, TokenizedCorpus, Windowing, WindowPlan, plan_windows
from rbp_lab.measurement.loop import measure
from rbp_lab.measurement.observers import RunInfo
from rbp_lab.models.scorer import Scorer
from rbp_lab.scoring import TokenScores
from tests.benchmarks.case import Case

MOST_DOCUMENTS = 4096


@dataclass(frozen=True)
class LoopRun:
    """One pass: tokens fed, seconds of all, and of them seconds outside the scorer (batches, counts, windows)."""

    tokens: int
    seconds: float
    outside: float


def made_plan(documents: int, tokens: int, vocabulary: int, seed: int) -> WindowPlan:
    """A plan over made documents of ``tokens`` random token ids each, one a row."""
    corpus = TokenizedCorpus(
        tokens=np.random.default_rng(seed).integers(0, vocabulary, documents * tokens, dtype=np.int32),
        offsets=np.arange(documents + 1, dtype=np.int64) * tokens,
        token_bytes=None,
        special_ids=np.zeros(0, np.int64),
        eos_id=None,
    )
    return plan_windows(corpus, Windowing(max_tokens=tokens))


def documents_for(seconds: float, seconds_per_token: float, tokens: int) -> int:
    """Documents of ``tokens`` tokens that take about ``seconds``; at least 2, at most 4096."""
    return int(np.clip(round(seconds / (seconds_per_token * tokens)), 2, MOST_DOCUMENTS))


def run_loop(
    case: Case, plan: WindowPlan, thresholds: Sequence[int], windows: Sequence[int], batch_tokens: int
) -> LoopRun:
    """Measure ``plan`` as ``rbp-lab measure`` does, and find what of the time is not scoring.

    On a CPU by a clock around the scorer. A GPU works while the host counts, and a clock there would part the two: so
    the same batches are scored alone before, and what the measurement takes longer is what counts as outside.
    """
    scorer = Scorer(case.model, case.device, logits=case.logits)
    alone = case.device.startswith("cuda")
    inside = 0.0

    def score(batch: TokenBatch) -> TokenScores:
        nonlocal inside
        begin = time.perf_counter()
        scores = scorer(batch)
        inside += time.perf_counter() - begin
        return scores

    if alone:
        case.synchronize()
        begin = time.perf_counter()
        for batch in plan.batches(batch_tokens):
            scorer(batch)
        case.synchronize()
        inside = time.perf_counter() - begin
    run = RunInfo(
        model="bench",
        dataset="made",
        num_rows=len(plan),
        num_positions=plan.num_positions,
        vocab_rows=case.rows,
        thresholds=tuple(thresholds),
        window_lengths=tuple(windows),
    )
    begin = time.perf_counter()
    measure(plan, scorer if alone else score, run, batch_tokens=batch_tokens)
    seconds = time.perf_counter() - begin
    return LoopRun(plan.num_positions, seconds, max(0.0, seconds - inside))
