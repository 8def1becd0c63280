"""How contenders are timed: interleaved rounds, each judged by what other processes took of the processors meanwhile.

Ratios are taken within a round, where both sides met the same machine; absolute times only illustrate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

# Above this share of the processors in other hands a round is dirty and is repeated.
DIRTY = 0.10
MOST_CALLS = 1000


@dataclass(frozen=True)
class Spread:
    """Order statistics of one number over the rounds: least, first quartile, median, third quartile."""

    least: float
    low: float
    median: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The order statistics of ``values`` (at least one), quartiles by linear interpolation."""
    low, median, high = np.percentile(np.asarray(values, float), [25, 50, 75])
    return Spread(float(min(values)), float(low), float(median), float(high))


@dataclass(frozen=True)
class Round:
    """One round: seconds of one call of each contender (the mean, where it was called more often), in ``order``.

    others: share of all processors that other processes used meanwhile, 0…1; None when the system does not tell.
    """

    seconds: Mapping[str, float]
    order: tuple[str, ...]
    others: float | None

    @property
    def dirty(self) -> bool:
        return self.others is not None and self.others > DIRTY


class CpuMeter:
    """The share of the processors that others use between ``start`` and ``stop``."""

    def start(self) -> None:
        self._begin, self._own = self._clocks(), own_times()

    def stop(self) -> float | None:
        import psutil

        wall, busy = (after - before for before, after in zip(self._begin, self._clocks(), strict=True))
        return others_share(wall, busy, used(self._own, own_times()), psutil.cpu_count() or 0)

    def _clocks(self) -> tuple[float, float]:
        import psutil

        system = psutil.cpu_times()
        # guest time is inside user time already; time stolen by the host's other guests counts as used by others
        busy = sum(getattr(system, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
        return time.perf_counter(), busy


def own_times() -> dict[int, float]:
    """CPU seconds so far by the id of this process and of every process below it: a peer may live in a child."""
    import psutil

    here, found = psutil.Process(), {}
    for process in (here, *here.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


def used(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """CPU seconds between two ``own_times``; what a process did that has ended meanwhile is not known."""
    return sum(max(0.0, seconds - before.get(process, 0.0)) for process, seconds in after.items())


def others_share(wall: float, busy: float, own: float, processors: int) -> float | None:
    """(busy − own) / (wall · processors), within 0…1: seconds that all processors were busy and that we used them.

    None when there is nothing to divide by. Both clocks tick in hundredths of a second, so a short round is judged
    roughly.
    """
    if wall <= 0 or processors <= 0:
        return None
    return min(1.0, max(0.0, (busy - own) / (wall * processors)))


def calls_needed(seconds: float, least: float) -> int:
    """Calls of ``seconds`` each that together take at least ``least`` seconds (at most a thousand)."""
    return max(1, min(MOST_CALLS, math.ceil(least / max(seconds, 1e-9))))


def timed(call: Callable[[], object], times: int, synchronize: Callable[[], None]) -> float:
    """Mean seconds of one of ``times`` calls in a row, everything they started on the device included."""
    synchronize()
    begin = time.perf_counter()
    for _ in range(times):
        call()
    synchronize()
    return (time.perf_counter() - begin) / times


def run_rounds(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    call_seconds: float = 0.05,
    synchronize: Callable[[], None] = lambda: None,
    meter: CpuMeter | None = None,
    told: Callable[[int, int], None] = lambda done, dirty: None,
) -> list[Round]:
    """At least ``rounds`` rounds of all ``calls``, forwards and backwards in turn, dirty ones repeated as often again.

    Each call is made once before, to see how many of it ``call_seconds`` take. told: hears after every round how many
    clean and dirty ones there are.
    """
    meter = meter or CpuMeter()
    times = {name: calls_needed(timed(call, 1, synchronize), call_seconds) for name, call in calls.items()}
    done: list[Round] = []
    while len(done) < 2 * rounds and sum(not r.dirty for r in done) < rounds:
        order = tuple(calls) if len(done) % 2 == 0 else tuple(reversed(calls))
        meter.start()
        seconds = {name: timed(calls[name], times[name], synchronize) for name in order}
        done.append(Round({name: seconds[name] for name in calls}, order, meter.stop()))
        told(sum(not r.dirty for r in done), sum(r.dirty for r in done))
    return done


def chosen(done: Sequence[Round], rounds: int) -> list[Round]:
    """The rounds that count: the clean ones, and the least dirty ones where there are fewer than ``rounds``."""
    by_others = sorted(done, key=lambda r: (r.dirty, r.others or 0.0))
    keep = max(rounds, sum(not r.dirty for r in done))
    return [r for r in done if any(r is k for k in by_others[:keep])]


def ratios(done: Sequence[Round], name: str, baseline: str) -> list[float]:
    """Time of ``name`` over the time of ``baseline``, round by round."""
    return [r.seconds[name] / r.seconds[baseline] for r in done]
