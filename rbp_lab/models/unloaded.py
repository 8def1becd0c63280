"""A model of transformers before its weights are there: its config, its network without weights and its tokenizer."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from rbp_lab.errors import LabError
from rbp_lab.hub.errors import quiet
from rbp_lab.models.description import Description, describe
from rbp_lab.models.files import about_adapter
from rbp_lab.models.hub_snapshot import fetch_small_files
from rbp_lab.models.opening import checked_tokenizer, local_path, reading
from rbp_lab.models.params import empty_model

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from rbp_lab.models.hf import HFModel


class Unloaded:
    """Config, network without weights and tokenizer of a model, each read when it is first asked for, and once.

    source: whose model. commit: of a hub id, None for a directory. Reading raises LabError as ``HFModel.open`` does.
    """

    def __init__(self, source: HFModel, commit: str | None):
        self._source, self._commit = source, commit

    @cached_property
    def where(self) -> dict[str, Any]:
        """What every from_pretrained takes: the place, and leave to run the repository's code.

        Small files of the hub are in its cache from here on, and what may not be read is refused.
        """
        source, commit = self._source, self._commit
        place = str(local_path(source.path)) if commit is None else source.path
        where = {
            "pretrained_model_name_or_path": place,
            "trust_remote_code": source.trust_remote_code,
            "revision": commit or "main",
        }
        if commit is not None:
            _fetch(source, commit)
        if source.trust_remote_code:
            _refuse_foreign_code(source, where)
        return where

    @cached_property
    def config(self) -> Any:
        from transformers import AutoConfig

        where = self.where
        with quiet(), reading(self._source, "the config"):
            return AutoConfig.from_pretrained(**where)

    @cached_property
    def network(self) -> nn.Module:
        return empty_model(self.config, self._source.trust_remote_code)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        source, where = self._source, self.where
        with quiet(), reading(source, "the tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(**where)
        return checked_tokenizer(tokenizer, f"model {source.name}: {source.path}")

    def describe(self) -> Description:
        return describe(self.config, self.network, self.tokenizer)


def _fetch(source: HFModel, commit: str) -> None:
    """Have the small files of a hub id here. LabError when it is an adapter."""
    from huggingface_hub import constants
    from transformers.utils.peft_utils import find_adapter_config_file

    with quiet(), reading(source, "the config"):
        if find_adapter_config_file(source.path, revision=commit) is not None:
            raise LabError(about_adapter(f"model {source.name}: {source.path}"))
        if not constants.HF_HUB_OFFLINE:
            fetch_small_files(source.path, commit)


def _refuse_foreign_code(source: HFModel, where: dict[str, Any]) -> None:
    """Code of another repository is at no commit of this one, so a record's key would not say what ran."""
    from transformers import PreTrainedConfig
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    place = {name: where[name] for name in ("pretrained_model_name_or_path", "revision")}
    with quiet(), reading(source, "the config"):
        config, _ = PreTrainedConfig.get_config_dict(**place)
        tokenizer = get_tokenizer_config(**place)
    for name in _classes(config.get("auto_map")) + _classes(tokenizer.get("auto_map")):
        repository, marked, _ = name.partition("--")
        if marked and repository != source.path:
            raise LabError(
                f"model {source.name}: its code comes from another repository ({repository}), which its own commit "
                "does not pin; copy the .py files beside the model in a directory and name them there in auto_map"
            )


def _classes(auto_map: Any) -> list[str]:
    """The class names of an auto_map: of each entry one, or a tokenizer's pair (slow, fast)."""
    values = auto_map.values() if isinstance(auto_map, dict) else [auto_map]
    flat = [name for value in values for name in (value if isinstance(value, (list, tuple)) else [value])]
    return [name for name in flat if isinstance(name, str)]
