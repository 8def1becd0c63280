"""Model sources: directories, a hub on the loopback interface, every way in which a model can be unusable."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rbp_lab.errors import LabError
from rbp_lab.models import HFModel
from rbp_lab.models.head import full_logits
from rbp_lab.models.opening import checked_weights, is_local, listed, local_path, showing
from tests import hub_server
from tests.conftest import TINY_TEXTS, build_tiny_model, build_tiny_tokenizer, save_tiny_model
from tests.sources import composed

CONF = Path(__file__).parent.parent / "conf" / "model"
IDS = torch.arange(12).reshape(2, 6)


def fingerprint(directory: Path) -> str:
    return HFModel(path=str(directory)).open().info.fingerprint


def compose(name: str, *overrides: str) -> dict:
    return composed(f"model/{name}", "+store=here", *overrides)["model"]


def test_the_generic_model_takes_every_field_and_names_itself():
    config = compose("hf", "model.path=EleutherAI/pythia-14m", "model.revision=step1000")
    config.pop("_target_")
    assert set(config) == {field.name for field in dataclasses.fields(HFModel)}
    assert HFModel(**config) == HFModel(
        path="EleutherAI/pythia-14m", revision="step1000", name="pythia-14m@step1000", cache="here/cache/models"
    )


@pytest.mark.parametrize(
    ("path", "revision", "name"),
    [
        ("gpt2", None, "gpt2"),
        ("owner/model", "refs/pr/1", "model@refs-pr-1"),
        ("/some/where/my model/", None, "my-model"),
        ("..", None, Path("..").resolve().name),
        (".", None, Path(".").resolve().name),
        ("/some/where/$(rm)[1]\x1b[0m", None, "rm-1-0m"),
        ("/some/where/" + "x" * 250, None, "x" * 120),
        ("/some/where/" + "模" * 80, None, "模" * 40),
    ],
)
def test_names_are_safe_for_directories(path, revision, name):
    assert HFModel(path=path, revision=revision).name == name


@pytest.mark.parametrize(
    ("name", "revision", "shown"),
    [
        ("pythia-14m", "step1000", "pythia-14m@step1000"),
        ("pythia-14m", None, "pythia-14m"),
        ("pythia-14m-step1000", "step1000", "pythia-14m-step1000"),
        ("pythia-14m@step1000", "step1000", "pythia-14m@step1000"),
        ("pythia_step1000_b", "step1000", "pythia_step1000_b"),
        ("mine-v1x0", "v1.0", "mine-v1x0@v1.0"),
        ("pythia-step10000", "step1000", "pythia-step10000@step1000"),
        ("domain-7b", "main", "domain-7b@main"),
        ("mine", "refs/pr/1", "mine@refs-pr-1"),
    ],
)
def test_a_revision_shows_in_the_name_once(name, revision, shown):
    source = HFModel(path="EleutherAI/pythia-14m", name=name, revision=revision)
    assert source.name == shown == HFModel(path="EleutherAI/pythia-14m", name=shown, revision=revision).name


def test_two_checkpoints_of_a_named_model_have_two_names():
    configs = [compose("pythia-14m", f"model.revision=step{i}") for i in (1000, 2000)]
    names = [HFModel(**{k: v for k, v in config.items() if k != "_target_"}).name for config in configs]
    assert names == ["pythia-14m@step1000", "pythia-14m@step2000"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": " "}, "model.path is empty"),
        ({"path": "a/b", "name": "a/b"}, "may not be empty or a path; got 'a/b'"),
        ({"path": "a/b", "name": ".."}, "may not be empty or a path"),
        ({"path": "a/b", "name": "cost$"}, r"model.name .* may not contain '\$'; got 'cost\$'"),
        ({"path": "a/b", "name": "a[1]"}, r"may not contain '\['"),
        ({"path": "a/b", "name": "red\x1b[31m"}, r"may not contain '\\x1b'"),
        ({"path": "a/b", "name": "two\nlines"}, r"may not contain '\\n'"),
        ({"path": "a/b", "name": "\u202egpt"}, r"may not contain '\\u202e'"),
        ({"path": "a/b", "name": "x" * 300}, "model.name has 300 characters, which is too long"),
        ({"path": "a/b", "name": "模" * 100}, "model.name has 100 characters, which is too long"),
        ({"path": "a/b", "name": " "}, "may not be empty"),
        ({"path": "a/b", "name": 70}, "model.name must be text; got 70; quote it"),
        ({"path": "a/b", "revision": 1000}, "model.revision must be text; got 1000; quote it"),
        ({"path": None}, "model.path is empty"),
        ({"path": 7}, "model.path must be text; got 7; quote it"),
        ({"path": "a/b", "family": "x$y"}, r"model.family is a label and may not contain '\$'"),
        ({"path": "a/b", "family": ""}, "model.family may not be empty"),
        ({"path": "a/b", "dtype": "fp32"}, "must be one of float32, bfloat16, float16, or null; got 'fp32'"),
        ({"path": "/nowhere", "revision": "main"}, "is for hub ids"),
    ],
)
def test_bad_fields_are_sentences(arguments, message):
    with pytest.raises(LabError, match=message):
        HFModel(**arguments)


def test_the_rounding_shows_in_a_name_once_whatever_its_case():
    assert showing("m-INT8", "+", "int8", re.IGNORECASE) == "m-INT8" and showing("m-INT8", "@", "int8") == "m-INT8@int8"


def test_a_list_is_cut_where_more_than_some_would_stand_in_it():
    assert listed(list("abcde")) == "a, b, c, d, e" and listed(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_what_loading_reports_is_refused_and_what_is_loaded_is_ready_to_measure():
    report = {"missing_keys": [], "mismatched_keys": [], "error_msgs": [], "unexpected_keys": ["y", "x"]}
    loaded = checked_weights(torch.nn.Linear(2, 2), report, "model m")
    assert not loaded.network.training and not loaded.network.weight.requires_grad
    assert loaded.notes == ("2 tensors of the checkpoint are used by no layer: x, y",)
    for wrong, words in (
        ({"error_msgs": ["size mismatch", "more"]}, "size mismatch"),
        ({"missing_keys": ["b", "a"], "mismatched_keys": [("c", 1, 2)]}, "a, b, c"),
    ):
        with pytest.raises(LabError, match=rf"^model m lacks weights or has them in another shape \(.*{words}"):
            checked_weights(torch.nn.Linear(2, 2), report | wrong, "model m")


def test_paths_of_this_machine_are_told_from_hub_ids(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").mkdir()
    assert local_path("~/here") == tmp_path / "here"
    for path, local in {"~/here": True, "a/" + "b" * 94: False, "a/" + "b" * 95: True, ".a/b": True}.items():
        assert is_local(path) == local


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


def write(name, text):
    return lambda directory: (directory / name).write_text(text)


def cut(path: Path, end: int) -> None:
    path.write_bytes(path.read_bytes()[:end])


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def gguf_only(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "m.gguf").write_bytes(b"GGUF" + bytes(20))


def gguf_alone(directory: Path) -> None:
    gguf_only(directory)
    (directory / "config.json").unlink()


def write_index(text: str):
    def change(directory: Path) -> None:
        (directory / "model.safetensors").unlink()
        (directory / "model.safetensors.index.json").write_text(text)

    return change


def sentencepiece_only(directory: Path) -> None:
    remove("tokenizer.json", "tokenizer_config.json")(directory)
    (directory / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "GPTSw3Tokenizer"}')


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
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
    "pointer to weights": (write("model.safetensors", LFS), r"model\.safetensors is a Git LFS pointer.*git lfs pull"),
    "pointer to tokenizer": (write("tokenizer.json", LFS), r"tokenizer\.json is a Git LFS pointer"),
    "pointer to config": (write("config.json", LFS), r"config\.json is a Git LFS pointer"),
    "gguf only": (gguf_only, r"holds no weights but a GGUF file \(m\.gguf\); measure it with model=gguf"),
    "gguf without config": (gguf_alone, r"holds no weights but a GGUF file \(m\.gguf\); measure it with model=gguf"),
    "one byte short": (lambda d: cut(d / "model.safetensors", -1), "do not agree with its own header"),
    "one byte long": (lambda d: append(d / "model.safetensors"), "do not agree with its own header"),
    "empty weights": (write("model.safetensors", ""), "its 0 bytes do not agree with its own header"),
    "no index": (write_index("not json"), "is not a weight index"),
    "index of nothing": (write_index('{"weight_map": [1]}'), "is not a weight index"),
    "index of numbers": (write_index('{"weight_map": {"a": 1}}'), "is not a weight index"),
    "index elsewhere": (write_index('{"weight_map": {"a": "../x.safetensors"}}'), "which is not in"),
    "sentencepiece": (sentencepiece_only, "pip install sentencepiece"),
    "cut off": (lambda d: (d / "model.safetensors").write_bytes(b"half"), "is damaged or incomplete: its 4 bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_unusable_model_is_one_sentence(case, tiny_model_dir, tmp_path):
    change, message = BROKEN[case]
    source = HFModel(path=str(edited(tiny_model_dir, tmp_path, change)))
    with pytest.raises(LabError, match=message) as caught:
        source.open().load(torch.float32, "cpu")
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_of_the_weights_header_is_refused_or_another_model(tiny_gpt2_dir, tmp_path):
    """Every way in which the header's JSON can lose a bit, at places spread over it."""
    model = edited(tiny_gpt2_dir, tmp_path, lambda d: None)
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    own = HFModel(path=str(model)).open()
    logits = full_logits(own.load(torch.float32, "cpu").network, IDS)
    length = int.from_bytes(whole[:8], "little")
    for at in range(0, 8 + length, 8 + length >> 4):
        weights.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 7)]) + whole[at + 1 :])
        try:
            opened = HFModel(path=str(model)).open()
            loaded = opened.load(torch.float32, "cpu")
        except LabError as error:
            assert "\n" not in str(error)
            continue
        assert opened.info.fingerprint != own.info.fingerprint
        torch.testing.assert_close(full_logits(loaded.network, IDS), logits)


def test_a_gguf_file_is_told_from_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(20))
    (tmp_path / "m.bin").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    for path in ("m.gguf", str(tmp_path / "m.gguf")):
        with pytest.raises(LabError, match=r"m\.gguf is a GGUF file; measure it with model=gguf model\.path=.*m\.gguf"):
            HFModel(path=path).open()
    with pytest.raises(LabError, match=r"m\.bin is a file; model\.path must be the directory"):
        HFModel(path="m.bin").open()


@pytest.mark.parametrize("path", ["~nobody-of-this-name/model", "x" * 5000, "a\0b/c/d", "https://huggingface.co/gpt2"])
def test_odd_paths_are_no_model_directory(path):
    with pytest.raises(LabError, match="no model directory"):
        HFModel(path=path, name="odd").open()


def test_tensors_that_no_layer_uses_are_listed_and_known_buffers_are_not(tiny_model_dir, tmp_path):
    from safetensors.torch import load_file, save_file

    model = edited(tiny_model_dir, tmp_path, lambda d: None)
    tensors = load_file(model / "model.safetensors")
    tensors["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = torch.zeros(4)
    tensors["gpt_neox.layers.0.attention.masked_bias"] = torch.zeros(1)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    assert HFModel(path=str(model)).open().load(torch.float32, "cpu").notes == ()
    save_file(tensors | {"mtp.weight": torch.zeros(2), "value_head": torch.zeros(2)}, model / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    (note,) = HFModel(path=str(model)).open().load(torch.float32, "cpu").notes
    assert note == "2 tensors of the checkpoint are used by no layer: mtp.weight, value_head"


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
