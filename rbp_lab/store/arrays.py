"""Arrays on disk in one checked file: what is read is what was written, or an error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rbp_lab.errors import LabError, first_line
from rbp_lab.store.atomic import atomic_path


def write_arrays(
    path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], make_directory: bool = True
) -> None:
    """Write arrays and a JSON-ready description atomically; arguments and errors as of ``atomic_path``."""
    from safetensors.numpy import save_file

    kept = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    text = json.dumps(about)
    with atomic_path(path, make_directory) as temporary:
        save_file(kept, temporary, {"about": text, "sha256": _checksum(kept, text)})


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and their description.

    Raises FileNotFoundError when there is no such file, and LabError when it does not hold what was written.
    """
    from safetensors import safe_open

    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if metadata["sha256"] != _checksum(arrays, metadata["about"]):
            raise ValueError("the checksum differs")
        return arrays, json.loads(metadata["about"])
    except MemoryError:
        raise
    except Exception as error:  # whatever damage provokes in the reader
        raise LabError(first_line(error)) from error


def _checksum(arrays: Mapping[str, np.ndarray], about: str) -> str:
    digest = hashlib.sha256(f"{about}\n".encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
