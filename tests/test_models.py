"""Model sources: directories, a hub on the loopback interface, every way in which a model can be unusable."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rbp_lab.errors import LabError
from rbp_lab.models import HFModel
from rbp_lab.models.head import full_logits
from tests import hub_server
from tests.conftest import TINY_TEXTS, build_tiny_model, build_tiny_tokenizer, save_tiny_model

CONF = Path(__file__).parent.parent / "conf" / "model"
# The 24 models of [RBP] (arXiv 2510.20387, section 4).
PAPER = {
    "gpt2": {name: f"openai-community/{name}" for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")},
    "opt": {f"opt-{size}": f"facebook/opt-{size}" for size in ("125m", "350m", "1.3b", "2.7b", "6.7b")},
    "pythia": {
        f"pythia-{size}": f"EleutherAI/pythia-{size}"
        for size in ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
    },
    "qwen2.5": {f"qwen2.5-{size.lower()}": f"Qwen/Qwen2.5-{size}" for size in ("0.5B", "1.5B", "3B", "7B", "14B")},
}
IDS = torch.arange(12).reshape(2, 6)


def fingerprint(directory: Path) -> str:
    return HFModel(path=str(directory)).open().info.fingerprint


def compose(name: str, *overrides: str) -> dict:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONF.parent), version_base="1.3"):
        return OmegaConf.to_container(hydra_compose(f"model/{name}", overrides=list(overrides)).model, resolve=True)


@pytest.mark.parametrize(
    ("family", "name", "path"), [(family, name, path) for family, ms in PAPER.items() for name, path in ms.items()]
)
def test_the_papers_models_compose_and_build(family, name, path):
    config = compose(name)
    assert config.pop("_target_") == "rbp_lab.models.HFModel"
    assert HFModel(**config) == HFModel(path=path, name=name, family=family)


def test_the_generic_model_takes_every_field_and_names_itself():
    config = compose("hf", "model.path=EleutherAI/pythia-14m", "model.revision=step1000")
    config.pop("_target_")
    assert set(config) == {field.name for field in dataclasses.fields(HFModel)}
    assert HFModel(**config) == HFModel(path="EleutherAI/pythia-14m", revision="step1000", name="pythia-14m@step1000")


@pytest.mark.parametrize(
    ("path", "revision", "name"),
    [
        ("gpt2", None, "gpt2"),
        ("owner/model", "refs/pr/1", "model@refs-pr-1"),
        ("/some/where/my model/", None, "my-model"),
        ("..", None, Path("..").resolve().name),
    ],
)
def test_names_are_safe_for_directories(path, revision, name):
    assert HFModel(path=path, revision=revision).name == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": " "}, "model.path is empty"),
        ({"path": "a/b", "name": "a/b"}, "may not be empty or a path; got 'a/b'"),
        ({"path": "a/b", "name": ".."}, "may not be empty or a path"),
        ({"path": "a/b", "dtype": "fp32"}, "must be one of float32, bfloat16, float16, or null; got 'fp32'"),
        ({"path": "/nowhere", "revision": "main"}, "is for hub ids"),
    ],
)
def test_bad_fields_are_sentences(arguments, message):
    with pytest.raises(LabError, match=message):
        HFModel(**arguments)


def test_info_of_a_directory(tiny_model_dir):
    info = HFModel(path=str(tiny_model_dir), family="tiny", training_tokens=7).open().info
    assert (info.name, info.family, info.path, info.revision) == ("tiny-neox", "tiny", str(tiny_model_dir), None)
    assert (info.architecture, info.stored_dtype) == ("GPTNeoXForCausalLM", "float32")
    assert (info.vocab_rows, info.tokenizer_size, info.max_positions, info.training_tokens) == (384, 300, 128, 7)
    assert (info.params.embedding, info.params.head, info.params.total) == (384 * 32, 384 * 32, 41728)
    assert info.fingerprint == fingerprint(tiny_model_dir)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loading_gives_the_saved_weights_ready_to_measure(tiny_gpt2_dir, dtype):
    model = HFModel(path=str(tiny_gpt2_dir), attention="eager").open().load(dtype, "cpu").network
    assert not model.training and not any(weight.requires_grad for weight in model.parameters())
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    assert model.config._attn_implementation == "eager"
    own = full_logits(build_tiny_model("gpt2"), IDS)
    torch.testing.assert_close(full_logits(model, IDS).float(), own, rtol=0, atol=1e-5 if dtype.itemsize == 4 else 0.2)


def test_sharded_and_pickled_checkpoints_load(tmp_path):
    own = full_logits(build_tiny_model("gpt_neox"), IDS)
    sharded, pickled = tmp_path / "sharded", tmp_path / "pickled"
    save_tiny_model(sharded, "gpt_neox")
    (sharded / "model.safetensors").unlink()
    build_tiny_model("gpt_neox").save_pretrained(sharded, max_shard_size="60KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    shutil.copytree(sharded, pickled, ignore=shutil.ignore_patterns("*.safetensors*"))
    torch.save(build_tiny_model("gpt_neox").state_dict(), pickled / "pytorch_model.bin")
    for directory in (sharded, pickled):
        opened = HFModel(path=str(directory)).open()
        torch.testing.assert_close(full_logits(opened.load(torch.float32, "cpu").network, IDS), own)
    next(sharded.glob("model-*-of-*.safetensors")).unlink()
    with pytest.raises(LabError, match=r"is incomplete: 1 of \d+ weight files"):
        HFModel(path=str(sharded)).open()


def test_the_tokenizer_never_shortens_a_text(tiny_model_dir):
    ids = HFModel(path=str(tiny_model_dir)).open().tokenizer(TINY_TEXTS[0] * 100)["input_ids"]
    assert len(ids) > 1000


def edited(directory: Path, where: Path, change) -> Path:
    copy = Path(shutil.copytree(directory, where / "edited"))
    change(copy)
    return copy


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda d: None, True),
        (lambda d: (d / "README.md").write_text("about"), True),
        (lambda d: (d / "generation_config.json").unlink(missing_ok=True), True),
        (lambda d: flip_last_byte(d / "model.safetensors"), False),
        (lambda d: build_tiny_tokenizer(290).save_pretrained(d), False),
        (lambda d: (d / "config.json").write_text((d / "config.json").read_text() + " "), False),
    ],
    ids=["copy", "read-me", "generation", "weights", "tokenizer", "config"],
)
def test_the_fingerprint_is_of_what_changes_numbers(tiny_model_dir, tmp_path, change, same):
    directory = edited(tiny_model_dir, tmp_path, change)
    assert (fingerprint(directory) == fingerprint(tiny_model_dir)) is same


def remove(*names):
    return lambda directory: [(directory / name).unlink(missing_ok=True) for name in names]


def rewrite_config(**changes):
    def change(directory):
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(config | changes))

    return change


def headless(directory):
    from transformers import AutoModel

    AutoModel.from_pretrained(directory).save_pretrained(directory)


CODE = {"auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}, "model_type": "own"}
BROKEN = {
    "no config": (remove("config.json"), "has no config.json"),
    "no weights": (remove("model.safetensors"), "holds no weights: expected model.safetensors or"),
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), "holds no tokenizer"),
    "bad json": (lambda d: (d / "config.json").write_text("{"), "cannot read the config of .*JSON is not"),
    "unknown type": (rewrite_config(model_type="nosuch"), "cannot read the config of .*nosuch"),
    "own code": (rewrite_config(**CODE), "ships its own code.*set trust_remote_code=true"),
    "no head": (headless, r"lacks weights or has them in another shape \((embed_out|lm_head).weight\)"),
    "other shape": (rewrite_config(intermediate_size=65), r"in another shape \(.*mlp.*\).*would be random"),
    "cut off": (lambda d: (d / "model.safetensors").write_bytes(b"half"), "is damaged or incomplete: its 4 bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_unusable_model_is_one_sentence(case, tiny_model_dir, tmp_path):
    change, message = BROKEN[case]
    source = HFModel(path=str(edited(tiny_model_dir, tmp_path, change)))
    with pytest.raises(LabError, match=message) as caught:
        source.open().load(torch.float32, "cpu")
    assert "\n" not in str(caught.value)


def test_a_missing_directory_is_told_from_a_hub_id(tmp_path):
    for source in (HFModel(path=str(tmp_path / "none")), HFModel(path="a/b/c"), HFModel(path="./none")):
        with pytest.raises(LabError, match="no model directory"):
            source.open()
    with pytest.raises(
        LabError, match="cannot read the config of no/such: it is not in the local cache and HF_HUB_OFF"
    ):
        HFModel(path="no/such").open()


def test_sources_do_not_import_torch():
    script = (
        "import sys, rbp_lab.models; rbp_lab.models.HFModel(path='a/b');"
        "print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


ON_HUB = """
import json, sys, dataclasses
from rbp_lab.errors import LabError
from rbp_lab.models import HFModel
out = {}
for key, fields in json.loads(sys.argv[1]).items():
    source = HFModel(**fields)
    try:
        opened = source.open()
        import torch
        ids = torch.tensor([opened.tokenizer("the best of times")["input_ids"]])
        logits = opened.load(torch.float32, "cpu").network(input_ids=ids).logits
        out[key] = {**dataclasses.asdict(opened.info), "sum": logits.sum().item()}
    except LabError as error:
        out[key] = str(error)
print(json.dumps(out))
"""


def test_a_hub_model_is_pinned_to_its_commit_and_found_again_offline(tiny_model_dir, tiny_gpt2_dir, tmp_path):
    root = tmp_path / "models"
    main = Path(shutil.copytree(tiny_model_dir, root / "tiny" / "neox"))
    step = Path(shutil.copytree(tiny_gpt2_dir, root / "tiny" / "neox@step1"))
    pickled = Path(shutil.copytree(tiny_gpt2_dir, root / "tiny" / "old", ignore=shutil.ignore_patterns("*.safetens*")))
    torch.save(build_tiny_model("gpt2").state_dict(), pickled / "pytorch_model.bin")
    asked = {
        "main": {"path": "tiny/neox"},
        "step": {"path": "tiny/neox", "revision": "step1"},
        "old": {"path": "tiny/old"},
        "unknown": {"path": "tiny/none"},
        "revision": {"path": "tiny/neox", "revision": "step2"},
    }
    server = hub_server.serve(tmp_path)
    online = json.loads(hub_server.run_client(ON_HUB, server, tmp_path / "home", json.dumps(asked)))
    requests = len(server.log)
    for key, repo in (("main", main), ("step", step), ("old", pickled)):
        assert isinstance(online[key], dict), online[key]
        assert online[key]["revision"] == online[key]["fingerprint"] == hub_server.commit_of(repo)
    assert online["main"]["architecture"] == "GPTNeoXForCausalLM" and online["main"]["name"] == "neox"
    assert online["step"]["architecture"] == "GPT2LMHeadModel" and online["step"]["name"] == "neox@step1"
    assert online["step"]["sum"] == pytest.approx(online["old"]["sum"], rel=1e-6)
    assert "cannot read the config of tiny/none: the hub has no such public repository" in online["unknown"]
    assert "at revision step2: the repository exists, but not this revision" in online["revision"]
    assert not [path for _, path in server.log if "/commits/" in path], "a conversion to safetensors was asked for"

    again = {key: asked[key] for key in ("main", "step", "unknown")}
    offline = json.loads(hub_server.run_client(ON_HUB, server, tmp_path / "home", json.dumps(again), offline=True))
    assert len(server.log) == requests
    assert (offline["main"], offline["step"]) == (online["main"], online["step"])
    assert "not in the local cache and HF_HUB_OFFLINE is set" in offline["unknown"]
    server.shutdown()
