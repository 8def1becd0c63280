"""Tracking without a server: names and bins, live intervals, where runs go, offline runs."""

import functools
import sys
from dataclasses import replace

import numpy as np
import pytest

from rbp_lab import metrics
from rbp_lab.commands.measure import measure
from rbp_lab.counting import DocumentScores, document_table
from rbp_lab.errors import LabError
from rbp_lab.measurement.observers import RunInfo
from rbp_lab.records import DatasetInfo, ModelInfo, ParamCounts, RunHeader, ScoringSpec
from rbp_lab.store.layout import Store
from rbp_lab.tracking.live import LiveIntervals
from rbp_lab.tracking.settings import PUBLIC_SERVER, Tracking, api_key, destination
from rbp_lab.tracking.wandb import measurement, names, session
from rbp_lab.tracking.wandb.sync import mirror_store
from tests.sources import measure_config

OFFLINE = {"mode": "offline", "seconds": 1e-9, "timeout": 20.0, "project": "tests", "tags": ["a"], "notes": "why"}


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """An environment in which nobody has a W&B key."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path


@pytest.mark.parametrize("vocab_rows", [1, 2, 300, 50304, 262144])
def test_bins_are_few_and_lose_no_token(vocab_rows):
    edges = names.bin_edges(vocab_rows)
    assert len(edges) - 1 <= 200 and edges[0] == 1 and edges[-1] == vocab_rows + 1 and (np.diff(edges) > 0).all()
    counts = np.random.default_rng(0).integers(0, 9, vocab_rows)
    binned = names.binned(counts, edges)
    assert len(binned) == len(edges) - 1 and binned.sum() == counts.sum()
    ranks = np.repeat(np.arange(1, vocab_rows + 1), counts)
    assert np.array_equal(binned, np.histogram(ranks, edges - 0.5)[0])


def some_tables(thresholds, parts):
    rng = np.random.default_rng(1)
    tables, first = [], 0
    for documents in parts:
        sizes = rng.integers(0, 40, documents)
        n = int(sizes.sum())
        rank = np.minimum(rng.zipf(1.3, n), 500) - 1
        zeros = np.zeros(n, np.int32)
        nll = rng.exponential(3, n).astype(np.float32)
        ids = np.arange(first, first + documents)
        scores = DocumentScores(ids, sizes, sizes * 4, nll, rank.astype(np.int32), zeros, nll)
        tables.append(document_table(scores, thresholds))
        first += documents
    return tables


def test_live_intervals_are_those_of_the_whole_table():
    """Fed part by part, the sums give the interval of metrics on the merged table."""
    thresholds = (1, 3, 10, 100)
    tables = some_tables(thresholds, [1, 5, 30, 2])
    live = LiveIntervals(thresholds)
    live.update(tables[:1])
    assert live.rbp(0) is None and live.cross_entropy() is None  # one document has no interval
    for begin, end in ((1, 2), (2, 3), (3, 4), (4, 4)):
        live.update(tables[begin:end])
        merged = functools.reduce(lambda a, b: a + b, tables[:end])
        expected = [(live.rbp(i), metrics.neg_log_rbp(merged, k)) for i, k in enumerate(thresholds)]
        for mine, theirs in [*expected, (live.cross_entropy(), metrics.cross_entropy_estimate(merged))]:
            for name in ("value", "lower", "upper", "se_log", "documents"):
                assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=1e-9)


def test_where_runs_go(bare, monkeypatch):
    auto = Tracking(mode="auto")
    assert destination(auto).mode == "offline" and destination(auto).server == PUBLIC_SERVER
    assert destination(Tracking(mode="online")).mode == "offline"  # without a key wandb would ask for one
    assert destination(Tracking(mode="none")) is None
    (bare / "netrc").write_text("machine wandb.example login user password abc\n")
    assert api_key("https://wandb.example") == "abc" and destination(auto).mode == "offline"
    (bare / "config").mkdir()
    (bare / "config" / "settings").write_text("[default]\nbase_url = https://wandb.example/\n")
    assert destination(auto).mode == "online" and destination(auto).server == "https://wandb.example"
    for value, mode in (("offline", "offline"), ("dryrun", "offline"), ("online", "online")):
        monkeypatch.setenv("WANDB_MODE", value)
        assert destination(auto).mode == mode
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert destination(auto) is None and destination(Tracking(mode="online")).mode == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "http://other")
    monkeypatch.setenv("WANDB_API_KEY", "from-env")
    assert destination(Tracking(mode="online")).key == "from-env"
    assert "from-env" not in repr(destination(Tracking(mode="online")))


def test_settings_that_cannot_be():
    for wrong in ({"mode": "cloud"}, {"seconds": 0.0}, {"timeout": -1.0}, {"project": "a/b"}):
        with pytest.raises(LabError, match="tracking." + next(iter(wrong))):
            Tracking(**wrong)


def test_without_tracking_no_client_is_started(tiny_model_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import of it fails from here on
    monkeypatch.setattr(session, "ClientProcess", None)
    assert measure(measure_config(tiny_model_dir, tmp_path, tracking={"mode": "none"})).measured
    assert not (tmp_path / "wandb").exists() and not (tmp_path / "mirrored").exists()


def test_an_offline_run_is_on_the_disk_and_made_once(tiny_model_dir, tmp_path, capsys):
    config = measure_config(tiny_model_dir, tmp_path, tracking=OFFLINE)
    record = measure(config).record
    (file,) = (tmp_path / "wandb").rglob("run-*.wandb")
    assert file.name == f"run-measure-{record.key}.wandb" and file.stat().st_size > 0
    assert not measure(config).measured and len(list((tmp_path / "wandb").rglob("run-*.wandb"))) == 1
    assert "warning" not in capsys.readouterr().err and (tmp_path / "mirrored").is_dir()


class FakeSession:
    """Keeps what a tracker asks of its session."""

    ok, failed, url = True, False, None

    def __init__(self, *_):
        self.calls = []
        FakeSession.last = self

    def __getattr__(self, name):
        return lambda *arguments, **named: self.calls.append((name, *arguments, *named.values()))


def test_only_process_0_tracks_and_says_whose_values_are_live(monkeypatch):
    monkeypatch.setattr(measurement, "Session", FakeSession)
    header = RunHeader("0" * 16, some_model(), DatasetInfo("d", "x", 1, {}), some_spec())
    run = RunInfo("m", "d", 5, 100, 300, (1, 5), (1,), rank=0, world=2, header=header)
    FakeSession.last = None
    for other in (replace(run, rank=1), replace(run, header=None)):
        measurement.MeasurementTracker(Tracking(**OFFLINE), "store").on_start(other)
        assert FakeSession.last is None
    tracker = measurement.MeasurementTracker(Tracking(**OFFLINE), "store", {"here": 1})
    tracker.on_start(run)
    tracker.on_error(RuntimeError("no room"))
    tracker.close()
    (start, spec), finish = FakeSession.last.calls
    assert start == "start" and spec.id == f"measure-{header.key}" and spec.config["rbp_lab"] == {"here": 1}
    assert spec.config["live_values_are_of"] == "the documents that process 0 has scored since the command began"
    assert finish == ("finish", 1)  # a measurement that breaks off is a failed run


def some_model():
    return ModelInfo("m", "f", "", None, "x", "A", None, 300, 300, None, ParamCounts(3, 1, 1))


def some_spec():
    return ScoringSpec("float32", False, "float32", "rows", {}, (1, 5), (1,))


@pytest.mark.parametrize(
    ("mode", "asked", "said"),
    [
        ("auto", None, "no W&B key is configured here, .* wandb login"),
        ("auto", "offline", "WANDB_MODE=offline keeps W&B off; unset it, or .* tracking.mode=offline"),
        ("auto", "disabled", "WANDB_MODE=disabled keeps W&B off"),
        ("none", None, "tracking.mode=none asks for no mirror; rbp-lab sync takes tracking=auto"),
    ],
)
def test_sync_says_why_there_is_nowhere_to_mirror_to(bare, monkeypatch, mode, asked, said):
    if asked:
        monkeypatch.setenv("WANDB_MODE", asked)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)  # a key is not what lacks
    with pytest.raises(LabError, match=said):
        mirror_store(Store(bare / "store"), Tracking(mode=mode), force=False)


def test_a_store_without_results_is_not_one_that_is_mirrored(bare):
    """Written wrong, the name of a store means a directory that is not there."""
    said = mirror_store(Store(bare / "nowhere"), Tracking(mode="offline"), force=False)
    assert said == f"{bare / 'nowhere'} has no results that could be mirrored" and not (bare / "nowhere").exists()
