"""make real: two real models from the package index on four domains, compared by bits per byte.

    python -m tests.real [corpora=DIR] [documents=24] [out=multirun/real]

corpora: a directory with HumanEval.jsonl.gz, hotpot_dev_v1_simplified.json, fca_legal_cases_200.jsonl and
c4.pf-decoding.jsonl; without it the source code of Python's standard library is the text.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from transformers import AutoTokenizer

from rbp_lab.cli import main as command_line
from rbp_lab.commands.measure import job_from_config
from rbp_lab.config.directory import CONF
from rbp_lab.data.tokenize import tokenize
from rbp_lab.data.windows import plan_windows
from rbp_lab.interrupts import CODES
from rbp_lab.jobs.composition import plain
from tests.real.models import MODELS, fetch
from tests.real.plain import Beside, beside_plain

OURS = Path(__file__).parent / "conf"
NAMES = ("real-smollm2", "real-gemma-3")
DOMAINS = ("real-humaneval", "real-hotpotqa", "real-auslegal", "real-c4")


def main(arguments: list[str]) -> int:
    """Fetch, measure, compare with transformers, analyse; returns the exit code."""
    given = dict(one.split("=", 1) for one in arguments)
    out = Path(given.get("out", "multirun/real"))
    domains = ("real-stdlib",)
    if given.get("corpora"):
        os.environ["CORPORA"] = str(Path(given["corpora"]).expanduser().absolute())
        domains = DOMAINS
    more = [f"dataset.num_documents={given['documents']}"] if "documents" in given else []
    for model in MODELS:
        fetch(model, out / "packages")
    common = [f"store={out}", "tracking=none"]
    sweep = [f"model={','.join(NAMES)}", f"dataset={','.join(domains)}", "k=table2", *more]
    code = run(["measure", f"--config-dir={OURS}", "-m", *common, *sweep])
    if code in CODES.values():
        return code
    code = run(["analyze", *common, "name=real"]) or code
    for name in NAMES:
        found = beside(name, domains[-1], out)
        print(f"{name} beside transformers' own logits: {found.line()}", flush=True)
        for problem in found.wrong():
            print(f"error: {name}: {problem}", file=sys.stderr)
            code = 1
    return code


def run(arguments: list[str]) -> int:
    """``rbp-lab`` in this process; returns its exit code."""
    print("$ rbp-lab", *arguments, flush=True)
    try:
        command_line(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def beside(model: str, dataset: str, out: Path, *more: str) -> Beside:
    """Our scores of 20 documents beside those of transformers, on the tokens that its tokenizer makes of them.

    more: overrides of the configuration.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = [f"model={model}", f"dataset={dataset}", "dataset.num_documents=20", f"store={out}", *more]
        job = job_from_config(plain(compose("measure", [f"hydra.searchpath=[file://{OURS}]", *chosen])))
    opened, corpus, protocol = job.model.open(), job.dataset.corpus(), job.dataset.protocol
    tokens = tokenize(corpus, opened.tokenizer, protocol)
    theirs = AutoTokenizer.from_pretrained(job.model.path.rpartition("/")[0], gguf_file=Path(job.model.path).name)
    expected = [theirs(text)["input_ids"][: protocol.max_tokens] for text in corpus.texts]  # where rows are cut off
    ours = [tokens.tokens[a:b].tolist() for a, b in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)]
    network = opened.load(torch.float32, "cpu").network
    return beside_plain(network, plan_windows(tokens, protocol), len(corpus), same_tokens=ours == expected)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
