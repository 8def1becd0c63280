"""Token ids on disk, in one checked file: what is not as it was written is made again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from rbp_lab.data.windows import TokenizedCorpus
from rbp_lab.errors import LabError, note
from rbp_lab.hub_errors import first_line
from rbp_lab.store.atomic import atomic_path

_ARRAYS = ("tokens", "offsets", "special_ids", "token_bytes")


def read_tokens(path: Path, key: str) -> TokenizedCorpus | None:
    """What was kept under this key, with a note on stderr when it is damaged; None when there is nothing to use."""
    from safetensors import safe_open

    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="np") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if about.get("sha256") != _checksum(arrays, key, about["eos_id"]):
            raise ValueError("the checksum differs")
        return TokenizedCorpus(
            tokens=arrays["tokens"],
            offsets=arrays["offsets"],
            token_bytes=arrays.get("token_bytes"),
            special_ids=arrays["special_ids"],
            eos_id=int(about["eos_id"]) if about["eos_id"] else None,
        )
    except MemoryError:
        raise
    except Exception as error:  # whatever damage provokes in the reader
        note(f"the token cache {path} is damaged ({first_line(error)}) and is made again")
        return None


def keep_tokens(path: Path, key: str, tokens: TokenizedCorpus) -> None:
    """Write token ids to be read again; a note on stderr when the place cannot be written, which costs only time."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(array) for name in _ARRAYS if (array := getattr(tokens, name)) is not None}
    eos_id = "" if tokens.eos_id is None else str(tokens.eos_id)
    try:
        with atomic_path(path) as temporary:
            save_file(arrays, temporary, {"eos_id": eos_id, "sha256": _checksum(arrays, key, eos_id)})
    except (OSError, LabError, SafetensorError) as error:
        note(f"token ids cannot be kept in {path}: {first_line(error)}")


def _checksum(arrays: dict[str, np.ndarray], key: str, eos_id: str) -> str:
    """SHA-256 over the key, so that a file under another name is not taken, and all that is kept."""
    digest = hashlib.sha256(f"{key} {eos_id}\n".encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
