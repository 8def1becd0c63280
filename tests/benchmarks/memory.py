"""Peak memory of each contender in a fresh process: what one call takes beside weights, inputs and the body's own peak.

``python -m tests.benchmarks.memory`` reads a job as JSON from its input, imports everything once, and forks a child
for each contender before any tensor exists; it prints one line of JSON for each.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TIMEOUT = 900.0
ROOT = Path(__file__).resolve().parent.parent.parent


def measure_memory(job: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | str]:
    """Extra megabytes (2^20 bytes) of one call of each contender of ``names``, or a sentence where it failed.

    job: table ("end_to_end" or "head"), device, threads, dtype, rows, tokens, seed, logits, tf32, and for the first
    table ``source`` (the node of a model or a shape), for the second ``head`` (vocabulary, width, bias, scale,
    softcap). Empty where processes cannot be forked.
    """
    if not names or not hasattr(os, "fork"):
        return {}
    given = json.dumps({**job, "names": list(names)})
    command = [sys.executable, "-m", "tests.benchmarks.memory"]
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=False, timeout=TIMEOUT, env=with_project()
    )
    found: dict[str, float | str] = {}
    for line in done.stdout.splitlines():
        if line.startswith('{"name"'):
            answer = json.loads(line)
            found[answer["name"]] = answer.get("megabytes", answer.get("error", "no answer"))
    return found | {name: "its process ended without an answer" for name in names if name not in found}


def with_project() -> dict[str, str]:
    """This process's environment, in which ``python -m tests.benchmarks.…`` is found wherever it is started."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def main() -> None:
    """Fork, let the child measure one contender, wait; once for each name of the job."""
    job = json.load(sys.stdin)
    import torch
    import transformers  # noqa: F401

    import tests.benchmarks.contenders  # noqa: F401

    for name in job["names"]:
        sys.stdout.flush()
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            continue
        try:
            if job["threads"]:
                torch.set_num_threads(job["threads"])
            answer = {"name": name, "megabytes": round(_extra(job, name) / 2**20, 2)}
        except Exception as error:
            answer = {"name": name, "error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), flush=True)
        os._exit(0)


def _extra(job: Mapping[str, Any], name: str) -> int:
    import torch

    from rbp_lab.models.head import full_logits, intercept
    from tests.benchmarks.case import smaller
    from tests.benchmarks.contenders import end_to_end, head_stage

    torch.set_float32_matmul_precision("high" if job["tf32"] else "highest")
    case = made_case(job)
    contenders = {c.name: c for c in (end_to_end if job["table"] == "end_to_end" else head_stage)(case)}
    contender = contenders[name]
    with torch.inference_mode():
        contender.prepare(smaller(case))()  # what is loaded or compiled once is not what a batch takes
        peak = PeakMemory(case.device)
        if job["table"] == "end_to_end" and case.plan.kind == "head":
            with intercept(case.model, case.plan, lambda hidden, head: None):
                full_logits(case.model, case.ids)
                peak.reset()
                full_logits(case.model, case.ids)
        else:
            peak.reset()
        before = peak.read()
        call = contender.prepare(case)
        peak.reset()
        call()
        return max(0, peak.read() - before)


def made_case(job: Mapping[str, Any]) -> Any:
    """The case that a job describes: as the benchmark's own for a model, of random numbers for a head alone."""
    import torch

    from rbp_lab.models.head import HeadPlan
    from rbp_lab.scoring import LMHead
    from tests.benchmarks.case import Case, batch_of, make_case, random_ids

    dtype, device = getattr(torch, job["dtype"]), job["device"]
    if job["table"] == "end_to_end":
        model = load_source(job["source"], dtype, device, job["tokens"], job["seed"])
        ids = random_ids(job["rows"], job["tokens"], model.get_input_embeddings().weight.shape[0], job["seed"])
        return make_case(model, device, ids, logits=job["logits"], tf32=job["tf32"])
    head = job["head"]
    ids = random_ids(job["rows"], job["tokens"], head["vocabulary"], job["seed"])
    n, width = job["rows"] * (job["tokens"] - 1), head["width"]
    weight = torch.empty(head["vocabulary"], width, dtype=dtype, device=device).normal_(0, width**-0.5)
    bias = torch.zeros(head["vocabulary"], dtype=dtype, device=device) if head["bias"] else None
    on_device = torch.from_numpy(ids).to(device)
    return Case(
        model=None,
        device=device,
        ids=on_device,
        batch=batch_of(ids),
        targets=on_device[:, 1:].reshape(-1),
        plan=HeadPlan("head", head["scale"], head["softcap"]),
        hidden=torch.empty(n, width, dtype=dtype, device=device).normal_(),
        head=LMHead(weight, bias, head["scale"], head["softcap"]),
        logits=job["logits"],
        tf32=job["tf32"],
    )


def load_source(node: Mapping[str, Any], dtype: Any, device: str, tokens: int, seed: int) -> Any:
    """The model of a configuration node: random weights of a shape, or a model source's own."""
    from rbp_lab.config.build import build
    from tests.benchmarks.shapes import Shape

    source = build(node, "shape" if str(node["_target_"]).endswith(".Shape") else "model")
    if isinstance(source, Shape):
        return source.load(dtype, device, positions=max(tokens + 1, 128), seed=seed)  # vLLM generates one more
    return source.open().load(dtype, device).network


class PeakMemory:
    """The highest memory since ``reset``, in bytes: of the device on CUDA, of this process elsewhere."""

    def __init__(self, device: str):
        self._cuda = device.startswith("cuda")

    def reset(self) -> None:
        import gc

        gc.collect()
        if self._cuda:
            import torch

            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        elif Path("/proc/self/clear_refs").exists():
            # What an earlier call freed and the C library kept for later calls of its thread is not this call's.
            if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
                libc.malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is held now

    def read(self) -> int:
        if self._cuda:
            import torch

            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated()
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            import resource

            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main()
