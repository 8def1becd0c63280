"""Memory that is not enough for a batch: it is scored in parts, later ones too, and no document is lost or doubled."""

import pytest
import torch

import rbp_lab.measurement.instrument
from rbp_lab.commands.measure import measure
from rbp_lab.data.windows import Windowing
from rbp_lab.errors import LabError, out_of_memory
from rbp_lab.measurement.loop import measure as measure_plan
from rbp_lab.models.head import HeadPlan
from rbp_lab.models.scorer import Scorer
from tests.conftest import build_tiny_model
from tests.sources import measure_config
from tests.test_measurement_loop import make_plan, run_plan


def of_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def of_the_computer():
    torch.empty(1 << 60, dtype=torch.uint8)  # more than any address space: torch's own error


def of_numpy():
    raise MemoryError("Unable to allocate 8.00 EiB for an array")


class Tight(Scorer):
    """A scorer that runs out of memory on batches of more than ``most`` tokens."""

    def __init__(self, model, most, error, **more):
        super().__init__(model, "cpu", **more)
        self.most, self.error, self.tried = most, error, []

    def _score_head(self, tokens, scored):
        return self._tight(super()._score_head, tokens, scored)

    def _score_logits(self, tokens, scored):
        return self._tight(super()._score_logits, tokens, scored)

    def _tight(self, score, tokens, scored):
        self.tried.append(tokens.numel())
        if tokens.numel() > self.most:
            self.error()
        return score(tokens, scored)


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("error", [of_a_gpu, of_the_computer, of_numpy])
def test_a_batch_is_halved_until_it_fits_and_the_size_is_remembered(error, fallback, capsys):
    plan, model = make_plan(Windowing("rolling", 48, 20)), build_tiny_model("gpt2")
    scorers = Scorer(model, "cpu"), Tight(model, 200, error)
    if fallback:
        for scorer in scorers:
            scorer.plan = HeadPlan("fallback", reason="on purpose")
    expected, got = (measure_plan(plan, scorer, run_plan(), batch_tokens=48 * 16) for scorer in scorers)
    assert got.stats == expected.stats and got.documents == expected.documents
    tried = scorers[1].tried
    assert len(tried) > 10
    failed = [size for size in tried if size > 200]
    assert tried[: len(failed)] == failed == sorted(failed, reverse=True)  # at the beginning and never again
    assert 1 < len(failed) < 4
    assert capsys.readouterr().err.count("memory is not enough to score") == len(failed)


def test_a_row_that_does_not_fit_says_what_to_do():
    plan = make_plan()
    scorer = Tight(build_tiny_model("gpt2"), 20, of_the_computer)
    with pytest.raises(LabError, match=r"score a row of \d+ tokens; choose a smaller precision, .*placement"):
        measure_plan(plan, scorer, run_plan())


def test_other_errors_are_not_taken_for_too_little_memory():
    def other():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    scorer = Tight(build_tiny_model("gpt2"), 200, other)
    with pytest.raises(RuntimeError, match="mat1"):
        measure_plan(make_plan(), scorer, run_plan())
    assert len(scorer.tried) == 1


class Greedy(torch.nn.Module):
    """A model that runs out of memory whenever its output layer has been replaced."""

    def __init__(self, model, error):
        super().__init__()
        self.model, self.error, self.config = model, error, model.config

    def get_input_embeddings(self):
        return self.model.get_input_embeddings()

    def get_output_embeddings(self):
        return self.model.get_output_embeddings()

    def forward(self, **inputs):
        if "forward" in self.get_output_embeddings().__dict__:
            self.error()
        return self.model(**inputs)


@pytest.mark.parametrize("error", [of_a_gpu, of_the_computer])
def test_too_little_memory_is_not_taken_for_an_output_layer_that_is_not_plain(error):
    with pytest.raises(RuntimeError) as caught:
        Scorer(Greedy(build_tiny_model("gpt2"), error), "cpu")
    assert out_of_memory(caught.value)


def test_a_model_that_does_not_fit_says_what_to_do(tiny_model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(rbp_lab.measurement.instrument, "Scorer", lambda *args, **more: of_the_computer())
    with pytest.raises(LabError, match=r"memory is not enough to load model tiny .*launch\.placement"):
        measure(measure_config(tiny_model_dir, tmp_path))
