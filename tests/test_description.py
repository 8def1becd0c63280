"""What is known of a model without its weights is kept, and is never that of other files; who finds imports nothing."""

import copy
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file, save_file

from rbp_lab.cli import main
from rbp_lab.errors import LabError
from rbp_lab.models import HFModel, description
from tests import hub_server
from tests.conftest import build_tiny_model, build_tiny_tokenizer
from tests.test_model_identity import SLOW, slow_tokenizer


@pytest.fixture
def model(tiny_model_dir, tmp_path):
    return shutil.copytree(tiny_model_dir, tmp_path / "model")


@pytest.fixture
def described(monkeypatch):
    """Of how many models it was found out what they are."""
    calls, real = [], description.describe
    monkeypatch.setattr("rbp_lab.models.unloaded.describe", lambda *given: calls.append(given) or real(*given))
    return calls


def source(model, cache="cache", **fields):
    return HFModel(path=str(model), name="m", cache=cache and str(Path(model).parent / cache), **fields)


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_a_model_is_is_found_out_once(model, described):
    plain = source(model, cache=None)
    anew = plain.open()
    assert plain.open().info == anew.info and len(described) == 2
    first, again = source(model).open(), source(model).open()
    looked, (kept,) = source(model).look(), (model.parent / "cache").iterdir()
    assert first.info == again.info == anew.info == dataclasses.replace(looked, fingerprint=anew.info.fingerprint)
    assert (len(described), again.notes, looked.fingerprint) == (3, anew.notes, "")
    assert again.tokenizer("the fox")["input_ids"] == anew.tokenizer("the fox")["input_ids"]
    assert type(again.empty).__name__ == anew.info.architecture
    text = kept.read_text()
    for damaged in (text[:-40], text.replace('"vocab_rows": 384', '"vocab_rows": 385'), "[]", "", "{}", "7"):
        kept.write_text(damaged)
        assert source(model).open().info == anew.info
    assert len(described) == 9 and kept.read_text() == text


def test_fields_of_the_source_are_not_what_is_kept(model, described):
    infos = [source(model, family=family, quantisation=kind).open().info
             for family, kind in (("one", None), ("two", "int8"))]  # fmt: skip
    assert [(i.name, i.family, i.quantisation) for i in infos] == [("m", "one", None), ("m+int8", "two", "int8")]
    source(model, trust_remote_code=True).open()  # may be another class
    assert len(described) == 2


CHANGES = {
    "the config": lambda d: rewrite(d / "config.json", max_position_embeddings=64),
    "the tokenizer": lambda d: build_tiny_tokenizer(290).save_pretrained(d),
    "the settings of the tokenizer": lambda d: rewrite(d / "tokenizer_config.json", model_max_length=7),
    "a file of code": lambda d: (d / "modeling.py").write_text("x = 1\n"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_files_are_another_model(what, model, described):
    source(model).open()
    CHANGES[what](model)
    assert source(model).open().info == source(model, cache=None).open().info
    assert len(described) == 3


def test_other_weights_are_another_model_of_the_same_description(model, described):
    before = source(model).open().info
    weights = load_file(model / "model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, model / "model.safetensors", {"format": "pt"})
    after = source(model).open().info
    assert after.fingerprint != before.fingerprint and len(described) == 1
    assert dataclasses.replace(after, fingerprint=before.fingerprint) == before


def test_other_versions_of_the_libraries_find_out_anew(model, described, monkeypatch):
    source(model).open()
    real = description.version
    for changed in ("transformers", "tokenizers"):
        monkeypatch.setattr(description, "version", lambda name, one=changed: real(name) + "+other" * (name == one))
        source(model).open()
    for changed in ("DESCRIPTION_VERSION", "__version__"):
        monkeypatch.setattr(description, changed, "another")
        source(model).open()
    assert len(described) == 5


@pytest.mark.parametrize("dtype, stored", [(None, None), (torch.float16, "float16")])
@pytest.mark.parametrize("head, rows", [(True, 384), (False, 390)])
def test_a_description_is_of_config_head_and_vocabulary(dtype, stored, head, rows):
    network, tokenizer = copy.deepcopy(build_tiny_model("llama")), build_tiny_tokenizer()
    network.config.dtype, network.config.vocab_size = dtype, 390
    if not head:
        network.get_output_embeddings = lambda: None
    tokenizer.get_vocab = lambda: {"a": 0, "b": 383, "d": 500, "c": rows}
    about = description.describe(network.config, network, tokenizer)
    assert (about.stored_dtype, about.vocab_rows, about.tokenizer_size) == (stored, rows, 501)
    (note,) = about.notes
    assert note == f"the head has {rows} rows, so no text may contain the tokens beyond ({rows} 'c', 500 'd')"


def test_a_file_that_only_its_class_names_is_part_of_the_tokenizer(model, described):
    """The tokenizer reads bpe.codes, which is known when its class is."""
    files, changed = SLOW["BertweetTokenizer"]
    slow_tokenizer(model, "BertweetTokenizer", files)
    prints = set()
    for name, text in (files | changed).items():
        (model / name).write_text(text)
        found, anew = source(model).open(), source(model, cache=None).open()
        assert found.info == anew.info and found.tokenizer("ab cd")["input_ids"] == anew.tokenizer("ab cd")["input_ids"]
        prints.add(found.info.fingerprint)
    assert len(prints) == 2


def test_what_changes_while_it_is_read_is_not_kept(model, monkeypatch):
    real = description.describe

    def replaced(*given):
        rewrite(model / "config.json", max_position_embeddings=64)
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr("rbp_lab.models.unloaded.describe", replaced)
        for look in (source(model).open, source(model).look):
            with pytest.raises(LabError, match="changed while they were read"):
                look()
            rewrite(model / "config.json", max_position_embeddings=128)
    assert not (model.parent / "cache").exists() and source(model).open().info.max_positions == 128


def test_where_nothing_can_be_kept_nothing_is(model, described):
    (model.parent / "cache").write_text("a file")
    assert source(model).open().info == source(model, cache=None).open().info
    rewrite(model / "config.json", model_type="nosuch")
    with pytest.raises(LabError, match="cannot read the config"):
        source(model, cache="other").open()
    assert not (model.parent / "other").exists()


OPEN = """
import dataclasses, json, pathlib, sys
from rbp_lab.models import HFModel

def opened():
    info = HFModel(path="some/model", cache=sys.argv[1]).open().info
    found.append([dataclasses.asdict(info), "transformers" in sys.modules])

found = []
opened()
if sys.argv[2:]:
    config = pathlib.Path(sys.argv[2])
    config.write_text(config.read_text().replace('"max_position_embeddings": 128', '"max_position_embeddings": 64'))
    opened()
print(json.dumps(found))
"""


def test_a_model_of_the_hub_is_known_by_its_commit(tiny_model_dir, tmp_path):
    repo = shutil.copytree(tiny_model_dir, tmp_path / "hub" / "models" / "some" / "model")
    server = hub_server.serve(tmp_path / "hub")

    def opened(*words):
        return json.loads(hub_server.run_client(OPEN, server, tmp_path / "home", str(tmp_path / "cache"), *words))

    ((first, imported),) = opened()
    (again, imported_again), (changed, _) = opened(str(repo / "config.json"))
    assert again == first and imported and not imported_again
    assert (changed["max_positions"], first["max_positions"]) == (64, 128)
    server.shutdown()
    server.server_close()


FOUND = """
import sys
from rbp_lab.cli import main
for words in (sys.argv[1:], ["measure", "-m", *sys.argv[2:]]):
    try:
        main(words)
    except SystemExit as end:
        assert end.code == 0
costly = {"torch", "transformers", "accelerate", "datasets", "pandas", "scipy", "wandb", "matplotlib"}
print(*sorted(costly & set(sys.modules)))
"""


def test_a_command_that_finds_its_record_imports_no_model(model, tmp_path, monkeypatch, capsys):
    """Nor what only tables and statistics need: it starts as fast as the configuration is composed."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the quick brown fox jumps over the lazy dog " * 20)
    words = ["measure", "model=hf", f"model.path={model}", "dataset=local", "dataset.files=text.txt",
             "dataset.protocol.max_tokens=64", "k=table2", "tracking.mode=offline"]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main([*words, "tracking=none", "launch.device=cpu"])
    assert end.value.code == 0, capsys.readouterr().err
    done = subprocess.run([sys.executable, "-c", FOUND, *words], capture_output=True, text=True, check=True)
    assert done.stdout.count("found measured") == 2 and done.stdout.splitlines()[-1] == ""


ENDING = """
import atexit, sys, threading
import rbp_lab.__main__, rbp_lab.cli

class Loud:
    def __del__(self):
        print("taken apart")

def main():
    globals()["loud"] = Loud()
    sys.modules.setdefault("torch", sys)
    atexit.register(print, "at exit")
    threading.Timer(0.1, print, ["a thread"]).start()
    print("done")
    sys.exit(CODE)

rbp_lab.cli.main = main
rbp_lab.__main__.run()
"""


@pytest.mark.parametrize(("said", "code", "out", "err"), [("3", 3, "", ""), ("'why'", 1, "taken apart\n", "why\n")])
def test_a_process_ends_with_its_code_once_what_it_began_is_done_and_takes_nothing_apart(said, code, out, err):
    """But with a sentence in place of a code, which is Python's to print."""
    command = [sys.executable, "-c", ENDING.replace("CODE", said)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, f"done\na thread\nat exit\n{out}", err)
