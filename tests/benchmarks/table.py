"""From contenders to the rows of a table: checked, warmed, timed in rounds, and put into plain numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from rbp_lab.errors import first_line
from tests.benchmarks.case import Call, Case, judge
from tests.benchmarks.contenders import Contender
from tests.benchmarks.rounds import DIRTY, CpuMeter, Round, chosen, ratios, run_rounds, spread
from tests.benchmarks.settings import Bench

Say = Callable[[str], None]
MICRO = 1e6


def run_table(
    case: Case,
    contenders: Sequence[Contender],
    baseline: str,
    tokens: int,
    settings: Bench,
    say: Say,
    meter: CpuMeter | None = None,
) -> dict[str, Any]:
    """One table as plain JSON: every contender with its times (µs a token), ratios to ``baseline``, or why it failed.

    tokens: what a call's time is divided by. A contender that raises or whose answer is wrong is not timed; without
    the baseline nothing is.
    """
    begin = time.monotonic()
    calls: dict[str, Call] = {}
    failed: dict[str, str] = {}
    with torch.inference_mode():
        for contender in contenders:
            say(f"checking {contender.name}")
            call, why = admitted(case, contender)
            if call is None:
                failed[contender.name] = why
                continue
            calls[contender.name] = call
            for _ in range(settings.warmup - 2):
                call()
        done: list[Round] = []
        if baseline in calls:
            done = run_rounds(
                calls,
                settings.rounds,
                call_seconds=settings.call_seconds,
                synchronize=case.synchronize,
                meter=meter,
                told=lambda clean, dirty: say(
                    f"{clean} of {settings.rounds} rounds" + (f", {dirty} dirty" * bool(dirty))
                ),
            )
    rows = [described(c, failed.get(c.name), done, baseline, tokens, settings.rounds) for c in contenders]
    return {
        "baseline": baseline,
        "tokens": tokens,
        "contenders": rows,
        "rounds": [{**asdict(r), "dirty": r.dirty, "counts": r in chosen(done, settings.rounds)} for r in done],
        "conditions": conditions(done, settings.rounds),
        "seconds": round(time.monotonic() - begin, 1),
    }


def admitted(case: Case, contender: Contender) -> tuple[Call | None, str]:
    """The contender's call, warm, or None and why it may not take part."""
    try:
        call = contender.prepare(case)
        found = call()
        case.synchronize()
        why = judge(case, contender.answer(found, case) if contender.answer else None, contender.rounding)
    except Exception as error:
        return None, f"{type(error).__name__}: {first_line(error)}"
    return (None, why) if why else (call, "")


def described(
    contender: Contender, why: str | None, done: Sequence[Round], baseline: str, tokens: int, rounds: int
) -> dict[str, Any]:
    """One contender's row: status timed, failed or not timed, and its numbers."""
    row: dict[str, Any] = {"name": contender.name, "what": contender.what, "group": contender.group}
    if why is not None:
        return {**row, "status": "failed", "reason": why}
    if not done:
        return {**row, "status": "not timed", "reason": f"{baseline}, the measure of all others, failed"}
    used = chosen(done, rounds)
    return {
        **row,
        "status": "timed",
        "us_per_token": asdict(spread([r.seconds[contender.name] / tokens * MICRO for r in used])),
        "ratio": asdict(spread(ratios(used, contender.name, baseline))),
    }


def conditions(done: Sequence[Round], rounds: int) -> dict[str, Any]:
    """How clean the rounds were that count, and how many were thrown away."""
    used = chosen(done, rounds)
    others = [r.others for r in used if r.others is not None]
    return {
        "rounds": len(used),
        "dirty": sum(r.dirty for r in used),
        "repeated": len(done) - len(used),
        "others_share": asdict(spread(others)) if others else None,
        "dirty_above": DIRTY,
    }


def failures(tables: Mapping[str, Any]) -> list[str]:
    """ "table, contender: why" for everything that failed its check."""
    return [
        f"{name}, {row['name']}: {row['reason']}"
        for name, table in tables.items()
        for row in table.get("contenders", [])
        if row["status"] == "failed"
    ]
