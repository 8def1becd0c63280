"""Checkpoints that a training of the ladder keeps: ordinary models with their tokens, and no other bit of the last."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from rbp_lab.commands import demo, measure
from rbp_lab.commands.train import train
from rbp_lab.errors import LabError
from rbp_lab.ladder.checkpoint import Checkpoints
from rbp_lab.ladder.kept import kept_steps
from rbp_lab.ladder.model import training_key
from rbp_lab.store.layout import Store
from rbp_lab.store.records import list_records
from tests.sources import MadeUpText, measure_config, tiny_ladder

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS, TEXT = 40, MadeUpText(num_documents=200)
small = partial(tiny_ladder, name="small", steps=STEPS)


def weights(store: Path) -> dict[str, bytes]:
    """Of every model in the store, by the name of its directory."""
    return {path.parent.name: path.read_bytes() for path in (store / "models").glob("*/model.safetensors")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A store with a model that was trained with three checkpoints."""
    store = tmp_path_factory.mktemp("kept")
    train(small(store, checkpoints=3), TEXT, store)
    return store


def test_steps_run_from_the_warm_up_to_the_end():
    assert kept_steps(700, 35, 8) == [35, 54, 82, 126, 194, 297, 456, 700]
    assert kept_steps(2, 1, 8) == [1, 2] and kept_steps(1, 1, 1) == [1] and kept_steps(50, 2, 1) == [50]


def test_every_checkpoint_is_a_model_with_its_tokens(trained):
    members = small(trained, checkpoints=3).members()
    assert [m.name for m in members] == ["small@step2", "small@step9", "small"]
    infos = [m.open().info for m in members]
    assert [(i.name, i.step, i.training_tokens, i.warmup_tokens) for i in infos] == [
        ("small@step2", 2, 64, 64), ("small@step9", 9, 288, 64), ("small", 40, 1280, 64),
    ]  # fmt: skip
    assert len({i.fingerprint for i in infos}) == 3 and {i.params.non_embedding for i in infos} == {3312}
    assert set(weights(trained)) == {m.name for m in members}


def test_keeping_checkpoints_changes_no_bit_of_the_model(trained, tmp_path):
    train(small(tmp_path), TEXT, tmp_path)
    assert weights(tmp_path)["small"] == weights(trained)["small"]
    # asked for later, they cost a training, whose end is the same
    assert train(small(tmp_path, checkpoints=3), TEXT, tmp_path).trained
    assert weights(tmp_path) == weights(trained)
    assert not train(small(tmp_path, checkpoints=3), TEXT, tmp_path).trained
    assert not train(small(tmp_path), TEXT, tmp_path).trained


@pytest.mark.parametrize(("kept_before", "step"), [(3, 5), (3, 9), (3, 30), (None, 5), (None, 30)])
def test_interrupted_it_goes_on_and_keeps_the_same_bits(trained, tmp_path, kept_before, step):
    """Interrupted before the second checkpoint, at it and after it, and begun with or without keeping any."""

    def interrupt(now, *_):
        if now == step:
            raise KeyboardInterrupt

    model, corpus = small(tmp_path, checkpoints=kept_before), TEXT.corpus()
    where = Store(tmp_path).checkpoints(training_key(model.settings(), corpus.fingerprint))
    with pytest.raises(KeyboardInterrupt):
        model.train(corpus, Store(tmp_path), [interrupt], Checkpoints(where, 0.0, most=float("inf")))
    done = train(small(tmp_path, checkpoints=3), TEXT, tmp_path)
    assert weights(tmp_path) == weights(trained)
    # one that was begun without them has passed the first, and begins anew
    assert done.record["resumed_at"] == ([step - 1] if kept_before else [])


def test_checkpoints_of_another_training_are_not_measured(trained, tmp_path):
    with pytest.raises(LabError, match=r"trained with seed=0, not 1; run: rbp-lab train model=small .*checkpoints=N"):
        small(trained, checkpoints=3, seed=1).members()[0].open()
    with pytest.raises(LabError, match=r"small@step3 is not in .*: not trained yet; run: rbp-lab train model=small "):
        small(trained, checkpoints=40).members()[1].open()
    with pytest.raises(LabError, match=r"model\.checkpoints must be at least 1"):
        small(trained, checkpoints=0)


def test_measured_they_are_a_trajectory(trained, tmp_path):
    config = measure_config("unused", tmp_path, k__windows=[1])
    config["dataset"]["protocol"] = {"max_tokens": 16}
    config["model"] = {"_target_": "rbp_lab.models.LadderModel", **vars(small(trained, checkpoints=3))}
    assert measure.run(config) == "measured"
    found = {r.model.name: r.model.training_tokens for r in list_records(tmp_path)}
    assert found == {"small@step2": 64, "small@step9": 288, "small": 1280}


def test_the_demo_measures_every_checkpoint_and_fits_laws_in_tokens(tmp_path):
    config = measure_config("unused", tmp_path, k__windows=[1, 2], k__thresholds=[1, 50])
    config["dataset"]["protocol"] = {"max_tokens": 16}
    del config["model"]
    model = {"_target_": "rbp_lab.models.LadderModel", **vars(small(tmp_path, checkpoints=4))}
    config |= {"models": {"one": model}, "training": {"_target_": "tests.sources.MadeUpText", "num_documents": 200}}
    with pytest.raises(LabError, match=r"axis must be one of .*got 'token'"):
        demo.run(config | {"axis": "token"})
    assert not (tmp_path / "models").exists()  # said before the work
    demo.run(config | {"axis": "tokens", "name": "along"})
    out = Store(tmp_path).analysis("along").directory
    fits = pd.read_csv(out / "fits.csv")
    ce = fits[fits["metric"] == "ce"].iloc[0]
    assert (ce["axis"], ce["training"], ce["models"]) == ("D", "small", "small@step2 small@step5 small@step15 small")
    assert set(fits["metric"]) == {"ce", "neg_log_rbp", "neg_log_p"}
    assert pd.read_csv(out / "law_tokens_checkpoints.csv")["left_out"].isna().all()


def test_a_checkpoint_is_no_training_of_its_own_for_weights_and_biases(trained):
    listed = [json.loads(path.read_text()) for path in Store(trained).trainings()]
    assert sorted(training.get("step", STEPS) for training in listed) == [2, 9, STEPS]
