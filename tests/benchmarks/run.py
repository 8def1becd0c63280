"""What scores cost on this machine: contenders side by side, in tables and as a record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from rbp_lab.config.build import call
from rbp_lab.config.schemas import KSpec, Launch, Precision, Scoring
from rbp_lab.errors import LabError
from rbp_lab.measurement.devices import choose_device
from rbp_lab.report.terminal import terminal
from rbp_lab.store.atomic import atomic_path
from rbp_lab.store.layout import file_name
from tests.benchmarks.machine import describe_machine, machine_line
from tests.benchmarks.memory import load_source, measure_memory
from tests.benchmarks.rounds import spread
from tests.benchmarks.settings import Bench
from tests.benchmarks.show import show_table

# Raised whenever the same key of a record would mean something else.
RECORD_VERSION = 1


def bench(config: Mapping[str, Any], console: Console | None = None) -> Path:
    """Run the benchmark that ``config`` describes, print its tables and write the record; returns the record's path.

    Raises LabError on wrong settings, and after printing and writing everything when a contender's answer was wrong.
    """
    console = console or terminal()
    settings, precision = call(Bench, config["bench"], "bench"), call(Precision, config["precision"], "precision")
    kspec, launch = call(KSpec, config["k"], "k"), call(Launch, config["launch"], "launch")
    if launch.processes != 1:
        raise LabError(f"a benchmark is one process; got launch.processes={launch.processes}")
    import torch

    from tests.benchmarks.table import failures

    device, threads = choose_device(launch.device), torch.get_num_threads()
    precise = torch.get_float32_matmul_precision()
    try:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        torch.set_float32_matmul_precision("high" if precision.tf32 else "highest")
        record = _measured(config, settings, precision, kspec, device, console)
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precise)
    path = _write(config["store"], record)
    console.print(f"record: {path}", markup=False, highlight=False, soft_wrap=True)
    if wrong := failures(record["tables"]):
        raise LabError(f"{len(wrong)} of the contenders failed and were not timed: {'; '.join(wrong)}")
    return path


def _measured(
    config: Mapping[str, Any], settings: Bench, precision: Precision, kspec: KSpec, device: str, console: Console
) -> dict[str, Any]:
    import torch

    from rbp_lab.models.scorer import describe_head
    from rbp_lab.scoring import choose
    from tests.benchmarks.case import make_case, random_ids
    from tests.benchmarks.contenders import end_to_end, head_stage, implementations
    from tests.benchmarks.peers import installed, peer_contenders
    from tests.benchmarks.table import run_table

    source = config.get("model") or config["shape"]
    dtype = source.get("dtype") or precision.dtype
    name = source["name"] or Path(source["path"]).name
    cannot = implementations(torch.device(device).type)[1]
    present, absent = installed() if settings.peers else ([], "")
    machine = describe_machine(device)

    def note(line: str) -> None:
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)

    console.print(
        f"{name}, {settings.rows} × {settings.tokens} tokens, {dtype}, logits {precision.logits}, on {device}",
        markup=False, highlight=False, style="bold",
    )  # fmt: skip
    note(machine_line(machine))
    for impl, why in cannot.items():
        note(f"ours: {impl} {why}")
    if absent:
        note(absent)
    tables: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    with console.status("loading") as status:
        model = load_source(source, getattr(torch, dtype), device, settings.tokens, settings.seed)
        _check_length(model, settings.tokens, name)
        vocabulary = model.get_input_embeddings().weight.shape[0]
        ids = random_ids(settings.rows, settings.tokens, vocabulary, settings.seed)
        case = make_case(model, device, ids, logits=precision.logits, tf32=precision.tf32)
        bodiless = model.config.get_text_config().num_hidden_layers == 0
        job = {
            "device": device, "threads": settings.threads, "dtype": dtype, "rows": settings.rows, "seed": settings.seed,
            "tokens": settings.tokens, "logits": precision.logits, "tf32": precision.tf32, "source": dict(source),
            "head": None if case.head is None else {
                "vocabulary": case.head.weight.shape[0], "width": case.head.weight.shape[1],
                "bias": case.head.bias is not None, "scale": case.head.scale, "softcap": case.head.softcap,
            },
        }  # fmt: skip
        wanted = {
            "end_to_end": ([] if bodiless else [*end_to_end(case), *peer_contenders(present)], "bare", case.num_tokens),
            "head": (head_stage(case), "product", len(case.targets)),
        }
        for table, (contenders, baseline, tokens) in wanted.items():
            if table not in settings.tables:
                continue
            if not contenders:
                skipped[table] = "the shape has no layers" if bodiless else describe_head(case.plan)
                continue
            say = _phase(status, table)
            made = tables[table] = run_table(case, contenders, baseline, tokens, settings, say)
            if settings.memory:
                say("memory, each in a fresh process")
                mine = [r["name"] for r in made["contenders"] if r["status"] == "timed" and r["group"] != "peer"]
                _add_memory(made, measure_memory({**job, "table": table}, mine))
            show_table(console, table, made, settings)
        if "loop" in settings.tables:
            if bodiless:
                skipped["loop"] = "the shape has no layers"
            else:
                tables["loop"] = _loop(case, settings, kspec, _phase(status, "loop"))
                show_table(console, "loop", tables["loop"], settings)
    for table, why in skipped.items():
        note(f"no table {table}: {why}")
    return {
        "kind": "rbp-lab bench",
        "version": RECORD_VERSION,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "name": name,
        "source": dict(source),
        "dtype": dtype,
        "precision": asdict(precision),
        "settings": asdict(settings),
        "device": device,
        "machine": machine,
        "head": describe_head(case.plan),
        "auto": None
        if case.hidden is None
        else choose(torch.device(device).type, case.hidden.shape[-1], case.hidden.element_size() * 8),
        "unavailable": cannot,
        "peers": {"installed": present, "absent": absent},
        "tables": tables,
        "skipped": skipped,
    }


def _loop(case: Any, settings: Bench, kspec: KSpec, say: Any) -> dict[str, Any]:
    """The third table: three passes over a made corpus after a short one."""
    from tests.benchmarks.loop import documents_for, made_plan, run_loop
    from tests.benchmarks.rounds import CpuMeter

    batch_tokens = Scoring().batch_tokens
    tokens = settings.tokens

    def once(documents: int) -> Any:
        plan = made_plan(documents, tokens, case.rows, settings.seed)
        return run_loop(case, plan, kspec.thresholds, kspec.windows, batch_tokens)

    say("warming up")
    trial = once(max(2, batch_tokens // tokens))
    documents = documents_for(settings.loop_seconds, trial.seconds / trial.tokens, tokens)
    runs, others = [], []
    for i in range(3):
        say(f"run {i + 1} of 3, {documents} documents")
        meter = CpuMeter()
        meter.start()
        runs.append(once(documents))
        others.append(meter.stop())
    return {
        "documents": documents,
        "tokens": runs[0].tokens,
        "batch_tokens": batch_tokens,
        "windows": list(kspec.windows),
        "runs": [{**asdict(r), "others": o} for r, o in zip(runs, others, strict=True)],
        "tokens_per_second": asdict(spread([r.tokens / r.seconds for r in runs])),
        "us_per_token": asdict(spread([r.seconds / r.tokens * 1e6 for r in runs])),
        "outside_scoring": asdict(spread([r.outside / r.seconds for r in runs])),
    }


def _phase(status: Status, table: str) -> Any:
    words = {"end_to_end": "end to end", "head": "head alone", "loop": "whole loop"}[table]
    return lambda line: status.update(f"{words}: {line}")


def _add_memory(table: dict[str, Any], found: Mapping[str, float | str]) -> None:
    for row in table["contenders"]:
        value = found.get(row["name"])
        row["memory_mb"] = value if isinstance(value, int | float) else None
        if isinstance(value, str):
            row["memory_error"] = value


def _check_length(model: Any, tokens: int, name: str) -> None:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and 0 < positions < tokens:
        raise LabError(
            f"bench.tokens={tokens}, but model {name} has only {positions} positions; choose at most that many"
        )


def _write(store: str, record: Mapping[str, Any]) -> Path:
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    path = Path(store) / "bench" / f"{stamp}-{file_name(record['name'], 'the name of a benchmark')}.json"
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path
