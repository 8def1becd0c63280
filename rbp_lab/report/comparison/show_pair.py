"""A comparison in one pass in the terminal, as CSV tables and as a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rbp_lab.comparison.accepted import Accepted, accepted_frame
from rbp_lab.comparison.findings import WHOLE, Finding
from rbp_lab.comparison.percentiles import Percentile
from rbp_lab.comparison.record import PERTURBATIONS, PairRecord
from rbp_lab.comparison.summary import Summary, TokenText, summary
from rbp_lab.report.comparison.page import models_of
from rbp_lab.report.comparison.pair_page import write_pair_page
from rbp_lab.report.comparison.show import Display, differences_table, headline, label, worst_table
from rbp_lab.report.fitting import print_table
from rbp_lab.report.terminal import print_line
from rbp_lab.store.layout import Store
from rbp_lab.store.tables import write_csv
from rbp_lab.text import between, bracket, count, significant

BY_CONFIDENCE = ("KL(a‖b)", "total variation", "same first choice", "rank moved", "mean Δp", "RMS Δp")


def show_pair(
    console: Console, store: str, record: PairRecord, floor: Mapping[str, PairRecord], how: Display,
    texts: Callable[[Sequence[str]], Sequence[TokenText]], shown: int,
) -> Path:  # fmt: skip
    """Print the headline and the tables of a comparison, and keep them with a page beside its record.

    floor: comparisons of a with itself, by perturbation. texts: gives the documents of some names token by token, of
    which the page has those ``shown`` that carry the difference. Returns the page's path.
    """
    found = summary(record, floor, how.confidence)
    files = Store(store).pair(record.header.key, how.name)
    for rows, path in ((found.differences, files.differences), (found.findings, files.distances),
                       (found.percentiles, files.percentiles)):  # fmt: skip
        write_csv(pd.DataFrame([asdict(row) for row in rows]), path)
    write_csv(found.documents, files.documents)
    write_csv(accepted_frame(found.accepted), files.accepted)
    said = sentences(found, *models_of(record.header.a, record.header.b))
    tokens = texts(found.documents["document"].head(shown).tolist()) if shown else ()
    report = write_pair_page(files.report, record, found, said, how.detect, tokens)
    print_line(console, f"\na: {label(record.header.a)}\nb: {label(record.header.b)}")
    for line in said:
        print_line(console, line)
    print_table(console, differences_table(found.differences, how.detect, found.floor))
    print_table(console, distances_table(found))
    print_table(console, confidence_table(found))
    if found.accepted:
        print_table(console, accepted_table(found.accepted))
    if how.worst and len(found.documents):
        print_table(console, worst_table(found.documents.head(how.worst), found.documents))
    print_line(console, f"report: {report}")
    return report


def sentences(found: Summary, a: str, b: str) -> list[str]:
    """The headline, and a second one of how far the distributions are apart. a, b: what the models are called."""
    kl, same = (found.whole[name] for name in ("KL(a‖b)", "same first choice"))
    apart = f"KL(a‖b) is {_with_interval(kl)} nats per token, and the first choice is the same at {_percent(same)}"
    return [headline(found.differences, a, b), f"{apart} of {count(kl.tokens)} tokens"]


def _with_interval(finding: Finding | Percentile) -> str:
    ends = "" if finding.low is None else f" {between(finding.low, finding.high, 3)}"
    return f"{significant(finding.value)}{ends}"


def _percent(finding: Finding) -> str:
    ends = "" if finding.low is None else f" {bracket(100 * finding.low, 100 * finding.high, 2)}"
    return f"{significant(100 * finding.value)}%{ends}"


def distances_table(found: Summary) -> Table:
    """One row for each quantity over all tokens, beside what a differs by from itself."""
    table = Table(title="how far the distributions are apart", title_justify="left")
    table.add_column("")
    for name in ("value", "interval", *(f"a with {name}" for name in found.floor)):
        table.add_column(name, justify="right")
    for name, f in found.whole.items():
        ends = between(f.low, f.high, 3)
        row = [f"{name}{f', {f.unit}' if f.unit else ''}", significant(f.value), ends]
        table.add_row(*map(Text, [*row, *(significant(one.distances[name]) for one in found.floor.values())]))
    if found.floor:
        table.caption = "; ".join(f"{name}: {PERTURBATIONS[name]}" for name in found.floor)
    return table


def confidence_table(found: Summary) -> Table:
    """One row for each confidence of a."""
    table = Table(title="by the confidence of a", title_justify="left")
    table.add_column("")
    for name in ("tokens", *BY_CONFIDENCE):
        table.add_column(name, justify="right")
    cells = dict.fromkeys(f.cell for f in found.findings)
    for cell in cells:
        mine = {f.name: f for f in found.findings if f.cell == cell}
        row = [significant(mine[name].value) for name in BY_CONFIDENCE]
        table.add_row(*map(Text, [cell, count(mine[BY_CONFIDENCE[0]].tokens), *row]))
    low, high = (one for one in found.percentiles if one.cell == WHOLE and one.percent in (1, 99))
    table.caption = f"Δp of the right token: 1% of tokens below {_with_interval(low)}, 1% above {_with_interval(high)}"
    return table


def accepted_table(drafts: Sequence[Accepted]) -> Table:
    """One row for each length of a draft."""
    title = "speculative decoding: tokens of a draft of either that the other accepts"
    table = Table(title=title, title_justify="left")
    for name in ("draft", "accepted", "interval", "if independent", "ratio", "documents"):
        table.add_column(name, justify="right")
    for one in drafts:
        table.add_row(count(one.draft), significant(one.accepted), bracket(one.low, one.high),
                      significant(one.independent), significant(one.ratio), count(one.documents))  # fmt: skip
    table.caption = "both decode greedily, after the text of the corpus"
    return table
