"""``python -m tests.benchmarks.pairs [SHAPE …]``: two models in one pass, against the sum of two measurements.

By processor time, all threads together: what others do on the machine disturbs it least.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from rbp_lab.comparison.pair import token_pairs
from rbp_lab.comparison.sums import PairSums, pair_sums
from rbp_lab.config.build import build
from rbp_lab.measurement.loop import measure, scored
from rbp_lab.measurement.observers import RunInfo
from rbp_lab.models.pair_scorer import PairScorer, Side
from rbp_lab.models.scorer import Scorer
from tests.benchmarks.__main__ import composed
from tests.benchmarks.loop import made_plan
from tests.benchmarks.machine import describe_machine, machine_line
from tests.benchmarks.shapes import Shape

KS, ROUNDS, TOKENS = (1, 10, 100), 5, 512


def main(names: list[str]) -> None:
    """Print the ratio of each shape: the median over rounds that alternate, and its quartiles."""
    print(machine_line(describe_machine("cpu")))
    for name in names or ["pythia-14m"]:
        shape = build(composed([f"shape={name}"])["shape"], "shape")
        ratios, each = compared(shape)
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(f"{name}: {middle:.2f} ({low:.2f}–{high:.2f}) × the sum of two measurements; "
              f"{each[0]:.0f} and {each[1]:.0f} µs a token, at their least")  # fmt: skip


def compared(shape: Shape) -> tuple[list[float], tuple[float, float]]:
    """The ratio of each round, and the least processor time of two measurements and of one pass, µs a token."""
    scorers = [Scorer(shape.load(torch.float32, "cpu", seed=seed), "cpu") for seed in (0, 1)]
    plan = made_plan(max(2, 2**16 // shape.vocabulary), TOKENS, shape.vocabulary, 0)
    run = RunInfo("bench", "made", len(plan), plan.num_positions, shape.vocabulary, KS, (1,))
    pair = PairScorer(*map(Side.of, "ab", scorers), KS)

    def one_pass() -> None:
        total = PairSums.zeros(KS)
        for batch, scores in scored(plan.batches(8192), pair):
            total = total + pair_sums(token_pairs(batch, scores), KS)

    contenders: list[Callable[[], object]] = [lambda: [measure(plan, scorer, run) for scorer in scorers], one_pass]
    times = np.array([[_seconds(contender) for contender in contenders] for _ in range(ROUNDS + 1)][1:])
    return (times[:, 1] / times[:, 0]).tolist(), tuple(times.min(0) / plan.num_positions * 1e6)


def _seconds(contender: Callable[[], object]) -> float:
    begin = time.process_time()
    contender()
    return time.process_time() - begin


if __name__ == "__main__":
    main(sys.argv[1:])
