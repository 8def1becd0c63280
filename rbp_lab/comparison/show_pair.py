"""A comparison in one pass in the terminal, as CSV tables and as a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rbp_lab.comparison.accepted import Accepted, accepted, accepted_frame
from rbp_lab.comparison.differences import Difference, PairedSums, compare, influence
from rbp_lab.comparison.findings import WHOLE, ByDocument, Finding, findings, paired, percentiles
from rbp_lab.comparison.pair_page import write_pair_page
from rbp_lab.comparison.record import PERTURBATIONS, PairRecord
from rbp_lab.comparison.show import differences_table, headline, label, worst_table
from rbp_lab.report.sections import TokenText
from rbp_lab.report.terminal import print_line
from rbp_lab.store.layout import Store
from rbp_lab.store.tables import write_csv
from rbp_lab.text import bracket, count, significant

BY_CONFIDENCE = ("KL(a‖b)", "total variation", "same first choice", "rank moved", "mean Δp", "RMS Δp")


def show_pair(
    console: Console, store: str, record: PairRecord, floor: Mapping[str, PairRecord], level: float,
    detect: float | None, worst: int, texts: Callable[[Sequence[str]], Sequence[TokenText]], shown: int,
) -> list[Difference]:  # fmt: skip
    """Print the headline and the tables of a comparison, and keep them with a page beside its record.

    floor: comparisons of a with itself, by perturbation. detect, worst: as of ``show.compare_pair``. texts: gives the
    documents of some names token by token, of which the page has those ``shown`` that carry the difference.
    """
    header, chosen = record.header, paired(record.sums)
    found, about = compare(chosen, level), findings(record.sums, level)
    under = {name: [f for f in findings(one.sums, level) if f.cell == WHOLE] for name, one in floor.items()}
    documents = documents_table(record, chosen[0])
    files = Store(store).pair(header.key)
    write_csv(pd.DataFrame([asdict(d) for d in found]), files.differences)
    write_csv(documents, files.documents)
    write_csv(pd.DataFrame([asdict(f) for f in about]), files.distances)
    drafts = accepted(record.sums, level=level)
    write_csv(accepted_frame(drafts), files.accepted)
    said = sentences(found, about)
    tokens = texts(documents["document"].head(shown).tolist()) if shown else ()
    report = write_pair_page(files.report, record, found, about, drafts, documents, said, under, level, tokens)
    print_line(console, f"\na: {label(header.a)}\nb: {label(header.b)}")
    for line in said:
        print_line(console, line)
    console.print(differences_table(found, detect))
    console.print(distances_table(about, under))
    console.print(confidence_table(record, about))
    if drafts:
        console.print(accepted_table(drafts))
    if worst and len(documents):
        console.print(worst_table(documents.head(worst), documents))
    print_line(console, f"report: {report}")
    return found


def sentences(found: Sequence[Difference], about: Sequence[Finding]) -> list[str]:
    """The headline, and a second one of how far the distributions are apart."""
    whole = {f.name: f for f in about if f.cell == WHOLE}
    kl, same = whole["KL(a‖b)"], whole["same first choice"]
    apart = f"KL(a‖b) is {_with_interval(kl)} nats per token, and the first choice is the same at {_percent(same)}"
    return [headline(found), f"{apart} of {count(kl.tokens)} tokens"]


def _with_interval(finding: Finding) -> str:
    ends = "" if finding.low is None else f" [{significant(finding.low, 3)}, {significant(finding.high, 3)}]"
    return f"{significant(finding.value)}{ends}"


def _percent(finding: Finding) -> str:
    ends = "" if finding.low is None else f" {bracket(100 * finding.low, 100 * finding.high, 2)}"
    return f"{significant(100 * finding.value)}%{ends}"


def distances_table(about: Sequence[Finding], floor: Mapping[str, Sequence[Finding]]) -> Table:
    """One row for each quantity over all tokens, beside what a differs by from itself."""
    table = Table(title="how far the distributions are apart", title_justify="left")
    table.add_column("")
    for name in ("value", "interval", *(f"a with {name}" for name in floor)):
        table.add_column(name, justify="right")
    below = [{f.name: f for f in one} for one in floor.values()]
    for f in about:
        if f.cell == WHOLE:
            ends = "" if f.low is None else f"[{significant(f.low, 3)}, {significant(f.high, 3)}]"
            row = [f"{f.name}{f', {f.unit}' if f.unit else ''}", significant(f.value), ends]
            table.add_row(*map(Text, [*row, *(significant(one[f.name].value) for one in below)]))
    if floor:
        table.caption = "; ".join(f"{name}: {PERTURBATIONS[name]}" for name in floor)
    return table


def confidence_table(record: PairRecord, about: Sequence[Finding]) -> Table:
    """One row for each confidence of a."""
    table = Table(title="by the confidence of a", title_justify="left")
    table.add_column("")
    for name in ("tokens", *BY_CONFIDENCE):
        table.add_column(name, justify="right")
    cells = dict.fromkeys(f.cell for f in about)
    for cell in cells:
        mine = {f.name: f for f in about if f.cell == cell}
        row = [significant(mine[name].value) for name in BY_CONFIDENCE]
        table.add_row(*map(Text, [cell, count(mine[BY_CONFIDENCE[0]].tokens), *row]))
    low, *_, high = percentiles(record.sums, wanted=(1, 99))
    table.caption = f"Δp of the right token: 1% of tokens below {significant(low, 3)}, 1% above {significant(high, 3)}"
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


def documents_table(record: PairRecord, first: PairedSums) -> pd.DataFrame:
    """One row a document, those that carry the first difference before the others; columns as of
    ``show.documents_table``, and ``kl``: Σ KL(a‖b) in nats."""
    by = ByDocument.of(record.sums)
    carries = influence(first)
    table = pd.DataFrame(
        {
            "document": [record.names[int(i)] for i in by.document],
            "tokens_a": by["tokens"].astype(np.int64),
            "tokens_b": by["tokens"].astype(np.int64),
            "nll_a": by["nll_a"],
            "nll_b": by["nll_b"],
            "carries": carries,
            "kl": by["kl_a"],
        }
    )
    return table.iloc[np.argsort(-np.abs(carries), kind="stable")].reset_index(drop=True)
