"""What tracking costs the measuring loop: rounds with it and without it, interleaved in one process."""

import statistics
import time

import numpy as np
import psutil
import pytest

from rbp_lab.data.windows import TokenizedCorpus, Windowing, plan_windows
from rbp_lab.measurement.loop import Watch, measure
from rbp_lab.measurement.observers import Callback, Observers, RunInfo
from rbp_lab.records import DatasetInfo, ModelInfo, ParamCounts, RunHeader, ScoringSpec
from rbp_lab.tracking.settings import NO_TRACKING, Tracking
from rbp_lab.tracking.wandb.measurement import MeasurementTracker
from rbp_lab.tracking.wandb.session import shared_client

THRESHOLDS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)
LOG_SECONDS = 0.5  # ten times as often as the loop logs by default
ROUNDS = 15
DOCUMENTS = 250


class Clock(Callback):
    """What the loop took, without the start and the end of the run: wall time, processor time of its thread, and of
    everything else (the other threads of this process, and W&B's own)."""

    @staticmethod
    def _now():
        elsewhere = sum(sum(c.cpu_times()[:2]) for c in psutil.Process().children(recursive=True))
        loop = time.thread_time()
        return np.array([time.perf_counter(), loop, time.process_time() - loop + elsewhere])

    def on_start(self, run):
        self.began = self._now()

    def on_shard(self, measurement):
        self.took = self._now() - self.began


class Ready(Callback):
    """Waits until the run is open: what is measured is the loop with live values, not W&B's start."""

    def on_start(self, run):
        shared_client().request("log", []).result(300)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")  # so that the loop is one thread, and whatever else is busy is tracking
def test_tracking_costs_less_than_two_percent_of_the_loop(tmp_path, monkeypatch):
    """Alternating rounds of a ladder model of S ≈ 50k, logging ten times as often as by default.

    Asserted: the processor time that tracking itself takes, wherever it takes it, against that of the loop, which other
    work on the machine does not change; the ratio of wall times is printed, and asserted only as far as one can
    where neighbours share the processor."""
    from rbp_lab.ladder.model import LadderModel
    from rbp_lab.models.scorer import Scorer

    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 800, DOCUMENTS)
    tokens = rng.integers(0, 1024, int(sizes.sum())).astype(np.int32)
    corpus = TokenizedCorpus(tokens, np.concatenate([[0], np.cumsum(sizes)]), None, np.array([0]), 0)
    protocol = Windowing(max_tokens=128, windows="rolling")
    plan = plan_windows(corpus, protocol)
    scorer = Scorer(LadderModel(name="m", width=64, directory=str(tmp_path)).build().eval(), "cpu")
    info = ModelInfo("m", "f", "", None, "x", "A", None, 1024, 1024, None, ParamCounts(3, 1, 1))
    spec = ScoringSpec("float32", False, "float32", "rows", {}, THRESHOLDS, (1, 2, 10))
    header = RunHeader("0" * 16, info, DatasetInfo("d", "x", 1, {}), spec)
    run = RunInfo("m", "d", len(plan), plan.num_positions, 1024, THRESHOLDS, (1, 2, 10), header=header)

    def once(tracking: Tracking) -> np.ndarray:
        clock = Clock()
        with Observers([MeasurementTracker(tracking, tmp_path), Ready(), clock]) as observers:
            observers.notify("on_start", run)
            observers.notify("on_shard", measure(plan, scorer, run, Watch(run, observers, LOG_SECONDS)))
        return clock.took

    spent = []
    log = MeasurementTracker.on_log

    def timed(self, progress):
        began = time.thread_time()
        log(self, progress)
        if self._session is not None:
            spent.append(time.thread_time() - began)

    monkeypatch.setattr(MeasurementTracker, "on_log", timed)
    on = Tracking(mode="offline", seconds=1e-9)
    once(NO_TRACKING), once(on)  # whatever is done once only
    spent.clear()
    without, with_ = [], []
    for number in range(ROUNDS):  # either goes first in turn, so that a drift of the machine favours none
        for tracking in (NO_TRACKING, on) if number % 2 else (on, NO_TRACKING):
            (with_ if tracking is on else without).append(once(tracking))
    ratios = np.array(without)[:, 0] / np.array(with_)[:, 0]
    loop = np.sum(without, axis=0)
    elsewhere = np.sum(with_, axis=0)[2] - loop[2]
    cost = (sum(spent) + elsewhere) / loop[1]
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    print(f"\n{ROUNDS} rounds of {loop[0] / ROUNDS:.1f} s, {len(spent) / ROUNDS:.1f} logging calls in each")
    print(f"throughput with / without tracking: median {middle:.4f}, quartiles {low:.4f} and {high:.4f}")
    print(f"processor time of tracking: {100 * cost:.2f} % of the loop's, of which elsewhere {elsewhere:.2f} s")
    print(f"one logging call: {1000 * statistics.median(spent):.1f} ms, of {LOG_SECONDS} s between them")
    assert len(spent) >= 2 * ROUNDS
    assert cost < 0.02
    assert middle > 0.9
