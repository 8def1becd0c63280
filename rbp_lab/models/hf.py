"""Any causal LM that transformers loads: from a hub id, a revision of it, or a local directory."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbp_lab.errors import LabError, one_of
from rbp_lab.hub_errors import quiet
from rbp_lab.models.files import (
    ModelFiles,
    about_adapter,
    check_directory,
    loaded_files,
    read_files,
    vocabulary_names,
)
from rbp_lab.models.hub_snapshot import fetch_small_files, fetch_weights
from rbp_lab.models.opening import (
    HEAD,
    ROUNDINGS,
    check_fields,
    checked_tokenizer,
    checked_weights,
    describe,
    is_local,
    last_part,
    local_path,
    named,
    reading,
)
from rbp_lab.models.params import empty_model
from rbp_lab.models.placement import DeviceMap, load_pretrained
from rbp_lab.models.source import LoadedModel, OpenModel
from rbp_lab.models.trajectory import (
    Checkpoints,
    check_checkpoints,
    checkpoint_models,
    listed_out,
    refuse_several,
    step_of,
    tokens_of,
)

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from rbp_lab.records import ModelInfo


@dataclass(frozen=True)
class HFModel:
    """A causal LM for transformers.

    path: hub id (owner/model) or local directory. name: directory-safe name for people, by default the last part of
    the path; a revision that it does not show is added. family: models that share one law. revision: branch, tag or
    commit of a hub id. dtype: overrides the precision config for this model (float32, bfloat16, float16); None
    follows it. quantisation: int8, int4 or fp8 rounds the weights of the layers when they are loaded, int8+head also
    those of the output layer, see ``rounding.round_weights``. attention: transformers' attention implementation, None
    for its default. trust_remote_code: run code that the repository ships. training_tokens: tokens seen in training,
    when known. display_size, licence: what listings say of the model before anything of it is there.

    checkpoints: of its training, each of which is a model of its own (``members``): names of branches or, of a
    directory, of directories in it; a shell pattern; so many, log-spaced; "published": all of the list of that name.
    published: names of checkpoints, the earliest first; the last is what the model itself holds. tokens_per_step: of
    the training, from which tokens seen follow where a step is known. step: of the training, read from the revision,
    and without one from the last of ``published``. warmup_tokens: after which the learning rate had reached its peak.
    """

    path: str
    name: str = ""
    family: str = "hf"
    revision: str | None = None
    dtype: str | None = None
    quantisation: str | None = None
    attention: str | None = None
    trust_remote_code: bool = False
    training_tokens: int | None = None
    display_size: str = ""
    licence: str = ""
    checkpoints: Checkpoints | None = None
    published: list[str] = field(default_factory=list)
    tokens_per_step: int | None = None
    step: int | None = None
    warmup_tokens: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.quantisation is not None:
            one_of("model.quantisation", self.quantisation, [*ROUNDINGS, *(f"{kind}{HEAD}" for kind in ROUNDINGS)])
        check_checkpoints(self)
        object.__setattr__(self, "name", named(self.name or last_part(self.path), self.revision))
        object.__setattr__(self, "published", listed_out(self.published))
        label = self.revision if self.revision not in (None, "main") else next(reversed(self.published), None)
        if label is not None and self.step is None and self.training_tokens is None:
            object.__setattr__(self, "step", step_of(label))
            object.__setattr__(self, "training_tokens", tokens_of(label, self.tokens_per_step))

    def members(self) -> list[HFModel]:
        """Its checkpoints as models of their own, named ``name@step…``; [self] when none are asked for.

        LabError when one is asked for by a name without its tokens, or the hub cannot say which there are.
        """
        return checkpoint_models(self)

    @property
    def is_local(self) -> bool:
        """Whether path means a directory: it exists, or it cannot be a hub id."""
        return is_local(self.path)

    @property
    def _directory(self) -> Path:
        return local_path(self.path)

    def open(self) -> OpenModel:
        """The model as it is now: a hub id at the commit that its revision means, a directory with its files hashed.

        Raises LabError when it cannot be had or is no causal LM: unknown id or revision, no network, missing or
        damaged files, an adapter, a head that no text fits.
        """
        refuse_several(self)
        if self.is_local:
            with reading(self, "the files"):
                check_directory(self._directory)
                files = read_files(self._directory, loaded_files(self._directory))
            return self._open(files, None)
        return self._open(None, self._commit())

    def look(self) -> ModelInfo:
        """What ``open`` would say of the model, but the files of a directory are not hashed: its fingerprint is ""."""
        refuse_several(self)
        commit = None
        if self.is_local:
            with reading(self, "the files"):
                check_directory(self._directory)
                loaded_files(self._directory)
        else:
            commit = self._commit()
        found = self._read(commit)
        return describe(self, *found, revision=commit, fingerprint=commit or "", quantisation=self.quantisation)[0]

    def _read(self, commit: str | None) -> tuple[Any, nn.Module, PreTrainedTokenizerBase]:
        """The config, the network that it describes, without weights, and the tokenizer."""
        self._refuse_foreign_code(commit)
        config = self._config(commit)
        return config, empty_model(config, self.trust_remote_code), self._tokenizer(commit)

    def _open(self, files: ModelFiles | None, commit: str | None) -> OpenModel:
        config, network, tokenizer = self._read(commit)
        if files is not None:
            with reading(self, "the files"):
                complete = loaded_files(self._directory, vocabulary_names(tokenizer))
                more = None if complete == set(files.paths) else read_files(self._directory, complete)
            if more is not None:  # what was read before its hash is read again
                return self._open(more, commit)

        def verify() -> None:
            if files is not None:
                files.verify()

        def load(dtype: torch.dtype, where: str | DeviceMap) -> LoadedModel:
            try:
                loaded = self._load(config, commit, dtype, where)
            except LabError:
                verify()  # files that changed are the better reason
                raise
            verify()
            return loaded

        verify()
        fingerprint = commit if files is None else files.fingerprint
        info, notes = describe(
            self, config, network, tokenizer, revision=commit, fingerprint=fingerprint, quantisation=self.quantisation
        )
        return OpenModel(info, tokenizer, network, load, verify, self.dtype, self.attention, notes)

    @property
    def _where(self) -> dict[str, Any]:
        """What every from_pretrained takes: the place, and leave to run the repository's code."""
        place = str(self._directory) if self.is_local else self.path
        return {"pretrained_model_name_or_path": place, "trust_remote_code": self.trust_remote_code}

    def _commit(self) -> str:
        """The commit that the revision of a hub id means now. LabError when it cannot be had or is an adapter."""
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        from transformers.utils.peft_utils import find_adapter_config_file

        with quiet(), reading(self, "the config"):
            try:
                # The cache keeps files under snapshots/<commit>/, so this also answers without a network.
                commit = Path(hf_hub_download(self.path, "config.json", revision=self.revision)).parent.name
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError as error:
                raise LabError(self._without_config()) from error
            if find_adapter_config_file(self.path, revision=commit) is not None:
                raise LabError(about_adapter(f"model {self.name}: {self.path}"))
            if not constants.HF_HUB_OFFLINE:
                fetch_small_files(self.path, commit)
            return commit

    def _without_config(self) -> str:
        from huggingface_hub import list_repo_files

        names = list_repo_files(self.path, revision=self.revision)
        if "adapter_config.json" in names:
            return about_adapter(f"model {self.name}: {self.path}")
        gguf = [name for name in names if name.endswith(".gguf")]
        what = "no config.json; give a repository that holds a model of transformers"
        if gguf:
            what = f"only GGUF files; measure one with model=gguf model.path={self.path} model.file={gguf[0]}"
        return f"model {self.name}: {self.path} has {what}"

    def _config(self, commit: str | None) -> Any:
        from transformers import AutoConfig

        with quiet(), reading(self, "the config"):
            return AutoConfig.from_pretrained(**self._where, revision=commit or "main")

    def _tokenizer(self, commit: str | None) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        with quiet(), reading(self, "the tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(**self._where, revision=commit or "main")
        return checked_tokenizer(tokenizer, f"model {self.name}: {self.path}")

    def _refuse_foreign_code(self, commit: str | None) -> None:
        """Code of another repository is at no commit of this one, so a record's key would not say what ran."""
        from transformers import PreTrainedConfig
        from transformers.models.auto.tokenization_auto import get_tokenizer_config

        if not self.trust_remote_code:
            return
        place = self._where["pretrained_model_name_or_path"]
        with quiet(), reading(self, "the config"):
            config, _ = PreTrainedConfig.get_config_dict(place, revision=commit or "main")
            tokenizer = get_tokenizer_config(place, revision=commit or "main")
        for name in _classes(config.get("auto_map")) + _classes(tokenizer.get("auto_map")):
            repository, marked, _ = name.partition("--")
            if marked and repository != self.path:
                raise LabError(
                    f"model {self.name}: its code comes from another repository ({repository}), which its own commit "
                    "does not pin; copy the .py files beside the model in a directory and name them there in auto_map"
                )

    def _load(self, config: Any, commit: str | None, dtype: torch.dtype, where: str | DeviceMap) -> LoadedModel:
        """The network with its weights in dtype on a device, or by a device map.

        Raises LabError as ``checked_weights`` does, and when they cannot be read.
        """
        from huggingface_hub import constants

        # A checkpoint without safetensors would make transformers ask the hub, from a thread, to convert it.
        os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
        with quiet(downloads=True), reading(self, "the weights"):
            if commit is not None and not constants.HF_HUB_OFFLINE:
                fetch_weights(self.path, commit)
            model, report = load_pretrained(
                where,
                **self._where,
                config=copy.deepcopy(config),
                revision=commit or "main",
                dtype=dtype,
                attn_implementation=self.attention,
            )
        loaded = checked_weights(model, report, f"model {self.name}: the checkpoint {self.path}")
        if self.quantisation is None:
            return loaded
        from rbp_lab.models.rounding import round_weights

        rounded = round_weights(loaded.network, self.quantisation, f"model {self.name}")
        return replace(loaded, notes=(*loaded.notes, rounded))


def _classes(auto_map: Any) -> list[str]:
    """The class names of an auto_map: of each entry one, or a tokenizer's pair (slow, fast)."""
    values = auto_map.values() if isinstance(auto_map, dict) else [auto_map]
    flat = [name for value in values for name in (value if isinstance(value, (list, tuple)) else [value])]
    return [name for name in flat if isinstance(name, str)]
