"""python -m tests.real.formats [formats=bf16,int8,int4] [documents=24] [out=multirun/real]: what a format costs.

SmolLM2-135M-Instruct in fp32, compared in one pass with itself in each of the formats, on files of the standard
library; one row of a table each. int8 and int4 need torchao.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from transformers import AutoModelForCausalLM, AutoTokenizer

from rbp_lab.commands.compare_models import job_from_config
from rbp_lab.comparison.differences import compare
from rbp_lab.comparison.findings import WHOLE, Finding, findings, paired
from rbp_lab.comparison.job import PairJob
from rbp_lab.comparison.run import floors, run_pair
from rbp_lab.comparison.sums import PairSums, pair_sums
from rbp_lab.comparison.work import load
from rbp_lab.config.directory import CONF
from rbp_lab.jobs.composition import plain
from rbp_lab.measurement.devices import Runtime
from rbp_lab.measurement.prepare import plan_of
from rbp_lab.text import byte_size, number, significant
from tests.real.__main__ import OURS
from tests.real.models import MODELS, fetch

COLUMNS = (
    "b", "b − a of cross-entropy, nats", "b − a of RBP_1", "KL(a‖b), nats", "KL(b‖a), nats", "total variation",
    "same first choice, %", "ranks moved, %", "RMS Δp", "one pass, s", "two passes of model(ids).logits, s",
    "their logits in float32",
)  # fmt: skip
DISTANCES = {"KL(a‖b)": 1, "KL(b‖a)": 1, "total variation": 1, "same first choice": 100, "rank moved": 100,
             "RMS Δp": 1}  # fmt: skip


def main(arguments: list[str]) -> None:
    """Print the table, a row as soon as it is there, and a against itself last."""
    given = {"formats": "bf16,int8,int4", "documents": "24", "out": "multirun/real"}
    given |= dict(one.split("=", 1) for one in arguments)
    out = Path(given["out"])
    model = unpacked(fetch(MODELS[0], out / "packages"), out / "smollm2-135m")
    for cells in (COLUMNS, ["---"] * len(COLUMNS)):
        print(f"| {' | '.join(cells)} |", flush=True)
    for name in given["formats"].split(","):
        job = job_of(model, name, given["documents"], out)
        sums = run_pair(job)[0].sums
        print(f"| {name} | {' | '.join([*said(sums), *cost(job, sums)])} |", flush=True)
    for name, record in floors(job).items():
        print(f"| itself, {name} | {' | '.join(said(record.sums))} | | | |", flush=True)


def unpacked(file: Path, directory: Path) -> Path:
    """The model of a GGUF file as a directory, which can be loaded in any format; its own rounding stays."""
    if not (directory / "config.json").is_file():
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        del read.config.quantization_config  # with it transformers would not save the weights
        model = AutoModelForCausalLM.from_config(read.config, dtype=torch.float32)
        model.load_state_dict(read.state_dict())
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(directory)
        model.save_pretrained(directory)
    return directory


def job_of(model: Path, format: str, documents: str, out: Path) -> PairJob:
    """The comparison of the model in fp32 with itself in a format."""
    sides = [word for side in "ab" for word in (f"model@{side}.model=hf", f"{side}.model.path={model}")]
    chosen = ["dataset=real-stdlib", f"dataset.num_documents={documents}", f"store={out}", f"precision@b={format}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return job_from_config(plain(compose("compare_models", [f"hydra.searchpath=[file://{OURS}]", *sides, *chosen])))


def said(sums: PairSums) -> Iterator[str]:
    """What the comparison says, each with its interval."""
    known = {d.name: d for d in compare(paired(sums))}
    for name, digits in (("cross-entropy", 4), ("RBP_1", 4)):
        d = known[name]
        yield f"{number(d.difference, digits)} [{number(d.low, digits)}, {number(d.high, digits)}]"
    whole = {f.name: f for f in findings(sums) if f.cell == WHOLE}
    for name, unit in DISTANCES.items():
        yield _with_interval(whole[name], unit)


def _with_interval(f: Finding, unit: float) -> str:
    value, low, high = (significant(unit * one, 3) for one in (f.value, f.low, f.high))
    return f"{value} [{low}, {high}]"


def cost(job: PairJob, sums: PairSums) -> Iterator[str]:
    """Processor seconds of one pass, and of both models' logits alone; bytes that keeping these would take."""
    corpus = job.dataset.corpus()
    identity = job.identify(corpus)
    plan, _ = plan_of(job, corpus, identity)
    pair = load(identity, plan, job, Runtime(device="cpu"))

    def one_pass() -> None:
        for _, tokens in pair.tokens(identity, plan, job.scoring.batch_tokens):
            pair_sums(tokens, sums.ks)

    networks = [opened.load(getattr(torch, dtype), "cpu").network
                for opened, dtype in zip(identity.models, identity.dtypes, strict=True)]  # fmt: skip

    @torch.inference_mode()
    def logits() -> None:
        for batch in plan.batches(job.scoring.batch_tokens):
            for network in networks:
                network(input_ids=torch.from_numpy(batch.tokens), use_cache=False)

    for contender in (one_pass, logits):
        begin = time.process_time()
        contender()
        yield number(time.process_time() - begin, 1)
    each = int(sums.column("tokens").sum()) * identity.a.opened.info.vocab_rows
    yield byte_size(2 * 4 * each)


if __name__ == "__main__":
    main(sys.argv[1:])
