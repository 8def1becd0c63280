"""Language models of the ladder from multisets of tokens, and tasks that `datasets` reads."""

import itertools

import numpy as np
import pytest
import torch

from rbp_lab.commands.positions import of_positions
from rbp_lab.config.build import build
from rbp_lab.data.stdlib import StdlibText
from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.hub_classes import HubClasses
from rbp_lab.ladder.aggregate.networks import CNN, MLP
from rbp_lab.ladder.aggregate.positions import GroupedPositions
from rbp_lab.ladder.model import LadderModel
from rbp_lab.ladder.training import cross_entropy
from rbp_lab.store.layout import Store
from tests.sources import composed


def test_the_gradient_is_that_of_the_likelihood_of_the_multisets():
    """Against every way to hand the tokens of a group to its positions."""
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets, loss = torch.tensor([3, 1, 1, 4, 0, 3]), GroupedPositions(3, seed=7)
    groups = np.random.default_rng((7, 4, 11)).permutation(6).reshape(2, 3)
    likelihood = 0.0
    for group in groups:
        ways = set(itertools.permutations(targets[group].tolist()))
        logp = logits.log_softmax(-1)[group]
        likelihood = likelihood + torch.stack([sum(logp[i, y] for i, y in enumerate(way)) for way in ways]).logsumexp(0)
    expected = torch.autograd.grad(-likelihood / 6, logits)[0]
    found = torch.autograd.grad(loss(logits, targets, 11), logits)[0]
    assert (found - expected).abs().max() < 1e-12
    assert not torch.allclose(torch.autograd.grad(loss(logits, targets, 12), logits)[0], expected)  # other groups


def test_groups_of_one_position_are_ordinary_training():
    logits, targets = torch.randn(7, 5), torch.arange(7) % 5
    assert GroupedPositions(1, 0)(logits, targets, 0).item() == pytest.approx(cross_entropy(logits, targets, 0).item())


def test_models_trained_before_there_were_groups_are_the_same():
    plain, grouped = LadderModel("a", 28, "d"), LadderModel("a", 28, "d", groups=4)
    assert "groups" not in plain.settings() and grouped.settings()["groups"] == 4
    with pytest.raises(LabError, match=r"model\.groups must be 1 to 10"):
        LadderModel("a", 28, "d", groups=11)


def test_an_objective_without_a_task_is_of_the_language_model():
    def model(*words):
        config = composed("train", "task=next-token", "model=ladder-1", "store=s", *words)
        return build(of_positions(config)["model"], "model")

    four = model("objective=aggregate", "observation=proportions", "observation.m=4")
    assert four.groups == 4 and four == model("objective=likelihood", "observation.m=4")
    assert model("objective=supervised").groups == 1
    for words, message in [
        (["objective=likelihood", "observation=similarity"], "choose observation=proportions; got similarity"),
        (["objective=aggregate", "objective.loss=gce"], r"objective\.loss=cross_entropy.* got gce with stored"),
        (["objective=supervised", "observation=proportions"], "objective=supervised sees every label"),
    ]:
        with pytest.raises(LabError, match=message):
            model(*words)


def test_a_language_model_of_groups_has_a_law_of_its_own(tmp_path):
    made = LadderModel("a", 28, str(tmp_path / "a"), tokens=256, context=32, batch=2, vocabulary=257, groups=4)
    made.train(StdlibText(name="few", num_documents=3).corpus(), Store(tmp_path))
    assert made.look().family == made.open().info.family == "ladder m=4"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """What `datasets` prepares goes to the test's own directory."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def table(tmp_path):
    import pandas as pd

    generator = np.random.default_rng(0)
    files = {}
    for part, rows in (("train", 60), ("test", 30)):
        kind = generator.integers(0, 3, rows)
        width = kind * 5.0 + generator.normal(size=rows)
        frame = pd.DataFrame({"width": width, "one": 1.0, "kind": [f"k{c}" for c in kind]})
        files[part] = str(tmp_path / f"{part}.parquet")
        frame.to_parquet(files[part])
    return files


def test_a_table_becomes_a_task(table):
    task = HubClasses("flowers", "parquet", data_files=table, features=["width", "one"], label="kind", instances=40)
    split = task.split(0)
    assert split.inputs.shape == (40, 2) and split.test_inputs.shape == (30, 2) and split.classes == ("k0", "k1", "k2")
    assert abs(split.test_inputs[:, 0].mean()) < 1 and set(split.inputs[:, 1]) == {0.0}
    assert not np.array_equal(split.labels, task.split(1).labels)
    assert split.fingerprint("test") == task.split(1).fingerprint("test")
    assert MLP("m", 4).build(split.shape, 3, [0])(torch.from_numpy(split.inputs)[None]).shape == (1, 40, 3)


def test_pictures_become_a_task(tmp_path):
    from PIL import Image

    for part, label, i in itertools.product(("train", "test"), ("cat", "dog"), range(3)):
        where = tmp_path / part / label
        where.mkdir(parents=True, exist_ok=True)
        shade = np.full((8, 6), 40 * i + 100 * (label == "dog"), np.uint8)
        Image.fromarray(shade).save(where / f"{i}.png")
    files = {part: f"{tmp_path}/{part}/**" for part in ("train", "test")}
    task = HubClasses("pets", "imagefolder", data_files=files, image="image")
    split = task.split(0)
    assert split.inputs.shape == (6, 1, 8, 6) and split.inputs.dtype == np.uint8 and split.classes == ("cat", "dog")
    out = CNN("c", 2).build(split.shape, 2, [0])(torch.from_numpy(split.inputs)[None])
    assert out.shape == (1, 6, 2) and torch.isfinite(out).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": ["widht"]}, "no column 'widht'; its columns are width, one, kind"),
        ({"label": "width", "features": ["one"]}, "does not hold classes"),
        ({"label": "width"}, "must not see it"),
        ({"features": []}, "give one of task.image"),
        ({"test": "train"}, "measure on a split not trained on"),
        ({"instances": 61}, "has only 60 rows"),
        ({"test": "validation"}, "cannot read split validation"),
    ],
)
def test_mistakes_are_sentences(change, words, table):
    with pytest.raises(LabError, match=words):
        HubClasses(**{"name": "flowers", "path": "parquet", "data_files": table, "features": ["width"], "label": "kind",
                      **change}).split(0)  # fmt: skip
