"""The loop and the stage: the same record however the work is cut, and nothing after a failure."""

import copy
import shutil
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import rbp_lab.models.scorer
from rbp_lab import metrics
from rbp_lab.analysis.sources import Selection, gather
from rbp_lab.commands.measure import measure
from rbp_lab.config.schemas import Filters, KSpec
from rbp_lab.data.tokenize import tokenize
from rbp_lab.data.windows import Windowing, plan_windows
from rbp_lab.errors import LabError
from rbp_lab.measurement.loop import Watch
from rbp_lab.measurement.loop import measure as measure_plan
from rbp_lab.measurement.observers import Callback, Observers, RunInfo
from rbp_lab.models import HFModel
from rbp_lab.models.scorer import Scorer
from rbp_lab.scoring import NonFiniteLogits, check_finite
from rbp_lab.scoring.linear import product_for
from rbp_lab.scoring.reference import score_logits
from rbp_lab.store.records import list_records, read_record
from tests.conftest import TINY_MODELS, build_tiny_model, build_tiny_tokenizer
from tests.sources import MadeUpText, measure_config

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


def test_running_out_of_memory_halves_the_batch(monkeypatch):
    plan, scorer = make_plan(), Scorer(build_tiny_model("gpt2"), "cpu")
    expected = measure_plan(plan, scorer, run_plan())
    real, widths = Scorer._score_head, []

    def tight(self, tokens, scored):
        widths.append(len(tokens))
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("too much")
        return real(self, tokens, scored)

    monkeypatch.setattr(Scorer, "_score_head", tight)
    got = measure_plan(plan, scorer, run_plan())
    assert got.stats == expected.stats and got.documents == expected.documents
    assert max(widths) > 3


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


def test_the_implementation_is_known_before_the_run(tiny_model_dir, tmp_path):
    model = build_tiny_model("gpt2")
    assert Scorer(model, "cpu").implementation in ("numba", "torch")
    with pytest.raises(LabError, match=r"scoring.implementation=triton-chunked .*(GPU|triton)"):
        Scorer(model, "cpu", implementation="triton-chunked")
    outcome = measure(measure_config(tiny_model_dir, tmp_path, scoring__implementation="torch"))
    assert outcome.record.provenance["implementation"] == "torch"
    assert outcome.record.provenance["product"] == product_for("cpu", torch.float32)


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


class Seen(Callback):
    """Keeps the arguments of its last calls, for the tests of a whole measurement."""

    last: ClassVar[dict] = {}

    def on_start(self, run):
        Seen.last = {"header": run.header}

    def on_record(self, record, path):
        Seen.last |= {"record": record, "path": path}

    def on_error(self, error):
        Seen.last |= {"error": error}

    def close(self):
        Seen.last |= {"closed": True}


SEEN = {"seen": {"_target_": "tests.test_measurement.Seen"}}


def test_callbacks_get_the_record_once_it_is_in_the_store(tiny_model_dir, tmp_path):
    outcome = measure(measure_config(tiny_model_dir, tmp_path, callbacks=SEEN))
    seen = Seen.last
    assert seen["header"] == outcome.record.header == seen["record"].header and "error" not in seen
    assert seen["path"] == outcome.path and seen["record"].stats == outcome.record.stats and seen["closed"]


def test_callbacks_get_the_error_when_the_record_cannot_be_written(tiny_model_dir, tmp_path):
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises((OSError, LabError)) as raised:
        measure(measure_config(tiny_model_dir, tmp_path, callbacks=SEEN))
    assert Seen.last["error"] is raised.value and "record" not in Seen.last and Seen.last["closed"]


# -- the stage ---------------------------------------------------------------------------------------------------------


def test_a_measurement_is_found_again_and_forced_anew(tiny_model_dir, tmp_path):
    config = measure_config(tiny_model_dir, tmp_path)
    first = measure(config)
    assert first.measured and first.path.name == first.record.key
    again = measure({**config, "scoring": {"batch_tokens": 64}})
    assert not again.measured and again.record == first.record
    forced = measure({**config, "force": True})
    assert forced.measured and forced.record.stats == first.record.stats
    other = measure(measure_config(tiny_model_dir, tmp_path, dataset__num_documents=5))
    assert other.measured and other.record.key != first.record.key
    assert len(list_records(tmp_path)) == 2


def names_of(points):
    return set(zip(points["model"], points["family"], points["dataset"], strict=True))


def gathered(store, **filters):
    return gather(Selection(str(store), KSpec([1, 5]), filters=Filters(**filters))).points


def test_new_names_relabel_the_finished_record_and_the_old_ones_still_find_it(tiny_model_dir, tmp_path, capsys):
    config = measure_config(tiny_model_dir, tmp_path, dataset__name="corpusA")
    first = measure(config)
    capsys.readouterr()
    changed = {**config["model"], "name": "big", "family": "mine"}
    again = measure({**config, "model": changed, "dataset": {**config["dataset"], "name": "corpusB"}})
    assert not again.measured and again.path == first.path and again.record.stats == first.record.stats
    assert again.line().startswith("big on corpusB: found measured")
    (note,) = capsys.readouterr().err.splitlines()
    assert "tiny of family tiny on corpusA" in note and "now called big of family mine on corpusB" in note
    (record,) = list_records(tmp_path)
    assert record == again.record and record.header.names == ("big", "mine", "corpusB")
    new, old = ("big", "mine", "corpusB"), ("tiny", "tiny", "corpusA")
    assert names_of(gathered(tmp_path)) == {new}  # one record: a law counts the model once
    assert names_of(gathered(tmp_path, dataset="corpusB")) == names_of(gathered(tmp_path, dataset="corpus*")) == {new}
    assert names_of(gathered(tmp_path, dataset="corpusA")) == {("big", "mine", "corpusA")}
    assert names_of(gathered(tmp_path, model=["tiny"])) == {("tiny", "tiny", "corpusB")}
    assert names_of(gathered(tmp_path, family="tiny", dataset="corpusA")) == {old}
    with pytest.raises(LabError, match="none of 1 finished runs passes"):
        gathered(tmp_path, model="big", family="tiny")  # it was never called that
    measure(config)
    assert names_of(gathered(tmp_path)) == {old} and names_of(gathered(tmp_path, family="mine")) == {
        ("big", "mine", "corpusA")
    }
    assert measure(config).record.header.names == old and len(capsys.readouterr().err.splitlines()) == 1


def test_measuring_anew_keeps_the_names_too(tiny_model_dir, tmp_path):
    config = measure_config(tiny_model_dir, tmp_path, dataset__name="corpusA")
    measure(config)
    measure({**config, "force": True, "dataset": {**config["dataset"], "name": "corpusB"}})
    assert names_of(gathered(tmp_path, dataset="corpusA")) == {("tiny", "tiny", "corpusA")}
    assert names_of(gathered(tmp_path)) == {("tiny", "tiny", "corpusB")}


def test_a_sweep_over_data_sets_loads_the_weights_once_and_other_weights_anew(tiny_model_dir, tmp_path, monkeypatch):
    real, loaded = HFModel._load, []
    monkeypatch.setattr(HFModel, "_load", lambda self, *a: loaded.append(self.path) or real(self, *a))
    model = shutil.copytree(tiny_model_dir, tmp_path / "model")
    first, second = (measure(measure_config(model, tmp_path / "s", dataset__seed=seed)).record for seed in (1, 2))
    assert len(loaded) == 1 and second.stats != first.stats
    other = measure(measure_config(model, tmp_path / "s", dataset__seed=2, precision__dtype="bfloat16")).record
    assert len(loaded) == 2 and other.stats != second.stats
    weights = load_file(model / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, model / "model.safetensors", {"format": "pt"})
    changed = measure(measure_config(model, tmp_path / "s", dataset__seed=2, precision__dtype="bfloat16")).record
    assert len(loaded) == 3 and changed.stats != other.stats


def test_a_damaged_record_is_measured_again(tiny_model_dir, tmp_path, capsys):
    config = measure_config(tiny_model_dir, tmp_path)
    first = measure(config)
    table = first.path / "ranks.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    again = measure(config)
    assert again.measured and again.record.stats == first.record.stats
    assert "the checksum of ranks.parquet does not hold" in capsys.readouterr().err
    assert not measure(config).measured


def test_a_finished_record_is_found_where_nothing_may_be_written(tiny_model_dir, tmp_path, capsys, monkeypatch):
    config = measure_config(tiny_model_dir, tmp_path)
    first = measure(config)

    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    for name in ("open", "mkdir"):  # every atomic write begins with one of these
        monkeypatch.setattr(f"os.{name}", refuse)
    assert measure(config).record == first.record
    other = measure({**config, "dataset": {**config["dataset"], "name": "corpusB"}})
    assert other.record.header.names == ("tiny", "tiny", "corpusB") and other.record.stats == first.record.stats
    note = capsys.readouterr().err.splitlines()[-1]
    assert "stays called tiny of family tiny on made-up in the store" in note and "Read-only file system" in note
    assert read_record(first.path) == first.record


def test_what_a_record_says(tiny_model_dir, tmp_path):
    record = measure(measure_config(tiny_model_dir, tmp_path)).record
    assert record.model.vocab_rows == 384 and record.model.tokenizer_size == 300
    assert record.provenance["documents_without_tokens"] == 2
    assert record.dataset.num_documents == 25 and len(record.documents) == 23
    assert record.document_names[record.documents.document_id[0]] == f"text-{record.documents.document_id[0]}"
    assert record.summary["num_tokens"] == record.stats.num_tokens
    assert record.stats.num_bytes > 0 and record.summary["bits_per_byte"] > 0


def test_masking_padded_rows_changes_ranks_and_the_key(tiny_model_dir, tmp_path):
    rows = measure(measure_config(tiny_model_dir, tmp_path)).record
    masked = measure(measure_config(tiny_model_dir, tmp_path, scoring__candidates="tokenizer")).record
    assert masked.key != rows.key and metrics.cross_entropy(masked.stats) < metrics.cross_entropy(rows.stats)
    assert masked.stats.counts[300:].sum() == 0 < rows.stats.counts[300:].sum()


def test_an_interrupted_measurement_leaves_nothing_and_can_be_repeated(tiny_model_dir, tmp_path, monkeypatch):
    config = measure_config(tiny_model_dir, tmp_path, scoring__batch_tokens=64)
    real, calls = Scorer.__call__, []

    def killed(self, batch):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(Scorer, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        measure(config)
    assert list_records(tmp_path) == [] and not list(tmp_path.glob("runs/*"))
    monkeypatch.setattr(Scorer, "__call__", real)
    interrupted_then_whole = measure(config).record
    assert interrupted_then_whole.stats == measure(measure_config(tiny_model_dir, tmp_path / "x")).record.stats


def test_too_many_tokens_for_the_model(tiny_model_dir, tmp_path):
    with pytest.raises(LabError, match="max_tokens=512, but model tiny has only 128 positions"):
        measure(measure_config(tiny_model_dir, tmp_path, dataset__protocol={"max_tokens": 512}))


def test_bf16_is_recorded_and_ranked_in_float32(tiny_model_dir, tmp_path):
    full = measure(measure_config(tiny_model_dir, tmp_path)).record
    half = measure(measure_config(tiny_model_dir, tmp_path, precision__dtype="bfloat16")).record
    assert half.scoring.dtype == "bfloat16" and half.key != full.key
    assert metrics.cross_entropy(half.stats) == pytest.approx(metrics.cross_entropy(full.stats), rel=0.02)
    rounded = measure(
        measure_config(tiny_model_dir, tmp_path, precision={"dtype": "bfloat16", "logits": "model"})
    ).record
    assert metrics.tie_rate(rounded.stats) > 10 * metrics.tie_rate(half.stats)
