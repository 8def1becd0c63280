"""The ladder: size rule, run rule, training that is whole or absent, and the model source."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rbp_lab.commands.train import train
from rbp_lab.data.corpus import build_corpus
from rbp_lab.errors import LabError
from rbp_lab.ladder.rules import depth_rule, kind_of, non_embedding_parameters, rate_rule
from rbp_lab.ladder.tokenizer import END_OF_TEXT, bpe_tokenizer
from rbp_lab.ladder.training import Schedule, batch_rows, train_loop
from rbp_lab.models import HFModel, LadderModel
from rbp_lab.models.params import count_parameters
from rbp_lab.store.layout import TRAINING_FILE, Store
from tests.sources import MadeUpText, tiny_ladder

pytestmark = pytest.mark.usefixtures("one_thread")
CONF = Path(__file__).parents[1] / "conf" / "model"
LADDER = tuple(f"ladder-{i}" for i in range(1, 7))
# The widths of the shipped ladder, in the order of their names.
WIDTHS = tuple(yaml.safe_load((CONF / f"{name}.yaml").read_text())["width"] for name in LADDER)


def leftovers(store) -> list[str]:
    """What lies below the store's models, hidden names included."""
    return sorted(os.listdir(store / "models")) if (store / "models").exists() else []


# Size rule


def test_sizes_run_evenly_from_ten_thousand_to_a_million():
    sizes = np.log10([non_embedding_parameters(w, depth_rule(w)) for w in WIDTHS])
    assert len(WIDTHS) == 6 and sizes[0] < 4.0 and sizes[-1] > 5.95
    assert np.ptp(np.diff(sizes)) < 0.12


def test_every_ladder_file_is_of_the_ladder():
    assert tuple(sorted(path.stem for path in CONF.glob("ladder-*.yaml"))) == LADDER


@pytest.mark.parametrize("width", WIDTHS)
def test_parameters_are_those_of_the_formula(width):
    model = LadderModel(name="m", width=width, directory="unused", vocabulary=300)
    counts = count_parameters(model.build())
    assert counts.non_embedding == model.non_embedding == non_embedding_parameters(width, depth_rule(width))
    assert counts.embedding == counts.head == 300 * width


def test_formula_gives_the_published_sizes_of_pythia():
    """Non-embedding parameters of EleutherAI/pythia-14m, -160m and -12b, by width and layers."""
    published = {(128, 6): 1_189_888, (768, 12): 85_056_000, (5120, 36): 11_327_027_200}
    assert {shape: non_embedding_parameters(*shape) for shape in published} == published


def test_depth_follows_width():
    assert [depth_rule(w) for w in (28, 32, 52, 68, 96, 128, 768)] == [1, 2, 2, 3, 4, 5, 25]


# Run rule


def test_every_parameter_has_a_rate_and_only_wide_matrices_slow_down():
    kinds = {kind_of(name) for name, _ in LadderModel(name="m", width=16, directory="").build().named_parameters()}
    assert kinds == set(rate_rule(16))
    for kind, scale in {"matrix": 4.0, "head": 4.0, "embedding": 1.0, "vector": 1.0}.items():
        assert rate_rule(32)[kind] / rate_rule(128)[kind] == pytest.approx(scale)


def test_updates_move_the_logits_alike_at_every_width():
    """The coordinate check of arXiv 2203.03466 (figure 5): a few steps change logits by amounts free of the width."""
    rows = np.random.default_rng(0).integers(1, 300, (6, 4, 17))
    change = []
    for width in (16, 64, 160):
        model = LadderModel(name="m", width=width, directory="", vocabulary=300).build()
        train_loop(model, rows, rate_rule(width), kind_of, Schedule(100, 1))
        with torch.no_grad():
            change.append(float(model(torch.from_numpy(rows[0, :, :-1])).logits.std()))
    assert max(change) / min(change) < 2.0, change


def test_schedule_rises_then_falls_to_nothing():
    factors = [Schedule(100, 10)(step) for step in range(100)]
    assert factors[0] == 0.1 and max(factors) == 1.0 and factors.index(1.0) == 9 and 0 < factors[-1] < 0.02
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert Schedule(1, 1)(0) == 1.0


def test_rows_cover_the_stream_once_a_pass_and_share_one_token():
    rows = batch_rows(np.arange(101), context=10, batch=5, steps=4, seed=3)
    assert rows.shape == (4, 5, 11) and rows.dtype == np.int64
    first, second = rows[:2].reshape(10, 11), rows[2:].reshape(10, 11)
    for one in (first, second):
        assert sorted(one[:, 0]) == list(range(0, 100, 10)) and (np.diff(one) == 1).all()
    assert not np.array_equal(first, second)
    assert not np.array_equal(rows, batch_rows(np.arange(101), 10, 5, 4, seed=4))
    with pytest.raises(LabError, match="fewer than one row of 11"):
        batch_rows(np.arange(10), 10, 5, 4, 0)


# Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return bpe_tokenizer(MadeUpText().corpus(), 300, Store(tmp_path_factory.mktemp("store")))


@given(st.text(max_size=60))
def test_any_text_survives_the_tokenizer(tokenizer, text):
    ids = tokenizer(text.replace(END_OF_TEXT, ""))["input_ids"]
    assert tokenizer.decode(ids) == text.replace(END_OF_TEXT, "") and 0 not in ids


def test_tokenizer_has_the_asked_size_and_one_special_token(tokenizer):
    assert len(tokenizer) == 300 and tokenizer.all_special_tokens == [END_OF_TEXT] and tokenizer.eos_token_id == 0


def test_tokenizer_is_learned_once(tmp_path, monkeypatch):
    corpus = MadeUpText().corpus()
    first = bpe_tokenizer(corpus, 280, Store(tmp_path))
    monkeypatch.setattr("rbp_lab.ladder.tokenizer._learn", lambda *_: pytest.fail("learned again"))
    assert bpe_tokenizer(corpus, 280, Store(tmp_path)).get_vocab() == first.get_vocab()


@pytest.mark.parametrize(("size", "words"), [(256, "at least 257"), (100_000, "too little text")])
def test_tokenizer_refuses_in_words(tmp_path, size, words):
    with pytest.raises(LabError, match=words):
        bpe_tokenizer(MadeUpText().corpus(), size, Store(tmp_path))
    assert not any((tmp_path / "tokenizers").glob("*")) if (tmp_path / "tokenizers").exists() else True


# Training, whole or absent


@pytest.mark.parametrize("width", WIDTHS)
def test_dry_run_of_every_size(tmp_path, width):
    """Interrupt, train, find: with two steps of the real model of each width."""
    model, source = tiny_ladder(tmp_path, width=width), MadeUpText()
    before = model.build().state_dict()

    def interrupt(step, loss, lr, tokens_per_s):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, source, tmp_path, hooks=[interrupt])
    assert leftovers(tmp_path) == []
    with pytest.raises(LabError, match="not trained yet; run: rbp-lab train model=tiny"):
        model.open()

    steps = []
    outcome = train(model, source, tmp_path, hooks=[lambda *what: steps.append(what)])
    assert outcome.trained and leftovers(tmp_path) == ["tiny"]
    assert [s[0] for s in steps] == [1, 2] and [s[1] for s in steps] == pytest.approx(outcome.record["loss"], abs=1e-3)
    loaded = model.open().load(torch.float32, "cpu").network
    assert not loaded.training and any(not torch.equal(before[k], v) for k, v in loaded.state_dict().items())
    info = model.open().info
    assert (info.params.non_embedding, info.architecture) == (model.non_embedding, "GPTNeoXForCausalLM")
    assert (info.vocab_rows, info.tokenizer_size, info.max_positions, info.training_tokens) == (300, 300, 16, 64)

    again = train(model, source, tmp_path, hooks=[lambda *_: pytest.fail("trained again")])
    assert not again.trained and model.open().info.fingerprint == info.fingerprint


def test_training_repeats_itself_and_the_seed_matters(tmp_path):
    prints = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        model = tiny_ladder(tmp_path, name, seed=seed)
        torch.manual_seed(len(prints))  # the process's own random state must not matter
        train(model, MadeUpText(), tmp_path)
        prints.append(model.open().info.fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_other_settings_text_or_force_train_anew(tmp_path, capsys):
    train(tiny_ladder(tmp_path), MadeUpText(), tmp_path)
    capsys.readouterr()
    for changes, source, force, words in (
        ({}, MadeUpText(), True, "force=true"),
        ({"tokens": 96}, MadeUpText(), False, "trained with tokens=64, not 96"),
        ({"tokens": 96}, MadeUpText(num_documents=24), False, "trained on other text"),
    ):
        model = tiny_ladder(tmp_path, **changes)
        assert train(model, source, tmp_path, force=force).trained
        assert words in capsys.readouterr().out
        assert not train(model, source, tmp_path).trained
        assert leftovers(tmp_path) == ["tiny"]


def test_a_model_trained_otherwise_is_not_measured_by_mistake(tmp_path):
    train(tiny_ladder(tmp_path), MadeUpText(), tmp_path)
    with pytest.raises(LabError, match="trained with width=16, not 24; run: rbp-lab train model=tiny"):
        tiny_ladder(tmp_path, width=24).open()
    (tmp_path / "models" / "tiny" / TRAINING_FILE).write_text("{")
    with pytest.raises(LabError, match=r"not JSON; run: rbp-lab train model=tiny .*force=true"):
        tiny_ladder(tmp_path).open()


@pytest.mark.parametrize(
    ("fields", "command"),
    [
        ({"name": "ladder-1", "width": 24}, "model=ladder-1"),
        ({"name": "ladder-w256", "width": 256}, "model=ladder model.width=256"),
        ({"name": "ladder-1", "width": 24, "tokens": 5, "seed": 3}, "model=ladder-1 model.tokens=5 model.seed=3"),
    ],
)
def test_the_command_that_is_missing_is_named_exactly(tmp_path, fields, command):
    with pytest.raises(LabError) as error:
        LadderModel(directory=str(tmp_path / "none"), **fields).open()
    assert str(error.value).endswith(f"not trained yet; run: rbp-lab train {command}")


def test_a_kill_while_saving_leaves_nothing_loadable(tmp_path):
    """SIGKILL between the weights and the end: whatever lies there, the model counts as not trained."""
    code = (
        "import os, signal, sys, pathlib, transformers as t\n"
        "from tests.test_ladder import MadeUpText, tiny_ladder, train\n"
        "store = pathlib.Path(sys.argv[1])\n"
        "save = t.PreTrainedTokenizerFast.save_pretrained\n"
        "def die(self, where, *a, **k):\n"
        "    if '.tiny.' in str(where): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return save(self, where, *a, **k)\n"
        "t.PreTrainedTokenizerFast.save_pretrained = die\n"
        "train(tiny_ladder(store), MadeUpText(), store)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert "tiny" not in leftovers(tmp_path) and len(leftovers(tmp_path)) == 1
    assert tiny_ladder(tmp_path).differs() == "not trained yet"
    assert train(tiny_ladder(tmp_path), MadeUpText(), tmp_path).trained


def test_divergence_is_said(tmp_path):
    rows = np.random.default_rng(0).integers(1, 300, (20, 2, 17))
    with pytest.raises(LabError, match="diverged at step 2 of 20"):
        train_loop(tiny_ladder(tmp_path).build(), rows, dict.fromkeys(rate_rule(16), np.inf), kind_of, Schedule(20, 1))


def test_held_out_text_and_foreign_models_are_not_trained(tmp_path):
    corpus = build_corpus(
        "x", ["text"], ["a"], shuffle_seed=None, num_documents=None, min_chars=0, info={"split": "heldout"}
    )

    class Source:
        def corpus(self):
            return corpus

    with pytest.raises(LabError, match="held-out split"):
        train(tiny_ladder(tmp_path), Source(), tmp_path)
    with pytest.raises(LabError, match="model pythia-14m is not trained here"):
        train(HFModel(path="EleutherAI/pythia-14m"), MadeUpText(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 22}, "width must be a multiple of 4"),
        ({"width": 0}, "width must be a multiple of 4"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"tokens": 0}, "tokens must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"context": 1}, "context must be at least 2"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"name": "a/b"}, "may not be empty or a path"),
        ({"name": ""}, "may not be empty or a path"),
        ({"name": "a$b"}, "may not contain"),
        ({"name": "x" * 300}, "too long"),
    ],
)
def test_settings_out_of_range_are_said(tmp_path, changes, words):
    with pytest.raises(LabError, match=words):
        tiny_ladder(tmp_path, **changes)


def test_record_of_a_training_is_readable(tmp_path):
    outcome = train(tiny_ladder(tmp_path), MadeUpText(), tmp_path)
    record = json.loads((outcome.directory / TRAINING_FILE).read_text())
    assert record == outcome.record and record["training_tokens"] == 64 and len(record["loss"]) == 2
    assert record["settings"]["layers"] == 1 and record["corpus"]["fingerprint"] == MadeUpText().corpus().fingerprint
    assert str(outcome).startswith("tiny: trained, S = 3,312, 64 tokens, last loss ")
