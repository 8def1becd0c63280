"""Observations of groups: against exact enumeration of every labelling, and in float32 at extreme logits."""

import itertools

import numpy as np
import pytest
import torch

from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.lattice import count_sums
from rbp_lab.ladder.aggregate.losses import LOSSES, CustomLoss, Loss, find_loss
from rbp_lab.ladder.aggregate.observations import (
    Bag,
    Enumerated,
    Proportions,
    Similarity,
    Triplet,
    log_likelihood,
    weights,
)

RANDOM = torch.Generator().manual_seed(5)
SIGNED = torch.randn(5, 5, generator=RANDOM, dtype=torch.float64)
# An observation that none of the others is: the sum of the labels modulo 3.
MODULO = tuple(sum(y) % 3 for y in itertools.product(range(4), repeat=3))
# One that tells the instances apart: the label of the first.
FIRST = tuple(y[0] for y in itertools.product(range(3), repeat=3))
CASES = [
    (Similarity(), 4), (Similarity(), 5), (Triplet(), 3), (Triplet(), 5), (Proportions(1), 3), (Proportions(2), 4),
    (Proportions(3), 3), (Proportions(4), 3), (Proportions(4), 2), (Bag(4), 2), (Bag(3, positive=0), 2),
    (Enumerated(MODULO, 3, 4), 4), (Enumerated(FIRST, 3, 3), 3),
]  # fmt: skip
NAMES = [f"{type(o).__name__}-m{o.m}-K{k}" for o, k in CASES]
ALL_LOSSES = [*LOSSES.values(), Loss("signed", lambda logp: torch.einsum("...k,kj->...j", logp.exp(), SIGNED))]


def posteriors(m, classes, scale=2.0, groups=1, dtype=torch.float64, seed=0):
    """Random log-posteriors [G, m, K]."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(groups, m, classes, generator=generator, dtype=dtype) * scale).log_softmax(-1)


def labellings(m, classes):
    return torch.tensor(list(itertools.product(range(classes), repeat=m)))


def enumerated(observation, logp, z):
    """log p(z) and p(y_i = j | z) of one group by adding up every labelling with that observation."""
    y = labellings(*logp.shape)
    same = (observation.observe(y) == z).reshape(len(y), -1).all(1)
    log_product = logp[torch.arange(logp.shape[0]), y[same]].sum(1)
    total = log_product.logsumexp(0)
    share = (log_product - total).exp()
    w = torch.stack([torch.nn.functional.one_hot(y[same], logp.shape[1])[:, i].double().T @ share
                     for i in range(logp.shape[0])])  # fmt: skip
    return total, w


@pytest.mark.parametrize(("observation", "classes"), CASES, ids=NAMES)
def test_likelihood_and_weights_are_those_of_enumeration(observation, classes):
    logp = posteriors(observation.m, classes)
    values = {tuple(z.reshape(-1).tolist()): z for z in observation.observe(labellings(observation.m, classes))}
    total = 0.0
    for z in values.values():
        found, (w, impossible) = log_likelihood(observation, logp, z[None]), weights(observation, logp, z[None])
        expected, w_expected = enumerated(observation, logp[0], z)
        assert abs(found.item() - expected.item()) < 1e-12 and not impossible.any()
        assert (w[0] - w_expected).abs().max() < 1e-12
        total += found.exp().item()
    assert abs(total - 1) < 1e-12  # every labelling has one observation


@pytest.mark.parametrize("loss", ALL_LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize(("observation", "classes"), CASES, ids=NAMES)
def test_the_aggregate_risk_is_the_supervised_risk(observation, classes, loss):
    """E over labellings of Σ w ℓ / m, with w from the true posteriors, equals Σ_i Σ_j η_ij ℓ_ij / m."""
    if loss.name == "signed":
        table = SIGNED[:classes, :classes]
        loss = Loss("signed", lambda logp: torch.einsum("...k,kj->...j", logp.exp(), table))
    truth = posteriors(observation.m, classes, seed=1)
    values = loss(posteriors(observation.m, classes, seed=2))
    y = labellings(observation.m, classes)
    chance = truth[0][torch.arange(observation.m), y].sum(1).exp()
    w, _ = weights(observation, truth.expand(len(y), -1, -1), observation.observe(y))
    aggregate = (chance[:, None, None] * w * values).sum() / observation.m
    supervised = (truth.exp() * values).sum() / observation.m
    assert abs(aggregate - supervised).item() < 1e-12


def test_loss_values_by_hand():
    logp = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    expected = {
        "cross_entropy": -np.log([0.5, 0.3, 0.2]),
        "mae": [1.0, 1.4, 1.6],
        "mse": [0.25 + 0.09 + 0.04, 0.25 + 0.49 + 0.04, 0.25 + 0.09 + 0.64],
        "gce": (1 - np.array([0.5, 0.3, 0.2]) ** 0.7) / 0.7,
        "focal": -np.array([0.25, 0.49, 0.64]) * np.log([0.5, 0.3, 0.2]),
    }
    assert set(expected) == set(LOSSES)
    for name, values in expected.items():
        np.testing.assert_allclose(LOSSES[name](logp).numpy(), values, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_bounded_and_proper_are_what_the_loss_is(name):
    """Bounded: the cost of a hopeless prediction has a limit. Proper: the expected loss is least at the truth."""
    loss = LOSSES[name]
    hopeless = loss(torch.tensor([[-1000.0, 0.0]], dtype=torch.float64))[0, 0]
    assert (hopeless < 10) == loss.bounded
    truth = torch.tensor([0.7, 0.3], dtype=torch.float64)
    p = torch.linspace(0.001, 0.999, 1999, dtype=torch.float64)
    risk = (loss(torch.stack([p, 1 - p], 1).log()) * truth).sum(1)
    assert (abs(p[risk.argmin()].item() - 0.7) < 1e-3) == loss.proper


@pytest.mark.parametrize(("observation", "classes"), [*CASES, (Proportions(8), 10), (Proportions(12), 4)])
def test_float32_stays_finite_at_logits_of_a_thousand(observation, classes):
    groups = 32
    logp = posteriors(observation.m, classes, scale=1000.0, groups=groups, dtype=torch.float32)
    y = torch.randint(classes, (groups, observation.m), generator=torch.Generator().manual_seed(3))
    z = observation.observe(y)
    w, impossible = weights(observation, logp, z)
    assert torch.isfinite(w).all() and not impossible.any()
    assert (w.sum(-1) - 1).abs().max() < 1e-5
    exact, _ = weights(observation, logp.double(), z)
    assert (w - exact).abs().max() < 1e-3
    assert torch.isfinite(log_likelihood(observation, logp, z)).all()


@pytest.mark.parametrize(("observation", "classes"), CASES, ids=NAMES)
def test_certain_posteriors_keep_their_digits(observation, classes):
    """Where one class has nearly all of the mass, 1 − p has no digits left; the weights keep theirs."""
    logp = posteriors(observation.m, classes, scale=60.0, groups=16)
    y = torch.randint(classes, (16, observation.m), generator=torch.Generator().manual_seed(4))
    z = observation.observe(y)
    w, _ = weights(observation, logp, z)
    for g in range(16):
        _, expected = enumerated(observation, logp[g], z[g])
        np.testing.assert_allclose(w[g].numpy(), expected.numpy(), rtol=1e-9, atol=1e-30)


@pytest.mark.parametrize("m", [1, 3, 6])
def test_the_two_lattices_agree(m):
    logp = posteriors(m, 4, groups=5).requires_grad_()
    z = Proportions(m).observe(torch.randint(4, (5, m), generator=torch.Generator().manual_seed(0)))
    by_slots, by_counts = Proportions(m).log_joint(logp, z), count_sums(logp, z)
    np.testing.assert_allclose(by_slots.detach().numpy(), by_counts.detach().numpy(), atol=1e-12)
    slots_gradient = torch.autograd.grad(log_likelihood(Proportions(m), logp, z).sum(), logp)[0]
    counts_gradient = torch.autograd.grad(by_counts[:, 0].logsumexp(-1).sum(), logp)[0]
    np.testing.assert_allclose(slots_gradient, counts_gradient, atol=1e-12)


def test_large_groups_cost_no_more_than_their_counts():
    """Over 30 instances subsets would be 2^30; counts of three classes are few."""
    m = 30
    logp = posteriors(m, 3, groups=2)
    z = Proportions(m).observe(torch.randint(3, (2, m), generator=torch.Generator().manual_seed(0)))
    w, impossible = weights(Proportions(m), logp, z)
    told = torch.nn.functional.one_hot(z, 3).sum(1).double()
    assert not impossible.any() and (w.sum(1) - told).abs().max() < 1e-9  # the expected labels are those observed


def test_a_table_is_read_in_its_order_and_says_whether_it_tells_the_classes():
    assert Enumerated(MODULO, 3, 4).identifies == "classes" == Bag(2).identifies == Proportions(2).identifies
    assert Enumerated(FIRST, 3, 3).observe(torch.tensor([[2, 0, 1], [0, 1, 2]])).tolist() == [2, 0]
    same = Enumerated((1, 0, 0, 1), 2, 2, identifies_classes=False)
    assert same.identifies == "permutation" == Similarity().identifies == Triplet().identifies


@pytest.mark.parametrize(("observation", "classes"), CASES, ids=NAMES)
def test_cross_entropy_with_current_weights_is_the_likelihood(observation, classes):
    """The gradients are equal; with another loss, or with weights of another model, they are not."""
    logits = (posteriors(observation.m, classes, groups=6) * 1.0).requires_grad_()
    y = torch.randint(classes, (6, observation.m), generator=torch.Generator().manual_seed(1))
    z = observation.observe(y)

    def gradient(risk):
        return torch.autograd.grad(risk, logits)[0]

    def risk(loss, source):
        w, _ = weights(observation, source, z)
        return (w * LOSSES[loss](logits.log_softmax(-1))).sum()

    current, stored = logits.detach().log_softmax(-1), posteriors(observation.m, classes, groups=6, seed=9)
    likelihood = gradient(-log_likelihood(observation, logits.log_softmax(-1), z).sum())
    assert (gradient(risk("cross_entropy", current)) - likelihood).abs().max() < 1e-12
    assert (gradient(risk("mse", current)) - likelihood).abs().max() > 0.01
    if observation.m > 1:  # a label alone gives the same weights whatever the posteriors
        assert (gradient(risk("cross_entropy", stored)) - likelihood).abs().max() > 0.01


def test_an_impossible_observation_gives_the_posteriors_back():
    logp = torch.tensor([[[0.0, -torch.inf]], [[-1.0, np.log1p(-np.exp(-1.0))]]]).double()
    w, impossible = weights(Proportions(1), logp, torch.tensor([[1], [1]]))
    assert impossible.tolist() == [True, False]
    assert w[0, 0].tolist() == [1.0, 0.0] and w[1, 0].tolist() == [0.0, 1.0]
    assert log_likelihood(Proportions(1), logp, torch.tensor([[1], [1]])).isneginf().tolist() == [True, False]
    w, impossible = weights(Bag(2), torch.tensor([[[0.0, -torch.inf]] * 2]), torch.tensor([1]))
    assert impossible.tolist() == [True] and torch.isfinite(w).all()


def test_a_negative_bag_is_known():
    w, _ = weights(Bag(3), posteriors(3, 2, groups=4), torch.zeros(4, dtype=torch.int64))
    assert torch.equal(w[..., 0], torch.ones(4, 3).double())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Similarity(3), "observation.m must be 2"),
        (lambda: Triplet(2), "observation.m must be 3"),
        (lambda: Proportions(0), "at least 1"),
        (lambda: Enumerated((0, 1, 1), 2, 2), r"2\^2 = 4 assignments; got 3"),
        (lambda: Enumerated((0,) * 8, 30, 2), "at most 1,000,000 assignments"),
        (lambda: Bag(4).check(10), "task.positive"),
        (lambda: Bag(4, positive=2).check(2), "must be below the 2 classes of the task; got 2"),
        (lambda: Bag(4, positive=-1), "must be a class, counted from 0; got -1"),
        (lambda: Bag(0), "observation.m must be at least 1; got 0"),
        *((lambda o=o: o.check(1), "have 1 class") for o in (Similarity(), Triplet(), Proportions(2), Bag(2))),
        (lambda: Enumerated((0,), 2, 1), "at least 2 and at most"),
        (lambda: Enumerated(MODULO, 3, 4).check(10), "the task has 10 classes"),
        (lambda: find_loss("gcee"), "did you mean gce"),
        (lambda: find_loss(CustomLoss("math.nothing")), "cannot import 'math.nothing'"),
        (lambda: Loss("short", lambda logp: logp[..., 0])(torch.zeros(2, 3)), "one value for each class"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences(make, words):
    with pytest.raises(LabError, match=words):
        make()
