"""Independent threads for scoring: each works through its own slice of the positions with single-threaded operations.

Threads inside torch's operations wait for each other at the end of every operation, and a tile takes a dozen short
ones; see tests/benchmarks/RESULTS.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from threading import Barrier, BrokenBarrierError
from typing import TypeVar

import torch

from rbp_lab.scoring.types import TokenScores

Result = TypeVar("Result")


def run_per_thread(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run ``calls`` concurrently, at most one per intra-op thread of torch, and return their results in order.

    Within a call torch uses one thread and keeps no gradients. The first error is raised after all calls have ended.
    """

    def run(call: Callable[[], Result]) -> Result:
        with torch.inference_mode():  # of this thread
            return call()

    threads = torch.get_num_threads()
    if threads == 1:
        return [run(call) for call in calls]
    running = [_pool(threads).submit(run, call) for call in calls]
    wait(running)
    return [each.result() for each in running]


def by_positions(
    score: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], TokenScores],
    hidden: torch.Tensor,
    targets: torch.Tensor,
    delta: torch.Tensor | None,
    whole: int,
) -> TokenScores:
    """``score(hidden, targets, delta)`` with the positions divided among torch's intra-op threads.

    Every slice but the last is a multiple of ``whole`` positions, the tokens of a tile, so that tiles begin where they
    would on one thread.
    """
    n, threads = len(targets), torch.get_num_threads()
    parts = -(-n // whole)
    share = -(-parts // min(threads, parts)) * whole
    slices = [slice(first, first + share) for first in range(0, n, share)]
    calls = [partial(score, hidden[at], targets[at], None if delta is None else delta[at]) for at in slices]
    return TokenScores.join(run_per_thread(calls))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """``threads`` Python threads in which torch's operations use one thread each.

    Where not all of them can begin, for want of memory, those that wait for the others end: none is left that the end
    of Python would wait for.
    """
    together = Barrier(threads)

    def begin() -> None:
        try:
            torch.set_num_threads(1)
            torch.get_num_threads()  # settles it: else the thread's first operation asks for the process's number again
            together.wait()
        except BaseException:
            together.abort()
            raise

    pool = ThreadPoolExecutor(threads, thread_name_prefix="rbp-lab-scores")
    try:
        begun = [pool.submit(begin) for _ in range(threads)]  # the barrier makes each of them start a thread of its own
        wait(begun)
        errors = [error for one in begun if (error := one.exception())]
        if errors:
            raise min(errors, key=lambda error: isinstance(error, BrokenBarrierError))
    except BaseException:
        together.abort()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        torch.set_num_threads(threads)  # torch would give later threads of this process the last number it was given
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has the pool but not its threads
