"""Two models on several data sets: what each comparison found, side by side. Nothing is pooled over data sets."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd

from rbp_lab.comparison.differences import Difference, holm
from rbp_lab.comparison.findings import Finding
from rbp_lab.comparison.pairs import measured
from rbp_lab.dimensions import named_apart
from rbp_lab.records import RunHeader
from rbp_lab.text import visible


@dataclass(frozen=True, eq=False)
class OnDataSet:
    """What one comparison found. name: of the data set, told apart from the others. distances: over all tokens by name,
    none for records. report: its own page."""

    name: str
    differences: Sequence[Difference]
    report: Path
    distances: Mapping[str, Finding] = field(default_factory=dict)


def together(sets: Sequence[OnDataSet]) -> list[OnDataSet]:
    """The same with p values adjusted for all comparisons on all of the data sets."""
    adjusted = iter(holm([d.p for one in sets for d in one.differences if d.p is not None]))
    return [
        replace(one, differences=[d if d.p is None else replace(d, p_adjusted=next(adjusted)) for d in one.differences])
        for one in sets
    ]


def verdict(sets: Sequence[OnDataSet], a: str, b: str) -> str:
    """How many data sets tell the models apart by the first quantity, at the level of its intervals; p values are
    adjusted for the number of data sets. a, b: what the models are called."""
    known = [one.differences[0] for one in sets if one.differences and one.differences[0].p is not None]
    if not known:
        return f"over {len(sets)} data sets no difference has an interval"
    apart = [d.difference > 0 for d, p in zip(known, holm([d.p for d in known]), strict=True) if p <= 1 - d.level]
    counts = {"worse": sum(apart), "better": len(apart) - sum(apart)}
    said = " and ".join(f"{how} on {number}" for how, number in counts.items() if number)
    parts = [f"run b, {visible(b)}, against run a, {visible(a)}, is {said}"] if said else []
    if len(apart) < len(known):
        parts.append(f"no difference is shown on {len(known) - len(apart)}")
    if len(known) < len(sets):
        parts.append(f"there is no interval on {len(sets) - len(known)}")
    names = " or ".join(dict.fromkeys(d.name for d in known))
    adjusted = f" (p adjusted for {len(known)} comparisons, Holm)" if len(known) > 1 else ""
    return f"of {len(sets)} data sets, by {names}, {'; '.join(parts)}{adjusted}"


def differences_over(sets: Sequence[OnDataSet]) -> pd.DataFrame:
    """One row for each data set and quantity."""
    return pd.DataFrame([{"dataset": one.name, **asdict(d)} for one in sets for d in one.differences])


def distances_over(sets: Sequence[OnDataSet]) -> pd.DataFrame:
    """One row for each data set and distance; empty for records."""
    return pd.DataFrame([{"dataset": one.name, **asdict(f)} for one in sets for f in one.distances.values()])


def names_of(headers: Sequence[RunHeader]) -> list[str]:
    """A name for the data set of each: its own, with the documents, the protocol, or the run where needed."""
    names = [header.dataset.name for header in named_apart(headers)]
    times = Counter(names)
    return [f"{n}, run {h.key[:6]}" if times[n] > 1 else n for n, h in zip(names, headers, strict=True)]


def digest_of(runs: Sequence[tuple[RunHeader, RunHeader]], quantities: Sequence[str]) -> str:
    """16 hexadecimal digits of what is compared: two models on some data sets in any order, by some quantities."""
    what = sorted(repr((measured(a), measured(b))) for a, b in runs)
    return hashlib.sha256(repr((what, *quantities)).encode()).hexdigest()[:16]
