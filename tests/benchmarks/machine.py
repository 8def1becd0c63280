"""Where a benchmark ran: processor, device, threads and versions, as plain JSON."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("rbp-lab", "torch", "transformers", "tokenizers", "numpy", "numba", "triton", "lm_eval", "vllm")


def describe_machine(device: str) -> dict[str, Any]:
    """CPU model, cores, memory, threads of torch, the GPU when ``device`` is one, and the versions of what matters."""
    import psutil
    import torch

    found: dict[str, Any] = {
        "cpu": cpu_model(),
        "cores": {"physical": psutil.cpu_count(logical=False), "logical": psutil.cpu_count()},
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "threads": torch.get_num_threads(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
        "environment": {k: v for k, v in os.environ.items() if k.startswith(("OMP_", "MKL_", "KMP_", "NUMBA_NUM"))},
    }
    if device.startswith("cuda"):
        card = torch.cuda.get_device_properties(device)
        found["gpu"] = {
            "name": card.name,
            "memory_gb": round(card.total_memory / 2**30, 1),
            "capability": f"{card.major}.{card.minor}",
            "cuda": torch.version.cuda,
        }
    return found


def cpu_model() -> str:
    """The processor's name as its maker gives it, or what the system says where that is not to be had."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The installed versions of the packages that decide speed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine_line(machine: dict[str, Any]) -> str:
    """One line for a terminal."""
    cores, gpu = machine["cores"], machine.get("gpu")
    packages = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if k != "rbp-lab")
    return (
        f"{gpu['name'] + ', CUDA ' + str(gpu['cuda']) + '; ' if gpu else ''}{machine['cpu']}, {cores['logical']} "
        f"processors, torch uses {machine['threads']} threads, {machine['vector_instructions']}; "
        f"Python {machine['python']}, {packages}"
    )
