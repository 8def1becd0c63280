"""Offline W&B runs read back from their directories, without W&B's server and without touching a file of theirs.

wandb has no Python API for this. A ``run-*.wandb`` file is a log in the layout of LevelDB (a 7-byte header, then blocks
of 32 KiB holding checksummed chunks) of protobuf messages, whose definitions wandb ships; tried with 0.28 to 0.31.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rbp_lab.errors import LabError

HEADER = struct.Struct("<4sHB")  # ":W&B", 0xBEE1, version
CHUNK = struct.Struct("<IHB")  # crc32 of kind and data, length, kind
BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """What an offline run says. artifacts: name → {file name: (local path, md5 in base64)} of its last version.

    exit_code: None when the run was never finished (it still runs, or was killed).
    """

    path: Path
    id: str = ""
    project: str = ""
    entity: str = ""
    group: str = ""
    job_type: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    exit_code: int | None = None


def messages(path: str | Path) -> Iterator[bytes]:
    """The protobuf messages of a log, in order; ends quietly where a killed writer broke off.

    Raises LabError when the file is no such log or its checksums do not hold.
    """
    data = Path(path).read_bytes()
    if len(data) < HEADER.size or HEADER.unpack_from(data)[:2] != (b":W&B", 0xBEE1):
        raise LabError(f"{path} is not an offline W&B run of a known layout")
    at, parts = HEADER.size, []
    while at + CHUNK.size <= len(data):
        room = BLOCK - at % BLOCK
        if room < CHUNK.size:
            at += room
            continue
        checksum, length, kind = CHUNK.unpack_from(data, at)
        if kind == 0 and length == 0:  # padding to the end of the block
            at += room
            continue
        chunk = data[at + CHUNK.size : at + CHUNK.size + length]
        if len(chunk) < length:
            return
        if zlib.crc32(chunk, zlib.crc32(bytes([kind]))) != checksum:
            raise LabError(f"{path}: the checksum at byte {at} does not hold; the file is damaged")
        at += CHUNK.size + length
        parts = [chunk] if kind in (FULL, FIRST) else [*parts, chunk]
        if kind in (FULL, LAST):
            yield b"".join(parts)


def read_offline_run(path: str | Path) -> OfflineRun:
    """The run in a ``run-*.wandb`` file; LabError when it cannot be read."""
    from wandb.proto import wandb_internal_pb2 as proto

    run = OfflineRun(Path(path))
    for message in messages(path):
        record = proto.Record()
        record.ParseFromString(message)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            said = record.run
            run.id, run.project, run.entity = said.run_id, said.project, said.entity
            run.group, run.job_type = said.run_group, said.job_type
            _update(run.config, said.config)
        elif kind == "config":
            _update(run.config, record.config)
        elif kind == "summary":
            _update(run.summary, record.summary)
        elif kind == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                _put(row, item)
            run.history.append(row)
        elif kind == "artifact":
            entries = record.artifact.manifest.contents
            run.artifacts[record.artifact.name] = {e.path: (e.local_path, e.digest) for e in entries}
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    if not run.id:
        raise LabError(f"{path} names no run: it was broken off before it began")
    return run


def _update(values: dict[str, Any], change: Any) -> None:
    for item in change.update:
        _put(values, item)
    for item in change.remove:
        values.pop((list(item.nested_key) or [item.key])[0], None)


def _put(values: dict[str, Any], item: Any) -> None:
    *path, last = list(item.nested_key) or [item.key]
    for name in path:
        values = values.setdefault(name, {})
    values[last] = json.loads(item.value_json)
