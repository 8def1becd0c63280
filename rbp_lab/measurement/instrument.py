"""A model on the device of this process, ready to score the rows of a plan."""

from __future__ import annotations

import gc
import platform
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


@dataclass(frozen=True)
class Instrument:
    """A model on a device, and how its rows are scored. ran: that as plain JSON, for the record's provenance."""

    loaded: LoadedModel
    scorer: Scorer
    rules: RowRules
    ran: dict[str, Any]


def load_instrument(
    opened: OpenModel, spec: ScoringSpec, plan: WindowPlan, job: Choices, runtime: Runtime
) -> Instrument:
    """An opened model on this process's device, tried on rows of the plan that it is to score.

    Raises LabError when a record of it would mean nothing.
    """
    model = opened.info
    torch.set_float32_matmul_precision("high" if spec.tf32 else "highest")
    with enough_memory(f"to load model {model.name} and to try it on a row"):
        placement, loaded = _weights(opened, getattr(torch, spec.dtype), runtime, job.launch)
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


# The weights of the last measurement, and what they are: the next one of a sweep over data sets has the same.
_last: tuple[tuple[object, ...], tuple[Placement, LoadedModel]] | None = None


def release() -> None:
    """Let go of the weights that are kept for the next measurement; others must let go of them too."""
    global _last
    _last = None
    gc.collect()  # a model that is spread holds itself in a circle


def _weights(opened: OpenModel, dtype: torch.dtype, runtime: Runtime, launch: Launch) -> tuple[Placement, LoadedModel]:
    """The model's weights and where they lie; they stay in memory until another model's are asked for."""
    global _last
    info, limits = opened.info, launch.max_memory or {}
    how = (opened.attention, dtype, runtime.device, launch.placement, tuple(sorted(limits.items())))
    what = (info.path, info.revision, info.fingerprint, info.quantisation, *how)
    if _last is None or _last[0] != what:
        release()  # before the next ones take room
        memory = limited(memory_for_weights(runtime), limits)
        placement = place_model(opened.empty, dtype, runtime.device, memory, launch.placement)
        _last = what, (placement, opened.load(dtype, placement.device_map))
    return _last[1]
