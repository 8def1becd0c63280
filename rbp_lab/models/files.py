"""The files of a local model directory: what must be there, and the hash that identifies what is loaded."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbp_lab.errors import LabError, first_line
from rbp_lab.text import count

# Only what changes ids or logits is hashed: logs, read-me and generation settings beside a model leave it the same.
# The vocabulary files of a tokenizer's class are added to these once the class is known.
ALWAYS = ("config.json", "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
           "*.model", "*.tiktoken", "tekken.json")  # fmt: skip
WEIGHTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_LFS = b"version https://git-lfs.github.com/spec/"
# A file system's clock may tick this rarely, so a file this young can change again without a new time.
_YOUNG = 2.0


@dataclass(frozen=True)
class ModelFiles:
    """Files of a directory as they were when ``read_files`` read them.

    contents: SHA-256 of each. states: what the file system says of each (inode, size, times of change). settled:
    whether every later change shows in ``states``. named: whether names count too.
    """

    directory: Path
    paths: tuple[Path, ...]
    contents: tuple[str, ...]
    states: tuple[tuple[int, ...], ...]
    settled: bool
    named: bool = True

    @property
    def fingerprint(self) -> str:
        """SHA-256 (64 hexadecimal digits) over their contents, and over their names where these count."""
        return self.without(())

    def without(self, paths: Collection[Path]) -> str:
        """``fingerprint`` as if some of the files were not there."""
        digest = hashlib.sha256()
        for path, content in zip(self.paths, self.contents, strict=True):
            if path not in paths:
                name = f"{path.relative_to(self.directory).as_posix()}\n" if self.named else ""
                digest.update(f"{name}{content}\n".encode())
        return digest.hexdigest()

    def verify(self) -> None:
        """Raise LabError unless the files are still those that were hashed."""
        if _states(self.paths) != self.states or (not self.settled and _contents(self.paths) != self.contents):
            raise LabError(
                f"the files of {self.directory} changed while they were read, so nothing is recorded; run again when "
                "they are complete"
            )


def read_files(directory: Path, paths: Iterable[Path], named: bool = True) -> ModelFiles:
    """Hash the files, relative to directory; nothing is remembered between calls. named: their names count too."""
    ordered = tuple(sorted(paths))
    states = _states(ordered)
    newest = max(max(state[2:]) for state in states if state) / 1e9
    settled = newest < time.time() - _YOUNG
    return ModelFiles(directory, ordered, _contents(ordered), states, settled, named)


def _states(paths: Sequence[Path]) -> tuple[tuple[int, ...], ...]:
    """(inode, size, time of modification, time of change) of each file, () for one that is gone."""

    def state(path: Path) -> tuple[int, ...]:
        try:
            status = path.stat()
        except OSError:
            return ()
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    return tuple(state(path) for path in paths)


def _contents(paths: Sequence[Path]) -> tuple[str, ...]:
    """SHA-256 of each file, hexadecimal."""
    found = []
    for path in paths:
        try:
            with path.open("rb") as stream:
                found.append(hashlib.file_digest(stream, "sha256").hexdigest())
        except OSError as error:
            raise LabError(f"cannot read {path}: {error.strerror or error}") from error
    return tuple(found)


def loaded_files(directory: Path, vocabulary: Iterable[str] = ()) -> set[Path]:
    """Everything that loading may read: config, weights, tokenizer files and code, also in folders below.

    vocabulary: further file names that the tokenizer's class reads. Raises LabError as ``weight_files`` does, and for
    a file that is a Git LFS pointer.
    """
    chosen = set(weight_files(directory))
    for pattern in (*ALWAYS, *vocabulary):
        chosen.update(one for one in directory.glob(pattern) if one.is_file())
    for folder, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        chosen.update(Path(folder, name) for name in names if name.endswith(".py"))
    for path in sorted(chosen):
        _refuse_pointer(path)
    return chosen


def weight_files(directory: Path) -> list[Path]:
    """The files transformers loads weights from: one file, or an index and all of its shards; safetensors first.

    ``transformers_weights`` in config.json names another one. Raises LabError when there is none, a shard is missing
    or a safetensors file does not agree with its own header.
    """
    named = named_in_config(directory)
    for name in [named] if named else [name for pair in WEIGHTS for name in pair]:
        if (directory / name).is_file():
            found = [directory / name, *_shards(directory, name)] if name.endswith(".json") else [directory / name]
            for path in found:
                if path.suffix == ".safetensors":
                    _check_header(path)
            return found
    if named:
        raise LabError(f"{directory} lacks {named}, which transformers_weights in its config.json names; copy it there")
    gguf = sorted(path.name for path in directory.glob("*.gguf"))
    if gguf:
        raise LabError(_about_gguf(f"{directory} holds no weights but a GGUF file ({gguf[0]})", directory / gguf[0]))
    raise LabError(
        f"{directory} holds no weights: expected {' or '.join(one for pair in WEIGHTS for one in pair)}; "
        "save the model with save_pretrained"
    )


def named_in_config(directory: Path) -> str | None:
    """The weights that ``transformers_weights`` in config.json names; None where it names none."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # the config's own reader says what is wrong with it
    name = config.get("transformers_weights") if isinstance(config, dict) else None
    if name is None:
        return None
    if not isinstance(name, str) or not name.endswith((".safetensors", ".safetensors.index.json")):
        raise LabError(
            f"{directory / 'config.json'}: transformers_weights must name a .safetensors file or a "
            f".safetensors.index.json; got {name!r}"
        )
    _refuse_outside(directory, name, "config.json")
    return name


def _shards(directory: Path, index: str) -> list[Path]:
    _refuse_pointer(directory / index)
    try:
        names = sorted(set(json.loads((directory / index).read_text(encoding="utf-8"))["weight_map"].values()))
        folder = (directory / index).parent
        paths = [folder / name for name in names]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise LabError(f"{directory / index} is not a weight index; save the model again") from error
    for path in paths:
        _refuse_outside(directory, os.path.relpath(path, directory), index)
    missing = [name for name, path in zip(names, paths, strict=True) if not path.is_file()]
    if missing:
        raise LabError(
            f"{directory} is incomplete: {len(missing)} of {len(names)} weight files named in {index} are "
            f"missing, the first is {missing[0]}; copy or save the model again"
        )
    return paths


def _refuse_outside(directory: Path, name: str, where: str) -> None:
    if os.path.isabs(name) or os.path.normpath(name).startswith(".."):
        raise LabError(f"{directory / where} names the weight file {name}, which is not in {directory}; copy it there")


def _check_header(path: Path) -> None:
    """Raise LabError unless a safetensors file is as long as its header says and its tensors fill it."""
    from safetensors import SafetensorError, safe_open

    _refuse_pointer(path)
    try:
        with safe_open(path, "numpy") as tensors:
            tensors.keys()
    except (SafetensorError, OSError) as error:
        raise LabError(
            f"{path} is damaged or incomplete: its {count(path.stat().st_size)} bytes do not agree with its own header "
            f"({first_line(error)}); copy or download it again"
        ) from error


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as stream:
        if stream.read(len(_LFS)) == _LFS:
            raise LabError(
                f"{path} is a Git LFS pointer, not the file itself; run git lfs pull in {path.parent}, or download "
                "the model with hf download"
            )


def check_directory(directory: Path) -> None:
    """Raise LabError unless the directory exists with a config and weights and holds no adapter."""
    if os.path.isfile(directory):
        with directory.open("rb") as stream:
            if stream.read(4) == b"GGUF":
                raise LabError(_about_gguf(f"{directory} is a GGUF file", directory))
        raise LabError(f"{directory} is a file; model.path must be the directory that save_pretrained wrote")
    if not os.path.isdir(directory):  # unlike Path.is_dir, false for what no file system can name
        raise LabError(
            f"no model directory {str(directory)[:200]}; check model.path, or give a hub id such as owner/model"
        )
    adapter = next((name for name in _ADAPTER if (directory / name).exists()), None)
    if adapter is not None:
        raise LabError(about_adapter(str(directory), adapter))
    if not (directory / "config.json").is_file():
        if any(directory.glob("*.gguf")):
            weight_files(directory)
        raise LabError(f"{directory} has no config.json; a model directory is what save_pretrained writes")
    weight_files(directory)


def about_adapter(place: str, name: str = _ADAPTER[0]) -> str:
    """The sentence for an adapter. Whether one is applied depends on what is installed, so it is never measured."""
    return (
        f"{place} holds an adapter ({name}), not a whole model; merge it into its base model with peft "
        "(AutoPeftModelForCausalLM, merge_and_unload), save the result and the tokenizer with save_pretrained, and "
        "measure that directory; to measure the base model alone, keep it in a directory without the adapter"
    )


def _about_gguf(what: str, path: Path) -> str:
    return f"{what}; measure it with model=gguf model.path={path}"


def vocabulary_names(tokenizer: Any) -> set[str]:
    """Names of the files that the class of a tokenizer reads its vocabulary from."""
    names: set[str] = set()
    for value in (getattr(type(tokenizer), "vocab_files_names", None) or {}).values():
        names.update([value] if isinstance(value, str) else value)
    return {name for name in names if name and not os.path.isabs(name) and ".." not in name}
