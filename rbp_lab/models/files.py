"""The files of a local model directory: what must be there, and the hash that identifies them."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from rbp_lab.errors import LabError

# Only what changes ids or logits is hashed: logs, read-me and generation settings beside a model leave it the same.
_TOKENIZER_FILES = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
                    "*.model", "*.tiktoken", "*.py")  # fmt: skip
_WEIGHTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


def weight_files(directory: Path) -> list[Path]:
    """The files transformers loads weights from: one file, or an index and all of its shards; safetensors first.

    Raises LabError when there is none or a shard is missing.
    """
    for single, index in _WEIGHTS:
        if (directory / single).is_file():
            return [directory / single]
        if (directory / index).is_file():
            try:
                names = sorted(set(json.loads((directory / index).read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError) as error:
                raise LabError(f"{directory / index} is not a weight index; save the model again") from error
            missing = [name for name in names if not (directory / name).is_file()]
            if missing:
                raise LabError(
                    f"{directory} is incomplete: {len(missing)} of {len(names)} weight files named in {index} are "
                    f"missing, the first is {missing[0]}; copy or save the model again"
                )
            return [directory / index, *(directory / name for name in names)]
    raise LabError(
        f"{directory} holds no weights: expected {' or '.join(one for pair in _WEIGHTS for one in pair)}; "
        "save the model with save_pretrained"
    )


def check_directory(directory: Path) -> None:
    """Raise LabError unless the directory exists with a config and weights."""
    if not directory.is_dir():
        raise LabError(f"no model directory {directory}; check model.path, or give a hub id such as owner/model")
    if not (directory / "config.json").is_file():
        raise LabError(f"{directory} has no config.json; a model directory is what save_pretrained writes")
    weight_files(directory)


def directory_fingerprint(directory: Path) -> str:
    """SHA-256 (64 hexadecimal digits) over names and contents of a model's config, weight and tokenizer files.

    Read in pieces; a file unchanged in size and time since the last call of this process is not read again.
    """
    check_directory(directory)
    chosen = {directory / "config.json", *weight_files(directory)}
    for pattern in _TOKENIZER_FILES:
        chosen.update(one for one in directory.glob(pattern) if one.is_file())
    digest = hashlib.sha256()
    for path in sorted(chosen):
        status = path.stat()
        digest.update(f"{path.name}\n{_file_hash(path, status.st_size, status.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
