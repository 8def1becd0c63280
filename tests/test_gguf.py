"""GGUF files are measured as the models that they were made from, as far as their weights were not rounded."""

from __future__ import annotations

import json
import shutil
import struct
import sys
import threading
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from rbp_lab.commands.measure import measure
from rbp_lab.errors import LabError
from rbp_lab.models import GGUFModel
from rbp_lab.models.gguf import quantisation
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
    assert not any((tmp_path / "hole").read_bytes()[hole.data :])
    assert {t.name for t in joined.tensors} == {t.name for t in read_header(files / "plain.gguf").tensors}


def test_a_header_is_read_as_the_gguf_package_reads_it(tmp_path):
    from gguf import GGUFReader, GGUFWriter

    writer = GGUFWriter(tmp_path / "odd.gguf", "llama")
    writer.add_custom_alignment(256)
    for kind, value in (("uint8", 200), ("int8", -3), ("uint16", 60_000), ("int16", -300), ("uint32", 2**31),
                        ("int32", -(2**30)), ("uint64", 2**40), ("int64", -(2**40)), ("float32", 0.5),
                        ("float64", 1 / 3), ("bool", True), ("string", "é")):  # fmt: skip
        getattr(writer, f"add_{kind}")(f"a.{kind}", value)
    for name, values in {"ints": [1, 2, 3], "floats": [0.5, 1.5], "texts": ["a", "bc"], "bools": [True, False, True],
                         "nested": [[1, 2], [3]], "nothing": [""]}.items():  # fmt: skip
        writer.add_array(f"b.{name}", values)
    writer.add_string("z.last", "read as well")
    writer.add_tensor("t", np.ones((3, 5), np.float32))
    writer.add_tensor("u", np.ones(7, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours, theirs = read_header(tmp_path / "odd.gguf"), GGUFReader(tmp_path / "odd.gguf")
    known = {name: f.contents() for name, f in theirs.fields.items() if name[:2] in ("a.", "z.")}
    assert {name: ours.values[name] for name in known} == known and len(known) == 13
    assert not any(name.startswith("b.") for name in ours.values)
    assert (ours.alignment, ours.data) == (256, theirs.data_offset)
    assert [(t.name, int(t.type), t.elements, ours.data + t.offset) for t in ours.tensors] == [
        (t.name, int(t.tensor_type), t.n_elements, t.data_offset) for t in theirs.tensors
    ]


def of_bytes(path, *pairs, version=3, tensors=()):
    """A file that ends with its last byte. pairs: (key, number of a type, bytes). tensors: (name, bytes)."""
    out, at = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)), 0
    for key, kind, value in pairs:
        out += struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value
    for name, data in tensors:
        out += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<IQIQ", 1, len(data), 24, at)
        at += len(data)
    path.write_bytes(out + (bytes(-len(out) % 32) if tensors else b"") + b"".join(data for _, data in tensors))
    return path


def test_parts_whose_data_end_anywhere_are_joined_at_the_right_places(tmp_path):
    data = {"a": b"abc", "b": b"de", "c": bytes(range(40)), "d": b"z"}
    parts = [list(data.items())[:2], list(data.items())[2:3], list(data.items())[3:]]
    headers = [read_header(of_bytes(tmp_path / f"{i}", tensors=some)) for i, some in enumerate(parts)]
    join(headers, tmp_path / "joined")
    joined, content = read_header(tmp_path / "joined"), (tmp_path / "joined").read_bytes()
    found = {t.name: content[joined.data + t.offset :][: t.elements] for t in joined.tensors}
    assert found == data and joined.size == len(content)


@pytest.mark.parametrize("version", [2, 3])
def test_a_file_may_end_with_its_header(tmp_path, version):
    text = struct.pack("<Q", 2) + "é".encode()
    header = read_header(of_bytes(tmp_path / "m", ("a", 8, text), ("b", 9, struct.pack("<IQ", 8, 1) + text),
                                  version=version))  # fmt: skip
    assert header.values == {"a": "é"} and (header.version, header.alignment, header.data % 32) == (version, 32, 0)


@pytest.mark.parametrize(
    "kind, value",
    [
        (4, b"12"),  # the file ends within a number
        (8, struct.pack("<Q", 9) + b"8 letters"[:8]),
        (9, struct.pack("<IQ", 0, 2**62)),
        (13, b""),
        (9, struct.pack("<IQ", 13, 1)),
        (9, struct.pack("<IQ", 9, 1) * 5000),  # arrays of arrays of …
    ],
)
def test_a_header_that_is_none_is_a_sentence(tmp_path, kind, value):
    with pytest.raises(LabError, match="is damaged or incomplete: its header cannot be read"):
        read_header(of_bytes(tmp_path / "m", ("a", kind, value)))


@pytest.mark.parametrize("kind, value", [("I", 0), ("i", -32), ("f", float("inf"))])
def test_an_alignment_that_is_none_is_a_sentence(tmp_path, kind, value):
    pair = ("general.alignment", {"I": 4, "i": 5, "f": 6}[kind], struct.pack(f"<{kind}", value))
    with pytest.raises(LabError, match="is damaged or incomplete: its header cannot be read"):
        read_header(of_bytes(tmp_path / "m", pair))


def test_how_weights_were_rounded_is_what_the_file_says_or_what_most_of_them_are(files):
    from gguf import GGMLQuantizationType, LlamaFileType

    def said(header, kind, tensors=None):
        values = {k: v for k, v in header.values.items() if k != "general.file_type"}
        values |= {} if kind is None else {"general.file_type": int(kind)}
        return quantisation([replace(header, values=values, tensors=tensors or header.tensors)])

    plain, rounded = (read_header(files / name) for name in ("plain.gguf", "tiny-Q8_0.gguf"))
    assert said(rounded, LlamaFileType.MOSTLY_Q4_K_M) == "Q4_K_M" and said(rounded, LlamaFileType.ALL_F32) is None
    for unsaid in (None, LlamaFileType.GUESSED, 9999):
        assert (said(plain, unsaid), said(rounded, unsaid)) == (None, "Q8_0")
    few, many = (replace(plain.tensors[0], type=int(getattr(GGMLQuantizationType, kind)), elements=n)
                 for kind, n in (("Q8_0", 32), ("Q4_0", 320)))  # fmt: skip
    assert said(plain, None, (few, many)) == "Q4_0"


@pytest.mark.parametrize("moment", ["config", "weights"])
def test_a_file_that_changes_while_it_is_read_gives_no_model(moment, files, tmp_path, monkeypatch):
    path, real = shutil.copy(files / "plain.gguf", tmp_path / "m.gguf"), AutoConfig.from_pretrained

    def change():
        with path.open("r+b") as stream:
            stream.seek(-1, 2)
            stream.write(b"\xff")

    model = GGUFModel(path=str(path))
    if moment == "config":
        monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *args, **more: change() or real(*args, **more))
        with pytest.raises(LabError, match="changed while they were read"):
            model.open()
    else:
        opened = model.open()
        change()
        with pytest.raises(LabError, match="changed while they were read"):
            opened.load(torch.float32, "cpu")


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
    assert kept.name.endswith(f"-{version('transformers')}-{version('gguf')}")  # who converted it
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


def of_another_version(path):
    content = path.read_bytes()
    path.write_bytes(content[:4] + struct.pack("<I", 1) + content[8:])


def unknown_type(path):
    tensor, content = read_header(path).tensors[0], bytearray(path.read_bytes())
    content[tensor.end - 12 : tensor.end - 8] = struct.pack("<I", 99)
    path.write_bytes(content)


BROKEN = {
    "version": (of_another_version, r"is a GGUF file of version 1; versions 2 and 3, little-endian, are read"),
    "unknown type": (unknown_type, r"has the ggml type 99, which the installed gguf package does not know"),
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
    with pytest.raises(LabError, match=r"model\.file='x\.gguf' is for a directory or a hub id, but .* is a file"):
        GGUFModel(path=str(files / "plain.gguf"), file="x.gguf").open()
    headers = [read_header(path) for path in sorted(files.glob("split-*.gguf"))]
    for other in ({"alignment": 64}, {"version": 2}):
        with pytest.raises(LabError, match="were not written together: versions or alignments differ"):
            join([headers[0], replace(headers[1], **other)], tmp_path / "joined")
    with pytest.raises(LabError, match=r"cannot read .*: Is a directory"):
        read_header(files)
    with pytest.raises(LabError, match=r"no GGUF file /nowhere/m\.gguf; check model\.path"):
        GGUFModel(path="/nowhere/m.gguf").open()


def test_a_file_is_not_rounded_a_second_time(files):
    with pytest.raises(LabError, match=r"precision=int8.*a GGUF file are as the file rounds them: choose precision"):
        GGUFModel(str(files / "plain.gguf"), quantisation="int8")


def test_without_the_gguf_package_the_sentence_says_what_to_install(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(LabError, match=r"pip install 'rbp-lab\[gguf\]'"):
        GGUFModel(path=str(files / "plain.gguf")).open()


OPEN = """
import json, sys
from rbp_lab.data.windows import Windowing
from rbp_lab.models import GGUFModel
from rbp_lab.measurement.preflight import check
path, revision, *files = sys.argv[1:]
models = [GGUFModel(path=path, file=file, revision=revision or None) for file in files]
infos, checks = [m.open().info for m in models], [check(m, Windowing(max_tokens=64), "float32", "cpu") for m in models]
print(json.dumps([[i.name, i.revision, i.fingerprint, i.quantisation] for i in infos]))
print(json.dumps([[c.problem, c.download] for c in checks]))
"""


def test_files_of_a_hub_repository_are_those_of_this_machine(files, tmp_path):
    shutil.copytree(files, tmp_path / "hub" / "models" / "some" / "quantised")
    server = hub_server.serve(tmp_path / "hub")
    chosen = ["tiny-Q8_0.gguf", "split-00003-of-00004.gguf"]
    said = hub_server.run_client(OPEN, server, tmp_path / "home", "some/quantised", "", *chosen)
    found, checked = map(json.loads, said.splitlines())
    assert checked == [["", 0]] * 2  # opened, and so here
    # A push between two parts: all are of the commit of the first.
    repo, new, pushed = tmp_path / "hub" / "models" / "some" / "quantised", tmp_path / "new", []
    for part in shutil.copytree(files, new).glob("split-*"):
        part.write_bytes(part.read_bytes()[:-1] + b"\xff")

    def push(path):
        if "split-00002" in path and not pushed:
            pushed.append(hub_server.push(repo, new))

    server.before, server.one_at_a_time = push, threading.Lock()
    mixed = hub_server.run_client(OPEN, server, tmp_path / "home2", "some/quantised", "main", chosen[1])
    assert pushed and json.loads(mixed.splitlines()[0]) == [["split@main", *found[1][1:]]]
    server.shutdown()
    server.server_close()
    assert [name for name, *_ in found] == ["tiny-Q8_0", "split"]
    assert all(revision for _, revision, *_ in found)
    ours = [GGUFModel(path=str(files), file=file).open().info for file in chosen]
    assert [(print, kind) for *_, print, kind in found] == [(i.fingerprint, i.quantisation) for i in ours]
