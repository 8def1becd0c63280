"""A model on the device of this process, ready to score the rows of a plan."""

from __future__ import annotations

import gc
import platform
import weakref
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import transformers

from rbp_lab import __version__
from rbp_lab.config.schemas import Launch
from rbp_lab.data.windows import WindowPlan
from rbp_lab.errors import note
from rbp_lab.measurement.devices import Runtime, memory_for_weights
from rbp_lab.measurement.job import Choices
from rbp_lab.models.placement import Placement, enough_memory, limited, place_model
from rbp_lab.models.row_probe import RowRules, probe_rows, row_lengths
from rbp_lab.models.scorer import Scorer, describe_head
from rbp_lab.models.source import LoadedModel, OpenModel
from rbp_lab.models.weights import coarsest_eps
from rbp_lab.records import ScoringSpec

InFormat = tuple[OpenModel, str]  # a model, and the name of the dtype of its weights in memory


@dataclass(frozen=True)
class Instrument:
    """A model on a device, and how its rows are scored. ran: that as plain JSON, for the record's provenance."""

    loaded: LoadedModel
    scorer: Scorer
    rules: RowRules
    ran: dict[str, Any]


def load_instrument(
    opened: OpenModel,
    spec: ScoringSpec,
    plan: WindowPlan,
    job: Choices,
    runtime: Runtime,
    beside: Sequence[InFormat] = (),
) -> Instrument:
    """An opened model on this process's device, tried on rows of the plan that it is to score.

    beside: models whose weights may stay in memory together with its own. Raises LabError when a record of it would
    mean nothing.
    """
    model = opened.info
    torch.set_float32_matmul_precision("high" if spec.tf32 else "highest")
    with enough_memory(f"to load model {model.name} and to try it on a row"):
        placement, loaded = _weights((opened, spec.dtype), beside, runtime, job.launch)
        scorer = Scorer(
            loaded.network,
            placement.device,
            num_candidates=min(model.vocab_rows, model.tokenizer_size) if spec.candidates == "tokenizer" else None,
            logits=spec.logits,
            budget=None if job.scoring.logits_mb is None else int(job.scoring.logits_mb * 2**20),
            implementation=job.scoring.implementation,
            lengths=sorted({*row_lengths(plan), int(plan.width.max())}),
        )
    rules = probe_rows(plan, scorer, coarsest_eps(loaded.network), scorer.reset)
    notes = [*opened.notes, *loaded.notes]
    notes += [describe_head(scorer.plan)] if scorer.plan.kind != "head" else []
    notes += [line for line in (rules.sentence(), placement.sentence()) if line]
    if runtime.is_main:
        for line in notes:
            note(f"model {model.name}: {line}")
    ran = {
        "device": placement.device,
        "placement": dict(placement.shares),
        "machine": platform.processor() or platform.machine(),
        "head": describe_head(scorer.plan),
        "implementation": scorer.implementation,
        "product": scorer.product,
        "attention": getattr(loaded.network.config, "_attn_implementation", None),
        "rows": asdict(rules),
        "notes": notes,
        "rbp_lab": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return Instrument(loaded, scorer, rules, ran)


# Weights that are in memory, by what they are: the next job of a sweep over data sets has the same.
_kept: dict[tuple[object, ...], tuple[Placement, LoadedModel]] = {}


def keep_only(models: Sequence[InFormat], runtime: Runtime, launch: Launch) -> list[Placement | None]:
    """Let go of the weights of all but some models; others must let go of them too. Where those of each lie, if they
    are in memory."""
    wanted = [_what(*one, runtime, launch) for one in models]
    _let_go(_kept.keys() - set(wanted))
    return [_kept[what][0] if what in _kept else None for what in wanted]


def release() -> None:
    """Let go of all weights that are kept for the next job."""
    _let_go(set(_kept))


def _let_go(models: Collection[tuple[object, ...]]) -> None:
    networks = [weakref.ref(_kept.pop(what)[1].network) for what in models]
    # A model that is spread holds itself in a circle; to look for such takes a quarter of a second.
    if any(network() is not None for network in networks):
        gc.collect()


def _what(opened: OpenModel, dtype: str, runtime: Runtime, launch: Launch) -> tuple[object, ...]:
    """What decides weights in memory and where they lie."""
    info, limits = opened.info, tuple(sorted((launch.max_memory or {}).items()))
    how = (opened.attention, dtype, runtime.device, launch.placement, limits)
    return info.path, info.revision, info.fingerprint, info.quantisation, *how


def _weights(
    model: InFormat, beside: Sequence[InFormat], runtime: Runtime, launch: Launch
) -> tuple[Placement, LoadedModel]:
    """The model's weights and where they lie; they stay in memory until those of one that is not beside it are
    loaded."""
    opened, dtype, what = model[0], getattr(torch, model[1]), _what(*model, runtime, launch)
    if what not in _kept:
        keep_only(beside, runtime, launch)  # before the next ones take room
        memory = limited(memory_for_weights(runtime), launch.max_memory or {})
        placement = place_model(opened.empty, dtype, runtime.device, memory, launch.placement)
        _kept[what] = placement, opened.load(dtype, placement.device_map)
    return _kept[what]
