"""GGUF files are measured as the models that they were made from, as far as their weights were not rounded."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch

from rbp_lab.commands.measure import measure
from rbp_lab.errors import LabError
from rbp_lab.models import GGUFModel
from rbp_lab.models.gguf_file import join, read_header
from rbp_lab.report.listing import print_runs
from tests import hub_server
from tests.conftest import TINY_TEXTS, build_tiny_model, build_tiny_tokenizer, save_tiny_model
from tests.gguf_models import write_gguf
from tests.sources import measure_config

IDS = torch.arange(12).reshape(2, 6) * 17


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Directory with the tiny Llama as one file of floats, one rounded to Q8_0, and one of floats in four parts."""
    directory = tmp_path_factory.mktemp("gguf")
    write_gguf(directory / "plain.gguf")
    write_gguf(directory / "tiny-Q8_0.gguf", "Q8_0")
    write_gguf(directory / "split", parts=6)
    return directory


def logits(model):
    return model.open().load(torch.float32, "cpu").network(input_ids=IDS).logits


def test_an_unrounded_file_is_the_model_it_was_made_from(files):
    opened = GGUFModel(path=str(files / "plain.gguf")).open()
    assert torch.equal(
        opened.load(torch.float32, "cpu").network(input_ids=IDS).logits, build_tiny_model("llama")(IDS).logits
    )
    plain, ours = build_tiny_tokenizer(), opened.tokenizer
    assert [ours(text)["input_ids"] for text in TINY_TEXTS] == [plain(text)["input_ids"] for text in TINY_TEXTS]
    info = opened.info
    assert (info.name, info.family, info.quantisation) == ("plain", "gguf", None)
    assert (info.vocab_rows, info.tokenizer_size, info.max_positions) == (384, 300, 128)


def test_rounded_weights_are_unpacked_as_the_format_defines(files):
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    network = GGUFModel(path=str(files), file="tiny-Q8_0.gguf").open().load(torch.float32, "cpu").network
    for name, weight in build_tiny_model("llama").state_dict().items():
        expected = weight.numpy()
        if weight.ndim == 2:
            expected = dequantize(quantize(expected, GGMLQuantizationType.Q8_0), GGMLQuantizationType.Q8_0)
        assert np.array_equal(network.state_dict()[name].numpy(), expected), name


def test_weights_of_a_file_do_not_stay_on_disk(files):
    opened = GGUFModel(path=str(files / "plain.gguf")).open()
    with pytest.raises(LabError, match=r"cannot stay on disk, .* model=hf, or use more GPUs or memory"):
        opened.load(torch.float32, {"model": "cpu", "lm_head": "disk"})


def test_the_rounding_is_in_the_record_and_its_key(files, tmp_path, capsys):
    config = measure_config(files, tmp_path / "store")
    records = {}
    for file in ("plain.gguf", "tiny-Q8_0.gguf"):
        model = {"_target_": "rbp_lab.models.GGUFModel", "path": str(files / file), "cache": str(tmp_path / "cache")}
        records[file] = measure(config | {"model": model}).record
        again = measure(config | {"model": model})
        assert not again.measured and again.record == records[file]
    assert [(r.model.name, r.model.quantisation) for r in records.values()] == [("plain", None), ("tiny-Q8_0", "Q8_0")]
    renamed = GGUFModel(path=str(files / "tiny-Q8_0.gguf"), name="tiny").open().info
    assert renamed.name == "tiny+Q8_0", "one that is rounded never has the name of one that is not"
    saved = (tmp_path / "store" / "runs" / records["tiny-Q8_0.gguf"].key / "record.json").read_text()
    assert json.loads(saved)["model"]["quantisation"] == "Q8_0"
    print_runs(tmp_path / "store")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "tiny-Q8_0" in line]
    assert "float32 │ Q8_0" in line
    assert len({r.key for r in records.values()}) == 2
    saved = save_tiny_model(tmp_path / "saved", "llama")
    of_directory = measure(measure_config(saved, tmp_path / "store")).record
    assert of_directory.stats == records["plain.gguf"].stats
    assert of_directory.stats != records["tiny-Q8_0.gguf"].stats


def test_parts_of_a_split_model_are_read_as_one(files, tmp_path):
    parts = sorted(files.glob("split-*.gguf"))
    assert len(parts) == 4
    whole, split = GGUFModel(path=str(files / "plain.gguf")), GGUFModel(path=str(parts[2]))
    assert split.open().info.name == "split"
    assert torch.equal(logits(split), logits(whole))
    headers = [read_header(part) for part in parts]
    join(headers, tmp_path / "whole")
    join(headers, tmp_path / "hole", data=False)
    hole, joined = read_header(tmp_path / "hole"), read_header(tmp_path / "whole")
    assert hole.tensors == joined.tensors and hole.size == joined.size
    assert {t.name for t in joined.tensors} == {t.name for t in read_header(files / "plain.gguf").tensors}


def test_the_name_of_a_file_is_not_what_identifies_it(files, tmp_path):
    shutil.copy(files / "plain.gguf", tmp_path / "other.gguf")
    infos = [GGUFModel(path=str(path)).open().info for path in (files / "plain.gguf", tmp_path / "other.gguf")]
    assert infos[0].fingerprint == infos[1].fingerprint
    with (tmp_path / "other.gguf").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\xff")
    assert GGUFModel(path=str(tmp_path / "other.gguf")).open().info.fingerprint != infos[0].fingerprint


def test_what_is_kept_saves_reading_the_file_and_is_made_again_when_it_is_gone(files, tmp_path, monkeypatch):
    model = GGUFModel(path=str(files / "plain.gguf"), cache=str(tmp_path / "cache"))
    first = model.open()
    (kept,) = (tmp_path / "cache").iterdir()
    assert sorted(path.name for path in kept.iterdir()) == ["config.json", "tokenizer.json", "tokenizer_config.json"]
    monkeypatch.setattr(GGUFModel, "_convert", lambda *_: pytest.fail("it was read from the file again"))
    assert model.open().info == first.info
    monkeypatch.undo()
    shutil.rmtree(kept)
    assert model.open().info == first.info


def damaged(path):
    path.write_bytes(path.read_bytes()[:-200])


def cut_header(path):
    path.write_bytes(path.read_bytes()[:300])


def text(path):
    path.write_text("plain text")


def unknown(path):
    write_gguf(path, architecture="gptneox")


def without_tokenizer(path):
    write_gguf(path, tokenizer=False)


BROKEN = {
    "damaged": (damaged, r"is damaged or incomplete: it has [\d,]+ bytes, and its tensor .* ends at"),
    "cut header": (cut_header, r"is damaged or incomplete: its header cannot be read"),
    "text": (text, r"is not a GGUF file"),
    "unknown": (unknown, r"does not convert GGUF files of the architecture 'gptneox' .*model=hf"),
    "without tokenizer": (without_tokenizer, r"holds no tokenizer; take a file that was converted with one"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_cannot_be_read_is_a_sentence(case, files, tmp_path):
    make, words = BROKEN[case]
    shutil.copy(files / "plain.gguf", tmp_path / "m.gguf")
    make(tmp_path / "m.gguf")
    with pytest.raises(LabError, match=words) as caught:
        GGUFModel(path=str(tmp_path / "m.gguf")).open()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_places_without_a_clear_file_are_sentences(files, tmp_path):
    with pytest.raises(LabError, match=r"holds 3 GGUF models \(plain\.gguf, split-00001-of-00004\.gguf, .*model\.file"):
        GGUFModel(path=str(files)).open()
    with pytest.raises(LabError, match=r"no such GGUF file in .*did you mean plain\.gguf\?"):
        GGUFModel(path=str(files), file="plane.gguf").open()
    shutil.copy(files / "split-00001-of-00004.gguf", tmp_path)
    with pytest.raises(LabError, match=r"lacks split-00002-of-00004\.gguf, of the 4 parts"):
        GGUFModel(path=str(tmp_path)).open()
    with pytest.raises(LabError, match=r"no GGUF file /nowhere/m\.gguf; check model\.path"):
        GGUFModel(path="/nowhere/m.gguf").open()


def test_without_the_gguf_package_the_sentence_says_what_to_install(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(LabError, match=r"pip install 'rbp-lab\[gguf\]'"):
        GGUFModel(path=str(files / "plain.gguf")).open()


OPEN = """
import json, sys
from rbp_lab.models import GGUFModel
infos = [GGUFModel(path=sys.argv[1], file=file).open().info for file in sys.argv[2:]]
print(json.dumps([[i.name, i.revision, i.fingerprint, i.quantisation] for i in infos]))
"""


def test_files_of_a_hub_repository_are_those_of_this_machine(files, tmp_path):
    shutil.copytree(files, tmp_path / "hub" / "models" / "some" / "quantised")
    server = hub_server.serve(tmp_path / "hub")
    chosen = ["tiny-Q8_0.gguf", "split-00003-of-00004.gguf"]
    found = json.loads(hub_server.run_client(OPEN, server, tmp_path / "home", "some/quantised", *chosen))
    server.shutdown()
    server.server_close()
    assert [name for name, *_ in found] == ["tiny-Q8_0", "split"]
    assert all(revision for _, revision, *_ in found)
    ours = [GGUFModel(path=str(files), file=file).open().info for file in chosen]
    assert [(print, kind) for *_, print, kind in found] == [(i.fingerprint, i.quantisation) for i in ours]
