"""A finished run as W&B holds it, checked: whoever may write to the project may have written anything.

A value from W&B becomes a number or a name here, or the run is refused with a sentence; nothing else of it is used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rbp_lab.errors import LabError
from rbp_lab.records import DatasetInfo, ModelInfo, ParamCounts, RunHeader, RunRecord, ScoringSpec
from rbp_lab.store.layout import is_key
from rbp_lab.tracking.wandb.names import STEP

# What only the record's tables give; a run without its artifact takes no part in these.
NEEDS_TABLES = (
    "other k or N, the lognormal of ranks, fits to counts, emergence with its free exponent, the parts of "
    "cross-entropy by rank, calibration, the influence of documents"
)
LONGEST = 300  # characters of a name or a fingerprint
LARGEST = 1 << 62  # of a count
_NUMBERS = re.compile(r"ce|tokens|documents|rbp/[1-9][0-9]{0,17}|ce/se_log|rbp/[1-9][0-9]{0,17}/se_log")


@dataclass(frozen=True)
class RemoteRun:
    """A finished run on a W&B server.

    where: the run, for messages. header: what was measured. numbers: ``ce``, ``tokens``, ``documents``, ``rbp/K`` and
    their ``/se_log`` from the run's summary. record: the record as it was mirrored, None when it cannot be had; why.
    """

    where: str
    header: RunHeader
    numbers: Mapping[str, float]
    record: RunRecord | None = None
    why: str = ""


def shown(value: object) -> str:
    """A foreign value for a message: one line, printable, short."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else "?" for c in text[:200])
    return text if len(text) <= 80 else text[:79] + "…"


def is_name(value: object) -> bool:
    """Whether a foreign value can stand for a name: a text, not empty, not long, without control characters."""
    return isinstance(value, str) and 1 <= len(value) <= LONGEST and value.isprintable()


def header_from_config(config: object) -> RunHeader:
    """The header in a run's configuration; LabError unless ``names.record_config`` could have written it."""
    if not isinstance(config, Mapping):
        raise LabError(f"its configuration is no mapping: {shown(config)}")
    c = _Fields(config)
    if not is_key(config.get("key")):
        raise LabError(f"its key is {shown(config.get('key'))}, not 16 hexadecimal digits")
    total, non_embedding, rows = (c.count(name) for name in ("total_params", "non_embedding_params", "vocab_rows"))
    if non_embedding > total:
        raise LabError(f"its non_embedding_params, {non_embedding}, are more than its total_params, {total}")
    model = ModelInfo(
        name=c.text("model"), family=c.text("family"), path="", revision=c.optional_text("model_revision"),
        fingerprint=c.text("model_fingerprint"), architecture=c.text("architecture"), stored_dtype=None,
        vocab_rows=rows, tokenizer_size=rows, max_positions=None,
        params=ParamCounts(total, total - non_embedding, 0),
        training_tokens=c.optional_whole("training_tokens"), quantisation=c.optional_text("quantisation"),
        step=c.optional_whole("training_step"), warmup_tokens=c.optional_whole("warmup_tokens"),
    )  # fmt: skip
    scoring = ScoringSpec(
        dtype=c.text("precision"), tf32=c.flag("tf32"), logits=c.text("logits"), candidates=c.text("candidates"),
        protocol=c.choices("protocol"), thresholds=c.counts("thresholds"), window_lengths=c.counts("windows"),
        attention=c.optional_text("attention"),
    )  # fmt: skip
    dataset = DatasetInfo(c.text("dataset"), c.text("dataset_fingerprint"), 0, {})
    return RunHeader(config["key"], model, dataset, scoring)


@dataclass(frozen=True)
class _Fields:
    """A mapping whose values are read with a type; LabError names the field and what it holds."""

    values: Mapping[str, Any]

    def _wrong(self, name: str, expected: str) -> LabError:
        got = shown(self.values[name]) if name in self.values else "missing"
        return LabError(f"its configuration is not one of rbp_lab's: {name} must be {expected}, got {got}")

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if not is_name(value):
            raise self._wrong(name, f"a text of at most {LONGEST} printable characters")
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self.values.get(name) is None else self.text(name)

    def optional_whole(self, name: str) -> int | None:
        return 0 if self.values.get(name) == 0 else None if self.values.get(name) is None else self.count(name)

    def flag(self, name: str) -> bool:
        if not isinstance(self.values.get(name), bool):
            raise self._wrong(name, "true or false")
        return bool(self.values[name])

    def count(self, name: str) -> int:
        if not _is_count(self.values.get(name)):
            raise self._wrong(name, "a positive whole number")
        return int(self.values[name])

    def counts(self, name: str) -> tuple[int, ...]:
        values = self.values.get(name)
        if not isinstance(values, list | tuple) or not 1 <= len(values) <= 10_000 or not all(map(_is_count, values)):
            raise self._wrong(name, "a list of positive whole numbers")
        return tuple(int(value) for value in values)

    def choices(self, name: str) -> dict[str, Any]:
        """A flat mapping of short names to plain values, or to lists of them."""
        found = self.values.get(name)
        if not isinstance(found, Mapping) or len(found) > 50:
            raise self._wrong(name, "a small mapping")
        for key, value in found.items():
            plain = value if isinstance(value, list | tuple) else [value]
            if not isinstance(key, str) or len(key) > LONGEST or not all(map(_is_plain, plain)):
                raise self._wrong(name, "a small mapping of plain values")
        return dict(found)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST and value.isprintable()
    return value is None or isinstance(value, bool) or (isinstance(value, int | float) and math.isfinite(value))


def numbers_from_summary(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a run's summary that points are made of; LabError when one of them cannot be."""
    numbers: dict[str, float] = {}
    for name, value in summary.items():
        if not isinstance(name, str) or not _NUMBERS.fullmatch(name):
            continue
        high = 1.0 if name.startswith("rbp/") and not name.endswith("/se_log") else float(LARGEST)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= high:  # false for NaN too
            raise LabError(f"its summary has {name} = {shown(value)}, which cannot be")
        numbers[name] = float(value)
    for name in ("ce", STEP):
        if name not in numbers:
            raise LabError(f"its summary lacks {name}")
    if numbers[STEP] < 1 or numbers[STEP] != int(numbers[STEP]):
        raise LabError(f"its summary has {STEP} = {numbers[STEP]:g}, not a positive whole number")
    return numbers


def summary_rows(run: RemoteRun, ks: Sequence[int], size: str) -> list[dict[str, Any]]:
    """The points in a run's summary: cross-entropy, and −log RBP_k for the k of ``ks`` that it has."""
    header, numbers = run.header, run.numbers
    base = {
        "model": header.model.name, "family": header.model.family, "dataset": header.dataset.name, "window": 1,
        "size": header.model.params.size(size),
        "n": int(numbers[STEP]), "key": header.key, "documents": int(numbers.get("documents", 0)) or pd.NA,
        "training_tokens": header.model.training_tokens, "warmup_tokens": header.model.warmup_tokens,
    }  # fmt: skip

    def se(name: str) -> float:
        return numbers.get(f"{name}/se_log", math.nan)

    rows = [base | {"metric": "ce", "k": pd.NA, "value": numbers["ce"], "se_log": se("ce")}]
    for k in ks:
        if f"rbp/{k}" in numbers:
            p = numbers[f"rbp/{k}"]
            value = abs(math.log(p)) if p > 0 else math.inf
            rows.append(base | {"metric": "neg_log_rbp", "k": k, "value": value, "se_log": se(f"rbp/{k}")})
    return rows
