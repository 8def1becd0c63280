"""What is loaded is what the record names: one commit, one state of a directory, every file that is read."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import transformers

from rbp_lab.commands.measure import measure
from rbp_lab.errors import LabError
from rbp_lab.measurement.worker import answer_to
from rbp_lab.models import HFModel
from rbp_lab.store.records import list_records
from tests import hub_server
from tests.conftest import build_tiny_tokenizer, save_tiny_model
from tests.sources import MadeUpText, measure_config


def copy_of(directory: Path, where: Path) -> Path:
    return Path(shutil.copytree(directory, where))


def fingerprint(directory: Path) -> str:
    return HFModel(path=str(directory)).open().info.fingerprint


MEASURE_ON_HUB = """
import json, sys
from rbp_lab import metrics
from rbp_lab.commands.measure import measure
out = {}
for path in sys.argv[2:]:
    config = json.loads(sys.argv[1])
    config["model"] |= {"path": path}
    record = measure(config).record
    out[path] = [record.model.fingerprint, record.model.architecture, metrics.cross_entropy(record.stats)]
print(json.dumps(out))
"""


def test_a_push_between_two_reads_does_not_mix_commits(tiny_model_dir, tiny_gpt2_dir, tmp_path):
    """The branch moves on when the tokenizer, or the weights, of an opened model are first asked for."""
    moments = {"first": "tokenizer", "second": "model.safetensors"}
    repos = {name: copy_of(tiny_model_dir, tmp_path / "hub" / "models" / "tiny" / name) for name in moments}
    (repos["second"] / "README.md").write_text("another repository")
    old = {name: hub_server.commit_of(repo) for name, repo in repos.items()}
    new = copy_of(tiny_gpt2_dir, tmp_path / "new")
    build_tiny_tokenizer(280).save_pretrained(new)
    expected = measure(measure_config(tiny_model_dir, tmp_path / "local")).record
    server = hub_server.serve(tmp_path / "hub")

    def before(path: str) -> None:
        for name, moment in moments.items():
            if f"tiny/{name}/" in path and moment in path and hub_server.commit_of(repos[name]) == old[name]:
                hub_server.push(repos[name], new)

    server.before, server.one_at_a_time = before, threading.Lock()  # no other request meets half a push
    config = json.dumps(measure_config("", tmp_path / "store"))
    paths = [f"tiny/{name}" for name in moments]
    found = json.loads(hub_server.run_client(MEASURE_ON_HUB, server, tmp_path / "home", config, *paths))
    server.shutdown()
    for name, (commit, architecture, cross_entropy) in zip(moments, found.values(), strict=True):
        assert hub_server.commit_of(repos[name]) != old[name], "nothing was pushed"
        assert (commit, architecture) == (old[name], "GPTNeoXForCausalLM")
        assert cross_entropy == pytest.approx(expected.summary["cross_entropy"], rel=1e-6)


MOMENTS = {"config": "AutoConfig", "tokenizer": "AutoTokenizer", "weights": "AutoModelForCausalLM"}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("back", [False, True], ids=["swapped", "swapped-and-back"])
def test_a_directory_that_changes_while_it_is_read_gives_no_record(
    moment, back, tiny_model_dir, tiny_gpt2_dir, tmp_path, monkeypatch
):
    model, other, aside = copy_of(tiny_model_dir, tmp_path / "model"), tiny_gpt2_dir, tmp_path / "aside"
    kind = getattr(transformers, MOMENTS[moment])
    real = kind.from_pretrained

    def swapped(*args, **kwargs):
        if aside.exists():
            return real(*args, **kwargs)
        model.rename(aside)
        shutil.copytree(other, model)
        if moment == "weights":  # so that they load with the config that was read before
            shutil.copy(aside / "config.json", model)
            flip(aside / "model.safetensors", model / "model.safetensors")
        try:
            return real(*args, **kwargs)
        finally:
            if back:
                shutil.rmtree(model)
                shutil.copytree(aside, model)

    monkeypatch.setattr(kind, "from_pretrained", swapped)
    with pytest.raises(LabError, match="changed while they were read"):
        measure(measure_config(model, tmp_path / "store"))
    assert aside.exists() and list_records(tmp_path / "store") == []


def flip(source: Path, target: Path) -> None:
    """A copy whose last weights have another sign: same size, loads as well."""
    content = bytearray(source.read_bytes())
    content[-5000:] = bytes(b ^ 0x80 if i % 4 == 3 else b for i, b in enumerate(content[-5000:]))
    target.write_bytes(content)


class Overwrite:
    """An observer that overwrites the weights in place at the first batch; torch may still read them from there."""

    def __init__(self, path: Path):
        self.path = Path(path)

    def on_batch(self, *_):
        content = self.path.read_bytes()
        with self.path.open("r+b") as stream:
            stream.seek(len(content) - 5000)
            stream.write(bytes(5000))

    def __getattr__(self, name):
        return lambda *_: None


def test_weights_overwritten_during_the_measurement_give_no_record(tiny_model_dir, tmp_path):
    model = copy_of(tiny_model_dir, tmp_path / "model")
    observer = {"_target_": "tests.test_model_identity.Overwrite", "path": str(model / "model.safetensors")}
    with pytest.raises(LabError, match="changed while they were read"):
        measure(measure_config(model, tmp_path / "store", callbacks={"overwrite": observer}))
    assert list_records(tmp_path / "store") == []


def test_weights_of_the_same_size_and_time_are_another_model(tiny_model_dir, tmp_path):
    model = copy_of(tiny_model_dir, tmp_path / "model")
    weights = model / "model.safetensors"
    first, status = measure(measure_config(model, tmp_path / "store")), weights.stat()
    flip(weights, weights)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    second = measure(measure_config(model, tmp_path / "store"))
    assert second.measured and second.record.key != first.record.key
    assert second.record.summary["cross_entropy"] != first.record.summary["cross_entropy"]


def test_a_process_that_finds_another_model_than_it_was_started_for_stops(tiny_model_dir, tmp_path):
    model = copy_of(tiny_model_dir, tmp_path / "model")
    config = measure_config(model, tmp_path / "store")
    key = measure(config).record.key
    flip(model / "model.safetensors", model / "model.safetensors")
    failure = answer_to({"command": "measure", "config": config, "key": key, "place": {}})
    assert failure["user"] and "changed while the processes started" in failure["message"]
    assert len(list_records(tmp_path / "store")) == 1


def write(name: str, text: str):
    def change(directory: Path) -> None:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)

    return change


CHANGES = {
    "code": (write("modeling_own.py", "x = 1"), False),
    "code below": (write("parts/layers/block.py", "x = 1"), False),
    "code of an environment": (write(".venv/lib/site.py", "x = 1"), True),
    "merges": (write("merges.txt", "a b"), False),
    "sentencepiece": (write("spiece.model", "x"), False),
    "generation settings": (write("generation_config.json", "{}"), True),
    "read-me": (write("README.md", "about"), True),
    "log": (write("train.log", "step 1"), True),
}


@pytest.mark.parametrize("case", CHANGES)
def test_the_fingerprint_covers_what_is_loaded_and_nothing_else(case, tiny_model_dir, tmp_path):
    change, same = CHANGES[case]
    model = copy_of(tiny_model_dir, tmp_path / "model")
    change(model)
    assert (fingerprint(model) == fingerprint(tiny_model_dir)) is same


def slow_tokenizer(directory: Path, kind: str, files: dict[str, str]) -> Path:
    """Replace the tokenizer of a directory by the files of a class that reads them itself."""
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (directory / name).unlink(missing_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    return directory


LETTERS = "abcdefghijklmnopqrstuvwxyz"
HALVES = tuple(letter + "@@" for letter in LETTERS)
# Class → its files, and one of them changed.
SLOW = {
    "CTRLTokenizer": (
        {"vocab.json": json.dumps({t: i for i, t in enumerate(["<unk>", "ab", *LETTERS, *HALVES])}),
         "merges.txt": "#version\na b</w>\n"},
        {"merges.txt": "#version\nc d</w>\n"},
    ),
    "BertweetTokenizer": (
        {"vocab.txt": "".join(f"{t} 1\n" for t in (*LETTERS, *HALVES)), "bpe.codes": "a b</w> 1\n"},
        {"bpe.codes": "c d</w> 1\n"},
    ),
    "ProphetNetTokenizer": (
        {"prophetnet.tokenizer": "\n".join(["[PAD]", "[UNK]", "[SEP]", "[CLS]", "[MASK]", *LETTERS, "plain", "text"])},
        {"prophetnet.tokenizer": "\n".join(["[PAD]", "[UNK]", "[SEP]", "[CLS]", "[MASK]", *LETTERS, "text", "plain"])},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SLOW)
def test_the_files_of_a_tokenizer_written_in_python_are_covered(kind, tiny_model_dir, tmp_path):
    files, changed = SLOW[kind]
    prints = set()
    for name, more in (("one", {}), ("same", {}), ("other", changed)):
        model = slow_tokenizer(copy_of(tiny_model_dir, tmp_path / name), kind, files | more)
        prints.add((fingerprint(model), name == "other"))
    assert len({print for print, _ in prints}) == len(prints) == 2


def test_a_config_that_changes_before_all_files_are_known_is_read_again(tiny_model_dir, tmp_path, monkeypatch):
    """Which files the tokenizer reads is known only after config and tokenizer were read a first time."""
    model = slow_tokenizer(
        copy_of(tiny_model_dir, tmp_path / "model"), "BertweetTokenizer", SLOW["BertweetTokenizer"][0]
    )
    config = json.loads((model / "config.json").read_text())
    real = transformers.AutoConfig.from_pretrained

    def replaced(*args, **kwargs):
        found = real(*args, **kwargs)
        if found.max_position_embeddings != 64:
            (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
        return found

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", replaced)
    info = HFModel(path=str(model)).open().info
    assert (info.fingerprint, info.max_positions) == (fingerprint(model), 64)


def test_the_weight_file_that_the_config_names_is_the_one_that_counts(tiny_model_dir, tmp_path):
    """config.json may name another file, or index, of weights than the usual one."""
    plain = copy_of(tiny_model_dir, tmp_path / "plain")
    named = copy_of(tiny_model_dir, tmp_path / "named")
    config = json.loads((named / "config.json").read_text()) | {"transformers_weights": "own.safetensors"}
    (named / "config.json").write_text(json.dumps(config))
    with pytest.raises(LabError, match=r"lacks own\.safetensors, which transformers_weights in its config\.json names"):
        HFModel(path=str(named)).open()
    flip(named / "model.safetensors", named / "own.safetensors")
    before = HFModel(path=str(named)).open()
    ids = torch.arange(12).reshape(2, 6)
    ours, usual = (
        HFModel(path=str(d)).open().load(torch.float32, "cpu").network(input_ids=ids).logits for d in (named, plain)
    )
    assert not torch.allclose(ours, usual)
    (named / "model.safetensors").unlink()
    assert fingerprint(named) == before.info.fingerprint
    flip(named / "own.safetensors", named / "own.safetensors")
    assert fingerprint(named) != before.info.fingerprint
    for bad, words in (("../x.safetensors", "which is not in"), ("x.bin", "must name a .safetensors")):
        (named / "config.json").write_text(json.dumps(config | {"transformers_weights": bad}))
        with pytest.raises(LabError, match=words):
            HFModel(path=str(named)).open()


@pytest.mark.parametrize("files", [["adapter_config.json", "adapter_model.safetensors"], ["adapter_model.bin"]])
@pytest.mark.parametrize("base", [True, False], ids=["beside the base", "alone"])
def test_an_adapter_is_refused_with_the_way_out(files, base, tiny_model_dir, tmp_path):
    model = copy_of(tiny_model_dir, tmp_path / "model")
    for name in files:
        (model / name).write_text("{}")
    if not base:
        for name in ("config.json", "model.safetensors"):
            (model / name).unlink()
    with pytest.raises(LabError, match=r"holds an adapter \(adapter_.*merge it into its base model with peft"):
        measure(measure_config(model, tmp_path / "store"))


def with_tokens(directory: Path, count: int) -> Path:
    """Add tokens to the tokenizer until its last id is count − 1; the head has 384 rows."""
    tokenizer = build_tiny_tokenizer()
    tokenizer.add_tokens([f"<more-{i}>" for i in range(count - 300)], special_tokens=True)
    tokenizer.save_pretrained(directory)
    return directory


def test_ids_beyond_the_head_that_no_text_yields_are_a_note(tiny_model_dir, tmp_path, capsys):
    plain = measure(measure_config(tiny_model_dir, tmp_path / "store")).record
    model = with_tokens(copy_of(tiny_model_dir, tmp_path / "model"), 386)
    for candidates in ("rows", "tokenizer"):
        config = measure_config(model, tmp_path / "store", scoring__candidates=candidates)
        record = measure(config).record
        assert (record.model.vocab_rows, record.model.tokenizer_size) == (384, 386)
        assert record.stats == plain.stats, "every row competes in both, because the tokenizer names them all"
        (note,) = record.provenance["notes"]
        assert note == (
            "the head has 384 rows, so no text may contain the tokens beyond (384 '<more-84>', 385 '<more-85>')"
        )
        assert capsys.readouterr().err.count(note) == 1


@dataclass(frozen=True)
class WithToken(MadeUpText):
    """MadeUpText whose fifth text holds one added token of the tokenizer."""

    def corpus(self):
        corpus = super().corpus()
        texts = (*corpus.texts[:4], corpus.texts[4] + " <more-85>", *corpus.texts[5:])
        return replace(corpus, texts=texts, fingerprint="other")


def test_an_id_beyond_the_head_in_a_text_is_refused_with_document_and_token(tiny_model_dir, tmp_path):
    model = with_tokens(copy_of(tiny_model_dir, tmp_path / "model"), 386)
    dataset = {"_target_": "tests.test_model_identity.WithToken", "protocol": {"windows": "rolling", "max_tokens": 64}}
    with pytest.raises(LabError, match=r"token \d+ of document 'text-4' has id 385 \('<more-85>'\), but the head"):
        measure(measure_config(model, tmp_path / "store", dataset=dataset))


def test_a_separator_beyond_the_head_is_refused(tiny_model_dir, tmp_path):
    model = copy_of(tiny_model_dir, tmp_path / "model")
    tokenizer = build_tiny_tokenizer()
    tokenizer.add_tokens([f"<more-{i}>" for i in range(85)])
    tokenizer.eos_token = "<more-84>"
    tokenizer.save_pretrained(model)
    config = measure_config(model, tmp_path / "store", dataset__protocol={"windows": "packed", "max_tokens": 64})
    with pytest.raises(LabError, match=r"the token between packed documents has id 384"):
        measure(config)


def test_code_of_another_repository_is_refused(tiny_model_dir, tmp_path):
    model = save_tiny_model(tmp_path / "model", "gpt_neox")
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["own/code--tokens.Slow", None]}
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "GPTNeoXTokenizer"}))
    source = HFModel(path=str(model), trust_remote_code=True)
    with pytest.raises(LabError, match=r"its code comes from another repository \(own/code\)"):
        source.open()
