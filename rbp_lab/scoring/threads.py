"""Threads that share nothing: each takes positions and works off their tiles from end to end.

The threads inside torch's operations meet at the end of every one of them; a tile takes a dozen operations of a
fraction of a millisecond, and there the meeting costs as much as the work.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier

import torch

from rbp_lab.scoring.types import TokenScores


def by_positions(n: int, tile_tokens: int, work: Callable[[slice], TokenScores]) -> TokenScores:
    """The scores of n positions, from ``work`` on slices of whole tiles, one for each thread that torch has.

    ``work`` runs with torch operations of one thread each, so its bits do not depend on the number of threads.
    """
    threads, parts = torch.get_num_threads(), -(-n // tile_tokens)
    share = -(-parts // min(threads, parts)) * tile_tokens

    def apart(first: int) -> TokenScores:
        with torch.inference_mode():  # of this thread
            return work(slice(first, min(first + share, n)))

    return TokenScores.join(list(_pool(threads).map(apart, range(0, n, share))))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    together = Barrier(threads + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        together.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="rbp-lab-scores")
    for _ in range(threads):
        pool.submit(begin)  # the barrier makes each of them start a thread of its own
    together.wait()
    torch.set_num_threads(threads)  # torch would give later threads of this process the last number it was told
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has the pool but not its threads
