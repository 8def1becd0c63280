"""Precision, protocol and corpus as dimensions of an analysis: what tells runs apart beside the model.

Runs at another precision, or with weights rounded in another way, belong to another family, and runs of another
protocol, or on other documents under the same name, to another data set. Their names say so, and nothing pools them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rbp_lab.records import ModelInfo, RunHeader, RunRecord
from rbp_lab.text import several

UNDONE = ("not rounded", "no tf32")


@dataclass(frozen=True)
class Dimension:
    """What tells a run from others of its corpus, in words; "" where all of them agree."""

    precision: str = ""
    protocol: str = ""


def precision_of(run: RunHeader | RunRecord) -> dict[str, str]:
    """How the numbers of a run were computed, in words by what is chosen."""
    spec = run.scoring
    return {
        "dtype": spec.dtype,
        "tf32": "tf32" if spec.tf32 else UNDONE[1],
        "logits": f"logits {spec.logits}",
        "quantisation": run.model.quantisation or UNDONE[0],
    }


def protocol_of(run: RunHeader | RunRecord) -> dict[str, str]:
    """What was scored, in words by what is chosen."""
    chosen = {name: f"{name.replace('_', ' ')} {value}" for name, value in run.scoring.protocol.items()}
    return chosen | {"candidates": f"candidates {run.scoring.candidates}"}


def told_apart(runs: Iterable[RunHeader | RunRecord]) -> dict[str, Dimension]:
    """The choices, by key, in which runs of some corpus differ, whatever these are called."""
    groups: dict[str, list[RunHeader | RunRecord]] = defaultdict(list)
    for run in runs:
        groups[run.dataset.fingerprint].append(run)
    precision, protocol = (
        {name for mine in groups.values() for name in _differing(map(choices, mine))}
        for choices in (precision_of, protocol_of)
    )
    return {
        run.key: Dimension(_words(precision_of(run), precision), _words(protocol_of(run), protocol))
        for mine in groups.values() for run in mine
    }  # fmt: skip


def _differing(choices: Iterable[Mapping[str, str]]) -> list[str]:
    """The choices that are not the same in all."""
    choices = list(choices)
    names = dict.fromkeys(name for one in choices for name in one)
    return [name for name in names if len({one.get(name) for one in choices}) > 1]


def _words(choices: Mapping[str, str], names: Iterable[str]) -> str:
    """The values of these choices; one that says what was not done only when it says all."""
    said = [value for name, value in choices.items() if name in names]
    return ", ".join([value for value in said if value not in UNDONE] or said)


def named_apart(headers: Sequence[RunHeader]) -> list[RunHeader]:
    """The headers, in their order, under names that tell precisions, protocols and corpora apart.

    A family that was measured at several precisions on one corpus becomes one family for each, with models of their
    own; a corpus that was scored by several protocols becomes a data set for each, and so does each corpus of one name.
    """
    headers = corpora_named_apart(headers)
    told = told_apart(headers)
    precisions, protocols = defaultdict(set), defaultdict(set)
    for header in headers:
        corpus = header.dataset.fingerprint
        precisions[corpus, header.model.family].add(told[header.key].precision)
        protocols[corpus].add(told[header.key].protocol)
    split = {family for (_, family), several in precisions.items() if len(several) > 1}
    named = []
    for header in headers:
        precision = told[header.key].precision if header.model.family in split else ""
        protocol = told[header.key].protocol if len(protocols[header.dataset.fingerprint]) > 1 else ""
        model = _unmarked(header.model) if precision else header.model.name
        names = (with_dimension(name, precision) for name in (model, header.model.family))
        named.append(header.named(*names, with_dimension(header.dataset.name, protocol)))
    return named


def corpora_named_apart(headers: Sequence[RunHeader]) -> list[RunHeader]:
    """The headers, in their order; where several corpora bear one name, each says which it is.

    By the number of its documents, "stdlib, 15 documents", or by its fingerprint where these are as many.
    """
    corpora: dict[str, dict[str, int]] = defaultdict(dict)
    for header in headers:
        corpora[header.dataset.name][header.dataset.fingerprint] = header.dataset.num_documents
    named = []
    for header in headers:
        of, mine = header.dataset, corpora[header.dataset.name]
        told = len(set(mine.values())) == len(mine)
        word = several(of.num_documents, "document") if told else f"texts {of.fingerprint[:12]}"
        name = with_dimension(of.name, word if len(mine) > 1 else "")
        named.append(header.named(header.model.name, header.model.family, name))
    return named


def apart_beside_names(headers: Iterable[RunHeader]) -> dict[str, str]:
    """What, by key, beside dtype and rounding tells a run from others of its model's and data set's name, in words.

    "" where nothing does: documents, protocol, the k and N of the tables, or fingerprints of texts and weights.
    """
    groups: dict[tuple[str, str], list[RunHeader]] = defaultdict(list)
    for header in headers:
        groups[header.model.name, header.dataset.name].append(header)
    words = {}
    for mine in groups.values():
        names = _differing(map(_choices, mine))
        if "documents" in names and "texts" in names:
            names.remove("texts")
        words |= {header.key: _words(_choices(header), names) for header in mine}
    return words


def _choices(header: RunHeader) -> dict[str, str]:
    """What may differ between runs whose names, dtype and rounding are shown."""
    of, spec = header.dataset, header.scoring
    return {
        "documents": several(of.num_documents, "document"),
        "texts": f"texts {of.fingerprint[:8]}",
        "weights": f"weights {header.model.fingerprint[:8]}",
        **protocol_of(header),
        **{name: word for name, word in precision_of(header).items() if name in ("tf32", "logits")},
        "k": _listed("k", spec.thresholds),
        "N": _listed("N", spec.window_lengths),
    }


def _listed(what: str, values: Sequence[int]) -> str:
    """ "k = 1, 10, 100", or of more than four "22 k from 1 to 30000"."""
    if len(values) > 4:
        return f"{len(values)} {what} from {values[0]} to {values[-1]}"
    return f"{what} = {', '.join(map(str, values))}"


def with_dimension(name: str, word: str) -> str:
    """A name that says its precision, protocol or corpus, before a checkpoint's step: "pythia-14m, int8@step512"."""
    first, at, step = name.partition("@")
    return f"{first}, {word}{at}{step}" if word else name


def without_dimension(name: str, word: str) -> str:
    """The name before ``with_dimension``."""
    first, at, step = name.partition("@")
    return first.removesuffix(f", {word}") + at + step if word else name


def _unmarked(model: ModelInfo) -> str:
    """The model's name without the mark of rounded weights that it may bear, "pythia-14m" of "pythia-14m+int8"."""
    return re.sub(rf"\+{re.escape(model.quantisation or '')}$", "", model.name, flags=re.IGNORECASE)
