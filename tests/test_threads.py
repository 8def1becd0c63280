"""Rows on threads of their own: the same scores, from copies of the model that share its weights and nothing else."""

import copy
import time

import pytest
import torch
from torch import nn

import rbp_lab.models.scorer
from rbp_lab.models.copies import copy_of, may_be_copied
from rbp_lab.models.scorer import Scorer
from rbp_lab.scoring.threads import apart
from tests.benchmarks.case import blocks_of, random_ids
from tests.conftest import TINY_MODELS, TINY_VOCAB, build_tiny_model


def scores(model, ids):
    return Scorer(model, "cpu")(blocks_of(ids))


@pytest.fixture
def passes(monkeypatch):
    """(model, rows, threads of torch) of every forward pass that is scored, with no row too short for a thread."""
    monkeypatch.setattr(rbp_lab.models.scorer, "ROWS_APART", 1)
    seen, real = [], Scorer._score_head

    def score(self, model, tokens, scored):
        seen.append((model, len(tokens), torch.get_num_threads()))
        return real(self, model, tokens, scored)

    monkeypatch.setattr(Scorer, "_score_head", score)
    return seen


@pytest.mark.parametrize("threads", [2, 3], indirect=True)
@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_threads_score_rows_as_one_does(name, threads, passes):
    model, ids = build_tiny_model(name), random_ids(7, 40, TINY_VOCAB, 0)
    found = scores(model, ids)
    expected = [(7 // threads, 1)] * threads + [(7 % threads, threads)]
    assert sorted((rows, inside) for _, rows, inside in passes) == sorted(expected)
    assert len({id(each) for each, _, inside in passes if inside == 1}) == threads
    torch.set_num_threads(1)
    alone = scores(model, ids)
    torch.testing.assert_close(found.nll, alone.nll, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.entropy, alone.entropy, rtol=1e-5, atol=1e-5)
    assert (found.num_greater - alone.num_greater).abs().max() <= 1  # a near tie may round the other way


@pytest.mark.parametrize("threads", [2], indirect=True)
@pytest.mark.parametrize(("rows", "tokens", "apart_in"), [(2, 256, 2), (2, 255, 1), (1, 900, 1), (5, 128, 3)])
def test_rows_that_are_few_or_short_are_not_dealt_out(rows, tokens, apart_in, threads, passes, monkeypatch):
    monkeypatch.setattr(rbp_lab.models.scorer, "ROWS_APART", 256)
    scores(build_tiny_model("mamba"), random_ids(rows, tokens, TINY_VOCAB, 0))
    assert len(passes) == apart_in


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
def test_a_thread_takes_a_few_rows_at_a_time(threads, passes, monkeypatch):
    model, ids = build_tiny_model("gpt_neox"), random_ids(10, 40, TINY_VOCAB, 0)
    whole = scores(model, ids)
    del passes[:]
    monkeypatch.setattr(rbp_lab.models.scorer, "PIECE", 80)
    parts = scores(model, ids)
    assert max(rows for _, rows, _ in passes) == 2 and sum(rows for _, rows, _ in passes) == 10
    torch.testing.assert_close(parts.nll, whole.nll, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(rbp_lab.models.scorer, "PIECE", 1)  # a row is never cut
    torch.testing.assert_close(scores(model, ids).nll, whole.nll, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_a_wrong_weight_and_an_error_are_met_on_threads_too(threads, passes, monkeypatch):
    model, ids = copy.deepcopy(build_tiny_model("gpt2")), random_ids(4, 40, TINY_VOCAB, 0)
    scorer = Scorer(model, "cpu")
    assert bool(scorer(blocks_of(ids)).nll.isfinite().all())
    with torch.no_grad():
        model.transformer.ln_f.bias[0] = torch.nan  # after the copies were made: they see the model's weights
    assert not bool(scorer(blocks_of(ids)).nll.isfinite().any())

    def fail(*args, **kwargs):
        raise RuntimeError("in a thread")

    monkeypatch.setattr(rbp_lab.models.scorer, "score_tokens", fail)
    with pytest.raises(RuntimeError, match="in a thread"):
        scorer(blocks_of(ids))
    monkeypatch.undo()
    assert all("forward" not in vars(each.get_output_embeddings()) for each in scorer._copies)


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_an_error_leaves_no_call_running(threads):
    done = []

    def fail():
        raise RuntimeError("at once")

    def take_long():
        time.sleep(0.3)
        done.append(True)

    with pytest.raises(RuntimeError, match="at once"):
        apart([fail, take_long, fail, take_long])
    assert done == [True, True]


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_a_copy_shares_the_weights_and_nothing_else(name):
    model = build_tiny_model(name)
    assert may_be_copied(model)
    other = copy_of(model)
    assert [id(p) for p in other.parameters()] == [id(p) for p in model.parameters()]
    assert other.get_output_embeddings().weight is model.get_output_embeddings().weight
    assert not {id(m) for m in other.modules()} & {id(m) for m in model.modules()}
    assert not {b.data_ptr() for b in other.buffers()} & {b.data_ptr() for b in model.buffers() if b.numel()}
    ids = torch.from_numpy(random_ids(2, 9, TINY_VOCAB, 0))
    with torch.no_grad():
        assert torch.equal(other(input_ids=ids).logits, model(input_ids=ids).logits)


def times_two(x, weight, bias):
    return 2 * nn.functional.linear(x, weight, bias)


def test_a_copy_may_multiply_otherwise_in_its_plain_float32_layers():
    class Special(nn.Linear):
        """Anything else is left alone."""

    model = nn.Sequential(nn.Linear(3, 4), Special(4, 4), nn.Linear(4, 4).half(), nn.Linear(4, 4, bias=False))
    copied = copy_of(model, times_two)
    x = torch.randn(2, 5, 3)
    assert torch.equal(copied[0](x), 2 * model[0](x))
    assert torch.equal(copied[3](copied[0](x)), 4 * model[3](model[0](x)))
    assert type(copied[1]) is Special and type(copied[2]) is nn.Linear and copied[0].weight is model[0].weight
    assert all(type(each) is nn.Linear for each in (model[0], model[2], model[3]))
    transposed = torch.randn(3, 5, 2).transpose(0, 2)
    assert torch.equal(copied[0](transposed), 2 * model[0](transposed))


@pytest.fixture
def avx512(monkeypatch):
    """The module, chosen by native whatever the speed of other products."""
    native, module = (pytest.importorskip(f"rbp_lab.scoring.{name}") for name in ("native", "avx512"))
    if not module.multiplies(torch.float32, 32):
        pytest.skip("the processor has no AVX-512")
    monkeypatch.setattr(native, "linear_for", lambda device, operands, width, own: own)
    return module


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_layers_are_multiplied_by_our_product_and_no_worse(name, threads, passes, avx512):
    model, ids = build_tiny_model(name), random_ids(4, 40, TINY_VOCAB, 0)
    found = Scorer(model, "cpu", implementation="native")(blocks_of(ids))
    copies = [each for each, _, _ in passes]
    assert len(set(map(id, copies))) == threads and model not in copies
    layers = {type(layer).__name__ for layer in copies[0].modules() if isinstance(layer, nn.Linear)}
    assert layers == {"_Layer"} and not any(type(layer).__name__ == "_Layer" for layer in model.modules())
    double = copy.deepcopy(model).double()
    exact, plain = (Scorer(each, "cpu", implementation=how)(blocks_of(ids)).nll.double()
                    for each, how in ((double, "reference"), (model, "tiled")))  # fmt: skip
    assert (found.nll - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-6


@pytest.mark.parametrize("threads", [2], indirect=True)
@pytest.mark.parametrize(("dtype", "how"), [(torch.float32, "tiled"), (torch.bfloat16, "native")], ids=str)
def test_layers_stay_torchs_in_16_bits_and_without_native(threads, dtype, how, passes, avx512, monkeypatch):
    from rbp_lab.scoring import native

    monkeypatch.setattr(native, "float32_linear", lambda _: pytest.fail("no float32 product is needed, nor measured"))
    if not avx512.multiplies(dtype, 32):
        pytest.skip("native converts to float32 here")
    model = copy.deepcopy(build_tiny_model("llama")).to(dtype)
    Scorer(model, "cpu", implementation=how)(blocks_of(random_ids(4, 40, TINY_VOCAB, 0)))
    layers = [type(m) for each, _, _ in passes for m in each.modules() if isinstance(m, nn.Linear)]
    assert len(passes) == threads and set(layers) == {nn.Linear}


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_layers_stay_torchs_where_another_product_is_clearly_faster(threads, passes, avx512, monkeypatch):
    from rbp_lab.scoring import native

    monkeypatch.setattr(native, "linear_for", lambda device, operands, width, own: nn.functional.linear)
    Scorer(build_tiny_model("llama"), "cpu", implementation="native")(blocks_of(random_ids(4, 40, TINY_VOCAB, 0)))
    layers = [type(m) for each, _, _ in passes for m in each.modules() if isinstance(m, nn.Linear)]
    assert len(passes) == threads and set(layers) == {nn.Linear}


def test_what_hangs_on_its_modules_is_not_copied():
    from accelerate import cpu_offload

    class Own(type(build_tiny_model("llama"))):
        """A model whose code is not the library's."""

    hooked = copy.deepcopy(build_tiny_model("llama"))
    hooked.model.layers[0].register_forward_hook(lambda *_: None)
    quantised = copy.deepcopy(build_tiny_model("llama"))
    quantised.hf_quantizer = object()
    offloaded = cpu_offload(copy.deepcopy(build_tiny_model("llama")), execution_device=torch.device("cpu"))
    for model in (Own(build_tiny_model("llama").config), hooked, quantised, offloaded, nn.Linear(2, 2)):
        assert not may_be_copied(model)


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_a_model_that_may_not_be_copied_runs_whole(threads, passes):
    model = copy.deepcopy(build_tiny_model("llama"))
    model.model.layers[0].register_forward_hook(lambda *_: None)
    scores(model, random_ids(4, 40, TINY_VOCAB, 0))
    assert [(rows, inside) for _, rows, inside in passes] == [(4, 2)]


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
def test_calls_apart_answer_in_order_and_may_be_nested(threads):
    def outer(i):
        assert torch.get_num_threads() == 1 and torch.is_inference_mode_enabled()
        return apart([lambda j=j: (i, j) for j in range(3)])

    assert apart([lambda i=i: outer(i) for i in range(4)]) == [[(i, j) for j in range(3)] for i in range(4)]
    assert torch.get_num_threads() == threads and not torch.is_inference_mode_enabled()
    assert apart([]) == []
