"""Terminal tables with rich: what was measured, and the exponents. A missing number prints as a dash, never as NaN."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rbp_lab.dimensions import apart_beside_names
from rbp_lab.fits.points import family_name
from rbp_lab.fits.result import WARNINGS, FitResult
from rbp_lab.quantities import CE, RBP
from rbp_lab.report.fitting import print_table
from rbp_lab.store.clean import Unfinished
from rbp_lab.store.header import run_header
from rbp_lab.store.lease import STALE
from rbp_lab.store.shards import read_plan
from rbp_lab.text import DASH, bracket, count, number, one_line, percent, visible

MOST_FITS = 30  # of a data set, beyond which the terminal has those of the k shown alone


class Terminal(Console):
    """A console that ends a process whose output nobody reads with 141, as ``cli.main`` does; rich itself with 1."""

    def on_broken_pipe(self) -> None:
        with suppress(SystemExit):
            super().on_broken_pipe()  # nothing is written from here on
        raise SystemExit(141)


def terminal() -> Console:
    """A console on stdout: as wide as the terminal, and wide enough for every table when written to a file or pipe."""
    return Terminal() if sys.stdout.isatty() else Terminal(width=160)


def print_line(console: Console, line: str) -> None:
    """Print a line as it is: names with brackets or numbers are neither styled nor broken."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_note(console: Console, sentence: str) -> None:
    """Print a sentence in grey: broken between words in a terminal, whole on one line in a file or pipe."""
    whole = not console.is_terminal
    console.print(visible(sentence), style="dim", markup=False, highlight=False, soft_wrap=whole)


def runs_table(headers: Sequence[Mapping[str, Any]]) -> Table:
    """One row per finished run: names, S, CE (nats), RBP_1, scored tokens, dtype, rounding, time (UTC), key.

    headers: record.json. Where runs have the same names, also what else tells them apart.
    """
    apart = apart_beside_names(map(run_header, headers))
    several = any(apart.values())
    table = Table(title="finished", title_justify="left")
    for name in ("model", "dataset"):
        table.add_column(name)
    for name in ("S", "CE", "RBP_1", "tokens", "dtype"):
        table.add_column(name, justify="right")
    for name in ("weights", *(["differs in"] if several else []), "finished (UTC)", "key"):
        table.add_column(name)
    for h in headers:
        summary = h["summary"]
        rbp_1 = summary["rbp"].get("1")
        table.add_row(
            Text(h["model"]["name"]), Text(h["dataset"]["name"]), count(h["model"]["non_embedding_params"]),
            number(summary["cross_entropy"]), DASH if rbp_1 is None else number(rbp_1[0]), count(summary["num_tokens"]),
            h["scoring"]["dtype"], h["model"].get("quantisation") or DASH,
            *([Text(apart[h["key"]] or DASH)] if several else []),
            h["provenance"].get("finished", DASH)[:16].replace("T", " "), h["key"],
        )  # fmt: skip
    return table


def unfinished_table(work: Sequence[Unfinished]) -> Table:
    """One row per unfinished measurement: model, data set, finished shards, what goes on with it, key."""
    table = Table(title="unfinished", title_justify="left")
    for name in ("model", "dataset", "shards", "state", "key"):
        table.add_column(name, no_wrap=name == "key", overflow="fold")
    for one in work:
        table.add_row(*map(Text, _unfinished_row(one)))
    return table


def _unfinished_row(work: Unfinished) -> tuple[str, ...]:
    plan = read_plan(work.files)
    if work.is_worked_on:
        owners = ", ".join(map(str, work.owners))
        silent = f"stale: not heard of for {number(work.silent / 60, 0)} min: {owners}; the same command goes on"
        state = silent if work.silent > STALE else f"running: {owners}"
    elif work.files.error.is_file():
        state = "failed: " + one_line(work.files.error.read_text(encoding="utf-8", errors="replace"))
    else:
        state = "stopped; the same command goes on"
    about = {} if plan is None else plan.about
    shards = "?" if plan is None else f"{len(work.files.finished())} of {len(plan)}"
    names = [visible(str(about.get(name, "?"))) for name in ("model", "dataset")]
    return *names, shards, state, work.files.directory.name


def models_table(points: pd.DataFrame, dataset: str, ks: Sequence[int]) -> Table:
    """One row per model on a data set: name, S, CE (nats), RBP_k of those k that were measured, scored tokens."""
    rows = points[(points["dataset"] == dataset) & points["metric"].isin([CE.name, RBP.name])]
    rbp = rows[rows["metric"] == RBP.name]
    measured = [k for k in ks if (rbp["k"] == k).any()]
    with_ce = bool((rows["metric"] == CE.name).any())
    table = Table(title=Text(f"Models on {visible(dataset)}"), title_justify="left")
    table.add_column("model", no_wrap=True)
    for name in ["S", *(["CE"] if with_ce else []), *(f"RBP_{k}" for k in measured), "tokens"]:
        table.add_column(name, justify="right", no_wrap=True)
    ordered = rows.sort_values(["family", "size", "training_tokens"], kind="stable")
    for _, model in ordered.drop_duplicates("model").iterrows():
        mine = rows[rows["model"] == model["model"]]
        ce = mine.loc[mine["metric"] == CE.name, "value"]
        value = {k: mine.loc[(mine["metric"] == RBP.name) & (mine["k"] == k), "value"] for k in measured}
        cells = [number(math.exp(-v.iloc[0])) if len(v) else DASH for v in value.values()]
        tokens = mine["n"].dropna()
        table.add_row(
            Text(visible(model["model"])), count(model["size"]),
            *([number(ce.iloc[0]) if len(ce) else DASH] if with_ce else []),
            *cells, count(tokens.max() if len(tokens) else None),
        )  # fmt: skip
    return table


def exponents_table(fits: Sequence[FitResult], dataset: str) -> Table:
    """One row per fit of a data set: quantity, family, α with its interval, R², RMSE, and the warning codes.

    Of laws along trainings, the training in place of the family.
    """
    mine = [f for f in fits if f.label.dataset == dataset and f.ok]
    level = percent(mine[0].confidence) if mine else "95%"
    axis = mine[0].points.axis if mine else "S"
    title = Text(f"Exponents on {visible(dataset)}: value ∝ {axis}^−α, R² in log10-log10")
    table = Table(title=title, title_justify="left")
    table.add_column("quantity", no_wrap=True)
    table.add_column("family" if axis == "S" else "training", no_wrap=True)
    for name in ("α", f"{level} interval", "R²", "RMSE %", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("warnings")
    for f in mine:
        low, high = f.intervals["alpha"]
        table.add_row(
            f.label.quantity, Text(visible(f.label.training or family_name(f.label.family))), number(f.params["alpha"]),
            Text(bracket(low, high)), number(f.r2, 4), number(f.rmse_percent, 2), str(f.n), " ".join(f.warnings),
        )  # fmt: skip
    return table


def notes(fits: Sequence[FitResult], dataset: str) -> list[str]:
    """Sentences to print below the exponents: each refusal with all it concerns, each warning code in words."""
    mine = [f for f in fits if f.label.dataset == dataset]
    of = [f.label.training or family_name(f.label.family) for f in mine]
    reasons: dict[tuple[str, str], list[str]] = {}
    for f, about in zip(mine, of, strict=True):
        if not f.ok:
            reasons.setdefault((about, f.message), []).append(f.label.quantity)
    shared: dict[tuple[str, str], list[str]] = {}  # by what could not be fitted and why, of whom
    for (about, why), names in reasons.items():
        every = len(names) == of.count(about) > 4
        shared.setdefault(("any law" if every else ", ".join(names), why), []).append(about)
    lines = []
    for (what, why), whom in shared.items():
        named = f"{what} of {', '.join(whom)}" if what == "any law" or len(whom) > 1 else f"{whom[0]} {what}"
        lines.append(f"no fit for {named}: {why}")
    codes = sorted({code for f in mine for code in f.warnings})
    return lines + [f"{code}: {WARNINGS[code]}" for code in codes]


def bits_table(bits: pd.DataFrame, dataset: str) -> Table:
    """One row per model on a data set: vocabulary, tokens, bytes, total bits, bits per byte with its interval."""
    table = Table(title=Text(f"Bits per byte on {visible(dataset)}"), title_justify="left")
    table.add_column("model", no_wrap=True)
    for name in ("vocabulary", "tokens", "bytes", "total bits", "bits per byte", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in bits[bits["dataset"] == dataset].itertuples():
        table.add_row(
            Text(visible(row.model)), count(row.vocabulary), count(row.tokens), count(row.bytes),
            count(round(row.bits)), number(row.bits_per_byte), Text(bracket(row.low, row.high)),
        )  # fmt: skip
    return table


def in_print(fits: Sequence[FitResult], dataset: str, ks: Sequence[int]) -> tuple[list[FitResult], str]:
    """The fits of a data set to print, and a line about those left to the files: of many, those of other k."""
    mine = [f for f in fits if f.label.dataset == dataset]
    few = [f for f in mine if f.label.k is None or f.label.k in ks]
    if len(mine) <= MOST_FITS or not any(f.ok for f in few):
        return mine, ""
    rest = [f for f in mine if f not in few]
    refused = sum(not f.ok for f in rest)
    left = f", {refused} of which could not be fitted" if refused else ""
    return few, f"{len(rest)} more laws, of other k, are in the report and in fits.csv{left}" if rest else ""


def show(
    console: Console,
    points: pd.DataFrame,
    fits: Sequence[FitResult],
    ks: Sequence[int] = (1, 10, 100),
    bits: pd.DataFrame | None = None,
    remark: str = "",
) -> None:
    """Print, for every data set, the models, the exponents and what has to be said about them.

    bits: rows for ``bits_table`` of the data sets whose models have different vocabularies. remark: what is said there.
    """
    for dataset in sorted(points["dataset"].unique()):
        print_table(console, models_table(points, dataset, ks))
        if bits is not None and (bits["dataset"] == dataset).any():
            print_line(console, remark)
            print_table(console, bits_table(bits, dataset))
        printed, rest = in_print(fits, dataset, ks)
        if any(f.ok for f in printed):
            print_table(console, exponents_table(printed, dataset), names=2)
        for line in (*notes(printed, dataset), *([rest] if rest else [])):
            print_note(console, line)
