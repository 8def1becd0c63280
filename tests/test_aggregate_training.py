"""Classifiers trained from groups: sampling, weight sources, guards, members side by side, and what is kept."""

import json

import numpy as np
import pytest
import torch

from rbp_lab.config.schemas import KSpec
from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.guards import align, empty_outputs, reseed
from rbp_lab.ladder.aggregate.members import train_or_find
from rbp_lab.ladder.aggregate.networks import CNN, MLP, InputShape
from rbp_lab.ladder.aggregate.objective import Objective
from rbp_lab.ladder.aggregate.observations import Bag, Enumerated, Proportions, Similarity, Triplet, weights
from rbp_lab.ladder.aggregate.posteriors import WeightSource
from rbp_lab.ladder.aggregate.recipe import Recipe
from rbp_lab.ladder.aggregate.run import run_configuration
from rbp_lab.ladder.aggregate.sampler import GroupSampler
from rbp_lab.ladder.aggregate.tasks import Digits, stratified, with_noise
from rbp_lab.metrics import cross_entropy, rbp
from rbp_lab.store.layout import WEIGHTS_FILE, Store
from tests.classifier_tasks import Blobs, configuration

K = KSpec([1, 2, 3])


def trained(c, store, **options):
    return train_or_find(c, {seed: c.task.split(seed) for seed in c.seeds}, Store(store), **options)


def outcomes(c, store):
    return list(run_configuration(c, K, Store(store)))


def test_groups_use_every_instance_as_often_as_asked_and_depend_on_the_seed_alone():
    groups = GroupSampler(4, reuse=3).groups(30, seed=1)
    assert groups.shape == (21, 4)
    for one_pass in groups.reshape(3, 7, 4):
        assert len(np.unique(one_pass)) == 28  # two of 30 are left over
    assert np.array_equal(groups, GroupSampler(4, reuse=3).groups(30, seed=1))
    assert not np.array_equal(groups, GroupSampler(4, reuse=3).groups(30, seed=2))


def test_groups_drawn_by_their_outcome_are_refused():
    with pytest.raises(LabError, match=r"training.draw must be blind; got 'balanced'.*p\(z \| x\)"):
        GroupSampler(2, draw="balanced")
    with pytest.raises(LabError, match="only 3 instances"):
        GroupSampler(4).groups(3, 0)


def test_splits_are_stratified_and_of_one_size():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    sides = [stratified(labels, 0.3, seed) for seed in range(3)]
    for train, test in sides:
        assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(160))
        assert np.bincount(labels[test]).tolist() == [30, 15, 3]
    assert not np.array_equal(sides[0][1], sides[1][1])


def test_label_noise_replaces_the_share_it_names():
    labels = np.arange(1000) % 5
    noisy = with_noise(labels, 0.4, 5, seed=0)
    assert (noisy != labels).sum() == 400 and set(noisy) == set(range(5))
    clean, dirty = Blobs().split(0), Blobs(label_noise=0.4).split(0)
    assert np.array_equal(clean.test_labels, dirty.test_labels)  # what is measured on stays clean
    assert (clean.labels != dirty.labels).mean() == pytest.approx(0.4, abs=0.01)


def test_digits_are_split_by_seed_and_one_can_be_told_from_the_others():
    first, second = Digits().split(0), Digits().split(1)
    assert first.inputs.shape[1:] == (1, 8, 8) and len(first.labels) == len(second.labels) == 1258
    assert first.fingerprint("test") != second.fingerprint("test") and first.name != second.name
    nines = Digits(positive=9).split(0)
    assert nines.classes == ("not 9", "9") and nines.labels.mean() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("refresh", "expected"),
    [("never", [0, 0, 0, 0]), ("epoch", [0, 0, 2, 2]), (1, [0, 1, 2, 3]), ("batch", [0, 1, 2, 3])],
)
def test_stored_posteriors_are_as_old_as_the_refresh_says(refresh, expected):
    """Model states are numbered by step; two steps an epoch, after one epoch of likelihood."""
    objective = Objective("aggregate", weights="stored", refresh=refresh)
    source, observation = WeightSource(Proportions(2), objective, 2, 2), Proportions(2)

    def state(step):
        return torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(step)).log_softmax(-1)

    groups = torch.tensor([[[0, 1], [2, 3]]])
    z = torch.tensor([[[0, 1], [1, 2]]])
    for step, age in enumerate([None, None, *expected]):
        source.before(step, lambda step=step: state(step - 2))
        now = state(step - 2)[:, groups[0]]
        used = source.weights(now, groups, z)
        of = state(step - 2 if age is None else age if refresh != "batch" else max(0, step - 3))[:, groups[0]]
        assert torch.allclose(used[0], weights(observation, of[0], z[0])[0]), step
        source.after(now, groups)


def test_a_mixture_is_between_the_two_weights():
    stored, now = (torch.randn(1, 2, 3).log_softmax(-1) for _ in range(2))
    groups, z = torch.tensor([[[0, 1]]]), torch.tensor([[[0, 1]]])
    source = WeightSource(Proportions(2), Objective("aggregate", weights="mixture", share=0.25), 0, 1)
    source.before(0, lambda: stored)
    old, new = (weights(Proportions(2), logp, z[0])[0] for logp in (stored, now))
    assert torch.allclose(source.weights(now[:, None], groups, z)[0], 0.25 * old + 0.75 * new)


def test_outputs_are_matched_to_classes_and_merged_ones_are_seen():
    labels = np.arange(40) % 4
    turned = np.eye(4)[(labels + 1) % 4] * 0.9 + 0.025
    prior = np.full(4, 0.25)
    found = align(turned, labels, turned.mean(0), prior)
    assert found.output == (1, 2, 3, 0) and found.margin == pytest.approx(0.9) and not found.merged
    shared = turned.copy()
    shared[labels == 2] = turned[labels == 1]  # classes 1 and 2 share output 2; nothing has output 3
    found = align(shared, labels, shared.mean(0), prior)
    assert found.merged and found.empty == (3,)
    # A few labelled instances may look fine where the training instances do not: the margin alone would pass.
    found = align(turned, labels, shared.mean(0), prior)
    assert found.margin > 0 and found.merged


def test_an_empty_output_begins_anew_as_half_of_the_fullest():
    weight, bias = torch.randn(6, 4), torch.randn(4)
    before, mass, prior = weight.clone(), np.array([0.02, 0.2, 0.5, 0.28]), np.full(4, 0.25)
    assert empty_outputs(mass, prior).tolist() == [0]
    assert reseed(weight, bias, mass, prior, torch.Generator().manual_seed(0)) == [0, 2]
    assert torch.equal(weight[:, 1:], before[:, 1:]) and bias[0] == bias[2]
    assert 0 < (weight[:, 0] - weight[:, 2]).abs().max() < before[:, 2].std()


@pytest.mark.parametrize(
    ("observation", "training"),
    [(None, {}), (Proportions(3), {}), (Bag(3), {"batch": 96}), (Similarity(), {"reuse": 4}), (Triplet(), {"reuse": 4}),
     (Enumerated(tuple(int(a == b) for a in range(3) for b in range(3)), 2, 3, False), {"reuse": 4})],
    ids=["supervised", "proportions", "bag", "similarity", "triplet", "enumerated"],
)  # fmt: skip
def test_every_observation_teaches_the_classes(observation, training, tmp_path):
    task = Blobs(positive=0) if isinstance(observation, Bag) else Blobs()
    kind = "supervised" if observation is None else "likelihood"
    c = configuration(kind, observation, task=task, **{"epochs": 25, "restarts": 2, **training})
    (outcome,) = outcomes(c, tmp_path)
    assert rbp(outcome.measured.record.stats, 1) > 0.9, outcome.line()
    assert outcome.member.record["impossible_observations_in_stack"] == 0
    assert (outcome.member.record["alignment"] is None) == (c.observed.identifies == "classes")


@pytest.mark.parametrize("loss", ["mae", "mse", "gce", "focal"])
def test_every_loss_trains_on_proportions(loss, tmp_path):
    c = configuration(observation=Proportions(3), objective=Objective("aggregate", loss), epochs=16)
    (outcome,) = outcomes(c, tmp_path)
    assert rbp(outcome.measured.record.stats, 1) > 0.9, outcome.line()


@pytest.mark.parametrize("seeds", [(0, 1, 2), (5, 1)])
def test_a_member_is_the_same_beside_others_and_alone(seeds, tmp_path):
    several = trained(configuration(observation=Similarity(), seeds=seeds, restarts=1), tmp_path / "a")
    together = dict(zip(seeds, several, strict=True))
    (alone,) = trained(configuration(observation=Similarity(), seeds=(1,), restarts=1), tmp_path / "b")
    np.testing.assert_allclose(together[1].record["risk"], alone.record["risk"], atol=1e-4)
    assert together[1].name == alone.name
    assert together[seeds[0]].record["risk"] != alone.record["risk"]


def test_what_is_finished_is_found_and_what_differs_is_trained(tmp_path):
    first = trained(configuration(observation=Proportions(2), seeds=(0, 1)), tmp_path)
    assert [m.trained for m in first] == [True, True]
    again = trained(configuration(observation=Proportions(2), seeds=(0, 1, 2)), tmp_path)
    assert [m.trained for m in again] == [False, False, True]
    assert again[0].record == first[0].record and again[0].fingerprint == first[0].fingerprint
    assert trained(configuration(observation=Proportions(2), epochs=9), tmp_path)[0].trained
    assert trained(configuration(observation=Proportions(2), task=Blobs(spread=0.3)), tmp_path)[0].trained
    (again[1].directory / "training.json").write_text("{")
    (again[2].directory / WEIGHTS_FILE).unlink()
    third = trained(configuration(observation=Proportions(2), seeds=(0, 1, 2)), tmp_path)
    assert [m.trained for m in third] == [False, True, True]
    assert trained(configuration(observation=Proportions(2)), tmp_path, force=True)[0].trained


def test_an_interrupted_training_leaves_nothing(tmp_path):
    def interrupt(step, steps, risk):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(configuration(observation=Proportions(2)), tmp_path, on_step=interrupt)
    assert not list(tmp_path.rglob("*.json"))


def test_a_record_counts_the_ranks_of_the_true_class(tmp_path):
    c = configuration("supervised", seeds=(3,), task=Blobs(spread=0.7))
    (outcome,) = outcomes(c, tmp_path)
    split, record = c.task.split(3), outcome.measured.record
    network = outcome.member.network(c, split)
    logp = network(torch.from_numpy(split.test_inputs)[None])[0].log_softmax(-1).detach()
    own = logp.gather(1, torch.from_numpy(split.test_labels)[:, None])
    rank = 1 + (logp > own).sum(1).numpy()
    assert record.stats.counts.tolist() == np.bincount(rank - 1, minlength=3).tolist()
    assert 0.5 < rbp(record.stats, 1) < 1 and rbp(record.stats, 3) == 1
    assert cross_entropy(record.stats) == pytest.approx(-own.mean().item(), abs=1e-5)
    assert record.stats.num_documents == len(split.test_labels) and record.model.vocab_rows == 3
    settings = record.provenance["classifier"]["settings"]
    assert settings["seed"] == 3 and settings["objective"]["kind"] == "supervised"
    again = outcomes(c, tmp_path)[0]
    assert not again.measured.measured and again.measured.record.stats == record.stats


def test_merged_classes_are_not_measured(tmp_path):
    c = configuration(observation=Similarity(), restarts=1)
    (member,) = trained(c, tmp_path)
    file = member.directory / "training.json"
    record = json.loads(file.read_text())
    record["alignment"] |= {"merged": True, "margin": -0.2, "empty": [1]}
    record["impossible_observations_in_stack"] = 7
    file.write_text(json.dumps(record))
    (outcome,) = outcomes(c, tmp_path)
    assert "7 impossible observations; not measured:" in outcome.line()
    assert outcome.measured is None and "does not tell all classes apart (margin −0.20" in outcome.refused


def test_a_network_has_the_parameters_of_the_size_rule():
    digits = MLP("m", 128).build(InputShape((1, 8, 8)), 10, [0]).params()
    assert digits.non_embedding == 24832 and digits.head == 1290 and digits.embedding == 0
    characters = MLP("m", 8).build(InputShape((16,), 99), 14, [0, 1]).params()
    assert characters.non_embedding == 1104 and characters.embedding == 792
    assert CNN("c", 16).build(InputShape((1, 8, 8)), 10, [0]).params().non_embedding == 160 + 16 * 9 * 32 + 32


def test_members_of_a_stack_do_not_touch_each_other():
    for spec, shape in ((MLP("m", 8), (1, 8, 8)), (CNN("c", 4), (1, 8, 8))):
        x = torch.randn(2, 5, *shape)
        both = spec.build(InputShape(shape), 3, [4, 9])(x)
        alone = spec.build(InputShape(shape), 3, [9])(x[1:])
        torch.testing.assert_close(both[1:], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Objective("aggregate", "focal", "current"), "objective.weights=current with objective.loss=focal"),
        (lambda: Objective("likelihood", "mse"), "choose objective=aggregate"),
        (lambda: Objective("aggregate", refresh=0), "at least 1 step"),
        (lambda: Objective("aggregate", refresh="often"), "objective.refresh must be one of batch, epoch, never"),
        (lambda: configuration("supervised", Proportions(2)), "leave observation out"),
        (lambda: configuration("likelihood"), "needs an observation"),
        (lambda: configuration(observation=Similarity(), objective=Objective("aggregate", "mae", refresh="epoch")),
         "objective.refresh=never"),
        (lambda: configuration(observation=Proportions(2), draw="by outcome"), "training.draw must be blind"),
        (lambda: configuration(observation=Proportions(2), seeds=(1, 1)), "different numbers"),
        (lambda: Recipe(lr=0.0), "training.lr must be above 0"),
        (lambda: Recipe(prior=[0.5, 0.4]).prior_of(2), "2 positive shares with the sum 1"),
        (lambda: CNN("c").build(InputShape((16,), 9), 3, [0]), "choose classifier=mlp"),
        (lambda: Digits(positive=11).split(0), "task.positive must be a class from 0 to 9"),
        (lambda: with_noise(np.zeros(3, np.int64), 1.0, 2, 0), "below 1"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences(make, words):
    with pytest.raises(LabError, match=words):
        make()
