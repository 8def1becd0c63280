"""What of a model can be known before its weights are there, and what speaks against measuring it."""

from __future__ import annotations

import json
import shutil
import sys

import psutil
import pytest
import torch

from rbp_lab.commands import ls
from rbp_lab.commands.sweep import look_ahead
from rbp_lab.config.arguments import parse
from rbp_lab.data.windows import Windowing
from rbp_lab.errors import LabError
from rbp_lab.measurement.preflight import BESIDE, _too_large, available, check, operations, speed
from rbp_lab.models import HFModel
from tests import hub_server
from tests.conftest import build_tiny_model
from tests.test_configs import composed

SHORT = Windowing(max_tokens=64)


def test_a_model_of_this_machine_is_known_without_its_weights(tiny_model_dir):
    source = HFModel(path=str(tiny_model_dir), name="m")
    found = check(source, SHORT, "bfloat16", "cpu")
    total = sum(weight.numel() for weight in build_tiny_model("gpt_neox").parameters())
    assert (found.name, found.problem, found.parameters, found.download) == ("m", "", total, 0)
    assert found.memory == 2 * total + BESIDE
    assert found.seconds == pytest.approx(operations(source.look()) * 100_000 / speed("cpu", "bfloat16"))
    own = check(HFModel(path=str(tiny_model_dir), dtype="bfloat16"), SHORT, "float32", "cpu")  # a model's own format
    assert (own.memory, own.seconds) == (found.memory, found.seconds)
    looked, opened = source.look(), source.open().info
    assert looked.fingerprint == "" and opened.fingerprint
    assert {k: v for k, v in vars(looked).items() if k != "fingerprint"} == {
        k: v for k, v in vars(opened).items() if k != "fingerprint"
    }


def test_rounded_layers_need_less_memory(tiny_model_dir):
    plain, rounded = (
        check(HFModel(path=str(tiny_model_dir), quantisation=kind), SHORT, "float32", "cpu") for kind in (None, "int8")
    )
    params = HFModel(path=str(tiny_model_dir)).look().params
    assert plain.memory - rounded.memory == 3 * params.non_embedding


def test_a_package_that_rounding_lacks_is_said_before_the_weights_are_loaded(tiny_model_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    said = [
        check(HFModel(path=str(tiny_model_dir), quantisation=kind), SHORT, "float32", "cpu").problem
        for kind in (None, "int8", "int4+head")
    ]
    needs = "rounding weights to {} needs torchao: pip install 'rbp-lab[torchao]'"
    assert said == ["", needs.format("int8"), needs.format("int4")]


def test_a_rounded_head_is_no_longer_the_embedding(tiny_gpt2_dir):
    tied, rounded = (
        check(HFModel(path=str(tiny_gpt2_dir), quantisation=kind), SHORT, "float32", "cpu")
        for kind in ("int8", "int8+head")
    )
    assert rounded.memory - tied.memory == 4 * HFModel(path=str(tiny_gpt2_dir)).look().params.embedding > 0


def test_free_memory_is_that_of_the_machine_and_of_every_gpu(monkeypatch):
    machine = psutil.virtual_memory()
    assert available("cpu") == pytest.approx(machine.available, abs=0.1 * machine.total)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: ((10 + i) << 40, 80 << 40))
    assert available("cuda") - (21 << 40) == pytest.approx(machine.available, abs=0.1 * machine.total)


def test_what_speaks_against_a_model_is_a_sentence(tiny_model_dir, tmp_path):
    source = HFModel(path=str(tiny_model_dir), name="m")
    assert check(source, Windowing(max_tokens=129), "float32", "cpu").problem == (
        "it has 128 positions, fewer than dataset.protocol.max_tokens=129; choose at most that many"
    )
    assert check(source, Windowing(max_tokens=128), "float32", "cpu").problem == ""
    large = check(source, SHORT, "float32", "cpu", room=1 << 29)
    assert large.problem == "it needs about 1 GiB and memory has 512 MiB free; choose a smaller precision"
    copy = shutil.copytree(tiny_model_dir, tmp_path / "model")
    (copy / "model.safetensors").unlink()
    missing = check(HFModel(path=str(copy), name="m"), SHORT, "float32", "cpu")
    assert missing.problem.startswith(f"{copy} holds no weights") and missing.parameters is None
    (copy / "config.json").write_text("{")
    (copy / "model.safetensors").write_bytes((tiny_model_dir / "model.safetensors").read_bytes())
    broken = check(HFModel(path=str(copy), name="m"), SHORT, "float32", "cpu")
    assert broken.problem.startswith("cannot read the config of ")  # whose it is stands beside it


def test_a_token_costs_two_operations_for_each_weight_that_multiplies_it(tiny_model_dir, tiny_gpt2_dir):
    for directory, kind in ((tiny_model_dir, "gpt_neox"), (tiny_gpt2_dir, "gpt2")):
        info, model = HFModel(path=str(directory)).look(), build_tiny_model(kind)
        head = model.get_output_embeddings().weight.numel()
        assert 0 <= operations(info) - 2 * (info.params.non_embedding + head) <= 2 * 128 * 32  # learned positions


def test_the_speed_is_that_of_the_best_product():
    ticks = iter([0.0, 4.0, 4.0, 6.0, 6.0, 7.0, 7.0, 9.0])
    assert speed("cpu", "float32", lambda: next(ticks)) == 2.0 * 1024**3 / 1.0


def test_the_command_line_asks_for_models_and_checks():
    assert parse("ls", ["models", "--check", "pythia-*", "dataset=c4"]).overrides == (
        "what=models", "dataset=c4", "what=models", 'pattern="pythia-*"', "check=true",
    )  # fmt: skip
    assert parse("ls", ["models"]).overrides == ("what=models", 'pattern="*"')
    assert parse("ls", ["store=x"]).overrides == ("store=x",)


def test_listed_models_are_those_with_all_that_they_need(tmp_path, capsys):
    config = composed("ls", "what=models", 'pattern="[hl]*"', f"store={tmp_path}")
    assert set(config["sources"]) == {name for name in config["models"] if name[0] in "hl"} - {"hf", "ladder"}
    ls.run(composed("ls", "what=models", 'pattern="llama-2-*"', f"store={tmp_path}"))
    out = capsys.readouterr().out
    assert "meta-llama/Llama-2-70b-hf" in out and "Llama 2, gated" in out and "6.74B" in out and "gpt2" not in out


def test_a_check_that_finds_a_problem_fails(tmp_path, capsys):
    asked = ("what=models", 'pattern="ladder-[12]"', "check=true", "device=cpu", f"store={tmp_path}")
    with pytest.raises(LabError, match="2 of 2 models cannot be measured here as they are asked for"):
        ls.run(composed("ls", *asked))
    out = capsys.readouterr().out
    assert "ladder-1: " in out and "not trained yet; run: rbp-lab train model=ladder-1" in out
    with pytest.raises(LabError, match="no model matches 'nothing-"):
        ls.run(composed("ls", "what=models", 'pattern="nothing-*"', "check=true", f"store={tmp_path}"))


def job(directory, name, **protocol):
    model = {"_target_": "rbp_lab.models.HFModel", "path": str(directory), "name": name}
    dataset = {"_target_": "tests.sources.MadeUpText", "protocol": {"max_tokens": 64} | protocol}
    return {"model": model, "dataset": dataset, "precision": {"dtype": "float32"}, "launch": {"device": "cpu"}}


def test_a_sweep_says_at_first_which_of_its_models_cannot_be_measured(tiny_model_dir, tmp_path, capsys):
    good = [job(tiny_model_dir, "good"), job(tiny_model_dir, "good", windows="rolling")]
    look_ahead(good)
    assert capsys.readouterr() == ("", "")
    wrong = [{**good[0], "precision": {"dtype": "float7"}}, {"model": good[0]["model"]}]
    look_ahead([*good, good[0], *wrong, job(tmp_path / "none", "gone"), job(tiny_model_dir, "long", max_tokens=200)])
    out, err = capsys.readouterr()
    assert out == "" and err.count("│ good") == 2
    assert "\ngone: no model directory" in err and "\nlong: it has 128 positions" in err
    assert err.endswith("2 of 4 models of this sweep cannot be measured; it goes on with the others\n")
    names = [f"a-19-cells-name-{i}-b" for i in range(3)]
    look_ahead([job(tmp_path / name, name) for name in names])
    err = capsys.readouterr().err
    assert all(f"│ {name} │" in err for name in names)
    assert "┃ parameters ┃" in err
    assert f"\n{', '.join(names)}: no model directory" in err and err.endswith(" cannot be measured\n")


CHECK = """
import dataclasses, json, sys
from rbp_lab.data.windows import Windowing
from rbp_lab.models import HFModel
from rbp_lab.measurement.preflight import check
found = [check(HFModel(path=path), Windowing(max_tokens=64), "float32", "cpu", 1 << 40) for path in sys.argv[1:]]
print(json.dumps([[c.name, c.problem, c.download] for c in found]))
"""


def test_models_of_the_hub_are_checked_without_fetching_their_weights(tiny_model_dir, tmp_path):
    models = tmp_path / "hub" / "models" / "some"
    whole, bare = (shutil.copytree(tiny_model_dir, models / name) for name in ("whole", "bare"))
    (bare / "model.safetensors").unlink()
    server = hub_server.serve(tmp_path / "hub")
    server.refuse = {"/some/gated/*": (403, {"X-Error-Code": "GatedRepo"})}
    names = ["some/whole", "some/bare", "some/gated", "some/nowhere"]
    found = json.loads(hub_server.run_client(CHECK, server, tmp_path / "home", *names))
    server.refuse["/api/models/some/whole/*"] = 503, {}  # out of order, after config and tokenizer were here
    (again,) = json.loads(hub_server.run_client(CHECK, server, tmp_path / "home", "some/whole"))
    assert again == ["whole", "", None]
    server.shutdown()
    server.server_close()
    assert found[0] == ["whole", "", (whole / "model.safetensors").stat().st_size]
    assert "some/bare holds no weights of transformers" in found[1][1]
    assert "the repository is gated" in found[2][1] and "no such public repository" in found[3][1]
    assert not any("safetensors" in path for method, path in server.log if method == "GET")


def test_a_model_larger_than_a_gpu_is_spread_so_all_memory_counts():
    assert _too_large(3 << 30, "cuda", 4 << 30) == ""
    assert _too_large(3 << 30, "cuda", 2 << 30) == (
        "it needs about 3 GiB and the memory of the GPUs and of this machine has 2 GiB free; choose a smaller precision"
    )
