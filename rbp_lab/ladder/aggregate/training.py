"""The training loop of classifiers: groups in, members of one configuration side by side.

Supervised training is m = 1 and the likelihood is cross-entropy with current weights, so there is one loop. Legend: E
members, n training instances, G groups of m, B groups of a batch, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.guards import reseed
from rbp_lab.ladder.aggregate.losses import cross_entropy
from rbp_lab.ladder.aggregate.networks import StackedNetwork
from rbp_lab.ladder.aggregate.objective import Objective
from rbp_lab.ladder.aggregate.observations import Observation, log_likelihood, weights
from rbp_lab.ladder.aggregate.posteriors import WeightSource
from rbp_lab.ladder.aggregate.recipe import Recipe

# on_step(step, steps, risk): step from 1, risk averaged over members.
StepHook = Callable[[int, int, float], None]
CHUNK = 8192  # instances of a forward pass without gradients
LOOKED_AT = 20_000  # instances


@dataclass(frozen=True, eq=False)
class Groups:
    """What the members learn from: inputs [E, n, …]; groups int64 [E, G, m] of instances; z [E, G, …].

    filler: the instance that stands for none in bags of different sizes; None where all groups have m instances.
    """

    inputs: torch.Tensor
    groups: torch.Tensor
    z: torch.Tensor
    filler: int | None = None

    def part(self, which: slice) -> Groups:
        """Some of the groups of every member."""
        return replace(self, groups=self.groups[:, which], z=self.z[:, which])

    def known(self, observation: Observation, logp: torch.Tensor, instances: torch.Tensor) -> torch.Tensor:
        """logp [..., K] of ``instances`` [...], with what is known of the one that stands for none."""
        return logp if self.filler is None else observation.absent(logp, instances == self.filler)

    def posteriors(self, network: StackedNetwork, observation: Observation) -> torch.Tensor:
        """log p(y | x) of all instances [E, n, K], without gradients."""
        logp = log_posteriors(network, self.inputs)
        return self.known(observation, logp, torch.arange(logp.shape[1]))


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training came to. risk: mean of each epoch, float64 [epochs, E]. impossible: observations that had
    probability 0 when they were weighed, in all members. reseeded: outputs that began anew, for each member."""

    risk: np.ndarray
    impossible: int
    reseeded: tuple[int, ...]


def observed(observation: Observation, labels: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """z [E, G, …] of groups [E, G, m] of instances with labels [E, n]."""
    members = torch.arange(len(groups))[:, None, None]
    return torch.stack([observation.observe(y) for y in labels[members, groups]])


def train(
    network: StackedNetwork,
    data: Groups,
    observation: Observation,
    objective: Objective,
    recipe: Recipe,
    seeds: Sequence[int],
    prior: np.ndarray,
    on_step: StepHook = lambda step, steps, risk: None,
) -> Trained:
    """Train the members in place on their groups.

    recipe: resolved. seeds: of each member's order of groups, [E]. prior: of the classes [K]. Deterministic for given
    arguments and number of threads; a member is the same beside others and alone, to rounding. Whatever ``on_step``
    raises reaches the caller. Raises LabError when a risk is not finite.
    """
    count, m = data.groups.shape[1:]
    per_step = max(1, min(count, recipe.batch // m if data.filler is None else recipe.batch))
    epoch_steps = count // per_step
    steps = recipe.epochs * epoch_steps
    warm_up = objective.warm_up_of(observation, recipe.epochs) * epoch_steps
    source = WeightSource(observation, objective, warm_up, epoch_steps)
    loss = objective.found_loss
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    generators = [np.random.default_rng((seed, 2)) for seed in seeds]
    noise = [torch.Generator().manual_seed(seed) for seed in seeds]
    member = torch.arange(len(seeds))[:, None]
    log_prior = torch.from_numpy(np.log(prior)).float()
    reseeded = [0] * len(seeds)
    risks = np.zeros((recipe.epochs, len(seeds)))
    for epoch in range(recipe.epochs):
        if recipe.reseed_epochs and epoch and epoch % recipe.reseed_epochs == 0 and epoch < recipe.epochs * 3 // 4:
            _reseed(network, optimizer, data.posteriors(network, observation), prior, noise, reseeded)
        order = torch.stack([torch.from_numpy(g.permutation(count)) for g in generators])
        for i in range(epoch_steps):
            step = epoch * epoch_steps + i
            rate = recipe.lr * _schedule(step, steps, recipe.warm_up_steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            source.before(step, lambda: data.posteriors(network, observation))
            chosen = order[:, i * per_step : (i + 1) * per_step]
            groups, z = data.groups[member, chosen], data.z[member, chosen]
            logp = data.known(observation, _logits(network, data, groups).log_softmax(-1), groups)
            w = source.weights(logp, groups, z)
            values = cross_entropy(logp) if step < warm_up else loss(logp)
            risk = _mean((w * values).sum(-1), groups, data.filler)
            total = risk.sum()
            if recipe.prior_weight and step < steps // 2:
                mean = _mean(logp.exp(), groups, data.filler).clamp(min=1e-12)
                total = total + recipe.prior_weight * (mean * (mean.log() - log_prior)).sum()
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            source.after(logp, groups)
            values_now = risk.detach().double().numpy()
            if not np.isfinite(values_now).all():
                raise LabError(
                    f"training diverged at step {step + 1} of {steps} (risk {values_now.tolist()}); lower training.lr"
                )
            risks[epoch] += values_now / epoch_steps
            on_step(step + 1, steps, float(values_now.mean()))
    return Trained(risks, source.impossible, tuple(reseeded))


def _logits(network: StackedNetwork, data: Groups, groups: torch.Tensor) -> torch.Tensor:
    """Logits [E, B, m, K] of the instances of groups [E, B, m]; 0 for most places where none is."""
    places, member = groups.flatten(1), torch.arange(len(groups))[:, None]
    if data.filler is None:
        return network(data.inputs[member, places]).view(*groups.shape, -1)
    # Bags of molecules have one instance or a thousand: the network sees the instances, not what fills bags up.
    nothing = places == data.filler
    real = nothing.long().argsort(dim=1, stable=True)[:, : int((~nothing).sum(1).max())]
    found = network(data.inputs[member, places.gather(1, real)])
    everywhere = found.new_zeros(*places.shape, found.shape[2])
    return everywhere.scatter(1, real[..., None].expand_as(found), found).view(*groups.shape, -1)


def _mean(values: torch.Tensor, groups: torch.Tensor, filler: int | None) -> torch.Tensor:
    """Mean of values [E, B, m, …] over the instances of each member, [E, …]."""
    if filler is None:
        return values.mean((1, 2))
    there = (groups != filler).view(*groups.shape, *[1] * (values.dim() - 3))
    return torch.where(there, values, 0.0).sum((1, 2)) / there.sum((1, 2))


def _schedule(step: int, steps: int, warm_up: int) -> float:
    """Factor on the rate: linear from 0 over the warm-up (at most a tenth of the run), then a cosine to 0."""
    warm_up = min(warm_up, steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def log_posteriors(network: StackedNetwork, inputs: torch.Tensor) -> torch.Tensor:
    """log p(y | x) of all instances [E, n, K], without gradients."""
    with torch.no_grad():
        parts = [network(inputs[:, i : i + CHUNK]).log_softmax(-1) for i in range(0, inputs.shape[1], CHUNK)]
    return torch.cat(parts, 1)


def _reseed(
    network: StackedNetwork, optimizer: torch.optim.Optimizer, logp: torch.Tensor, prior: np.ndarray,
    noise: Sequence[torch.Generator], reseeded: list[int],
) -> None:  # fmt: skip
    """Let empty outputs of every member begin anew, and forget the optimiser's state of what was changed."""
    mass = logp.exp().mean(1).double().numpy()
    weight, bias = network.head["weight"], network.head["bias"]
    for e in range(len(mass)):
        with torch.no_grad():
            changed = reseed(weight[e], bias[e, 0], mass[e], prior, noise[e])
        for parameter in (weight, bias):
            for name in ("exp_avg", "exp_avg_sq"):
                optimizer.state[parameter][name][e][:, changed] = 0
        reseeded[e] += len(changed) // 2


def group_log_likelihood(network: StackedNetwork, data: Groups, observation: Observation) -> np.ndarray:
    """Mean log p(z | x) of a group for every member, float64 [E]."""
    logp = data.posteriors(network, observation)
    members = torch.arange(len(logp))[:, None, None]
    of_groups = logp[members, data.groups]
    per_member = [log_likelihood(observation, of_groups[e], data.z[e]) for e in range(len(logp))]
    return torch.stack(per_member).double().mean(1).numpy()


def residual_entropy(network: StackedNetwork, data: Groups, observation: Observation) -> np.ndarray:
    """Mean entropy of an instance's label given its group's observation, nats, float64 [E].

    −Σ_j w_ij log w_ij under the posteriors of the trained members: what the observation leaves open, over the groups of
    the first LOOKED_AT instances.
    """
    few = data.part(slice(0, max(1, LOOKED_AT // data.groups.shape[2])))
    found = []
    with torch.no_grad():
        for e in range(len(few.groups)):
            groups = few.groups[e]
            logp = network(few.inputs[:, groups.flatten()])[e].log_softmax(-1).view(*groups.shape, -1)
            w, _ = weights(observation, few.known(observation, logp, groups), few.z[e])
            left = torch.special.entr(w).sum(-1).double()
            found.append(_mean(left[None], groups[None], few.filler).item())
    return np.array(found)


def member_mass(logp: torch.Tensor) -> np.ndarray:
    """Mean probability of each output, float64 [E, K], from log-posteriors [E, n, K]."""
    return logp.exp().mean(1).double().numpy()
