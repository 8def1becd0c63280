"""Whether a model can be measured here, found out without its weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from rbp_lab.data.windows import Windowing
from rbp_lab.errors import LabError
from rbp_lab.hub.files import cache_alone_when_unreachable
from rbp_lab.measurement.devices import choose_device
from rbp_lab.models.hub_snapshot import weights_of
from rbp_lab.models.opening import HEAD, lacks_torchao
from rbp_lab.models.source import ModelSource
from rbp_lab.records import ModelInfo
from rbp_lab.text import byte_size

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ROUNDED = {"int8": 1.0, "int4": 1.0, "fp8": 1.0}  # of the layers, as torchao keeps them
# Beside the weights: hidden states, tiles of logits, the process itself.
BESIDE = 1 << 30


@dataclass(frozen=True)
class Check:
    """What is known of a model before it is loaded.

    problem: why it cannot be measured, as a sentence; "" when nothing speaks against it. parameters: in all; None when
    the config could not be had. memory: bytes that the weights and what is beside them need. download: bytes that are
    not on this machine yet, 0 for a model of this machine, None when the hub does not say. operations: of a token.
    device, dtype: of the products.
    """

    name: str
    problem: str = ""
    parameters: int | None = None
    memory: int | None = None
    download: int | None = None
    operations: float | None = None
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def seconds(self) -> float | None:
        """What the products alone of 100,000 tokens take, a lower bound; torch is tried out for it."""
        return None if self.operations is None else self.operations * 1e5 / speed(self.device, self.dtype)


def check(source: ModelSource, protocol: Windowing, dtype: str, device: str, room: int | None = None) -> Check:
    """Look at a model's config, tokenizer and list of files, and at this machine.

    device: "auto", "cpu" or "cuda". room: bytes that the model may take, None for what is free.
    """
    try:
        info = source.look() if hasattr(source, "look") else source.open().info
    except LabError as error:
        return Check(source.name, str(error).removeprefix(f"model {source.name}: "))
    dtype = getattr(source, "dtype", None) or dtype
    size = BYTES[dtype]
    kind = info.quantisation or ""
    rounding = kind.removesuffix(HEAD)
    layers = info.params.non_embedding * ROUNDED.get(rounding, size)
    # Rounded, the head is no longer the embedding.
    head = info.params.head or (info.params.embedding if kind.endswith(HEAD) else 0)
    memory = int(layers + (info.params.embedding + head) * size) + BESIDE
    download, lacks = _download(source, info)
    return Check(
        info.name,
        _too_short(info, protocol)
        or lacks
        or (lacks_torchao(rounding) if rounding in ROUNDED else "")
        or _too_large(memory, device, room),
        info.params.total,
        memory,
        download,
        operations(info),
        device,
        dtype,
    )


def operations(info: ModelInfo) -> float:
    """Floating point operations of a token: two for each weight of the layers and of the output layer."""
    head = info.params.head or info.params.embedding
    return 2.0 * (info.params.non_embedding + head)


def _too_short(info: ModelInfo, protocol: Windowing) -> str:
    if info.max_positions is None or protocol.max_tokens <= info.max_positions:
        return ""
    return (
        f"it has {info.max_positions} positions, fewer than dataset.protocol.max_tokens={protocol.max_tokens}; choose "
        "at most that many"
    )


def _too_large(memory: int, device: str, room: int | None) -> str:
    """A sentence when weights would stay on disk; GPUs and main memory share a model (launch.placement=auto)."""
    if room is None:
        room = available("cpu")
        if room is None or memory > room:
            device = choose_device(device)  # torch: not where main memory is enough
            room = available(device)
    if room is None or memory <= room:
        return ""
    where = "memory" if device == "cpu" else "the memory of the GPUs and of this machine"
    return f"it needs about {byte_size(memory)} and {where} has {byte_size(room)} free; choose a smaller precision"


def available(device: str) -> int | None:
    """Free bytes of main memory, with device "cuda" also of every GPU; None when the system does not say."""
    if device != "cpu":
        import torch

        gpus = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
        return sum(gpus) + (available("cpu") or 0)
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            fields = dict(line.split(":", 1) for line in stream)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _download(source: ModelSource, info: ModelInfo) -> tuple[int | None, str]:
    """Bytes of weights that are to be fetched, and a sentence when the hub has no weights."""
    if info.revision is None:
        return 0, ""
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        with cache_alone_when_unreachable():
            found = HfApi().model_info(info.path, revision=info.revision, files_metadata=True)
    except Exception:
        return None, ""  # the files may all be here; loading them says what is wrong
    files = {one.rfilename: one.size for one in found.siblings or []}
    if weights := weights_of(info.path, info.revision, files):
        absent = [
            name for name in weights
            if not isinstance(try_to_load_from_cache(info.path, name, revision=info.revision), str)
        ]  # fmt: skip
        return (None if any(files[name] is None for name in absent) else sum(files[name] for name in absent)), ""
    if any(name.endswith(".gguf") for name in files):
        return 0, ""  # opened, and so fetched
    return None, f"{info.path} holds no weights of transformers (.safetensors or .bin)"


@cache
def speed(device: str, dtype: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Floating point operations a second of a product of this device, the best of a few. device: as of ``check``."""
    import torch

    device = choose_device(device)
    kind = getattr(torch, dtype)
    n = 1024 if device == "cpu" else 8192
    a, b = (torch.ones(n, n, dtype=kind, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        begin = clock()
        c = a @ b
        float(c[0, 0])  # waits for a GPU
        best = min(best, clock() - begin)
    return 2.0 * n**3 / max(best, 1e-9)
