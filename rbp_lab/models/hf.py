"""Any causal LM that transformers loads: from a hub id, a revision of it, or a local directory."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rbp_lab.errors import LabError, one_of
from rbp_lab.hub.errors import quiet
from rbp_lab.models.description import Description, keep, kept
from rbp_lab.models.files import ModelFiles, about_adapter, check_directory, loaded_files, read_files, weight_files
from rbp_lab.models.hub_snapshot import fetch_weights
from rbp_lab.models.opening import (
    HEAD,
    ROUNDINGS,
    check_fields,
    checked_weights,
    is_local,
    last_part,
    local_path,
    named,
    reading,
)
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
from rbp_lab.models.unloaded import Unloaded

if TYPE_CHECKING:
    import torch

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

    cache: a directory that keeps what config, code and tokenizer say of the model, because finding that out takes
    seconds of imports; None finds it out anew.
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
    cache: str | None = None

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

    def open(self) -> OpenModel:
        """The model as it is now: a hub id at the commit that its revision means, a directory with its files hashed.

        Raises LabError when it cannot be had or is no causal LM: unknown id or revision, no network, missing or
        damaged files, an adapter, a head that no text fits.
        """
        commit, files, about, unloaded = self._described(weights=True)

        def verify() -> None:
            if files is not None:
                files.verify()

        def load(dtype: torch.dtype, where: str | DeviceMap) -> LoadedModel:
            try:
                loaded = self._load(unloaded, commit, dtype, where)
            except LabError:
                verify()  # files that changed are the better reason
                raise
            verify()
            return loaded

        info = about.info(
            self, revision=commit, fingerprint=commit if files is None else files.fingerprint,
            quantisation=self.quantisation,
        )  # fmt: skip
        return OpenModel(
            info, lambda: unloaded.tokenizer, lambda: unloaded.network, load, verify, self.dtype, self.attention,
            about.notes,
        )  # fmt: skip

    def look(self) -> ModelInfo:
        """What ``open`` would say of the model, but weights of a directory are not hashed: its fingerprint is ""."""
        commit, _, about, _ = self._described(weights=False)
        return about.info(self, revision=commit, fingerprint=commit or "", quantisation=self.quantisation)

    def _described(self, weights: bool) -> tuple[str | None, ModelFiles | None, Description, Unloaded]:
        """The commit of a hub id, or the files of a directory, and what they say of the model without its weights.

        weights: whether those of a directory are among the files, which are hashed.
        """
        refuse_several(self)
        if not self.is_local:
            commit = self._commit()
            unloaded, what = Unloaded(self, commit), [self.path, commit, self.trust_remote_code]
            about = kept(self.cache, what)
            if about is None:
                about = unloaded.describe()
                keep(self.cache, what, about)
            return commit, None, about, unloaded
        directory, read = local_path(self.path), None
        with reading(self, "the files"):
            check_directory(directory)
            paths = loaded_files(directory)
        while paths != read:  # what was read before its hash is read again
            read = paths
            with reading(self, "the files"):
                heavy = set(weight_files(directory))
                files = read_files(directory, read if weights else read - heavy)
            unloaded, what = Unloaded(self, None), [files.without(heavy), self.trust_remote_code]
            known = kept(self.cache, what)
            about = known or unloaded.describe()
            with reading(self, "the files"):
                paths = loaded_files(directory, about.vocabulary_files)
        if known is None:
            files.verify()
            keep(self.cache, what, about)
        return None, files, about, unloaded

    def _commit(self) -> str:
        """The commit that the revision of a hub id means now. LabError when it cannot be had."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        with quiet(), reading(self, "the config"):
            try:
                # The cache keeps files under snapshots/<commit>/, so this also answers without a network.
                return Path(hf_hub_download(self.path, "config.json", revision=self.revision)).parent.name
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError as error:
                raise LabError(self._without_config()) from error

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

    def _load(self, unloaded: Unloaded, commit: str | None, dtype: torch.dtype, where: str | DeviceMap) -> LoadedModel:
        """The network with its weights in dtype on a device, or by a device map.

        Raises LabError as ``checked_weights`` does, and when they cannot be read.
        """
        from huggingface_hub import constants

        # A checkpoint without safetensors would make transformers ask the hub, from a thread, to convert it.
        os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
        config, place = unloaded.config, unloaded.where
        with quiet(downloads=True), reading(self, "the weights"):
            if commit is not None and not constants.HF_HUB_OFFLINE:
                fetch_weights(self.path, commit)
            model, report = load_pretrained(
                where,
                **place,
                config=copy.deepcopy(config),
                dtype=dtype,
                attn_implementation=self.attention,
            )
        loaded = checked_weights(model, report, f"model {self.name}: the checkpoint {self.path}")
        if self.quantisation is None:
            return loaded
        from rbp_lab.models.rounding import round_weights

        rounded = round_weights(loaded.network, self.quantisation, f"model {self.name}")
        return replace(loaded, notes=(*loaded.notes, rounded))
