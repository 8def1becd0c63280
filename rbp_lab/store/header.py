"""record.json: what a record is of, in JSON, with checksums that show when a byte of the record has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rbp_lab.errors import LabError, first_line, out_of_memory
from rbp_lab.records import RECORD_VERSION, DatasetInfo, ModelInfo, ParamCounts, RunHeader, RunRecord, ScoringSpec
from rbp_lab.stats import UNIT
from rbp_lab.store.layout import PairFiles, RecordFiles

TABLES = ("ranks", "windows", "documents", "document_ranks", "document_runs")
# The entry with the sha256 of every table's file, and within it the one of all other entries of record.json.
CHECKSUMS, OWN = "sha256", "header"
# Entries of a record.json that was written before there were checksums.
_FIRST_ENTRIES = {"version", "key", "model", "dataset", "scoring", "summary", "totals", "provenance"}


class DamagedRecord(LabError):
    """A record whose files do not hold what was written."""


def header_text(record: RunRecord, checksums: Mapping[str, str]) -> str:
    """record.json: the header with the checksums of the tables, and last one over everything else in it."""
    return sealed(_as_json(record), checksums)


def sealed(header: Mapping[str, Any], checksums: Mapping[str, str]) -> str:
    """A header as the text of its file, with checksums of other files, and last one over everything else in it."""
    header = json.loads(json.dumps(header, allow_nan=False))  # as a reader will have it
    header[CHECKSUMS] = dict(checksums)
    header[CHECKSUMS][OWN] = checksum_of(header)
    return json.dumps(header, indent=2) + "\n"


def checksum_of(header: Mapping[str, Any]) -> str:
    """sha256 over the values of a header, without its own checksum, however the file is laid out."""
    tables = {name: value for name, value in header[CHECKSUMS].items() if name != OWN}
    return sha256(json.dumps({**header, CHECKSUMS: tables}, sort_keys=True, separators=(",", ":")).encode())


def sha256(data: bytes) -> str:
    """Hexadecimal sha256, 64 digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's contents, read a piece at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def header_as_json(header: RunHeader) -> dict[str, Any]:
    """What a measurement is of, as ``run_header`` reads it."""
    return {
        "key": header.key,
        "model": asdict(header.model) | {"non_embedding_params": header.model.params.non_embedding},
        "dataset": asdict(header.dataset),
        "scoring": asdict(header.scoring),
        "other_names": {"models": header.other_models, "datasets": header.other_datasets},
    }


def _as_json(record: RunRecord) -> dict[str, Any]:
    stats = record.stats
    return {
        "version": RECORD_VERSION,
        **header_as_json(record.header),
        "summary": record.summary,
        "totals": {
            "vocab_rows": stats.vocab_rows,
            "num_tokens": stats.num_tokens,
            "num_documents": stats.num_documents,
            "num_bytes": stats.num_bytes,
            "num_tied": stats.num_tied,
            "entropy_sum": stats.entropy_units * UNIT,
        },
        "provenance": record.provenance,
    }


@contextmanager
def damage_named(files: RecordFiles | PairFiles) -> Iterator[None]:
    """Whatever a damaged file makes its readers raise, as one sentence that names the record."""
    try:
        yield
    except LabError:
        raise
    except PermissionError as error:
        raise LabError(f"{error.filename or files.directory} may not be read: {error.strerror}") from error
    except Exception as error:
        if out_of_memory(error):  # the record is not to blame
            raise
        what = first_line(error)
        if isinstance(error, FileNotFoundError):
            what = f"{Path(error.filename).name} is missing"
        elif isinstance(error, KeyError):
            what = f"there is no {what}"
        raise DamagedRecord(f"{files.directory} is not a readable record ({what}); measure it again") from error


def read_header(files: RecordFiles, key: str | None = None) -> dict[str, Any]:
    """record.json, verified as far as it can be without the tables; arguments and errors as of ``read_record``."""
    with damage_named(files):
        header = json.loads(files.header.read_bytes())
        version = header["version"]
        if version != RECORD_VERSION:
            raise ValueError(f"record version {version!r}, this rbp_lab reads {RECORD_VERSION}")
        if header["key"] != key and key is not None:
            raise ValueError(f"it is the record of another key, {header['key']!r}")
        if set(header) == _FIRST_ENTRIES:  # written before records had checksums
            if header["key"] != _first_key(header):
                raise ValueError("its key is not that of what record.json describes")
        elif set(header) != _FIRST_ENTRIES | {CHECKSUMS, "other_names"}:
            raise ValueError(f"record.json has the entries {', '.join(sorted(header))}")
        elif set(header[CHECKSUMS]) != {OWN, *(files.table(name).name for name in TABLES)}:
            raise ValueError("record.json does not list the checksum of every file")
        elif header[CHECKSUMS][OWN] != checksum_of(header):
            raise ValueError("the checksum of record.json does not hold")
        if header["totals"]["vocab_rows"] != header["model"]["vocab_rows"]:
            raise ValueError("record.json states two numbers of vocabulary rows")
        return header


def _first_key(header: Mapping[str, Any]) -> str:
    """The key of what a record without checksums describes, from its own JSON."""
    model = header["model"]
    what = {
        "version": header["version"],
        "model": {
            "fingerprint": model["fingerprint"], "vocab_rows": model["vocab_rows"],
            "tokenizer": model["tokenizer_size"],
        },
        "dataset": {"fingerprint": header["dataset"]["fingerprint"]},
        "scoring": header["scoring"],
    }  # fmt: skip
    return sha256(json.dumps(what, sort_keys=True, separators=(",", ":")).encode())[:16]


def run_header(header: Mapping[str, Any]) -> RunHeader:
    model = {k: v for k, v in header["model"].items() if k != "non_embedding_params"}
    params = ParamCounts(**model.pop("params"))
    scoring, names = header["scoring"], header.get("other_names", {"models": [], "datasets": []})
    return RunHeader(
        header["key"],
        ModelInfo(**model, params=params),
        DatasetInfo(**header["dataset"]),
        ScoringSpec(**{**scoring, **{k: tuple(scoring[k]) for k in ("thresholds", "window_lengths")}}),
        tuple((name, family) for name, family in names["models"]),
        tuple(names["datasets"]),
    )
