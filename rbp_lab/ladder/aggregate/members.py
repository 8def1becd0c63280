"""Trained classifiers on disk: find the finished ones of a configuration, train the others side by side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from rbp_lab.ladder.aggregate.configuration import Configuration
from rbp_lab.ladder.aggregate.guards import Alignment, align
from rbp_lab.ladder.aggregate.networks import StackedNetwork
from rbp_lab.ladder.aggregate.observations import PERMUTATION
from rbp_lab.ladder.aggregate.tasks import Split
from rbp_lab.ladder.aggregate.training import (
    Groups,
    StepHook,
    Trained,
    group_log_likelihood,
    log_posteriors,
    member_mass,
    observed,
    residual_entropy,
    train,
)
from rbp_lab.store.atomic import atomic_directory
from rbp_lab.store.layout import TRAINING_FILE, WEIGHTS_FILE, Store

HELD_OUT = 10  # one group in so many chooses among restarts
RESTART_STRIDE = 1000  # seeds of restarts lie that far apart


@dataclass(frozen=True, eq=False)
class Member:
    """A trained classifier. record: its ``training.json``. trained: False when it was found."""

    name: str
    family: str
    directory: Path
    record: dict[str, Any]
    trained: bool

    @property
    def merged(self) -> bool:
        """Whether classes share an output, so that it must not be measured."""
        return bool((self.record["alignment"] or {}).get("merged"))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights as they are stored."""
        return hashlib.sha256((self.directory / WEIGHTS_FILE).read_bytes()).hexdigest()

    def network(self, configuration: Configuration, split: Split) -> StackedNetwork:
        """The classifier, as a stack of one."""
        network = configuration.classifier.build(split.shape, len(split.classes), [0])
        network.load_state_dict(load_file(self.directory / WEIGHTS_FILE))
        return network.eval()


def train_or_find(
    configuration: Configuration,
    splits: dict[int, Split],
    store: Store,
    force: bool = False,
    on_step: StepHook = lambda step, steps, risk: None,
) -> list[Member]:
    """The members of a configuration, one per seed: those on disk, and the others, trained side by side.

    splits: by seed. A member on disk counts when it was trained with the same settings on the same instances. Each
    appears complete or not at all. Raises LabError when configuration and task do not fit.
    """
    found: dict[int, Member] = {}
    for seed in configuration.seeds:
        configuration.check(splits[seed])
        record = None if force else _found(configuration, seed, splits[seed], store)
        if record is not None:
            found[seed] = _member(configuration, seed, splits[seed], store, record, trained=False)
    missing = tuple(seed for seed in configuration.seeds if seed not in found)
    if missing:
        for seed, record in _train(configuration.only(missing), splits, store, on_step).items():
            found[seed] = _member(configuration, seed, splits[seed], store, record, trained=True)
    return [found[seed] for seed in configuration.seeds]


def _member(c: Configuration, seed: int, split: Split, store: Store, record: dict[str, Any], trained: bool) -> Member:
    name = c.name(split.shape, seed)
    return Member(name, c.family, store.classifier(name), record, trained)


def _found(configuration: Configuration, seed: int, split: Split, store: Store) -> dict[str, Any] | None:
    """``training.json`` of the finished member, None when there is none, or another one."""
    directory = store.classifier(configuration.name(split.shape, seed))
    try:
        record = json.loads((directory / TRAINING_FILE).read_text(encoding="utf-8"))
        same = record["settings"] == json.loads(json.dumps(configuration.settings(split.shape, seed)))
        same = same and record["task"]["fingerprint"] == split.fingerprint("train")
        return record if same and (directory / WEIGHTS_FILE).is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _train(
    configuration: Configuration, splits: dict[int, Split], store: Store, on_step: StepHook
) -> dict[int, dict[str, Any]]:
    """Train every seed, choose among restarts, match outputs with classes, and save; ``training.json`` by seed."""
    seeds, observation = configuration.seeds, configuration.observed
    shape, classes = splits[seeds[0]].shape, len(splits[seeds[0]].classes)
    recipe = configuration.training.resolved(observation, shape)
    prior = recipe.prior_of(classes)
    begin = datetime.now(UTC)
    members = [(seed, restart) for seed in seeds for restart in range(recipe.restarts)]
    data = _data(configuration, [(seed, splits[seed]) for seed, _ in members])
    count = data.groups.shape[1]
    kept = count - (count // HELD_OUT if recipe.restarts > 1 else 0)
    learned, held = data.part(slice(0, kept)), data.part(slice(kept, None))
    beginnings = [seed * RESTART_STRIDE + restart for seed, restart in members]
    network = configuration.classifier.build(shape, classes, beginnings)
    result = train(network, learned, observation, configuration.objective, recipe, beginnings, prior, on_step)
    network.eval()
    logp = log_posteriors(network, data.inputs)
    mass, left = member_mass(logp), residual_entropy(network, learned, observation)
    score = group_log_likelihood(network, held, observation) if recipe.restarts > 1 else np.zeros(len(members))
    seconds = (datetime.now(UTC) - begin).total_seconds()
    records = {}
    for i, seed in enumerate(seeds):
        restarts = range(i * recipe.restarts, (i + 1) * recipe.restarts)
        best = max(restarts, key=lambda e: score[e])
        weights = network.member(best)
        alignment = None
        if observation.identifies == PERMUTATION:
            labels = splits[seed].labels
            some = np.random.default_rng((seed, 3)).permutation(len(labels))[: recipe.labelled]
            alignment = align(logp[best, some].exp().double().numpy(), labels[some], mass[best], prior)
            for name in [name for name in weights if name.startswith("head.")]:
                weights[name] = weights[name][..., list(alignment.output)].contiguous()
        records[seed] = _record(
            configuration, seed, splits[seed], network, result, best, alignment, float(left[best]),
            {"chosen": best - restarts[0], "held_out_log_likelihood": score[list(restarts)].tolist()}
            if recipe.restarts > 1 else None,
            begin, seconds,
        )  # fmt: skip
        with atomic_directory(store.classifier(records[seed]["name"])) as directory:
            save_file(weights, directory / WEIGHTS_FILE)
            (directory / TRAINING_FILE).write_text(json.dumps(records[seed], indent=1) + "\n", encoding="utf-8")
    return records


def _data(configuration: Configuration, splits: list[tuple[int, Split]]) -> Groups:
    """What members learn from, by seed and split: groups that are drawn, or the bags of the data, filled up."""
    if any(split.bags is None for _, split in splits):
        inputs, labels = _stacked(s.inputs for _, s in splits), _stacked(s.labels for _, s in splits)
        groups = _stacked(configuration.sampler.groups(labels.shape[1], seed) for seed, _ in splits)
        return Groups(inputs, groups, observed(configuration.observed, labels, groups))
    filler = max(len(s.inputs) for _, s in splits)
    width = max(s.bags.groups.shape[1] for _, s in splits)
    inputs = np.zeros((len(splits), filler + 1, *splits[0][1].inputs.shape[1:]), np.float32)
    groups = np.full((len(splits), len(splits[0][1].bags.z), width), filler)
    for e, (_, s) in enumerate(splits):
        inputs[e, : len(s.inputs)] = s.inputs
        groups[e, :, : s.bags.groups.shape[1]] = np.where(s.bags.groups == len(s.inputs), filler, s.bags.groups)
    return Groups(torch.from_numpy(inputs), torch.from_numpy(groups), _stacked(s.bags.z for _, s in splits), filler)


def _stacked(arrays: Iterable[np.ndarray]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(array) for array in arrays])


def _record(
    configuration: Configuration, seed: int, split: Split, network: StackedNetwork, result: Trained, e: int,
    alignment: Alignment | None, left: float, restarts: dict[str, Any] | None, begin: datetime, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """``training.json``. seconds: of the whole stack; its members train at once."""
    params = network.params()
    return {
        "name": configuration.name(split.shape, seed),
        "family": configuration.family,
        "settings": configuration.settings(split.shape, seed),
        "task": {"name": split.name, "fingerprint": split.fingerprint("train"), "info": split.info},
        "classes": list(split.classes),
        "non_embedding_parameters": params.non_embedding,
        "parameters": {"total": params.total, "embedding": params.embedding, "head": params.head},
        "training_instances": len(split.labels),
        "risk": [round(float(r), 6) for r in result.risk[:, e]],
        "residual_label_entropy": left,
        "alignment": None if alignment is None else {
            "output_of_class": list(alignment.output), "margin": alignment.margin, "empty": list(alignment.empty),
            "merged": alignment.merged, "labelled": min(configuration.training.labelled, len(split.labels)),
        },
        "restarts": restarts,
        "reseeded_outputs": result.reseeded[e],
        "impossible_observations_in_stack": result.impossible,
        "members_in_stack": result.risk.shape[1],
        "finished": begin.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }  # fmt: skip
