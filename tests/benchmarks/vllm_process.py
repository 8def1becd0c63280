"""vLLM in a process of its own: it rewrites classes of transformers and settings of torch in the one it lives in.

``python -m tests.benchmarks.vllm_process JOB.json`` loads the model and answers every line of its input with one line:
the summed nll of each row. The process that times it sends a line and waits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.case import Case
from tests.benchmarks.memory import with_project

READY, ANSWER = "rbp-lab-ready", "rbp-lab-answer"


def start(case: Case, threads: int) -> Callable[[], list[float]]:
    """Load vLLM with the case's weights; the call that is timed, which returns Σ nll of each row [B].

    Raises RuntimeError with vLLM's last words when it does not come up. The process ends with this one.
    """
    with tempfile.TemporaryDirectory(prefix="rbp-lab-bench-") as directory:
        case.model.save_pretrained(directory)
        job = Path(directory) / "job.json"
        dtype = str(next(case.model.parameters()).dtype).removeprefix("torch.")
        job.write_text(json.dumps({"model": directory, "dtype": dtype, "ids": case.ids.tolist()}))
        log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.vllm_process", str(job)], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=log, env={**with_project(), "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip

        def line(begins: str) -> str:
            for said in process.stdout:  # vLLM prints there too
                if said.startswith(begins):
                    return said.removeprefix(begins)
            log.seek(0)
            last = [words.strip() for words in log.read().splitlines() if words.strip()] or ["it said nothing"]
            raise RuntimeError(f"its process ended: {last[-1]}")

        line(READY)

    def call() -> list[float]:
        process.stdin.write("\n")
        process.stdin.flush()
        return json.loads(line(ANSWER))

    return call


def serve(job: dict[str, Any]) -> None:
    """Answer until the input ends."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; else a CPU build wants most of the machine's memory
    from vllm import LLM, SamplingParams

    rows: list[list[int]] = job["ids"]
    model = LLM(
        model=job["model"], skip_tokenizer_init=True, enforce_eager=True, enable_prefix_caching=False,
        dtype=job["dtype"], max_model_len=len(rows[0]) + 1,
    )  # fmt: skip
    prompts = [{"prompt_token_ids": row} for row in rows]
    sampling = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False, temperature=0.0)
    print(READY, flush=True)
    for _ in sys.stdin:
        found = model.generate(prompts, sampling, use_tqdm=False)
        sums = [
            -sum(at[token].logprob for at, token in zip(one.prompt_logprobs[1:], row[1:], strict=True))
            for one, row in zip(found, rows, strict=True)
        ]
        print(ANSWER, json.dumps(sums), flush=True)


if __name__ == "__main__":
    serve(json.loads(Path(sys.argv[1]).read_text()))
