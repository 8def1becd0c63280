"""Any causal LM that transformers loads: from a hub id, a revision of it, or a local directory."""

from __future__ import annotations

import copy
import os
import re
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbp_lab.errors import LabError
from rbp_lab.hub_errors import explained, first_line, quiet
from rbp_lab.models.files import (
    ModelFiles,
    about_adapter,
    check_directory,
    loaded_files,
    read_files,
    vocabulary_names,
)
from rbp_lab.models.params import count_parameters, empty_model
from rbp_lab.models.positions import position_limit
from rbp_lab.models.source import LoadedModel, OpenModel
from rbp_lab.names import check_label, check_name, clean_name
from rbp_lab.records import ModelInfo

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class HFModel:
    """A causal LM for transformers.

    path: hub id (owner/model) or local directory. name: directory-safe name for people, by default the last part of
    the path; a revision that it does not show is added. family: models that share one law. revision: branch, tag or
    commit of a hub id. dtype: overrides the precision config for this model (float32, bfloat16, float16); None
    follows it. attention: transformers' attention implementation, None for its default. device_map: None puts the
    whole model on the process's device; "auto" spreads it over all devices. trust_remote_code: run code that the
    repository ships. training_tokens: tokens seen in training, when known. display_size, licence: what listings say of
    the model before anything of it is there.
    """

    path: str
    name: str = ""
    family: str = "hf"
    revision: str | None = None
    dtype: str | None = None
    attention: str | None = None
    device_map: str | None = None
    trust_remote_code: bool = False
    training_tokens: int | None = None
    display_size: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        for field in ("path", "name", "revision"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, str):
                raise LabError(f"model.{field} must be text; got {value!r}; quote it: 'model.{field}=\"{value}\"'")
        if not (self.path or "").strip():
            raise LabError("model.path is empty; give a hub id (owner/model) or a directory")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise LabError(f"model.dtype must be one of {', '.join(DTYPES)}, or null; got {self.dtype!r}")
        if self.revision is not None and self.is_local:
            raise LabError(f"model.revision={self.revision!r} is for hub ids, but {self.path} is a local directory")
        object.__setattr__(self, "name", _with_revision(self.name or _last_part(self.path), self.revision))
        check_name(self.name, "model.name")
        check_label(self.family, "model.family")

    @property
    def is_local(self) -> bool:
        """Whether path means a directory: it exists, or it cannot be a hub id."""
        hub_id = len(self.path) <= 96 and re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", self.path)
        return os.path.exists(self._directory) or not hub_id

    @property
    def _directory(self) -> Path:
        return Path(os.path.expanduser(self.path))

    def open(self) -> OpenModel:
        """The model as it is now: a hub id at the commit that its revision means, a directory with its files hashed.

        Raises LabError when it cannot be had or is no causal LM: unknown id or revision, no network, missing or
        damaged files, an adapter, a head that no text fits.
        """
        if self.is_local:
            with self._explained("the files"):
                check_directory(self._directory)
                files = read_files(self._directory, loaded_files(self._directory))
            return self._open(files, None)
        return self._open(None, self._commit())

    def _open(self, files: ModelFiles | None, commit: str | None) -> OpenModel:
        self._refuse_foreign_code(commit)
        config = self._config(commit)
        network = empty_model(config, self.trust_remote_code)
        tokenizer = self._tokenizer(commit)
        if files is not None:
            with self._explained("the files"):
                complete = loaded_files(self._directory, vocabulary_names(tokenizer))
                more = None if complete == set(files.paths) else read_files(self._directory, complete)
            if more is not None:  # what was read before its hash is read again
                return self._open(more, commit)

        def verify() -> None:
            if files is not None:
                files.verify()

        def load(dtype: torch.dtype, device: str | torch.device) -> LoadedModel:
            try:
                loaded = self._load(config, commit, dtype, device)
            except LabError:
                verify()  # files that changed are the better reason
                raise
            verify()
            return loaded

        verify()
        output = network.get_output_embeddings()
        rows = int(config.get_text_config().vocab_size) if output is None else int(output.weight.shape[0])
        vocabulary = tokenizer.get_vocab()
        stored = getattr(config, "dtype", None)
        info = ModelInfo(
            name=self.name,
            family=self.family,
            path=self.path,
            revision=commit,
            fingerprint=commit if files is None else files.fingerprint,
            architecture=type(network).__name__,
            stored_dtype=None if stored is None else str(stored).removeprefix("torch."),
            vocab_rows=rows,
            tokenizer_size=max(vocabulary.values()) + 1,
            max_positions=position_limit(network, config),
            params=count_parameters(network),
            training_tokens=self.training_tokens,
        )
        notes = _about_ids_beyond(vocabulary, rows)
        return OpenModel(info, tokenizer, load, verify, self.dtype, self.attention, notes)

    @property
    def _where(self) -> dict[str, Any]:
        """What every from_pretrained takes: the place, and leave to run the repository's code."""
        place = str(self._directory) if self.is_local else self.path
        return {"pretrained_model_name_or_path": place, "trust_remote_code": self.trust_remote_code}

    def _commit(self) -> str:
        """The commit that the revision of a hub id means now. LabError when it cannot be had or is an adapter."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        from transformers.utils.peft_utils import find_adapter_config_file

        with quiet(), self._explained("the config"):
            try:
                # The cache keeps files under snapshots/<commit>/, so this also answers without a network.
                commit = Path(hf_hub_download(self.path, "config.json", revision=self.revision)).parent.name
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError as error:
                raise LabError(self._without_config()) from error
            if find_adapter_config_file(self.path, revision=commit) is not None:
                raise LabError(about_adapter(f"model {self.name}: {self.path}"))
            return commit

    def _without_config(self) -> str:
        from huggingface_hub import list_repo_files

        names = list_repo_files(self.path, revision=self.revision)
        if "adapter_config.json" in names:
            return about_adapter(f"model {self.name}: {self.path}")
        gguf = [name for name in names if name.endswith(".gguf")]
        what = f"only GGUF files ({gguf[0]}); take the repository that they were converted from" if gguf else (
            "no config.json; give a repository that holds a model of transformers"
        )  # fmt: skip
        return f"model {self.name}: {self.path} has {what}"

    def _config(self, commit: str | None) -> Any:
        from transformers import AutoConfig

        with quiet(), self._explained("the config"):
            return AutoConfig.from_pretrained(**self._where, revision=commit or "main")

    def _tokenizer(self, commit: str | None) -> PreTrainedTokenizerBase:
        """The tokenizer; it never shortens a text by itself."""
        from transformers import AutoTokenizer

        with quiet(), self._explained("the tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(**self._where, revision=commit or "main")
        # Without vocabulary files transformers makes an empty tokenizer and says nothing.
        if set(tokenizer("a plain text", add_special_tokens=False)["input_ids"]) <= set(tokenizer.all_special_ids):
            raise LabError(
                f"model {self.name}: {self.path} holds no tokenizer (expected tokenizer.json, or the vocabulary files "
                "of its kind); save the tokenizer beside the model with save_pretrained"
            )
        # Where a document is cut is the protocol's choice, so the tokenizer's own limit would only print warnings.
        tokenizer.model_max_length = sys.maxsize
        return tokenizer

    def _refuse_foreign_code(self, commit: str | None) -> None:
        """Code of another repository is at no commit of this one, so a record's key would not say what ran."""
        from transformers import PreTrainedConfig
        from transformers.models.auto.tokenization_auto import get_tokenizer_config

        if not self.trust_remote_code:
            return
        place = self._where["pretrained_model_name_or_path"]
        with quiet(), self._explained("the config"):
            config, _ = PreTrainedConfig.get_config_dict(place, revision=commit or "main")
            tokenizer = get_tokenizer_config(place, revision=commit or "main")
        for name in _classes(config.get("auto_map")) + _classes(tokenizer.get("auto_map")):
            repository, marked, _ = name.partition("--")
            if marked and repository != self.path:
                raise LabError(
                    f"model {self.name}: its code comes from another repository ({repository}), which its own commit "
                    "does not pin; copy the .py files beside the model in a directory and name them there in auto_map"
                )

    def _load(self, config: Any, commit: str | None, dtype: torch.dtype, device: str | torch.device) -> LoadedModel:
        """The network with its weights in dtype on device.

        Raises LabError when weights are missing, do not fit or cannot be read: a layer that transformers would
        initialise at random is never measured. Tensors of the checkpoint that no layer takes are a note.
        """
        from transformers import AutoModelForCausalLM

        # A checkpoint without safetensors would make transformers ask the hub, from a thread, to convert it.
        os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
        with quiet(downloads=True), self._explained("the weights"):
            model, report = AutoModelForCausalLM.from_pretrained(
                **self._where,
                config=copy.deepcopy(config),
                revision=commit or "main",
                dtype=dtype,
                device_map={"": device} if self.device_map is None else self.device_map,
                attn_implementation=self.attention,
                ignore_mismatched_sizes=True,  # listed below together with what is missing
                output_loading_info=True,
            )
        wrong = sorted(report["missing_keys"]) + sorted(key[0] for key in report["mismatched_keys"])
        if wrong or report["error_msgs"]:
            raise LabError(
                f"model {self.name}: the checkpoint {self.path} lacks weights or has them in another shape "
                f"({_listed(wrong) if wrong else first_line(Exception(*report['error_msgs']))}), so they would be "
                "random; use a checkpoint of the causal LM itself"
            )
        unused = sorted(report["unexpected_keys"])
        notes = (f"{len(unused)} tensors of the checkpoint are used by no layer: {_listed(unused)}",) if unused else ()
        return LoadedModel(model.eval().requires_grad_(False), notes)

    def _explained(self, what: str) -> AbstractContextManager[None]:
        at = f" at revision {self.revision}" if self.revision else ""
        return explained(f"model {self.name}: cannot read {what} of {self.path}{at}")


def _about_ids_beyond(vocabulary: dict[str, int], rows: int) -> tuple[str, ...]:
    beyond = sorted((i, token) for token, i in vocabulary.items() if i >= rows)
    if not beyond:
        return ()
    listed = _listed([f"{i} {token!r}" for i, token in beyond])
    return (f"the head has {rows} rows, so no text may contain the tokens beyond ({listed})",)


def _listed(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _classes(auto_map: Any) -> list[str]:
    """The class names of an auto_map: of each entry one, or a tokenizer's pair (slow, fast)."""
    values = auto_map.values() if isinstance(auto_map, dict) else [auto_map]
    flat = [name for value in values for name in (value if isinstance(value, (list, tuple)) else [value])]
    return [name for name in flat if isinstance(name, str)]


def _last_part(path: str) -> str:
    """A name made from the last part of a path or hub id."""
    last = Path(path).name
    return clean_name(last if last not in {"", ".."} else Path(os.path.expanduser(path)).resolve().name)


def _with_revision(name: str, revision: str | None) -> str:
    """``name@revision``, or the name when it shows the revision already: two revisions never share a name."""
    if revision is None:
        return name
    label = clean_name(revision)
    if re.search(rf"(?<![^\W_]){re.escape(label)}(?![^\W_])", name):
        return name
    return f"{name}@{label}"
