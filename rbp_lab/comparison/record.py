"""The record of two models compared in one pass: what it is of, its sums, and its directory in the store.

``<store>/comparisons/<key>/`` holds comparison.json (both headers, provenance, the bounds of the cells, the sha256 of
every file) and parquet tables:

* cells: document_id, cell_a, cell_b (of confidence, ``sums.CONFIDENCE``) and the sums of ``sums.columns``
* transitions: document_id, rank_a, rank_b (bins of ``sums.RANKS``), tokens
* moves: cell_a, cell_b, bin (of Δp, ``sums.move_bin``), tokens
* spread: document_id, cell_a, cell_b, octave (of Δp, ``sums.octave_of``), tokens
* runs: document_id, length, count (of tokens in a row at which the first choices are the same)
* documents: document_id, name
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rbp_lab.comparison.sums import CONFIDENCE, PARTS, RANKS, PairSums, Tally, columns, unit_of
from rbp_lab.records import RunHeader
from rbp_lab.store.atomic import atomic_directory
from rbp_lab.store.header import (
    CHECKSUMS,
    OWN,
    checksum_of,
    damage_named,
    header_as_json,
    run_header,
    sealed,
    sha256,
    sha256_of,
)
from rbp_lab.store.layout import PairFiles, Store

# What b is when it is a itself.
PERTURBATIONS = {
    "noise": "a with its hidden states times 1 ± 2⁻⁹, the rounding of bf16",
    "batch": "a with every row computed beside another one",
}
VERSION = 3  # raised whenever the meaning of a stored number changes
TABLES = (*PARTS, "documents")
KEYS = {
    "cells": ("document_id", "cell_a", "cell_b"),
    "transitions": ("document_id", "rank_a", "rank_b"),
    "moves": ("cell_a", "cell_b", "bin"),
    "spread": ("document_id", "cell_a", "cell_b", "octave"),
    "runs": ("document_id", "length"),
}


@dataclass(frozen=True)
class PairHeader:
    """What a comparison is of, known before its first token is scored.

    a, b: headers of the measurements of both models by themselves, whether they are in the store or not. ks: thresholds
    of hits and overlaps. perturbation: None, or by what b differs from a, which is the same model
    (one of PERTURBATIONS).
    """

    a: RunHeader
    b: RunHeader
    ks: tuple[int, ...]
    perturbation: str | None = None

    @property
    def key(self) -> str:
        """Hexadecimal hash (16 digits) of what determines the comparison's numbers; names do not."""
        what = {"version": VERSION, "a": self.a.key, "b": self.b.key, "ks": self.ks, "cells": [CONFIDENCE, RANKS],
                "perturbation": self.perturbation}  # fmt: skip
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class PairRecord:
    """A finished comparison. names: of the documents, by document_id. provenance: never part of the key."""

    header: PairHeader
    sums: PairSums
    names: Mapping[int, str]
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredPair:
    """A finished comparison of a store, known by its header; ``read`` gives it."""

    header: PairHeader
    store: str | Path

    def read(self) -> PairRecord:
        """The comparison, as of ``read_pair``."""
        return read_pair(self.store, self.header.key)


def has_pair(store: str | Path, key: str) -> bool:
    """Whether a finished comparison of this key is in the store."""
    return Store(store).pair(key).header.is_file()


def list_pairs(store: str | Path) -> Iterator[PairHeader]:
    """What the finished comparisons in the store are of, by key; those of other versions and damaged ones are left out:
    ``read_pair`` says what is wrong with one that is asked for."""
    for files in Store(store).pairs():
        try:
            about = json.loads(files.header.read_bytes())
            if about["version"] == VERSION:
                yield _header(about)
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _header(about: Mapping[str, Any]) -> PairHeader:
    return PairHeader(run_header(about["a"]), run_header(about["b"]), tuple(about["ks"]), about["perturbation"])


def write_pair(store: str | Path, record: PairRecord) -> Path:
    """Write a finished comparison atomically and return its directory; LabError when the disk refuses."""
    header, key = record.header, record.header.key
    about = {
        "version": VERSION,
        "key": key,
        "a": header_as_json(header.a),
        "b": header_as_json(header.b),
        "ks": header.ks,
        "perturbation": header.perturbation,
        "confidence": CONFIDENCE,
        "ranks": RANKS,
        "tokens": int(record.sums.column("tokens").sum()),
        "provenance": record.provenance,
    }
    target = Store(store).pair(key).directory.with_name(key)
    with atomic_directory(target) as directory:
        files = PairFiles(directory)
        for name, table in _tables(record).items():
            table.to_parquet(files.table(name), index=False)
        checksums = {files.table(name).name: sha256_of(files.table(name)) for name in TABLES}
        files.header.write_text(sealed(about, checksums), encoding="utf-8")
    return target


def read_pair(store: str | Path, key: str) -> PairRecord:
    """The comparison of a key, equal to the last bit to the one written.

    Checksums are verified. Raises DamagedRecord, or another LabError when the files may not be read.
    """
    files = Store(store).pair(key)
    with damage_named(files):
        about = json.loads(files.header.read_bytes())
        if about["version"] != VERSION:
            raise ValueError(f"comparison version {about['version']!r}, this rbp_lab reads {VERSION}")
        if about[CHECKSUMS][OWN] != checksum_of(about):
            raise ValueError("the checksum of comparison.json does not hold")
        header = _header(about)
        if not header.key == about["key"] == key:
            raise ValueError("its key is not that of what comparison.json describes")
        tables = {name: _read(files.table(name), about) for name in TABLES}
        sums = PairSums(header.ks, *(_tally(tables[name], KEYS[name], _values(name, header.ks)) for name in PARTS))
        if sums.column("tokens").sum() != about["tokens"]:
            raise ValueError("the tables do not hold as many tokens as comparison.json says")
        names = dict(zip(tables["documents"]["document_id"].tolist(), tables["documents"]["name"], strict=True))
        return PairRecord(header, sums, names, about["provenance"])


def _tables(record: PairRecord) -> dict[str, pd.DataFrame]:
    sums = record.sums
    found = {name: _frame(getattr(sums, name), KEYS[name], _values(name, sums.ks)) for name in PARTS}
    ids = np.unique(sums.cells.keys[:, 0])
    return found | {"documents": pd.DataFrame({"document_id": ids, "name": [record.names[int(i)] for i in ids]})}


def _values(name: str, ks: Sequence[int]) -> tuple[str, ...]:
    """The columns of a table that are sums."""
    return columns(ks) if name == "cells" else ("count",) if name == "runs" else ("tokens",)


def _frame(tally: Tally, keys: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Sums as people read them: counts as whole numbers, the others in nats and shares."""
    named = dict(zip(keys, tally.keys.T, strict=True))
    for name, column in zip(values, tally.sums.T, strict=True):
        named[name] = column if unit_of(name) == 1.0 else column * unit_of(name)
    return pd.DataFrame(named)


def _tally(table: pd.DataFrame, keys: Sequence[str], values: Sequence[str]) -> Tally:
    sums = []
    for name in values:
        column = table[name].to_numpy()
        units = np.rint(column / unit_of(name)).astype(np.int64)
        if not np.array_equal(units * unit_of(name), column):
            raise ValueError(f"{name} holds values that are no multiples of {unit_of(name)}")
        sums.append(units)
    return Tally(table[list(keys)].to_numpy(np.int64), np.stack(sums, 1))


def _read(path: Path, about: Mapping[str, Any]) -> pd.DataFrame:
    data = path.read_bytes()
    if sha256(data) != about[CHECKSUMS][path.name]:
        raise ValueError(f"the checksum of {path.name} does not hold")
    return pd.read_parquet(io.BytesIO(data))
