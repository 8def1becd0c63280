"""Weights rounded to int8, int4 and fp8: what is rounded, how far, and where a record shows it."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from rbp_lab.commands.measure import measure
from rbp_lab.errors import LabError
from rbp_lab.models import HFModel
from rbp_lab.models.opening import HEAD, ROUNDINGS
from rbp_lab.models.rounding import GROUP, _linear, _never_called, _plain, round_weights
from tests.conftest import build_tiny_model
from tests.sources import measure_config
from tests.test_configs import composed


@pytest.mark.parametrize("kind", ROUNDINGS)
@pytest.mark.parametrize("model", ["pythia-160m", "ladder-3"])
def test_a_precision_rounds_the_weights_of_the_model(kind, model):
    config = composed("measure", f"model={model}", f"precision={kind}", "precision.dtype=bfloat16")
    assert config["model"]["quantisation"] == kind
    assert config["precision"] == {"dtype": "bfloat16", "tf32": False, "logits": "float32"}
    assert composed("measure", f"model={model}")["model"]["quantisation"] is None


def test_a_rounded_model_has_a_name_and_a_key_of_its_own(tiny_model_dir):
    plain, rounded = (
        HFModel(path=str(tiny_model_dir), name="m", quantisation=kind).open().info for kind in (None, "int8")
    )
    assert (plain.name, rounded.name) == ("m", "m+int8")
    assert (plain.quantisation, rounded.quantisation) == (None, "int8")
    assert plain.fingerprint == rounded.fingerprint
    whole = HFModel(path=str(tiny_model_dir), name="m", quantisation="int8+head").open().info
    assert (whole.name, whole.quantisation) == ("m+int8+head", "int8+head")


def test_what_cannot_be_rounded_is_a_sentence(monkeypatch):
    with pytest.raises(LabError, match=r"model\.quantisation must be one of int8, .* fp8\+head; got 'int7'"):
        HFModel(path="a/b", quantisation="int7")
    none = torch.nn.ModuleDict({"table": torch.nn.Embedding(3, 4), "norm": torch.nn.LayerNorm(4)})
    none.get_output_embeddings = lambda: None
    with pytest.raises(LabError, match=r"^model g: no layer can be rounded to int8, .* \(Embedding, LayerNorm\)$"):
        round_weights(none, "int8", "model g")
    odd = torch.nn.ModuleDict({"layer": torch.nn.Linear(GROUP + 1, 4)})
    odd.get_output_embeddings = lambda: None
    with pytest.raises(LabError, match=r"int4 needs layers of 32 inputs or a multiple, but layer has 33"):
        round_weights(odd, "int4", "model o")
    with pytest.raises(LabError, match=r"^model o: it has no output layer of its own to round; .*quantisation=int8$"):
        round_weights(odd, "int8+head", "model o")
    away = copy.deepcopy(build_tiny_model("llama"))
    away.get_output_embeddings().weight = torch.nn.Parameter(away.get_output_embeddings().weight.to("meta"))
    with pytest.raises(LabError, match=r"slower place .* launch\.placement=single"):
        round_weights(away, "int8+head", "model a")
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(LabError, match=r"needs torchao: pip install 'rbp-lab\[torchao\]'"):
        round_weights(copy.deepcopy(build_tiny_model("llama")), "int8", "model m")


@pytest.mark.parametrize(("name", "expected"), [("mamba", ["mixer.dt_proj"] * 2), ("llama", []), ("gpt2", [])])
def test_layers_whose_weights_the_model_takes_itself_are_found(name, expected):
    network = build_tiny_model(name)
    found = _never_called(network, _linear(network, network.get_output_embeddings()))
    assert [one.split(".", 3)[-1] for one in found] == expected
    assert not any(module._forward_pre_hooks for module in network.modules())


def scales(weight, kind):
    """Steps between neighbouring values near 0, one for each weight, by the definition of each format."""
    groups = weight.reshape(len(weight), -1, GROUP if kind == "int4" else weight.shape[1])
    largest = groups.abs().amax(-1, keepdim=True)
    steps = {"int8": largest / 127.5, "int4": largest / 7.5, "fp8": largest / 448 * 2**-9}[kind]
    return steps.expand_as(groups).reshape(weight.shape)


@pytest.mark.peers
@pytest.mark.parametrize("kind", ROUNDINGS)
@pytest.mark.parametrize("name", ["gpt2", "phi"])
def test_the_head_is_rounded_where_that_is_asked_for_and_the_embedding_never_is(kind, name):
    """GPT-2's head is its embedding; phi's has a bias."""
    network, before = copy.deepcopy(build_tiny_model(name)), build_tiny_model(name)
    said = round_weights(network, kind + HEAD, "model m")
    assert f", and the output layer, are rounded to {kind}" in said
    head, plain = network.get_output_embeddings().weight, before.get_output_embeddings().weight
    steps = scales(plain, kind)
    if kind == "fp8":
        steps = torch.maximum(steps, plain.abs() * 2**-3)
    assert type(head) is torch.nn.Parameter and head.dtype == plain.dtype
    assert ((head - plain).abs() <= steps * 0.5001).all() and not torch.equal(head, plain)
    assert torch.equal(network.get_input_embeddings().weight, before.get_input_embeddings().weight)
    alone = copy.deepcopy(before)
    round_weights(alone, kind, "model m")
    ids = torch.arange(12)[None]
    states = alone.base_model(ids)[0]
    bias = before.get_output_embeddings().bias
    logits = states @ head.T + (0 if bias is None else bias)
    torch.testing.assert_close(network(ids).logits, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2"])
def test_a_transposed_layer_is_the_plain_one_in_its_place(name):
    network, before = copy.deepcopy(build_tiny_model(name)), build_tiny_model(name)
    _plain(network)
    assert not any(type(module) is Conv1D for module in network.modules())
    assert sum(type(module) is torch.nn.Linear for module in network.modules()) == 9  # four a layer, and the head
    ids = torch.arange(12)[None]
    torch.testing.assert_close(network(ids).logits, before(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.peers
@pytest.mark.parametrize("kind", ROUNDINGS)
@pytest.mark.parametrize("name", ["llama", "gpt_neox", "opt", "phi", "gpt2", "mamba"])
def test_only_the_layers_are_rounded_and_by_no_more_than_half_a_step(kind, name):
    network, before = copy.deepcopy(build_tiny_model(name)), build_tiny_model(name)
    head = network.get_output_embeddings()
    said = round_weights(network, kind, "model m")
    assert f"weights are rounded to {kind} by torchao" in said
    _plain(before := copy.deepcopy(before))
    plain = before.state_dict()
    changed = 0
    for layer, module in network.named_modules():
        if type(module) is not torch.nn.Linear or module is head:
            for label, weight in module.named_parameters(layer, recurse=False):
                assert torch.equal(weight, plain[label])
            continue
        original, rounded = plain[f"{layer}.weight"], module.weight.dequantize()
        steps = scales(original, kind)
        if kind == "fp8":  # neighbours are 2^-3 apart, relatively, above the smallest normal number
            steps = torch.maximum(steps, original.abs() * 2**-3)
        assert ((rounded - original).abs() <= steps * 0.5001).all()
        changed += not torch.equal(rounded, original)
    assert changed >= 8, "nothing was rounded"
    assert network(input_ids=torch.arange(12)[None]).logits.isfinite().all()


@pytest.mark.peers
@pytest.mark.parametrize("kind", [*ROUNDINGS, "int4+head"])
def test_a_rounded_model_is_measured_as_its_unpacked_weights_would_be(kind, tiny_model_dir, tmp_path):
    config = measure_config(tiny_model_dir, tmp_path / "store")
    record = measure(config | {"model": config["model"] | {"quantisation": kind}}).record
    plain = measure(config).record
    assert record.key != plain.key and record.stats != plain.stats
    assert any(f"rounded to {kind.removesuffix(HEAD)}" in note for note in record.provenance["notes"])
    network = HFModel(path=str(tiny_model_dir), quantisation=kind).open().load(torch.float32, "cpu").network
    for module in network.modules():
        if type(module) is torch.nn.Linear and module is not network.get_output_embeddings():
            module.weight = torch.nn.Parameter(module.weight.dequantize(), requires_grad=False)
    network.save_pretrained(tmp_path / "unpacked")
    HFModel(path=str(tiny_model_dir)).open().tokenizer.save_pretrained(tmp_path / "unpacked")
    unpacked = measure(measure_config(tmp_path / "unpacked", tmp_path / "store")).record
    assert record.summary["cross_entropy"] == pytest.approx(unpacked.summary["cross_entropy"], abs=1e-5)
