"""The checkpoints of one training, each a model of its own: which there are, at which step, after how many tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from rbp_lab.errors import LabError, shown
from rbp_lab.hub.errors import explained, quiet
from rbp_lab.hub.files import cache_alone_when_unreachable
from rbp_lab.models.opening import listed, local_path
from rbp_lab.names import clean_name

if TYPE_CHECKING:
    from rbp_lab.models.hf import HFModel

PUBLISHED = "published"
# What may stand for model.checkpoints: so many, all that are published, a shell pattern, or names.
Checkpoints = int | str | list[str]

_STEP = re.compile(r"(?<![a-z])(?:global_?step|step|checkpoint|ckpt|iter)[-_]?(\d+)", re.IGNORECASE)
_TOKENS = re.compile(r"(?<![a-z])tokens[-_]?(\d+)([KMBT])(?![a-z0-9])", re.IGNORECASE)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\.\.(\d+)\}")
_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def step_of(label: str) -> int | None:
    """The training step that a branch or directory names ("step512", "checkpoint-1000"); None when it names none."""
    found = _STEP.search(label)
    return int(found[1]) if found else None


def tokens_of(label: str, tokens_per_step: int | None) -> int | None:
    """Tokens seen at a checkpoint: its step × tokens of a step, or what it says itself ("step150-tokens1B")."""
    step, said = step_of(label), _TOKENS.search(label)
    if step is not None and tokens_per_step is not None:
        return step * tokens_per_step
    return int(said[1]) * _UNITS[said[2].upper()] if said else None


def listed_out(labels: Sequence[str]) -> list[str]:
    """The labels, with "step{1000..3000..1000}" written out as step1000, step2000, step3000."""
    found = []
    for label in labels:
        match = _RANGE.search(label)
        if match is None:
            found.append(label)
            continue
        first, last, by = map(int, match.groups())
        if by < 1 or last < first:
            raise LabError(f"model.published: {label!r} is no rising range; write step{{FIRST..LAST..BY}}")
        found += [label[: match.start()] + str(n) + label[match.end() :] for n in range(first, last + 1, by)]
    return found


def choose(wanted: Checkpoints, published: Sequence[str], there: Callable[[], Sequence[str]], where: str) -> list[str]:
    """The checkpoints that ``wanted`` means, by step; names that are given stay in their order.

    published: those that the configuration lists, in which a pattern or number is looked for when there are any;
    elsewhere in ``there()``, the branches of a repository or the directories below one. where: both in words.
    LabError when nothing is meant.
    """
    if isinstance(wanted, list):
        if not wanted or len(set(wanted)) < len(wanted):
            raise LabError(f"model.checkpoints must name each checkpoint once; got {shown(wanted)}")
        return list(wanted)
    if wanted == PUBLISHED:
        if not published:
            raise LabError(
                "model.checkpoints=published: this model's configuration lists none (model.published); give names, "
                "a pattern such as 'step*', or a number"
            )
        return list(published)
    stepped = sorted((label for label in published or there() if step_of(label) is not None), key=step_of)
    if isinstance(wanted, str):
        found = [label for label in stepped if fnmatchcase(label, wanted)]
        if not found:
            have = f"; there are {listed(stepped)}" if stepped else ""
            raise LabError(f"model.checkpoints={wanted}: {where} has no such checkpoint with a step in its name{have}")
        _refuse_several_trainings(wanted, found, where)
        return found
    if wanted < 1:
        raise LabError(f"model.checkpoints must be at least 1; got {wanted}")
    stepped = [label for label in stepped if step_of(label) > 0]
    if not stepped:
        raise LabError(f"model.checkpoints={wanted}: {where} has no checkpoint with a step in its name")
    _refuse_several_trainings(wanted, stepped, where)
    steps = [step_of(label) for label in stepped]
    return [stepped[steps.index(step)] for step in log_spaced(steps, wanted)]


def _refuse_several_trainings(wanted: Checkpoints, labels: Sequence[str], where: str) -> None:
    """LabError when labels differ in more than steps and tokens: a second stage begins its count anew."""
    trainings = sorted({_TOKENS.sub("", _STEP.sub("", label)).strip("-_.") for label in labels})
    if len(trainings) > 1:
        raise LabError(
            f"model.checkpoints={wanted}: {where} has checkpoints of several trainings "
            f"({listed([shown(one) for one in trainings])}), whose steps are not those of one; choose a pattern that "
            "fits one of them, or names"
        )


def log_spaced(steps: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the positive ``steps``, the last among them, as evenly spaced in their logarithm as can be.

    The geometric sequence from the first to the last is rounded to the nearest step that is there (in the logarithm);
    steps that would come twice come once.
    """
    at = np.unique(np.asarray(steps, dtype=np.int64))
    wanted = np.linspace(np.log(at[0]), np.log(at[-1]), count) if count > 1 else np.log(at[-1:])
    nearest = np.abs(np.log(at)[:, None] - wanted).argmin(axis=0)
    return at[np.unique(nearest)].tolist()


def check_checkpoints(source: HFModel) -> None:
    """Check the fields of a source that are about checkpoints."""
    if source.tokens_per_step is not None and source.tokens_per_step < 1:
        raise LabError(f"model.tokens_per_step must be at least 1, or null; got {source.tokens_per_step}")
    if source.checkpoints is not None and source.revision is not None:
        raise LabError(
            f"model.revision={source.revision} is one checkpoint and model.checkpoints={shown(source.checkpoints)} "
            "several; give one of the two"
        )


def refuse_several(source: HFModel) -> None:
    """LabError when a source that is to be opened stands for several models."""
    if source.checkpoints is not None:
        raise LabError(
            f"model {source.name} stands for checkpoints (model.checkpoints={shown(source.checkpoints)}), each a model "
            "of its own: rbp-lab measure takes them all; elsewhere name one with model.revision or model.path"
        )


def checkpoint_models(source: HFModel) -> list[HFModel]:
    """The checkpoints of a source as models of their own, named ``name@step…``; [source] when none are asked for.

    LabError when the tokens that one had seen are not known, or the hub cannot say which there are.
    """
    if source.checkpoints is None:
        return [source]
    where = source.path if source.is_local else f"{source.path} on the hub"
    labels = choose(source.checkpoints, source.published, lambda: _labels(source), where)
    return [_checkpoint(source, label) for label in labels]


def _labels(source: HFModel) -> list[str]:
    """The branches of a repository, or the names of the directories in one of this machine."""
    with quiet(), explained(f"model {source.name}: cannot list the checkpoints of {source.path}"):
        if source.is_local:
            return sorted(path.name for path in local_path(source.path).iterdir() if path.is_dir())
        from huggingface_hub import list_repo_refs

        with cache_alone_when_unreachable():
            return [branch.name for branch in list_repo_refs(source.path).branches]


def _checkpoint(source: HFModel, label: str) -> HFModel:
    if source.published and label == source.published[-1]:
        return replace(source, checkpoints=None)
    tokens = tokens_of(label, source.tokens_per_step)
    if tokens is None:
        raise LabError(
            f"model.checkpoints: the tokens that {source.name} had seen at {label!r} are not known, so no law could "
            "tell it from another size; give model.tokens_per_step, and names that hold a step (step512)"
        )
    where = {"revision": label}
    if source.is_local:
        path = (local_path(source.path) / label).absolute()
        where = {"path": str(path), "name": f"{source.name}@{clean_name(label)}"}
    return replace(source, **where, checkpoints=None, published=[], step=step_of(label), training_tokens=tokens)
