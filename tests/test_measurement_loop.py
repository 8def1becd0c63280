"""The loop: the same sums however the work is cut, what is wrong has its place named, and observers cannot break it."""

import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import rbp_lab.models.scorer
from rbp_lab import metrics
from rbp_lab.data.tokenize import tokenize
from rbp_lab.data.windows import Windowing, plan_windows
from rbp_lab.errors import LabError
from rbp_lab.measurement.loop import Watch
from rbp_lab.measurement.loop import measure as measure_plan
from rbp_lab.measurement.observers import Callback, Observers, RunInfo
from rbp_lab.models.scorer import Scorer
from rbp_lab.scoring import NonFiniteLogits, check_finite
from rbp_lab.scoring.reference import score_logits
from tests.conftest import TINY_MODELS, build_tiny_model, build_tiny_tokenizer
from tests.sources import MadeUpText

WINDOWS = (1, 2, 5)


def make_plan(protocol=None, **source):
    protocol = protocol or Windowing(max_tokens=64)
    return plan_windows(tokenize(MadeUpText(**source).corpus(), build_tiny_tokenizer(), protocol), protocol)


def run_plan(rows=384, **changes):
    fields = {"model": "m", "dataset": "d", "num_rows": 1, "num_positions": 1, "vocab_rows": rows}
    return RunInfo(**{**fields, "thresholds": (1, 5, 50), "window_lengths": WINDOWS, **changes})


def naive_scores(model, plan):
    """Float64 scores of every scored token, one row at a time, logits materialised: (document, scores) in order."""
    out = []
    for row in range(len(plan)):
        batch = plan.batch(np.array([row]))
        with torch.inference_mode():
            logits = model(input_ids=torch.from_numpy(batch.tokens)).logits[0, :-1].double()
        keep = torch.from_numpy(batch.scored[0])
        out.append((int(batch.document_id[0]), score_logits(logits[keep], torch.from_numpy(batch.targets))))
    return out


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
@pytest.mark.parametrize("fallback", [False, True], ids=["head", "fallback"])
def test_measurement_of_every_architecture_matches_plain_logits(name, fallback):
    model, plan = build_tiny_model(name), make_plan(num_documents=8)
    scorer = Scorer(model, "cpu")
    assert scorer.plan.kind == "head", scorer.plan.reason
    if fallback:
        scorer.plan = type(scorer.plan)("fallback", reason="asked for")
    got = measure_plan(plan, scorer, run_plan(), batch_tokens=300)
    expected = naive_scores(model, plan)
    tokens = sum(len(s.nll) for _, s in expected)
    assert got.stats.num_tokens == tokens > 200
    nll = sum(float(s.nll.double().sum()) for _, s in expected)
    assert metrics.cross_entropy(got.stats) * tokens == pytest.approx(nll, rel=1e-5)
    entropy = sum(float(s.entropy.double().sum()) for _, s in expected)
    assert metrics.predictive_entropy(got.stats) * tokens == pytest.approx(entropy, rel=1e-5)
    ranks = np.concatenate([1 + (s.num_greater + s.num_equal).numpy() for _, s in expected])
    # Random logits leave few near ties: a handful of tokens may differ by one rank between two correct roundings.
    for k in (1, 5, 50, 200):
        assert abs(metrics.rbp(got.stats, k) * tokens - (ranks <= k).sum()) <= 2


@pytest.mark.parametrize("protocol", [Windowing(max_tokens=64), Windowing("rolling", 48, 20), Windowing("packed", 48)])
def test_batching_sharding_and_order_change_nothing(protocol):
    """Bit-identical in fp32 on this CPU: rows have a width of their own, tiles a fixed shape, sums are integers."""
    plan, scorer = make_plan(protocol), Scorer(build_tiny_model("gpt_neox"), "cpu")
    one_by_one = measure_plan(plan, scorer, run_plan(), batch_tokens=1)
    for batch_tokens in (64 * 32, 10**6):
        other = measure_plan(plan, scorer, run_plan(), batch_tokens=batch_tokens)
        assert other.stats == one_by_one.stats and other.documents == one_by_one.documents
    for tokens in (1, 300, 10**6):
        bounds = plan.cut(tokens)
        shards = [plan.documents(*between) for between in pairwise(bounds)]
        parts = [measure_plan(shard, scorer, run_plan(), batch_tokens=500) for shard in shards]
        merged = parts[-1]
        for part in parts[:-1]:
            merged = merged + part
        assert merged.stats == one_by_one.stats and merged.documents == one_by_one.documents


def test_folding_early_and_late_is_the_same():
    plan, scorer = make_plan(Windowing("rolling", 48, 20)), Scorer(build_tiny_model("gpt2"), "cpu")
    late = measure_plan(plan, scorer, run_plan(), batch_tokens=1)
    early = measure_plan(plan, scorer, run_plan(), batch_tokens=1, fold_tokens=1)
    assert early.stats == late.stats and early.documents == late.documents


def test_chunks_of_logits_change_nothing_but_rounding():
    plan, model = make_plan(), build_tiny_model("qwen2")
    small = measure_plan(plan, Scorer(model, "cpu", budget=1 << 17), run_plan())
    large = measure_plan(plan, Scorer(model, "cpu", budget=64 << 20), run_plan())
    assert np.abs(np.cumsum(small.stats.counts) - np.cumsum(large.stats.counts)).max() <= 2
    assert metrics.cross_entropy(small.stats) == pytest.approx(metrics.cross_entropy(large.stats), rel=1e-6)


def spoiled(scores, index):
    """The scores with the mark of a non-finite logit at one position."""
    nll = scores.nll.clone()
    nll[index] = torch.nan
    return replace(scores, nll=nll)


def test_the_position_of_a_bad_logit_survives_the_halving(monkeypatch):
    plan, scorer = make_plan(), Scorer(build_tiny_model("gpt2"), "cpu")
    batch = next(plan.batches(64 * 8))
    bad_row = 6

    def tight(self, tokens, scored):
        if len(tokens) > 1:
            raise torch.OutOfMemoryError("too much")
        scores = real(self, tokens, scored)
        return spoiled(scores, 2) if (tokens[0].numpy() == batch.tokens[bad_row]).all() else scores

    real = Scorer._score_head
    monkeypatch.setattr(Scorer, "_score_head", tight)
    with pytest.raises(NonFiniteLogits) as error:
        check_finite(scorer(batch))
    assert error.value.index == batch.scored[:bad_row].sum() + 2


def test_non_finite_logits_name_document_and_token():
    plan, model = make_plan(), build_tiny_model("gpt2")
    scorer = Scorer(model, "cpu")
    victim = int(plan.batch(np.array([3])).document_id[0])

    def broken(batch):
        scores = scorer(batch)
        if victim in batch.document_id.tolist():
            row = batch.document_id.tolist().index(victim)
            return spoiled(scores, int(batch.scored[:row].sum()) + 4)
        return scores

    for batch_tokens in (1, 8192):  # in the middle of the run, and in its last batch
        with pytest.raises(LabError, match=rf"non-finite logits in document {victim} at position 4"):
            measure_plan(plan, broken, run_plan(), batch_tokens=batch_tokens)


@pytest.mark.parametrize("fallback", [False, True])
def test_a_weight_that_is_not_a_number_ends_the_measurement(fallback):
    plan, model = make_plan(), copy.deepcopy(build_tiny_model("gpt2"))
    scorer = Scorer(model, "cpu")
    if fallback:
        scorer.plan = type(scorer.plan)("fallback", reason="asked for")
    with torch.no_grad():
        model.transformer.ln_f.bias[0] = torch.nan
    with pytest.raises(LabError, match="non-finite logits in document"):
        measure_plan(plan, scorer, run_plan())


@pytest.mark.parametrize("threads", [1, 3])
def test_pieces_of_hidden_states_give_every_thread_as_many_tiles(monkeypatch, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for width in (64, 768, 8192):
        step = rbp_lab.models.scorer._positions_at_once(torch.empty(1, width))
        assert step % (256 * threads) == 0 and step > 0
        assert step == 256 * threads or step * width * 4 <= rbp_lab.models.scorer.GATHERED_BYTES


def test_hidden_states_are_picked_a_few_at_a_time(monkeypatch):
    plan, scorer = make_plan(), Scorer(build_tiny_model("gpt2"), "cpu")
    whole = measure_plan(plan, scorer, run_plan(), batch_tokens=10**6)
    monkeypatch.setattr("rbp_lab.models.scorer.GATHERED_BYTES", 1)
    threads = torch.get_num_threads()
    calls = []
    real = rbp_lab.models.scorer.score_tokens
    monkeypatch.setattr(
        "rbp_lab.models.scorer.score_tokens", lambda *a, **b: (calls.append(len(a[0])), real(*a, **b))[1]
    )
    parts = measure_plan(plan, scorer, run_plan(), batch_tokens=10**6)
    tokens = whole.stats.num_tokens
    assert parts.stats == whole.stats and max(calls) == min(256 * threads, tokens) and sum(calls) == tokens


def test_the_next_batch_is_begun_before_one_is_looked_at():
    plan, order = make_plan(), []
    scorer = Scorer(build_tiny_model("gpt2"), "cpu")

    class Order(Callback):
        def on_batch(self, batch, scores):
            order.append(("seen", int(batch.document_id[0])))

    def score(batch):
        order.append(("begun", int(batch.document_id[0])))
        return scorer(batch)

    measure_plan(plan, score, run_plan(), Watch(run_plan(), Observers([Order()])), batch_tokens=1)
    begun, seen = ([d for what, d in order if what == kind] for kind in ("begun", "seen"))
    assert begun == seen and [what for what, _ in order[:4]] == ["begun", "begun", "seen", "begun"]


def test_a_target_beyond_the_candidates_is_refused():
    plan = make_plan()
    scorer = Scorer(build_tiny_model("gpt2"), "cpu", num_candidates=5)
    with pytest.raises(ValueError, match="no candidate"):
        scorer(next(plan.batches(500)))


class Recorder(Callback):
    """Writes down which of its methods are called."""

    def __init__(self, fail_at=None, error=None):
        self.calls, self.fail_at, self.error = [], fail_at, error or RuntimeError("tracker down")

    def __getattribute__(self, name):
        if name.startswith("on_") or name == "close":
            self.calls.append(name)
            if name == self.fail_at:
                raise self.error
        return object.__getattribute__(self, name)


def test_callbacks_see_the_loop_and_cannot_break_it(capsys):
    plan, scorer = make_plan(), Scorer(build_tiny_model("gpt2"), "cpu")
    good, bad, exits = Recorder(), Recorder(fail_at="on_batch"), Recorder(fail_at="on_log", error=SystemExit(3))
    with Observers([bad, exits, good]) as observers:
        result = measure_plan(plan, scorer, run_plan(), Watch(run_plan(), observers), batch_tokens=500)
    assert good.calls[0] == "on_batch" and good.calls[-2:] == ["on_log", "close"]
    assert good.calls.count("on_batch") == sum(1 for _ in plan.batches(500))
    assert bad.calls.count("on_batch") == 1 and exits.calls[-1] == "on_log"
    warnings = capsys.readouterr().err
    assert "Recorder failed at on_batch and is switched off: RuntimeError: tracker down" in warnings
    assert "Recorder failed at on_log and is switched off: SystemExit: 3" in warnings
    assert result.stats.num_documents == len(result.documents)


def test_callbacks_get_the_error_and_are_closed_when_the_loop_breaks_off():
    plan, seen = make_plan(), Recorder()

    def interrupted(batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Observers([seen]) as observers:
        measure_plan(plan, interrupted, run_plan(), Watch(run_plan(), observers))
    assert seen.calls == ["on_error", "close"]
