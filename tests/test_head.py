"""Head interception on tiny random models of many architectures: what follows the head, and that nothing is lost."""

from __future__ import annotations

import copy
import re
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rbp_lab.errors import LabError
from rbp_lab.models.head import HeadPlan, full_logits, intercept, probe_head, response
from tests.conftest import TINY_MODELS, TINY_VOCAB, build_tiny_model

IDS = (torch.arange(18) * 7919 % TINY_VOCAB).reshape(2, 9)
IDS[0, -1] = TINY_VOCAB - 1  # no id comes after it
# What the configs in conftest ask for; every other architecture gives its logits as the head makes them.
SCALES = {"cohere": 0.0625, "granite": 1 / 8}
CAPS = {"gemma2": 30.0}


def logits_at_head(model, plan, ids=IDS):
    """Logits computed inside the interception, with the shapes that went in and came out checked."""
    caught = []
    with (
        torch.no_grad(),
        intercept(model, plan, lambda hidden, head: caught.append((hidden, head_logits(hidden, head)))),
    ):
        out = full_logits(model, ids)
    assert out.shape == (*ids.shape, 1)
    ((hidden, logits),) = caught
    assert hidden.shape[:2] == ids.shape
    return logits


def head_logits(hidden, head):
    return head.transform(nn.functional.linear(hidden, head.weight, head.bias))


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_every_architecture_is_intercepted_with_its_own_logits(name):
    model = build_tiny_model(name)
    plan = probe_head(model, IDS)
    assert plan == HeadPlan("head", SCALES.get(name, 1.0), CAPS.get(name)), plan.reason
    own = full_logits(model, IDS)
    torch.testing.assert_close(logits_at_head(model, plan), own, rtol=1e-5, atol=1e-6)
    assert torch.equal(full_logits(model, IDS), own), "the model is not itself again after the interception"


@pytest.mark.parametrize("name", ["gemma2", "cohere", "gpt_neox", "phi"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_finds_the_same_transform(name, dtype):
    model = copy.deepcopy(build_tiny_model(name)).to(dtype)
    assert probe_head(model, IDS) == HeadPlan("head", SCALES.get(name, 1.0), CAPS.get(name))


@pytest.mark.parametrize("cap", [7.3, 1.1])
def test_an_odd_scale_and_cap_together_are_found_without_help_from_the_config(cap):
    model = build_tiny_model("llama")
    plan = probe_head(Follow(model, lambda z: cap * torch.tanh(0.37 * z / cap)), IDS)
    assert plan.kind == "head", plan.reason
    assert plan.scale == pytest.approx(0.37, rel=1e-5)
    assert plan.softcap == pytest.approx(cap, rel=1e-5)


@pytest.mark.parametrize(
    "dtype, then, scale",
    [
        (torch.float32, lambda z: z.mul_(0.37), 0.37),
        (torch.bfloat16, lambda z: z.float() * 0.375, 0.375),
        (torch.float32, lambda z: z.bfloat16(), 1.0),
    ],
    ids=["in place", "to more digits", "to fewer digits"],
)
def test_a_scale_is_found_where_the_format_changes_on_the_way(dtype, then, scale):
    plan = probe_head(Follow(copy.deepcopy(build_tiny_model("llama")).to(dtype), then), IDS)
    assert plan.kind == "head", plan.reason
    assert (plan.scale, plan.softcap) == (pytest.approx(scale, rel=1e-5), None)


def test_what_a_model_answers_of_a_row_is_its_states_or_some_of_its_logits():
    model, ids = build_tiny_model("llama"), IDS[:1]
    states, answer = response(model, ids)
    assert torch.equal(states, model.model(input_ids=ids).last_hidden_state)
    assert answer.shape[:2] == ids.shape and torch.equal(answer, answer[:, :1].expand_as(answer))
    (some,) = response(with_head("none"), ids)
    assert torch.equal(some, full_logits(model, ids)[..., :: TINY_VOCAB // 64])
    (few,) = response(Follow(with_head("none"), lambda z: z[..., :20]), ids)
    assert few.shape == (*ids.shape, 20)


def test_a_lack_of_memory_is_no_reason():
    def lack(logits):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        probe_head(Follow(build_tiny_model("llama"), lack), IDS)
    with pytest.raises(torch.OutOfMemoryError):  # of the answer to known logits alone
        probe_head(Follow(build_tiny_model("llama"), lambda z: lack(z) if z.max() > 8000 else z), IDS)


def test_a_bias_takes_part():
    model = build_tiny_model("phi")
    seen = []
    with torch.no_grad(), intercept(model, probe_head(model, IDS), lambda hidden, head: seen.append(head.bias)):
        full_logits(model, IDS)
    assert seen[0] is model.get_output_embeddings().bias and seen[0].abs().max() > 0.1


def test_offloaded_weights_are_there_when_the_head_runs():
    from accelerate import cpu_offload

    whole = build_tiny_model("llama")
    model = cpu_offload(copy.deepcopy(whole), execution_device=torch.device("cpu"))
    assert model.get_output_embeddings().weight.device.type == "meta"
    plan = probe_head(model, IDS)
    assert plan == HeadPlan("head")
    torch.testing.assert_close(logits_at_head(model, plan), full_logits(whole, IDS), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(full_logits(model, IDS), full_logits(whole, IDS), rtol=1e-5, atol=1e-6)


class Follow(nn.Module):
    """A model whose logits go through one more function."""

    def __init__(self, model, then):
        super().__init__()
        self.model, self.then, self.config = model, then, model.config

    def get_output_embeddings(self):
        return self.model.get_output_embeddings()

    def forward(self, **inputs):
        out = self.model(**inputs)
        out.logits = self.then(out.logits)
        return out


def masked(logits):
    return logits.index_fill(-1, torch.tensor([5]), float("-inf"))


def twice(model):
    """A model that calls its head a second time."""

    class Twice(Follow):
        def forward(self, **inputs):
            self.model(**inputs)
            return self.model(**inputs)

    return Twice(model, None)


def flattened(model):
    """A model that gives its head the tokens of all rows in one."""

    class Flattened(Follow):
        def forward(self, input_ids, use_cache):
            hidden = self.model.model(input_ids=input_ids).last_hidden_state
            logits = self.get_output_embeddings()(hidden.flatten(0, 1))
            return SimpleNamespace(logits=logits.unflatten(0, input_ids.shape))

    return Flattened(model, None)


def with_head(kind):
    model = copy.deepcopy(build_tiny_model("llama"))
    head = model.get_output_embeddings()

    class Other(nn.Linear):
        def forward(self, hidden):
            return super().forward(hidden) + self.offset if kind == "subclass" else super().forward(hidden)

    if kind == "subclass":
        other = Other(head.in_features, head.out_features, bias=False)
        other.weight, other.offset = head.weight, torch.ones(head.out_features)
        model.set_output_embeddings(other)
    else:
        model.get_output_embeddings = lambda: None
    return model


FALLBACKS = {
    "position": (lambda m: Follow(m, lambda z: z + torch.arange(z.shape[1])[:, None]), "depends on the position"),
    "masked column": (lambda m: Follow(m, masked), "neither a scale nor a soft-cap"),
    "log-softmax": (lambda m: Follow(m, lambda z: z.log_softmax(-1)), "neither a scale nor a soft-cap"),
    "normalised": (lambda m: Follow(m, lambda z: z / z.norm(dim=-1, keepdim=True)), "differ from the model's own"),
    "negative ones": (lambda m: Follow(m, lambda z: z.where(z > 0, z / 2)), "neither a scale nor a soft-cap"),
    "powers of two": (lambda m: Follow(m, lambda z: z.sign() * 2 ** z.abs().log2().floor()), "neither a scale nor"),
    "flattened": (flattened, r"the head receives \(18, 32\), expected \(2, 9, 32\)"),
    "sliced": (lambda m: Follow(m, lambda z: z[..., :300]), r"logits have shape \(2, 9, 300\)"),
    "fixed width": (lambda m: Follow(m, lambda z: z.reshape(2, 9, TINY_VOCAB)), "does not run with its head replaced"),
    "two calls": (twice, "called 2 times"),
    "no head": (lambda m: with_head("none"), "no output embeddings"),
    "not linear": (lambda m: with_head("subclass"), "head is a Other"),
}


@pytest.mark.parametrize("case", FALLBACKS)
def test_what_is_not_understood_falls_back_with_a_reason(case):
    make, reason = FALLBACKS[case]
    plan = probe_head(make(build_tiny_model("llama")), IDS)
    assert plan.kind == "fallback"
    assert re.search(reason, plan.reason), plan.reason
    with pytest.raises(ValueError, match="cannot be intercepted"), intercept(None, plan, print):
        pass


def test_a_model_that_sees_later_tokens_is_refused():
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = AutoConfig.for_model("bert", vocab_size=TINY_VOCAB, **shape)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.data.normal_(0.0, 0.2)
    with pytest.raises(LabError, match="BertLMHeadModel is not causal"):
        probe_head(model, IDS)


class Sees(Follow):
    """A model in which ``effect`` of the logits ``at`` a position depends on the last token."""

    def __init__(self, model, effect, at=slice(None)):
        super().__init__(model, None)
        self.effect, self.at = effect, at

    def forward(self, input_ids, **more):
        out = self.model(input_ids=input_ids, **more)
        out.logits = 100 * out.logits.float()
        out.logits[:, self.at] *= 1 + self.effect * float((input_ids[:, -1] != IDS[:, -1]).any())
        return out


@pytest.mark.parametrize(
    "dtype, effect, at, refused",
    [
        (torch.float32, 0.8e-4, slice(None), False),
        (torch.float32, 1.2e-4, slice(None), True),
        (torch.float32, 0.5, slice(-2, None), True),
        (torch.bfloat16, 0.028, slice(None), False),
        (torch.bfloat16, 0.034, slice(None), True),
    ],
)
def test_what_later_tokens_may_change_is_rounding(dtype, effect, at, refused):
    model = Sees(copy.deepcopy(build_tiny_model("llama")).to(dtype), effect, at)
    with pytest.raises(LabError, match="Sees is not causal") if refused else nullcontext():
        probe_head(model, IDS)


def test_a_model_whose_first_predictions_alone_see_later_tokens_is_refused():
    """ProphetNet in transformers gathers the relative positions of a token from other tokens, also in a row alone."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "prophetnet", vocab_size=TINY_VOCAB, hidden_size=32, num_encoder_layers=1, num_decoder_layers=2,
        num_encoder_attention_heads=4, num_decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
        is_decoder=True, add_cross_attention=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        weight.data.normal_(0.0, 0.2)
    with pytest.raises(LabError, match="ProphetNetForCausalLM is not causal"):
        probe_head(model, IDS)


def test_a_model_that_does_not_run_on_ids_alone_is_refused():
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = AutoConfig.for_model("xmod", vocab_size=TINY_VOCAB, is_decoder=True, languages=["a", "b"], **shape)
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(LabError, match=r"XmodForCausalLM does not run on 9 token ids alone.*Input language unknown"):
        probe_head(model, IDS)


def test_the_head_is_restored_after_an_error():
    model = build_tiny_model("gpt2")
    own = full_logits(model, IDS)

    def stop(hidden, head):
        raise KeyError("stop")

    with pytest.raises(KeyError), intercept(model, HeadPlan("head"), stop):
        full_logits(model, IDS)
    assert "forward" not in model.get_output_embeddings().__dict__
    assert torch.equal(full_logits(model, IDS), own)
