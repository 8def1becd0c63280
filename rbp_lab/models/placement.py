"""Which device holds which layers of a model, and loading it so; accelerate plans, and moves what lies elsewhere."""

from __future__ import annotations

import logging
import os
import warnings
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rbp_lab.errors import LabError, out_of_memory
from rbp_lab.text import byte_size, number

if TYPE_CHECKING:
    import torch
    from torch import nn

Memory = Mapping[int | str, int]  # bytes for weights by device: GPUs by index, then "cpu"
DeviceMap = Mapping[str, int | str]  # module ("" is the whole model) → GPU, "cpu" or "disk", as accelerate takes it


@dataclass(frozen=True)
class Placement:
    """Where a model's weights lie.

    asked: the device that should hold them. device: takes the tokens; weights in a slower place are moved to it, or to
    another GPU, whenever they are used. shares: of the bytes of the weights, by device.
    """

    asked: str
    device: str
    device_map: DeviceMap
    shares: Mapping[str, float]

    @property
    def offloaded(self) -> bool:
        """Whether weights lie where nothing is computed."""
        return bool(self.shares.keys() & {"cpu", "disk"} - {self.device})

    def sentence(self) -> str:
        """Where the weights are, for a user; "" when all are where they should be."""
        if set(self.shares) == {self.asked}:
            return ""
        if self.device != self.asked and self.device == "cpu":
            return "no GPU has memory for its largest layer, so it is computed on the CPU"
        places = ", ".join(f"{number(100 * share, 0)}% on {name}" for name, share in self.shares.items())
        away = " and ".join(sorted(self.shares.keys() & {"cpu", "disk"} - {self.device}))
        slow = f"; those on {away} are moved to where they are used in every pass, which is slow"
        return f"its weights do not lie on one device: {places}" + (slow if away else "")


def place_model(network: nn.Module, dtype: torch.dtype, device: str, memory: Memory, how: str) -> Placement:
    """Where the weights of ``network`` go, of which only shapes are needed, when they are loaded in ``dtype``.

    device: of this process, the first of ``memory``. how: "single" puts all on it; "balanced" spreads the layers
    evenly over the GPUs of ``memory``; "auto" does so when they do not fit on one. What no GPU holds goes to the CPU's
    memory, and what that does not hold stays on disk. LabError when a model that must be spread does not say which
    layers are to stay whole.
    """
    first = next(iter(memory.values()))
    if how == "single" or (how == "auto" and weight_bytes(network, dtype) <= first):
        return Placement(device, device, {"": device}, {device: 1.0})
    device_map = _spread(network, dtype, memory)
    sizes: Counter[int | str] = Counter()
    for name, weight in network.named_parameters():
        sizes[_device_of(name, device_map)] += weight.numel()
    named = {one: f"cuda:{one}" if isinstance(one, int) else one for one in (*memory, "disk") if one in sizes}
    shares = {name: round(sizes[one] / sizes.total(), 3) for one, name in named.items()}
    gpus = [name for one, name in named.items() if isinstance(one, int)]
    return Placement(device, gpus[0] if gpus else "cpu", device_map, shares)


def weight_bytes(network: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of the weights in ``dtype``; what several layers share counts once."""
    return sum(weight.numel() for weight in network.parameters()) * dtype.itemsize


def gpus_per_model(network: nn.Module, dtype: torch.dtype, memory: Sequence[int], how: str) -> int:
    """The least number of GPUs that hold the model, at least 1; all of them when they do not, or when ``how`` says so.

    memory: bytes for weights of each GPU.
    """
    if how != "auto":
        return 1 if how == "single" else max(1, len(memory))
    for gpus in range(1, len(memory) + 1):
        some = dict.fromkeys(range(gpus), min(memory))
        if not place_model(network, dtype, "cuda", some, how).offloaded:
            return gpus
    return max(1, len(memory))


def limited(memory: Memory, limits: Mapping[str, int | str]) -> dict[int | str, int]:
    """``memory`` with no device above its limit. limits: device ("0", "cpu") → size, as ``bytes_of`` takes it."""
    most = {device: bytes_of(size) for device, size in limits.items()}
    return {device: min(size, most.get(str(device), size)) for device, size in memory.items()}


def bytes_of(size: int | str) -> int:
    """A number of bytes, or such as "20GB" and "8GiB", as a number of bytes."""
    from accelerate.utils.modeling import convert_file_size_to_int

    return int(size) if str(size).isdecimal() else convert_file_size_to_int(size)


def _spread(network: nn.Module, dtype: torch.dtype, memory: Memory) -> dict[str, int | str]:
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    whole = getattr(network, "_no_split_modules", None)
    if not whole:
        raise LabError(
            f"the weights do not fit on one device, and {type(network).__name__} does not say which of its layers must "
            "stay whole (_no_split_modules), so it cannot be spread; choose launch.placement=single on a device with "
            f"more than {byte_size(weight_bytes(network, dtype))}"
        )
    about = {
        "no_split_module_classes": sorted(whole),
        "special_dtypes": {name: dtype for name, _ in network.named_parameters()},
    }
    with _quiet():
        even = get_balanced_memory(network, max_memory=dict(memory), **about)
        found = infer_auto_device_map(network, max_memory=even, **about)
        if even != memory and not set(found.values()) <= {one for one in memory if isinstance(one, int)}:
            # An even share can be too small for the layers of one GPU, where full ones would do.
            found = infer_auto_device_map(network, max_memory=dict(memory), **about)
    return dict(found)


def _device_of(name: str, device_map: DeviceMap) -> int | str:
    while name not in device_map:
        name = name.rpartition(".")[0]
    return device_map[name]


def load_pretrained(where: str | DeviceMap, **arguments: Any) -> tuple[nn.Module, dict[str, Any]]:
    """The causal LM that transformers loads, on one device or placed by a device map, and its loading report.

    arguments: of ``from_pretrained``. The report lists weights that are missing or of another shape, which are random.
    """
    from transformers import AutoModelForCausalLM

    device_map = dict(where) if isinstance(where, Mapping) else {"": where}
    arguments |= {"device_map": device_map, "ignore_mismatched_sizes": True, "output_loading_info": True}
    if "disk" not in device_map.values():
        return AutoModelForCausalLM.from_pretrained(**arguments)
    # Weights that stay on disk are read from the checkpoint; only those that it holds in another form are written.
    folder = TemporaryDirectory(prefix="rbp-lab-weights-", ignore_cleanup_errors=True)
    with _quiet():
        network, report = AutoModelForCausalLM.from_pretrained(**arguments, offload_folder=folder.name)
    if os.listdir(folder.name):
        _written.append(folder)
        weakref.finalize(network, folder.cleanup)
    else:
        folder.cleanup()
    return network, report


_written: list[TemporaryDirectory[str]] = []


def remove_written_weights() -> None:
    """Remove what ``load_pretrained`` wrote; for a process that ends without the end of Python."""
    for folder in _written:
        folder.cleanup()


@contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """Turn a lack of memory into a LabError that says what it was needed for ("to …"), and what to do."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise LabError(
            f"memory is not enough {what}; choose a smaller precision, shorter rows (dataset.protocol.max_tokens), a "
            "smaller scoring.logits_mb, less memory for weights (launch.max_memory, with launch.placement=auto), or "
            "more GPUs for each process (fewer launch.processes, launch.placement=balanced)"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence accelerate's warnings; what they say of the placement is in ``Placement.sentence``."""
    logger = logging.getLogger("accelerate")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="accelerate")
            yield
    finally:
        logger.setLevel(level)
