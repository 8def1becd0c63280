"""Checkpoints of one training: which are meant, what each is called and had seen, that each is measured by itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rbp_lab.commands import measure
from rbp_lab.commands.sweep import look_ahead
from rbp_lab.config.trajectory import checkpoint_configs
from rbp_lab.errors import LabError
from rbp_lab.fits.points import Label
from rbp_lab.models import HFModel
from rbp_lab.models.trajectory import choose, listed_out, log_spaced, step_of, tokens_of
from rbp_lab.points import points_from_records, series
from rbp_lab.store.records import list_records
from tests import hub_server
from tests.sources import measure_config
from tests.test_models import compose


@pytest.mark.parametrize(
    ("label", "step", "tokens"),
    [
        ("step512", 512, 5120),
        ("checkpoint-1000", 1000, 10_000),
        ("globalstep7", 7, 70),
        ("ckpt_3", 3, 30),
        ("Iter-0000500", 500, 5000),
        ("stage1-step150-tokens1B", 150, 1500),
        ("main", None, None),
        ("v1.0", None, None),
        ("misstep3", None, None),
    ],
)
def test_a_label_says_its_step(label, step, tokens):
    assert step_of(label) == step and tokens_of(label, 10) == tokens


def test_a_label_may_say_its_tokens():
    for unit, tokens in {"K": 1_000, "M": 1_000_000, "B": 1_000_000_000, "T": 1_000_000_000_000, "b": 10**9}.items():
        assert tokens_of(f"stage1-step150-tokens3{unit}", None) == 3 * tokens
    assert tokens_of("step150", None) is None and tokens_of("step1-tokens5Bx", None) is None
    assert tokens_of("step1-notokens5B", None) is None


def test_log_spaced_steps_end_at_the_last_and_never_repeat():
    assert log_spaced(range(1, 1001), 4) == [1, 10, 100, 1000]
    assert log_spaced([1, 2, 3], 8) == [1, 2, 3] and log_spaced(range(5, 90), 1) == [89]
    assert log_spaced([1, 12, 60, 1000], 3) == [1, 60, 1000]  # 12 is nearer to 31.6, its logarithm is not
    for count in range(1, 40):
        found = log_spaced(range(35, 701), count)
        assert found[-1] == 700 and found == sorted(set(found)) and len(found) == count


def test_what_stands_for_checkpoints():
    there = ["main", "step8", "step16", "step128", "notes"]

    def never():
        pytest.fail("the hub was asked")

    assert choose(["b", "a"], [], never, "r") == ["b", "a"]
    assert choose("published", ["x", "y"], never, "r") == ["x", "y"]
    assert choose("step1*", [], lambda: there, "r") == ["step16", "step128"]
    assert choose("step1*", ["step1", "step2"], never, "r") == ["step1"]
    assert choose(2, [], lambda: there, "r") == ["step8", "step128"]
    for wanted, words in (
        ([], "name each checkpoint once"), (["a", "a"], "name each checkpoint once"), ("published", "lists none"),
        ("step3", "has no such checkpoint with a step in its name; there are step8, step16, step128"),
        (0, "at least 1"),
    ):  # fmt: skip
        with pytest.raises(LabError, match=words):
            choose(wanted, [], lambda: there, "r")
    with pytest.raises(LabError, match="r has no checkpoint with a step"):
        choose(3, [], lambda: ["main"], "r")
    stages = ["stage1-step10-tokens1B", "stage1-step40-tokens4B", "stage2-ingredient1-step7-tokens2B"]
    assert choose("stage1-*", [], lambda: stages, "r") == stages[:2]
    for wanted in (2, "*step*"):
        with pytest.raises(LabError, match=r"several trainings \('stage1', 'stage2-ingredient1'\).*fits one of them"):
            choose(wanted, [], lambda: stages, "r")
    assert listed_out(["a", "step{5..5..1}", "step{1..6..2}-x"]) == ["a", "step5", "step1-x", "step3-x", "step5-x"]
    for wrong in ("step{5..1..1}", "step{1..5..0}"):
        with pytest.raises(LabError, match="no rising range"):
            listed_out([wrong])


def members(name, *overrides):
    config = {"model": compose(name, *overrides)}
    return [HFModel(**{k: v for k, v in one["model"].items() if k != "_target_"}) for one in checkpoint_configs(config)]


def test_pythia_ships_its_published_steps():
    """154 checkpoints and 299,892,736,000 tokens (arXiv 2304.01373, section 2.2)."""
    found = members("pythia-14m", "model.checkpoints=published")
    assert len(found) == 154
    assert [m.step for m in found[:13]] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000]
    assert found[0].name == "pythia-14m@step0" and found[0].training_tokens == 0 and found[0].revision == "step0"
    last = found[-1]
    assert (last.name, last.revision, last.step, last.training_tokens) == ("pythia-14m", None, 143000, 299_892_736_000)
    assert last == members("pythia-14m")[0]  # main holds the last, so it has one record
    few = members("pythia-70m-deduped", "model.checkpoints=4")
    assert [m.step for m in few] == [1, 64, 3000, 143000] and {m.family for m in few} == {"pythia-deduped"}
    assert [m.step for m in members("pythia-1b", "model.checkpoints=[step512,step1000]")] == [512, 1000]
    at = members("pythia-14m", "model.revision=step1000")[0]
    (named,) = members("pythia-14m", "model.checkpoints=[step1000]")
    fields = ("name", "revision", "step", "training_tokens", "warmup_tokens")
    assert [getattr(at, f) for f in fields] == [getattr(named, f) for f in fields]
    assert (at.name, at.training_tokens) == ("pythia-14m@step1000", 2_097_152_000)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"checkpoints": 3, "revision": "step1"}, "is one checkpoint and model.checkpoints=3 several"),
        ({"tokens_per_step": 0}, "model.tokens_per_step must be at least 1"),
    ],
)
def test_what_contradicts_itself_is_a_sentence(fields, words):
    with pytest.raises(LabError, match=words):
        HFModel(path="a/b", **fields)


def test_a_model_that_stands_for_several_is_not_opened():
    with pytest.raises(LabError, match=r"stands for checkpoints .*rbp-lab measure takes them all"):
        HFModel(path="a/b", checkpoints=["step1"]).open()


def test_tokens_that_nobody_knows_are_asked_for():
    with pytest.raises(LabError, match=r"'step1' are not known, .* give model.tokens_per_step"):
        HFModel(path="a/b", checkpoints=["step1"]).members()


@pytest.fixture
def run_directory(tiny_model_dir, tmp_path) -> Path:
    """Two checkpoints of a training with other weights, and a directory that is none."""
    for name, change in (("checkpoint-10", 0), ("checkpoint-200", 1), ("logs", None)):
        where = tmp_path / "run" / name
        if change is None:
            where.mkdir()
            continue
        shutil.copytree(tiny_model_dir, where)
        config = json.loads((where / "config.json").read_text())
        (where / "config.json").write_text(json.dumps({**config, "note": change}))
    return tmp_path / "run"


def test_a_directory_of_checkpoints_is_measured_and_is_one_size(run_directory, tmp_path, capsys):
    config = measure_config(run_directory, tmp_path / "store")
    config["model"] |= {"checkpoints": "checkpoint-*", "tokens_per_step": 16, "warmup_tokens": 160}
    assert measure.run(config) == "measured" and measure.run(config) == "found"
    records = sorted(list_records(tmp_path / "store"), key=lambda r: r.model.training_tokens)
    assert [r.model.name for r in records] == ["tiny@checkpoint-10", "tiny@checkpoint-200"]
    assert [(r.model.step, r.model.training_tokens, r.model.warmup_tokens) for r in records] == [
        (10, 160, 160), (200, 3200, 160),
    ]  # fmt: skip
    points = points_from_records(records, [1])
    law = series(points, Label("tiny", "made-up", "ce"))
    assert law.names == ("tiny@checkpoint-200",)  # one size, not two models


def test_checkpoints_of_a_directory_are_its_directories_wherever_one_goes(run_directory, monkeypatch):
    (run_directory / "checkpoint-300").write_text("an archive, perhaps")
    (run_directory / "my checkpoint-7").mkdir()
    monkeypatch.chdir(run_directory.parent)
    found = HFModel(path="run", checkpoints="checkpoint-*", tokens_per_step=1).members()
    assert [m.path for m in found] == [str(run_directory / name) for name in ("checkpoint-10", "checkpoint-200")]
    (named,) = HFModel(path="run", checkpoints=["my checkpoint-7"], tokens_per_step=1).members()
    assert (named.name, named.path) == ("run@my-checkpoint-7", str(run_directory / "my checkpoint-7"))


def test_what_is_known_of_a_training_later_reaches_a_finished_record(run_directory, tmp_path, capsys):
    config = measure_config(run_directory / "checkpoint-10", tmp_path / "store")
    assert measure.run(config) == "measured"
    config["model"] |= {"training_tokens": 160, "warmup_tokens": 80, "step": 10}
    assert measure.run(config) == "found"
    (record,) = list_records(tmp_path / "store")
    assert (record.model.training_tokens, record.model.warmup_tokens, record.model.step) == (160, 80, 10)
    del config["model"]["training_tokens"]
    assert measure.run(config) == "found" and list_records(tmp_path / "store")[0].model.training_tokens == 160
    assert "called" not in capsys.readouterr().err


def test_a_checkpoint_that_fails_does_not_stop_the_others(run_directory, tmp_path, capsys):
    (run_directory / "checkpoint-10" / "model.safetensors").unlink()
    config = measure_config(run_directory, tmp_path / "store")
    config["model"] |= {"checkpoints": "checkpoint-*", "tokens_per_step": 16}
    with pytest.raises(LabError, match="1 of 2 checkpoints could not be measured"):
        measure.run(config)
    assert [r.model.step for r in list_records(tmp_path / "store")] == [200]
    assert "tiny@checkpoint-10" in capsys.readouterr().err


def test_a_sweep_looks_at_the_last_checkpoint(run_directory, tmp_path, capsys):
    config = measure_config(run_directory, tmp_path / "store")
    config["model"] |= {"checkpoints": ["checkpoint-10", "checkpoint-200"], "tokens_per_step": 16}
    look_ahead([config])
    assert capsys.readouterr().err == ""
    (run_directory / "checkpoint-200" / "config.json").unlink()
    look_ahead([config])
    assert "tiny@checkpoint-200: " in capsys.readouterr().err


BRANCHES = """
import json, sys
from rbp_lab.errors import LabError
from rbp_lab.models import HFModel
out = []
for fields in json.loads(sys.argv[1]):
    try:
        for model in HFModel(**fields).members():
            info = model.open().info
            out.append([info.name, info.revision, info.step, info.training_tokens])
    except LabError as error:
        out.append(str(error))
print(json.dumps(out))
"""


def test_branches_of_a_hub_repository(tiny_model_dir, tiny_gpt2_dir, tmp_path):
    repos = {
        name: Path(shutil.copytree(source, tmp_path / "hub" / "models" / "some" / name))
        for name, source in {"run": tiny_gpt2_dir, "run@step1": tiny_model_dir, "run@step20": tiny_gpt2_dir}.items()
    }
    (repos["run@step20"] / "note.txt").write_text("another commit")
    server = hub_server.serve(tmp_path / "hub")
    asked = [
        {"path": "some/run", "checkpoints": "step*", "tokens_per_step": 100},
        {"path": "some/run", "checkpoints": ["step2"], "tokens_per_step": 100},
        {"path": "some/none", "checkpoints": 3, "tokens_per_step": 100},
    ]
    said = json.loads(hub_server.run_client(BRANCHES, server, tmp_path / "home", json.dumps(asked)))
    server.shutdown()
    server.server_close()
    commits = {name: hub_server.commit_of(repo) for name, repo in repos.items()}
    assert said[:2] == [
        ["run@step1", commits["run@step1"], 1, 100], ["run@step20", commits["run@step20"], 20, 2000],
    ]  # fmt: skip
    assert "at revision step2: the repository exists, but not this revision" in said[2]
    assert "cannot list the checkpoints of some/none" in said[3] and "no such public repository" in said[3]
