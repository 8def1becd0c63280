"""Tracking without a server: names and bins, live intervals, where runs go, offline runs end to end."""

import functools
import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rbp_lab import metrics
from rbp_lab.errors import LabError
from rbp_lab.stats import DocumentScores, document_table
from rbp_lab.store.records import read_record
from rbp_lab.tracking.live import LiveIntervals
from rbp_lab.tracking.offline import messages, read_offline_run
from rbp_lab.tracking.settings import PUBLIC_SERVER, Tracking, api_key, destination
from rbp_lab.tracking.wandb import names
from rbp_lab.tracking.wandb_offline import find_offline_runs
from tests.sources import measure_config

ROOT = Path(__file__).resolve().parent.parent
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
    for end in (2, 3, 4, 4):
        live.update(tables[:end])
        merged = functools.reduce(lambda a, b: a + b, tables[:end])
        expected = [(live.rbp(i), metrics.neg_log_rbp(merged, k)) for i, k in enumerate(thresholds)]
        for mine, theirs in [*expected, (live.cross_entropy(), metrics.cross_entropy_estimate(merged))]:
            for name in ("value", "lower", "upper", "se_log", "documents"):
                assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=1e-9)


def test_where_runs_go(bare, monkeypatch):
    auto = Tracking()
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


def test_without_tracking_wandb_is_never_imported(tiny_model_dir, tmp_path):
    code = (
        "import sys, json; from rbp_lab.commands.measure import measure; "
        "print(measure(json.loads(sys.argv[1])).measured, 'wandb' in sys.modules)"
    )
    config = json.dumps(measure_config(tiny_model_dir, tmp_path, tracking={"mode": "none"}))
    done = subprocess.run([sys.executable, "-c", code, config], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["True", "False"]
    assert not (tmp_path / "wandb").exists()


@pytest.fixture(scope="module")
def offline(tiny_model_dir, tmp_path_factory):
    """A store with one record measured offline: (outcome, the run's file)."""
    import rbp_lab.measurement.loop as module
    from rbp_lab.commands.measure import measure

    store = tmp_path_factory.mktemp("offline")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "measure", functools.partial(module.measure, log_seconds=0.0))
        patch.setenv("WANDB_DATA_DIR", str(store / "data"))
        outcome = measure(measure_config(tiny_model_dir, store, tracking=OFFLINE, scoring__batch_tokens=128))
    (file,) = find_offline_runs(store / "wandb")
    return outcome, file


def test_an_offline_run_holds_configuration_curves_summary_and_artifact(offline):
    outcome, file = offline
    record, run = outcome.record, read_offline_run(file)
    assert run.id == f"measure-{record.key}" and run.job_type == "measure" and run.exit_code == 0
    assert run.group == "tiny" and run.project == "tests"
    assert run.config["key"] == record.key and run.config["precision"] == "float32"
    assert run.config["non_embedding_params"] == record.model.params.non_embedding
    assert run.config["protocol"]["max_tokens"] == 64
    assert run.config["rbp_lab"]["scoring"]["batch_tokens"] == 128  # the resolved configuration
    assert run.summary["rbp/5"] == metrics.rbp(record.stats, 5)
    assert run.summary["p/2/50"] == metrics.window_rbp(record.stats, 2, 50)
    assert run.summary["error_entropy"] == metrics.decomposition(record.stats).error_entropy
    assert {"ce", "self_alignment", "confidence", "entropy_gap", "ties/rate", "p/5/50"} <= set(run.summary)
    assert set(run.artifacts) == {f"record-{record.key}"}
    assert set(run.artifacts[f"record-{record.key}"]) == {p.name for p in outcome.path.iterdir()}


def test_curves_and_histogram_evolve_on_the_axis_of_tokens(offline):
    outcome, file = offline
    record, history = outcome.record, read_offline_run(file).history
    tokens = [row["tokens"] for row in history]
    assert len(history) > 5 and tokens == sorted(tokens) and tokens[-1] == record.stats.num_tokens
    for row in history:
        assert row["ranks"]["_type"] == "histogram" and sum(row["ranks"]["values"]) == row["tokens"]
        assert row["rbp/50"] == sum(row["ranks"]["values"][: row["ranks"]["bins"].index(51)]) / row["tokens"]
    middle, last = history[len(history) // 2], history[-1]
    assert middle["rbp/50/lower"] < middle["rbp/50"] < middle["rbp/50/upper"]
    assert middle["tokens_per_s"] > 0 and middle["documents"] < last["documents"] == record.stats.num_documents
    interval = metrics.neg_log_rbp(record.documents, 50)
    assert last["rbp/50/lower"] == pytest.approx(math.exp(-interval.upper))


def test_a_finished_record_is_found_without_another_run(offline, tiny_model_dir):
    from rbp_lab.commands.measure import measure

    outcome, file = offline
    again = measure(measure_config(tiny_model_dir, outcome.path.parent.parent, tracking=OFFLINE))
    assert not again.measured and find_offline_runs(file.parent.parent) == [file]


def test_a_damaged_or_foreign_file_is_refused_and_a_broken_off_one_is_read(offline, tmp_path):
    _, file = offline
    data = file.read_bytes()
    cut, wrong, foreign = (tmp_path / f"run-{name}.wandb" for name in ("cut", "wrong", "foreign"))
    cut.write_bytes(data[: len(data) // 2])
    run = read_offline_run(cut)
    assert run.id.startswith("measure-") and run.exit_code is None
    wrong.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    with pytest.raises(LabError, match="checksum"):
        list(messages(wrong))
    foreign.write_bytes(b"something else")
    with pytest.raises(LabError, match="not an offline W&B run"):
        list(messages(foreign))


def test_several_processes_are_one_run_with_merged_final_numbers(tiny_model_dir, tmp_path, monkeypatch):
    from rbp_lab.commands.measure import measure

    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    outcome = measure(measure_config(tiny_model_dir, tmp_path, tracking=OFFLINE, launch__processes=2))
    (file,) = find_offline_runs(tmp_path / "wandb")
    run = read_offline_run(file)
    assert run.config["live_values_are_of"] == "process 0's share, 1 of 2"
    assert run.summary["tokens"] == read_record(outcome.path).stats.num_tokens
    assert run.summary["rbp/50"] == metrics.rbp(outcome.record.stats, 50)


def test_a_measurement_that_fails_leaves_a_failed_run(tiny_model_dir, tmp_path, monkeypatch):
    import rbp_lab.measurement.run as stage
    from rbp_lab.commands.measure import measure

    def refuse(*_):
        raise OSError("no room")

    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(stage, "write_record", refuse)
    with pytest.raises(OSError, match="no room"):
        measure(measure_config(tiny_model_dir, tmp_path, tracking=OFFLINE))
    (file,) = find_offline_runs(tmp_path / "wandb")
    run = read_offline_run(file)
    assert run.exit_code == 1 and not run.artifacts


@pytest.mark.parametrize("arrives", [True, False])
def test_a_file_that_the_client_is_still_closing_is_waited_for(offline, tmp_path, monkeypatch, capsys, arrives):
    """The client's finish returns while its writer still runs; it once lost to a reader on a busy machine."""
    from rbp_lab.tracking.wandb import client

    _, file = offline
    data, run_id = file.read_bytes(), read_offline_run(file).id
    late = tmp_path / f"run-{run_id}.wandb"
    write = threading.Timer(0.3, late.write_bytes, [data if arrives else data[: len(data) // 2]])
    run = SimpleNamespace(
        entity="e", project="p", id=run_id, dir=str(tmp_path / "files"),
        finish=lambda exit_code: (late.write_bytes(data[:7]), write.start()),
    )  # fmt: skip
    monkeypatch.setattr(client, "FILE_SECONDS", 1.0)
    tracking = Tracking(**OFFLINE)
    session = client.Session(tracking, destination(tracking), tmp_path)
    monkeypatch.setattr(session, "_run", run)
    assert session.finish() is arrives
    assert ("is the disk full?" in capsys.readouterr().err) is not arrives
