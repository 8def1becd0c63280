"""What a model source is: something that opens one state of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rbp_lab.records import ModelInfo

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rbp_lab.models.placement import DeviceMap


@dataclass(frozen=True)
class LoadedModel:
    """The network in eval mode without gradients. notes: sentences about the checkpoint that a user should see."""

    network: nn.Module
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OpenModel:
    """One state of a model: info, tokenizer and weights are of the same commit, or of the same files.

    read_tokenizer, read_empty: read the tokenizer, and the network without its weights, from which is planned where
    they go; nobody asks for either where a record is found. load: (dtype, device or device map) → the weights,
    placed as by ``placement.load_pretrained``. verify: raises LabError when the files are no longer those that
    ``info`` describes; call it after the last pass, because weights may be read from disk as they are used. dtype,
    attention: what the source asks for; None leaves the choice to the precision config and to transformers. notes:
    sentences that a user should see.
    """

    info: ModelInfo
    read_tokenizer: Callable[[], Any]
    read_empty: Callable[[], nn.Module]
    load: Callable[[torch.dtype, str | DeviceMap], LoadedModel]
    verify: Callable[[], None]
    dtype: str | None = None
    attention: str | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def tokenizer(self) -> Any:
        return self.read_tokenizer()

    @cached_property
    def empty(self) -> nn.Module:
        return self.read_empty()


@runtime_checkable
class ModelSource(Protocol):
    """Where a model comes from. name: directory-safe, for people. family: models that share one law."""

    @property
    def name(self) -> str: ...

    @property
    def family(self) -> str: ...

    def open(self) -> OpenModel:
        """The model as it is now. Raises LabError when it is missing, incomplete or no causal LM."""
        ...
