"""The real W&B client against a loopback server: comparisons as runs, linked to the runs of what they compare."""

import json
import re

import pytest

from rbp_lab.commands.compare import run as compare_records
from rbp_lab.commands.compare_models import run as compare_models
from rbp_lab.commands.measure import measure
from rbp_lab.store.layout import Store
from tests.sources import measure_config, pair_config
from tests.wandb_use import ONLINE, sync


def test_comparisons_are_runs_with_tables_and_an_artifact_linked_to_both_records(
    server, tiny_model_dir, tiny_near_dir, tmp_path
):
    keys = []
    for name, path in (("one", tiny_model_dir), ("two", tiny_near_dir)):
        config = measure_config(path, tmp_path, tracking=ONLINE)
        keys.append(measure({**config, "model": {**config["model"], "name": name}}).header.key)
    compare_records({"store": str(tmp_path), "a": "one", "b": "two", "tracking": ONLINE})
    compare_models(pair_config(tiny_model_dir, tiny_near_dir, tmp_path) | {"tracking": ONLINE})
    compare_models(pair_config(tiny_model_dir, tiny_near_dir, tmp_path) | {"tracking": ONLINE, "name": "über 1"})
    runs = {run["name"]: run for run in server.lab.runs.values() if run["jobType"] == "compare"}
    of_records, in_one_pass = f"compare-{keys[0]}-{keys[1]}", f"compare-{Store(tmp_path).pairs()[0].directory.name}"
    named = next(name for name in runs if name not in (of_records, in_one_pass))
    assert len(runs) == 3 and re.fullmatch(f"{in_one_pass}-[0-9a-f]{{8}}", named)
    assert runs[named]["displayName"].endswith(", über 1")
    artifacts = {a["name"]: a for a in server.lab.artifacts.values()}
    for name, run in runs.items():
        assert run["state"] == "finished" and run["summary"]["difference/cross-entropy/p"] <= 1
        about = json.loads(run["config"])
        assert [about[f"run_{side}"]["value"] for side in "ab"] == [f"measure-{key}" for key in keys]
        assert {(name, artifacts[f"record-{key}"]["id"]) for key in keys} <= set(server.lab.uses)
        assert artifacts[name.replace("compare", "comparison", 1)]["type"] == "rbp-comparison"
        assert run["summary"]["tables/differences"]["_type"] == "table-file"
    kl = runs[in_one_pass]["summary"]
    assert kl["distance/KL(a‖b)/lower"] < kl["distance/KL(a‖b)"] < kl["distance/KL(a‖b)/upper"]
    before = len(server.lab.operations)
    assert "everything was there already" in sync(tmp_path) and len(server.lab.operations) == before
    (tmp_path / "mirrored" / f"{in_one_pass}.json").unlink()
    assert sync(tmp_path).startswith("1 results mirrored") and len(server.lab.runs) == 5
    header = Store(tmp_path).pairs()[0].header
    header.write_text("{")
    (tmp_path / "mirrored" / f"{in_one_pass}.json").unlink()
    with pytest.raises(Exception, match="could not be"):
        sync(tmp_path)
