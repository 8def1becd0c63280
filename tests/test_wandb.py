"""The real W&B client against a loopback server: measuring, repeating, syncing, training, analysing.

It proves the real client, not the limits of the real server.
"""

import functools
import json
import os
import subprocess
import sys
from contextlib import suppress

import pytest

from rbp_lab import metrics
from rbp_lab.commands.measure import measure
from rbp_lab.errors import LabError
from rbp_lab.tracking.settings import Tracking
from rbp_lab.tracking.wandb.session import shared_client
from tests.sources import MadeUpText, measure_config
from tests.wandb_use import ONLINE, WAITS, analyze, sync


@pytest.fixture
def every_batch(monkeypatch):
    """The measuring loop reaches a log point after every batch, not every five seconds."""
    import rbp_lab.measurement.work as module

    monkeypatch.setattr(module, "Watch", functools.partial(module.Watch, log_seconds=0.0))


def artifacts(server, kind="rbp-record"):
    return [a for a in server.lab.artifacts.values() if a["type"] == kind]


def test_a_measurement_online_shows_curves_summary_and_the_record(server, every_batch, tiny_model_dir, tmp_path):
    config = measure_config(tiny_model_dir, tmp_path, tracking=ONLINE, scoring__batch_tokens=128, callbacks=WAITS)
    outcome = measure(config)
    record = outcome.record
    (run,) = server.lab.runs.values()
    assert run["name"] == f"measure-{record.key}" and run["state"] == "finished"
    assert (run["group"], run["jobType"], run["displayName"]) == ("tiny", "measure", "tiny on made-up")
    assert len(run["history"]) > 5 and all(row["ranks"]["_type"] == "histogram" for row in run["history"])
    assert sum(run["history"][-1]["ranks"]["values"]) == record.stats.num_tokens
    for name, value in {"rbp/5": metrics.rbp(record.stats, 5), "ce": metrics.cross_entropy(record.stats)}.items():
        assert run["summary"][name] == value  # to the last bit, through the client and back
    (artifact,) = artifacts(server)
    assert artifact["name"] == f"record-{record.key}" and json.loads(artifact["metadata"])["family"] == "tiny"
    stored = server.lab.files
    for file in outcome.path.iterdir():
        assert file.read_bytes() in stored.values()
    (model,) = artifacts(server, "model")
    assert (run["name"], model["id"]) in server.lab.uses and "path" not in json.loads(model["metadata"])


def test_measuring_again_is_the_same_run(server, tiny_model_dir, tmp_path):
    config = measure_config(tiny_model_dir, tmp_path, tracking=ONLINE)
    first = measure(config)
    before = len(server.lab.operations)
    assert not measure(config).measured and len(server.lab.operations) == before  # found: nobody is asked
    again = measure({**config, "force": True})
    assert again.measured and len(server.lab.runs) == 1
    (run,) = server.lab.runs.values()
    tokens = [row["tokens"] for row in run["history"]]
    assert tokens == [first.record.stats.num_tokens] * 2  # continued, not overwritten
    assert [a["index"] for a in artifacts(server)] == [0, 1]  # other provenance: a new version of one artifact


def test_sync_mirrors_a_store_measured_without_wandb_once(server, tiny_model_dir, tmp_path, capsys):
    for seed in (0, 1):
        measure(measure_config(tiny_model_dir, tmp_path, dataset__seed=seed, dataset__name=f"text-{seed}"))
    assert not server.lab.runs
    assert sync(tmp_path).startswith("2 results mirrored")
    assert len(server.lab.runs) == 2 and len(artifacts(server)) == 2
    before = len(server.lab.operations)
    assert "everything was there already" in sync(tmp_path) and len(server.lab.operations) == before
    assert sync(tmp_path, force=True).startswith("2 results") and len(server.lab.runs) == 2
    assert [a["index"] for a in artifacts(server)] == [0, 0]  # the same content is no new version
    assert [len(run["history"]) for run in server.lab.runs.values()] == [1, 1]
    for path in (tmp_path / "mirrored").iterdir():
        path.unlink()
    sync(tmp_path)  # without its notes it asks again, and makes no twin
    assert len(server.lab.runs) == 2 and len(artifacts(server)) == 2


def test_wandb_sync_uploads_an_offline_run_whole(server, tiny_model_dir, tmp_path):
    """What W&B's own command makes of an offline run is what measuring online makes: numbers and files."""
    offline = {**ONLINE, "mode": "offline"}
    outcome = measure(measure_config(tiny_model_dir, tmp_path, tracking=offline))
    (directory,) = (tmp_path / "wandb").glob("offline-run-*")
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    command = [sys.executable, "-m", "wandb", "sync", str(directory)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (run,) = server.lab.runs.values()
    assert run["name"] == f"measure-{outcome.record.key}"
    assert run["summary"]["rbp/5"] == metrics.rbp(outcome.record.stats, 5)
    (artifact,) = artifacts(server)
    assert json.loads(artifact["metadata"])["record_digest"] == run["summary"]["record_digest"]
    assert all(file.read_bytes() in server.lab.files.values() for file in outcome.path.iterdir())


def test_sync_without_a_key_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(LabError, match="wandb login"):
        sync(tmp_path, tracking={"mode": "online"})


def ladder(directory, family="ladder"):
    from rbp_lab.ladder.model import LadderModel

    return LadderModel(
        name="tiny-1", width=16, directory=str(directory / "models" / "tiny-1"), layers=1, vocabulary=280, tokens=4096,
        context=32, batch=4, family=family,
    )  # fmt: skip


def measure_ladder(store, **changes):
    model = {"_target_": "rbp_lab.models.HFModel", "path": str(store / "models" / "tiny-1"), "name": "tiny-1",
             "family": "ladder", "training_tokens": 4096, **changes}  # fmt: skip
    protocol = {"max_tokens": 32}
    return measure(measure_config("", store, model=model, dataset__protocol=protocol, tracking=ONLINE))


def test_sync_names_a_training_as_it_was_and_goes_on_past_a_damaged_one(server, tmp_path):
    from rbp_lab.commands.train import train

    train(ladder(tmp_path, family="mine"), MadeUpText(num_documents=60), tmp_path)
    (tmp_path / "models" / "another").mkdir()
    (tmp_path / "models" / "another" / "training.json").write_text('{"settings"')
    with pytest.raises(LabError, match=r"1 results mirrored, 1 could not be read: .*another.training.json is not read"):
        sync(tmp_path)
    (run,) = server.lab.runs.values()
    assert json.loads(run["config"])["family"]["value"] == "mine" and run["group"] == "mine"
    (card,) = artifacts(server, "model")
    assert json.loads(card["metadata"])["family"] == "mine" and card["name"] == "model-tiny-1"
    # A training of before, which kept no family: that of the record that measured the model.
    path = tmp_path / "models" / "tiny-1" / "training.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in ("name", "family")}))
    (tmp_path / "models" / "another" / "training.json").unlink()
    record = measure_ladder(tmp_path, name="theirs", family="measured").record
    sync(tmp_path, force=True)
    runs = {run["jobType"]: json.loads(run["config"]) for run in server.lab.runs.values()}
    assert runs["train"]["family"]["value"] == record.model.family == "measured"
    assert runs["train"]["model"]["value"] == "theirs"


def test_lineage_from_training_to_exponents(server, tmp_path):
    """train → measure → analyze, each a run; model, record and analysis are linked by artifacts."""
    from rbp_lab.commands.train import train

    source = MadeUpText(num_documents=60)
    train(ladder(tmp_path), source, tmp_path, tracking=Tracking(**ONLINE), config={"here": 1})
    outcome = measure_ladder(tmp_path)
    analysis = analyze(tmp_path)
    runs = {run["jobType"]: run for run in server.lab.runs.values()}
    assert set(runs) == {"train", "measure", "analysis"} and len(server.lab.runs) == 3
    training = runs["train"]
    assert training["history"][-1]["tokens"] == 4096 and training["history"][0]["train/loss"] > 0
    assert {"train/lr", "train/tokens_per_s"} <= set(training["history"][0])
    (card,) = artifacts(server, "model")  # what training made is what the measurement used: one artifact, one version
    assert card["run"] == training["name"] and (runs["measure"]["name"], card["id"]) in server.lab.uses
    (record,) = artifacts(server)
    assert (
        record["name"] == f"record-{outcome.record.key}" and (runs["analysis"]["name"], record["id"]) in server.lab.uses
    )
    (report,) = artifacts(server, "rbp-analysis")
    assert report["run"] == runs["analysis"]["name"]
    summary = runs["analysis"]["summary"]
    assert summary["tables/fits"]["_type"] == "table-file"
    assert summary["report/report"]["_type"] == "html-file"
    assert any(name.startswith("figures/") for name in summary) == any(f.suffix == ".png" for f in analysis.files)
    before = len(server.lab.operations)
    analyze(tmp_path)
    assert len(server.lab.operations) == before  # the same analysis is mirrored already


def test_points_of_a_resumed_training_come_once(server, tmp_path):
    """Interrupted after more steps than its checkpoint covers: the steps that come again are one point each."""
    from rbp_lab.commands.train import train

    def interrupt(step, *_):
        shared_client().request("log", []).result(300)  # no point is left out because another is under way
        if step == 9:
            raise KeyboardInterrupt

    source = MadeUpText(num_documents=60)
    for hooks in ([interrupt], []):
        with suppress(KeyboardInterrupt):
            train(ladder(tmp_path), source, tmp_path, False, hooks, Tracking(**ONLINE), {}, checkpoint_seconds=0.0)
    (run,) = server.lab.runs.values()
    assert [row["tokens"] for row in run["history"]] == [128 * step for step in range(1, 33)]
    record = json.loads((tmp_path / "models" / "tiny-1" / "training.json").read_text())
    assert record["resumed_at"] == [1]
    assert [row["train/loss"] for row in run["history"]] == pytest.approx(record["loss"], abs=1e-4)
