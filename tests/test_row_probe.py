"""Rows are computed under rules that hold for the model at hand: padded, together, or not at all."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from rbp_lab.commands.measure import measure as run_config
from rbp_lab.data.windows import TokenizedCorpus, Windowing, plan_windows
from rbp_lab.errors import LabError
from rbp_lab.measurement.loop import measure
from rbp_lab.measurement.observers import RunInfo
from rbp_lab.models.row_probe import RowRules, probe_rows, row_lengths
from rbp_lab.models.scorer import Scorer
from rbp_lab.models.weights import coarsest_eps, product_eps
from rbp_lab.scoring.reference import score_logits
from rbp_lab.scoring.types import TokenScores
from tests.conftest import _WIDTHS, TINY_MODELS, build_tiny_model, build_tiny_tokenizer
from tests.sources import measure_config

ROPE = {"rope_theta": 10000.0}
LONGROPE = {**ROPE, "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 40}  # fmt: skip
REFORMER = {
    "vocab_size": 384, "hidden_size": 32, "num_attention_heads": 4, "attention_head_size": 8, "feed_forward_size": 64,
    "is_decoder": True, "axial_pos_embds": False, "max_position_embeddings": 128, "attn_layers": ["lsh", "local"],
    "lsh_attn_chunk_length": 16, "local_attn_chunk_length": 16, "num_buckets": 4,
}  # fmt: skip


def build(kind, **config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config), dtype=torch.float32)
    for label, weight in model.eval().requires_grad_(False).named_parameters():
        if weight.ndim > 1 or label.endswith("bias"):
            weight.normal_(0.0, 0.2)
    return model


def phi3():
    return build("phi3", **{**_WIDTHS, "pad_token_id": 0, "original_max_position_embeddings": 40,
                            "rope_parameters": LONGROPE})  # fmt: skip


class Wrapped(nn.Module):
    """A model with changed logits."""

    def __init__(self, model, change):
        super().__init__()
        self.model, self.config, self.change = model, model.config, change

    def get_input_embeddings(self):
        return self.model.get_input_embeddings()

    def get_output_embeddings(self):
        return self.model.get_output_embeddings()

    def forward(self, input_ids, **more):
        out = self.model(input_ids=input_ids, **more)
        out.logits = self.change(input_ids, out.logits)
        return out


def sighted():
    """A causal model up to 32 tokens; in longer rows the last token changes every prediction."""

    def change(ids, logits):
        return logits * (1 + ids[:, -1:, None] / 384) if ids.shape[1] > 32 else logits

    return Wrapped(build_tiny_model("llama"), change)


def neighbourly():
    """A model whose logits depend on the other rows of the batch, as experts of limited capacity make them."""
    return Wrapped(build_tiny_model("llama"), lambda ids, logits: logits * (1 + 0.2 * (len(ids) - 1)))


def big_bird():
    """Rows of up to 28 tokens switch its attention from blocks to full for good; blocks are not causal."""
    return build("big_bird", vocab_size=384, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                 intermediate_size=64, max_position_embeddings=128, attention_type="block_sparse", block_size=4,
                 num_random_blocks=1, is_decoder=True)  # fmt: skip


class Holds(nn.Module):
    """Where a model may keep what it saw: in an attribute, a buffer, a list, a config, another module, or elsewhere."""

    def __init__(self, place, config):
        super().__init__()
        self.place, self.config, self.flag, self.seen, self.part = place, config, False, [], nn.Identity()
        self.elsewhere = SimpleNamespace(flag=False)
        self.register_buffer("count", torch.zeros(1))

    def keep(self):
        match self.place:
            case "attribute":
                self.flag = True
            case "new attribute":
                self.late = True
            case "buffer":
                self.count += 1
            case "new buffer":
                self.count = torch.ones(1)
            case "list":
                self.seen.append(1)
            case "config":
                self.config.was_called = True
            case "module":
                self.part = nn.Dropout()
            case "elsewhere":
                self.elsewhere.flag = True

    def __bool__(self):
        return bool(
            self.flag or hasattr(self, "late") or self.count.any() or self.seen or self.elsewhere.flag
            or hasattr(self.config, "was_called") or isinstance(self.part, nn.Dropout)
        )  # fmt: skip


PLACES = ("attribute", "new attribute", "buffer", "new buffer", "list", "config", "module")


def latching(place, when, after_head=False):
    """A model that has other hidden states, or logits, for all rows after one for whose length ``when`` holds."""
    model = copy.deepcopy(build_tiny_model("llama"))
    held = Holds(place, model.config)

    def changed(states):
        if when(states.shape[1]):
            held.keep()
        return states * 1.3 if held else states

    wrapped = Wrapped(model, lambda ids, logits: changed(logits) if after_head else logits)
    wrapped.held = held
    if not after_head:
        model.model.norm.register_forward_hook(lambda module, args, states: changed(states))
    return wrapped


def batched(model):
    """Scores of the whole batch in one forward pass, as on a GPU."""

    def score(batch):
        with torch.inference_mode():
            logits = model(input_ids=torch.from_numpy(batch.tokens)).logits[:, :-1]
        return score_logits(logits[torch.from_numpy(batch.scored)], torch.from_numpy(batch.targets))

    return score


def made_up(nll):
    """A score of made-up numbers: ``nll`` gives one for each token of a batch but the first of its rows, [B,T-1]."""

    def score(batch):
        values = torch.from_numpy((batch.tokens[:, 1:] / 100 + nll(batch.tokens))[batch.scored]).float()
        return TokenScores(values, *[torch.zeros_like(values)] * 3)

    return score


def make_plan(lengths=(9, 20, 33, 50, 61, 64, 64), max_tokens=64):
    """Documents of these many made-up tokens, one a row; token 0 is special and does not occur."""
    tokens = (1 + np.arange(sum(lengths)) * 7919 % 299).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return plan_windows(TokenizedCorpus(tokens, offsets, None, np.array([0]), 0), Windowing(max_tokens=max_tokens))


def rules_of(model, plan=None):
    """Under the rules of a measurement: the output layer is tried first, and the model put back."""
    plan = plan or make_plan()
    scorer = Scorer(model, "cpu", lengths=row_lengths(plan))
    return probe_rows(plan, scorer, coarsest_eps(model), scorer.reset)


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_ordinary_models_are_padded_and_batched(name, dtype):
    assert rules_of(copy.deepcopy(build_tiny_model(name)).to(dtype)) == RowRules()


def test_rows_whose_padding_would_show_go_unpadded_and_equal_plain_logits_of_each_row():
    model, plan = phi3(), make_plan()
    scorer = Scorer(model, "cpu")
    assert probe_rows(plan, scorer, coarsest_eps(model)) == RowRules(padded=False)
    run = RunInfo("m", "d", len(plan), plan.num_positions, 384, (1, 5, 50), (1,))
    got = measure(plan.unpadded(), scorer, run, batch_tokens=300)
    assert got.stats != measure(plan, scorer, run, batch_tokens=300).stats, "padding would not have shown"
    ranks, nll = [], 0.0
    for row in range(len(plan)):
        start, length = int(plan.start[row]), int(plan.length[row])
        ids = torch.from_numpy(plan.tokens[start : start + length].astype(np.int64))[None]
        with torch.inference_mode():
            scores = score_logits(model(input_ids=ids, use_cache=False).logits[0, :-1].double(), ids[0, 1:])
        ranks.append(1 + scores.num_greater + scores.num_equal)
        nll += float(scores.nll.double().sum())
    expected = np.bincount(torch.cat(ranks).numpy(), minlength=385)[1:]
    assert np.abs(np.cumsum(got.stats.counts - expected)).max() <= 1  # a near tie may fall either way
    assert got.stats.nll_units.sum() / 2**24 == pytest.approx(nll, rel=1e-6)


def test_very_short_rows_do_not_hide_a_padding_that_shows():
    """The row of 34 is padded across the switch at 40; the others are not, and two tokens do not feel positions."""
    assert rules_of(phi3(), make_plan((2, 34, 90, 128, 128), max_tokens=128)) == RowRules(padded=False)


@pytest.mark.parametrize("lengths", [(64, 64, 64), (64,), (9, 20, 33, 64)], ids=["one length", "one row", "several"])
def test_a_model_that_sees_later_tokens_in_long_rows_only_is_refused(lengths):
    with pytest.raises(LabError, match="not causal in rows of 64 tokens"):
        probe_rows(make_plan(lengths), batched(sighted()), 1e-7)


def test_a_model_that_remembers_longer_rows_is_measured_where_all_rows_are_equally_long():
    config = {**_WIDTHS, "max_position_embeddings": 40}
    model = build("llama", **config, rope_parameters={**ROPE, "rope_type": "dynamic", "factor": 4.0})
    assert rules_of(model, make_plan((64, 64, 64))) == RowRules()


def test_a_model_that_draws_random_numbers_is_refused():
    with pytest.raises(LabError, match="draws random numbers in its forward pass"):
        rules_of(build("reformer", **REFORMER))


def test_a_model_that_remembers_longer_rows_is_refused():
    config = {**_WIDTHS, "max_position_embeddings": 40}
    with pytest.raises(LabError, match=r"changed by the rows that it computes.*protocol\.max_tokens"):
        rules_of(build("llama", **config, rope_parameters={**ROPE, "rope_type": "dynamic", "factor": 4.0}))


def test_a_model_whose_rows_see_each_other_gets_them_one_at_a_time():
    assert probe_rows(make_plan(), batched(neighbourly()), 1e-7) == RowRules(padded=True, together=False)
    assert probe_rows(make_plan((64, 64)), batched(neighbourly()), 1e-7) == RowRules(padded=True, together=False)


def unlike(tokens):
    """Rows that are not the same see each other."""
    return 0.2 * (tokens != tokens[:1]).any()


def unpadded_and_long(tokens):
    """Rows without padding see each other, and rows of more than 40 tokens have other scores."""
    return 0.2 * (len(tokens) > 1 and tokens.all()) + 0.1 * (tokens.shape[1] > 40)


@pytest.mark.parametrize(
    "nll, lengths, rules",
    [
        (unlike, (9, 64, 64), RowRules(together=False)),
        (lambda tokens: 0.2 * (len(tokens) > 1), (64,), RowRules(together=False)),
        (unpadded_and_long, (9, 20, 64, 64), RowRules(padded=False, together=False)),
        (lambda tokens: 1.5e-4 * (tokens.shape[1] == 40), (9, 40, 64), RowRules(padded=False)),
        (lambda tokens: 0.1 * (tokens.shape[1] > 40), (9, 30, 64), RowRules(padded=False)),
        (lambda tokens: 0, (2, 2), RowRules()),
        (lambda tokens: 0, (3,), RowRules()),
    ],
)
def test_rows_are_tried_beside_another_row_and_as_short_as_they_are(nll, lengths, rules):
    assert probe_rows(make_plan(lengths), made_up(nll), 1e-7) == rules


@pytest.mark.parametrize(
    ("effect", "eps", "tokens", "seen"),
    [
        (0.9e-4, 1e-7, 63, False),
        (1.1e-4, 1e-7, 63, True),
        (0.030, 2.0**-7, 63, False),
        (0.033, 2.0**-7, 63, True),
        (1e-3, 1e-7, 1, False),  # of one token, little in the mean over a row
    ],
)
def test_what_is_more_than_rounding_is_seen_in_each_format(effect, eps, tokens, seen):
    score = made_up(lambda ids: effect * (len(ids) - 1) * (np.arange(1, ids.shape[1]) <= tokens))
    assert probe_rows(make_plan(), score, eps) == RowRules(padded=True, together=not seen)


def test_a_model_whose_scores_are_random_is_refused():
    noise = np.random.default_rng(0)
    with pytest.raises(LabError, match="draws random numbers in its forward pass"):
        probe_rows(make_plan(), made_up(lambda tokens: noise.random((len(tokens), 1))), 1e-7)


@pytest.mark.parametrize(
    "nll, rules",
    [
        (lambda tokens: 0, RowRules()),
        (lambda tokens: np.nan, RowRules()),
        (lambda tokens: np.where(tokens.all(), 0, np.nan), RowRules(padded=False, together=False)),
    ],
    ids=["numbers", "none is a number", "none where rows are padded"],
)
def test_a_model_is_left_as_it_was_loaded(nll, rules):
    seen = []
    assert probe_rows(make_plan(), made_up(lambda tokens: seen.append(1) or nll(tokens)), 1e-7, seen.clear) == rules
    assert not seen


@pytest.mark.parametrize(
    "rules, sentence",
    [
        (RowRules(), ""),
        (RowRules(together=False), "gives rows scores that depend on the rows beside them; they are computed one at a "
                                   "time"),
        (RowRules(False, False), "gives rows scores that depend on how far they are padded and on the rows beside "
                                 "them; they are computed without padding, one at a time"),
    ],
)  # fmt: skip
def test_what_is_restricted_is_said(rules, sentence):
    assert rules.sentence() == sentence


def test_rows_whose_padding_overflows_are_computed_by_themselves():
    def overflows(ids, logits):
        return logits.masked_fill((ids == 0).any(1)[:, None, None], torch.nan)  # token 0 pads, and occurs nowhere

    assert rules_of(Wrapped(build_tiny_model("llama"), overflows)) == RowRules(padded=False, together=False)


def test_a_measurement_says_how_its_rows_were_computed_and_what_attention_ran(tmp_path, capsys):
    phi3().save_pretrained(tmp_path / "phi3")
    build_tiny_tokenizer().save_pretrained(tmp_path / "phi3")
    record = run_config(measure_config(tmp_path / "phi3", tmp_path / "store")).record
    assert record.provenance["rows"] == {"padded": False, "together": True}
    assert record.provenance["attention"] == "sdpa"
    assert "scores that depend on how far they are padded; they are computed without padding" in capsys.readouterr().err
    other = measure_config(tmp_path / "phi3", tmp_path / "other", scoring__batch_tokens=1)
    assert run_config(other).record.stats == record.stats


@pytest.mark.parametrize("lengths", [(9, 20, 33, 50, 64), (20, 64, 64), (64, 64), (40, 50, 64)], ids=str)
def test_an_attention_that_a_short_row_switches_is_refused_with_long_rows(lengths):
    with pytest.raises(LabError, match=r"changed by the rows|not causal in rows of 64 tokens"):
        rules_of(big_bird(), make_plan(lengths))


@pytest.mark.parametrize("max_tokens, padded", [(28, True), (64, False)])
def test_an_attention_that_a_short_row_switches_is_measured_where_all_rows_are_short(max_tokens, padded):
    """Rows of 28 tokens padded to 64 would be computed with blocks."""
    assert rules_of(big_bird(), make_plan((9, 20, 28), max_tokens)) == RowRules(padded=padded)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("when", [lambda n: n < 32, lambda n: n > 40], ids=["short rows", "long rows"])
@pytest.mark.parametrize("after_head", [False, True], ids=["states", "logits"])
def test_a_model_that_rows_change_is_refused_where_it_meets_such_rows(place, when, after_head):
    with pytest.raises(LabError, match="changed by the rows that it computes"):
        rules_of(latching(place, when, after_head), make_plan((9, 20, 33, 50, 64)))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("after_head", [False, True], ids=["states", "logits"])
def test_trying_a_model_on_short_rows_does_not_change_what_is_measured(place, after_head):
    plan, model = make_plan((48, 64)), latching(place, lambda n: n < 32, after_head)
    scorer = Scorer(model, "cpu", lengths=row_lengths(plan))
    assert probe_rows(plan, scorer, coarsest_eps(model), scorer.reset) == RowRules()
    batch = plan.batch(np.arange(2))
    expected = batched(build_tiny_model("llama"))(batch)
    assert (scorer(batch).nll - expected.nll).abs().max() < 1e-4


def test_a_change_that_cannot_be_undone_is_refused():
    with pytest.raises(LabError, match="changed by the rows that it computes"):
        rules_of(latching("elsewhere", lambda n: n < 32), make_plan((48, 64)))


def test_what_follows_the_head_is_tried_on_rows_as_long_as_those_of_the_measurement():
    """Logits are scaled by the length beyond 16 tokens, as some models scale attention: 9 tokens do not show it."""
    model = Wrapped(build_tiny_model("llama"), lambda ids, logits: logits * max(1.0, ids.shape[1] / 16) ** 0.5)
    plan = make_plan((40, 64, 64))
    scorer = Scorer(model, "cpu", lengths=row_lengths(plan))
    assert scorer.plan.kind == "fallback" and "depends on how long the row is" in scorer.plan.reason
    assert probe_rows(plan, scorer, coarsest_eps(model), scorer.reset) == RowRules(padded=False)
    batch = plan.unpadded().batch(np.array([2]))
    assert batch.tokens.shape == (1, 40)
    assert torch.equal(scorer(batch).nll, batched(model)(batch).nll)


def test_rows_longer_than_a_model_takes_are_refused_with_their_length():
    def short(ids, logits):
        if ids.shape[1] > 62:
            raise IndexError("index out of range in self")
        return logits

    with pytest.raises(LabError, match=r"does not run on 64 token ids alone: .*index out of range.*max_tokens"):
        rules_of(Wrapped(build_tiny_model("llama"), short), make_plan((40, 64)))


@pytest.mark.parametrize(
    "settings, eps",
    [
        ({}, 2.0**-23),
        ({"precision": "high"}, 2.0**-10),
        ({"precision": "medium"}, 2.0**-7),
        ({"allow_tf32": True}, 2.0**-10),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype, of_weights", [("float32", None), ("bfloat16", 2.0**-7), ("float64", 2.0**-52)])
def test_the_tolerance_follows_weights_and_what_products_may_round_to(settings, eps, dtype, of_weights):
    model = nn.Linear(2, 2).to(getattr(torch, dtype))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(settings.get("precision", "highest"))
        if "allow_tf32" in settings:
            torch.backends.cuda.matmul.allow_tf32 = settings["allow_tf32"]
        assert coarsest_eps(model) == (eps if dtype == "float32" else of_weights)
    finally:
        torch.set_float32_matmul_precision(before)


def test_convolutions_count_where_a_gpu_may_round_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert product_eps(convolves=False) == 2.0**-23
    assert product_eps(convolves=True) == (2.0**-10 if torch.backends.cudnn.allow_tf32 else 2.0**-23)


@pytest.mark.parametrize(
    "spoil, says",
    [(torch.nan, "holds NaN, so the checkpoint is damaged"), (torch.inf, "is infinite in float32")],
)
def test_weights_that_are_no_numbers_are_named(tmp_path, spoil, says):
    model = copy.deepcopy(build_tiny_model("gpt_neox"))
    model.gpt_neox.layers[1].mlp.dense_4h_to_h.weight[0, 0] = spoil
    model.save_pretrained(tmp_path / "model")
    build_tiny_tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(LabError, match=rf"layers\.1\.mlp\.dense_4h_to_h\.weight {says}"):
        run_config(measure_config(tmp_path / "model", tmp_path / "store"))
