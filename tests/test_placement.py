"""Models larger than a device: what lies where, the same record wherever it lies, and too little memory for a batch."""

import copy
import os
import re
import tempfile

import pytest
import torch
from transformers import AutoConfig

import rbp_lab.measurement.instrument
from rbp_lab.commands.measure import measure
from rbp_lab.config.schemas import Launch
from rbp_lab.errors import LabError
from rbp_lab.measurement import pool
from rbp_lab.measurement.devices import group_of, number_of_processes
from rbp_lab.measurement.loop import measure as measure_plan
from rbp_lab.models.head import HeadPlan
from rbp_lab.models.hf import HFModel
from rbp_lab.models.params import empty_model
from rbp_lab.models.placement import gpus_per_model, limited, place_model, remove_written_weights, weight_bytes
from rbp_lab.models.scorer import Scorer
from tests.conftest import _WIDTHS, build_tiny_model, build_tiny_tokenizer
from tests.sources import measure_config
from tests.test_measurement_loop import make_plan, run_plan

LAYERS = 12


def empty(kind="llama", **changes):
    return empty_model(AutoConfig.for_model(kind, **{**_WIDTHS, "num_hidden_layers": LAYERS, **changes}))


def placed(network, memory, how="auto", dtype=torch.float32, device="cuda"):
    """The placement for memory in shares of the model's float32 bytes, and the share of them on each device."""
    whole = weight_bytes(network, torch.float32)
    place = place_model(network, dtype, device, {one: int(share * whole) for one, share in memory.items()}, how)
    return place, place.shares


@pytest.mark.parametrize(
    ("how", "memory", "shares", "sentence"),
    [
        ("auto", {0: 1.0, 1: 1.0}, {"cuda": 1.0}, "^$"),
        ("single", {0: 0.1, 1: 0.1}, {"cuda": 1.0}, "^$"),
        ("auto", {0: 0.9, 1: 0.9, "cpu": 9}, {"cuda:0": 0.5, "cuda:1": 0.5}, r": \d+% on cuda:0, \d+% on cuda:1$"),
        ("balanced", {0: 9, 1: 9, 2: 9, 3: 9}, {f"cuda:{i}": 0.25 for i in range(4)}, r" on cuda:3$"),
        ("auto", {0: 0.9, 1: 0.25, "cpu": 9}, {"cuda:0": 0.8, "cuda:1": 0.2}, r" on cuda:1$"),  # not even, but there
        ("auto", {0: 0.35, 1: 0.4, "cpu": 9}, {"cuda:0": 0.25, "cuda:1": 0.4, "cpu": 0.35}, "those on cpu are moved"),
        (
            "auto", {0: 0.35, 1: 0.3, "cpu": 0.3}, {"cuda:0": 0.25, "cuda:1": 0.3, "cpu": 0.2, "disk": 0.25},
            "those on cpu and disk are moved to where they are used in every pass",
        ),
        ("auto", {0: 0.01, "cpu": 9}, {"cpu": 1.0}, "no GPU has memory for its largest layer"),
    ],
)  # fmt: skip
def test_gpus_come_first_then_the_cpu_and_disk_last(how, memory, shares, sentence):
    place, found = placed(empty(), memory, how)
    assert list(found) == list(shares) and sum(found.values()) == pytest.approx(1, abs=0.01)
    assert found == pytest.approx(shares, abs=0.15)
    assert place.device == next(iter(shares))
    if len(shares) > 1:
        used = {one: sum(found[n] for n in found if n in (one, f"cuda:{one}")) for one in memory}
        assert all(used[one] <= memory[one] for one in memory)
    assert re.search(sentence, place.sentence()), place.sentence()
    assert place.offloaded == ("are moved" in sentence)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])  # an output layer of its own, and one tied to the embeddings
def test_a_layer_stays_whole_and_tied_weights_stay_together(kind):
    network = empty(kind)
    place, shares = placed(network, {0: 0.5, 1: 0.3, 2: 0.3, "cpu": 0.3})
    assert len(shares) > 2
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        inside = [one for one in place.device_map if one.startswith(f"{name}.")]
        assert not inside and ({name, "model.layers", "model"} & set(place.device_map))
    if kind == "gemma2":
        assert place.device_map["model.embed_tokens"] == place.device_map["lm_head"]


def test_the_format_of_the_weights_counts():
    assert placed(empty(), {0: 0.6, "cpu": 9}, dtype=torch.bfloat16)[1] == {"cuda": 1.0}
    stored = empty(dtype=torch.bfloat16)
    assert next(stored.parameters()).dtype is torch.bfloat16
    assert placed(stored, {0: 0.6, "cpu": 9})[1]["cpu"] > 0.4  # loaded in float32


def test_a_model_that_does_not_say_what_stays_whole_is_not_spread():
    network = empty()
    network._no_split_modules = None
    assert placed(network, {0: 1.0})[1] == {"cuda": 1.0}
    with pytest.raises(LabError, match=r"LlamaForCausalLM does not say which of its layers .*launch\.placement=single"):
        placed(network, {0: 0.5, 1: 0.9})


@pytest.mark.parametrize(
    ("how", "share", "gpus"),
    [("auto", 1, 1), ("auto", 0.7, 2), ("auto", 0.5, 3), ("auto", 0.05, 8), ("single", 0.1, 1), ("balanced", 9, 8)],
)
def test_how_many_gpus_a_model_needs(how, share, gpus):
    network = empty()
    memory = [int(share * weight_bytes(network, torch.float32))] * 8
    assert gpus_per_model(network, torch.float32, memory, how) == gpus


def test_processes_get_groups_of_gpus(monkeypatch):
    eight = [f"GPU-{i}" for i in range(8)]
    assert [group_of(eight, i, 3) for i in range(3)] == [eight[0:2], eight[2:4], eight[4:6]]
    assert [group_of(eight[:2], i, 3) for i in range(3)] == [["GPU-0"], ["GPU-1"], ["GPU-0"]]
    monkeypatch.setattr(pool, "visible_gpus", lambda: eight)
    environments = pool._environments(2, "cuda")
    assert [one["CUDA_VISIBLE_DEVICES"] for one in environments] == [",".join(eight[:4]), ",".join(eight[4:])]

    class Properties:
        total_memory = 1000

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: Properties)
    asked = []
    assert number_of_processes("auto", "cuda", lambda memory: asked.append(memory) or 3) == 2
    assert asked == [[900] * 8]
    assert number_of_processes("auto", "cpu", None) == 1 and number_of_processes(5, "cuda", None) == 5


def test_limits_are_read_as_accelerate_reads_them():
    memory = {0: 10**12, 1: 7, "cpu": 10**12}
    assert limited(memory, {"0": "1.5GB", "1": "1GB", "cpu": 12, "9": 3}) == {0: 1_500_000_000, 1: 7, "cpu": 12}
    assert limited(memory, {"cpu": "2MiB"})["cpu"] == 2 * 2**20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"placement": "spread"}, r"launch\.placement must be one of auto, single, balanced; got 'spread'"),
        ({"max_memory": {"gpu": 1}}, r"launch\.max_memory: expected cpu or the number of a GPU; got 'gpu'"),
        ({"max_memory": {"cpu": "lots"}}, r"launch\.max_memory\.cpu must be a number of bytes, .* got 'lots'"),
        ({"max_memory": {"0": -1}}, r"launch\.max_memory\.0 must be a number of bytes, .* got -1"),
    ],
)
def test_mistakes_are_named(fields, message):
    with pytest.raises(LabError, match=message):
        Launch(**fields)


@pytest.fixture
def bin_model_dir(tmp_path):
    """A checkpoint from which single weights cannot be read: those that stay on disk are written anew."""
    model = build_tiny_model("gpt_neox")
    model.save_pretrained(tmp_path / "bin")
    torch.save(model.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    os.remove(tmp_path / "bin" / "model.safetensors")
    build_tiny_tokenizer().save_pretrained(tmp_path / "bin")
    return tmp_path / "bin"


@pytest.mark.parametrize(
    ("model", "limit", "devices"),
    [("tiny_model_dir", 0.75, {"cpu", "disk"}), ("tiny_gpt2_dir", 0, {"disk"}), ("bin_model_dir", 0, {"disk"})],
)
def test_what_does_not_fit_is_read_from_disk_and_the_record_is_the_same(
    model, limit, devices, tmp_path, request, capsys, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    places = []

    class Watched(Scorer):
        def __init__(self, model, device, **more):
            places.append({weight.device.type for weight in model.parameters()})
            super().__init__(model, device, **more)

    monkeypatch.setattr(rbp_lab.measurement.instrument, "Scorer", Watched)
    directory = request.getfixturevalue(model)
    whole = measure(measure_config(directory, tmp_path / "whole")).record
    assert whole.provenance["placement"] == {"cpu": 1.0} and "do not lie" not in capsys.readouterr().err
    size = weight_bytes(build_tiny_model("gpt2" if "gpt2" in model else "gpt_neox"), torch.float32)
    limits = {"cpu": int(limit * size)}
    spread = measure(measure_config(directory, tmp_path / "spread", launch__max_memory=limits)).record
    assert set(spread.provenance["placement"]) == devices
    assert places == [{"cpu"}, {"meta" if one == "disk" else one for one in devices}]
    assert spread.provenance["head"] == "output layer intercepted"
    assert any("those on disk are moved" in note for note in spread.provenance["notes"])
    assert "its weights do not lie on one device" in capsys.readouterr().err
    assert spread.key == whole.key
    assert spread.stats == whole.stats and spread.documents == whole.documents
    measure(measure_config(directory, tmp_path / "again"))  # other weights take the place of these
    assert places[-1] == {"cpu"}
    assert not list(tmp_path.glob("rbp-lab-weights-*"))


def test_what_had_to_be_written_goes_with_the_process(bin_model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    network = HFModel(path=str(bin_model_dir)).open().load(torch.float32, {"": "disk"}).network
    (folder,) = tmp_path.glob("rbp-lab-weights-*")
    assert len(list(folder.iterdir())) == len(list(network.parameters()))
    remove_written_weights()
    assert not folder.exists()


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "cohere"])
def test_weights_that_are_moved_in_every_pass_give_the_same_scores(name, fallback):
    from accelerate import cpu_offload

    plan, whole = make_plan(), build_tiny_model(name)
    moved = cpu_offload(copy.deepcopy(whole), execution_device=torch.device("cpu"))
    assert all(weight.is_meta for weight in moved.parameters())
    records = []
    for model in (whole, moved):
        scorer = Scorer(model, "cpu")
        assert scorer.plan.kind == "head"
        if fallback:
            scorer.plan = HeadPlan("fallback", reason="on purpose")
        records.append(measure_plan(plan, scorer, run_plan()))
    assert records[0].stats == records[1].stats and records[0].documents == records[1].documents


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_that_is_too_small_takes_layers_in_turn(tiny_model_dir, tmp_path):
    size = weight_bytes(build_tiny_model("gpt_neox"), torch.float32)
    whole = measure(measure_config(tiny_model_dir, tmp_path / "whole", launch__device="cuda")).record
    limits = {"0": int(0.8 * size), "cpu": int(0.5 * size)}
    config = measure_config(tiny_model_dir, tmp_path / "spread", launch__device="cuda", launch__max_memory=limits)
    spread = measure(config).record
    assert {"cuda:0", "disk"} <= set(spread.provenance["placement"])
    assert spread.stats == whole.stats and spread.documents == whole.documents
