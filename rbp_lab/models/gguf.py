"""A causal LM in a GGUF file, as llama.cpp and its kin write it; transformers unpacks the weights."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbp_lab.errors import LabError, no_such, out_of_memory
from rbp_lab.hub.errors import explain, quiet
from rbp_lab.hub.files import persistently
from rbp_lab.models.description import describe
from rbp_lab.models.files import ModelFiles, read_files
from rbp_lab.models.gguf_file import Header, join, model_name, read_header, split_names
from rbp_lab.models.opening import (
    check_fields,
    checked_tokenizer,
    checked_weights,
    is_local,
    last_part,
    local_path,
    named,
    reading,
)
from rbp_lab.models.params import empty_model
from rbp_lab.models.placement import DeviceMap, load_pretrained
from rbp_lab.models.source import LoadedModel, OpenModel
from rbp_lab.names import clean_name
from rbp_lab.store.atomic import atomic_directory, may_be_written
from rbp_lab.text import count

if TYPE_CHECKING:
    import torch

_FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class GGUFModel:
    """A causal LM of a GGUF file, unpacked to the precision config's format when it is loaded.

    path: the file, a directory that holds it, or a hub id (owner/model). file: which one, where there are several; of
    a model split in parts any part. cache: a directory that keeps the config and tokenizer read from the file, because
    reading them takes longer than hashing it; None reads them anew. quantisation: None, for the file's weights are not
    rounded a second time. The other fields are as of ``HFModel``.
    The file's contents identify the model, wherever they are from; ``ModelInfo.quantisation`` says how its weights
    were rounded.
    """

    path: str
    file: str = ""
    name: str = ""
    family: str = "gguf"
    revision: str | None = None
    dtype: str | None = None
    attention: str | None = None
    quantisation: str | None = None
    training_tokens: int | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.quantisation is not None:
            raise LabError(
                f"model.quantisation={self.quantisation} (as of precision={self.quantisation}) rounds the weights of a "
                "checkpoint; those of a GGUF file are as the file rounds them: choose precision=fp32, bf16 or fp16"
            )
        file = self.file or (self.path if self.path.endswith(".gguf") else "")
        name = self.name or clean_name(model_name(Path(file).name) if file else last_part(self.path))
        object.__setattr__(self, "name", named(name, self.revision))

    def open(self) -> OpenModel:
        """The model as its files are now.

        Raises LabError when they cannot be had, are damaged, hold no tokenizer or an architecture that transformers
        does not convert, and when the gguf package is missing.
        """
        if find_spec("gguf") is None:
            raise LabError("a GGUF file is read with the gguf package: pip install 'rbp-lab[gguf]'")
        revision, paths = self._paths()
        headers = [read_header(path) for path in paths]
        for header in headers:
            _check_complete(header)
        files = read_files(paths[0].parent, paths, named=False)
        config, tokenizer = self._config_and_tokenizer(headers, files.fingerprint)
        with quiet():
            network = empty_model(config)
        about = describe(config, network, tokenizer)
        info = about.info(self, revision=revision, fingerprint=files.fingerprint, quantisation=quantisation(headers))
        files.verify()

        def load(dtype: torch.dtype, where: str | DeviceMap) -> LoadedModel:
            return self._load(config, headers, files, dtype, where)

        return OpenModel(
            info, lambda: tokenizer, lambda: network, load, files.verify, self.dtype, self.attention, about.notes
        )

    def _paths(self) -> tuple[str | None, list[Path]]:
        """The commit of a hub id, None otherwise, and the files of the model in order."""
        if not is_local(self.path):
            return self._downloaded()
        place = local_path(self.path)
        if place.is_file():
            if self.file:
                raise LabError(f"model.file={self.file!r} is for a directory or a hub id, but {place} is a file")
            directory, name = place.parent, place.name
        elif place.is_dir():
            name = self._chosen([path.name for path in place.glob("*.gguf")])
            directory = place
        else:
            raise LabError(f"no GGUF file {str(place)[:200]}; check model.path, or give a hub id such as owner/model")
        paths = [directory / one for one in split_names(name)]
        if missing := [path.name for path in paths if not path.is_file()]:
            raise LabError(f"{directory} lacks {missing[0]}, of the {len(paths)} parts of {name}; copy it there")
        return None, paths

    def _downloaded(self) -> tuple[str, list[Path]]:
        from huggingface_hub import hf_hub_download, list_repo_files

        with quiet(downloads=True), reading(self, "the file"):
            name = self.file
            if not name:
                names = list_repo_files(self.path, revision=self.revision)
                name = self._chosen([one for one in names if one.endswith(".gguf")])
            paths: list[Path] = []
            revision = self.revision
            for one in split_names(name):
                paths.append(Path(persistently(partial(hf_hub_download, self.path, one, revision=revision))))
                # The cache keeps files under snapshots/<commit>/: all parts are of the commit of the first.
                revision = paths[0].parts[-1 - len(Path(one).parts)]
        return revision, paths

    def _chosen(self, names: list[str]) -> str:
        """The file that is asked for, the first part of one that is split; LabError when that is not clear."""
        first = sorted({split_names(name)[0] for name in names})
        if self.file:
            wanted = split_names(self.file)[0]
            if wanted not in first:
                raise LabError(no_such("model.file", f"GGUF file in {self.path}", self.file, first))
            return wanted
        if len(first) != 1:
            what = f"{len(first)} GGUF models ({', '.join(first[:8])})" if first else "no GGUF file"
            raise LabError(f"{self.path} holds {what}" + ("; choose one with model.file" if first else ""))
        return first[0]

    def _config_and_tokenizer(self, headers: list[Header], fingerprint: str) -> tuple[Any, Any]:
        """What transformers makes of the pairs of the file, always read from the same directory of its own."""
        from transformers import AutoConfig, AutoTokenizer

        # What is kept depends on who converted it.
        label = f"{fingerprint[:32]}-{version('transformers')}-{version('gguf')}"
        keep = self.cache is not None and may_be_written(self.cache)
        with tempfile.TemporaryDirectory() as temporary:
            directory = Path(self.cache if keep else temporary) / label
            if not (directory / "config.json").is_file():
                self._convert(headers, directory)
            with quiet(), reading(self, "the config and tokenizer"):
                config = AutoConfig.from_pretrained(directory)
                tokenizer = AutoTokenizer.from_pretrained(directory)
        return config, checked_tokenizer(tokenizer, f"model {self.name}: {self.path}")

    def _convert(self, headers: list[Header], directory: Path) -> None:
        from transformers import AutoConfig, AutoTokenizer

        values = headers[0].values
        kind = values.get("general.architecture", "unknown")
        if "tokenizer.ggml.model" not in values:
            raise LabError(
                f"model {self.name}: {headers[0].path} holds no tokenizer; take a file that was converted with one, or "
                "the repository that it was converted from with model=hf"
            )
        with _as_one(headers, data=False) as path, quiet():
            where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
            try:
                config = AutoConfig.from_pretrained(**where)
            except Exception as error:
                if out_of_memory(error):
                    raise
                raise LabError(
                    f"model {self.name}: transformers does not convert GGUF files of the architecture {kind!r} "
                    f"({explain(error)}); take the repository that it was converted from with model=hf"
                ) from error
            try:
                tokenizer = AutoTokenizer.from_pretrained(**where)
            except Exception as error:
                if out_of_memory(error):
                    raise
                raise LabError(
                    f"model {self.name}: transformers does not convert the tokenizer of {path.name} "
                    f"(kind {values['tokenizer.ggml.model']!r}: {explain(error)}); take the repository that it was "
                    "converted from with model=hf"
                ) from error
            with atomic_directory(directory) as target:
                tokenizer.save_pretrained(target)
                config.save_pretrained(target)

    def _load(
        self, config: Any, headers: list[Header], files: ModelFiles, dtype: torch.dtype, where: str | DeviceMap
    ) -> LoadedModel:
        from transformers import GgufConfig

        if isinstance(where, Mapping) and "disk" in where.values():
            raise LabError(
                f"model {self.name}: weights of a GGUF file cannot stay on disk, and memory does not hold them all; "
                "measure the repository that it was converted from with model=hf, or use more GPUs or memory "
                "(launch.placement, launch.max_memory)"
            )
        with _as_one(headers) as path, quiet(), reading(self, "the weights"):
            network, report = load_pretrained(
                where,
                pretrained_model_name_or_path=str(path.parent),
                gguf_file=path.name,
                config=copy.deepcopy(config),
                # Packed weights would be multiplied by whatever kernel is installed.
                quantization_config=GgufConfig(dequantize=True),
                dtype=dtype,
                attn_implementation=self.attention,
            )
        files.verify()
        return checked_weights(network, report, f"model {self.name}: the file {self.path}")


@contextmanager
def _as_one(headers: list[Header], data: bool = True) -> Iterator[Path]:
    """One file with what the parts hold, for as long as it is needed; of a model in one file that file."""
    if len(headers) == 1:
        yield headers[0].path
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "joined.gguf"
        join(headers, path, data)
        yield path


def _check_complete(header: Header) -> None:
    """LabError when the file ends before its last tensor does."""
    from gguf import GGML_QUANT_SIZES

    for tensor in header.tensors:
        if tensor.type not in GGML_QUANT_SIZES:
            raise LabError(
                f"{header.path}: the tensor {tensor.name} has the ggml type {tensor.type}, which the installed gguf "
                "package does not know; pip install --upgrade gguf"
            )
        block, size = GGML_QUANT_SIZES[tensor.type]
        end = header.data + tensor.offset + tensor.elements // block * size
        if end > header.size:
            raise LabError(
                f"{header.path} is damaged or incomplete: it has {count(header.size)} bytes, and its tensor "
                f"{tensor.name} ends at {count(end)}; copy or download it again"
            )


def quantisation(headers: list[Header]) -> str | None:
    """How the weights were rounded, in llama.cpp's words ("Q4_1", "Q4_K_M"); None when they are floats.

    A file that does not say is named by the type that holds most of its weights.
    """
    from gguf import GGMLQuantizationType, LlamaFileType

    stated = headers[0].values.get("general.file_type")
    if stated in set(LlamaFileType) and stated != LlamaFileType.GUESSED:
        label = LlamaFileType(stated).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    else:
        weights: dict[int, int] = {}
        for header in headers:
            for tensor in header.tensors:
                weights[tensor.type] = weights.get(tensor.type, 0) + tensor.elements
        label = GGMLQuantizationType(max(weights, key=lambda kind: weights[kind])).name
    return None if label in _FLOATS else label
