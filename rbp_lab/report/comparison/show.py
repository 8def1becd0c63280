"""A comparison in the terminal, as CSV tables and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rbp_lab.comparison.differences import Difference, PairedSums, compare, influence, paired_sums
from rbp_lab.comparison.pairs import Pair, load_pair
from rbp_lab.comparison.summary import NO_FLOOR, Floor, per_document
from rbp_lab.config.build import at_least
from rbp_lab.errors import LabError, shown
from rbp_lab.names import check_name
from rbp_lab.records import RunHeader
from rbp_lab.report.comparison.page import format_of, models_of, write_comparison
from rbp_lab.report.fitting import print_table
from rbp_lab.report.terminal import print_line
from rbp_lab.stats import UNIT
from rbp_lab.store.layout import Store
from rbp_lab.store.tables import write_csv
from rbp_lab.text import bracket, count, decimals, number, several, significant, visible


@dataclass(frozen=True, kw_only=True)
class Display:
    """How a comparison is shown, as the configuration names it; LabError when it cannot be.

    confidence: of the intervals. detect: a difference, to say how many documents would show it. worst: documents to
    print. name: of the directory of the results, after what is compared; None for that alone.
    """

    confidence: float = 0.95
    detect: float | None = None
    worst: Annotated[int, at_least(0)] = 5
    name: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise LabError(f"confidence must lie between 0 and 1; got {shown(self.confidence)}")
        if self.detect is not None and not self.detect > 0:
            raise LabError(f"detect must be a positive difference; got {shown(self.detect)}")
        if self.name is not None:
            check_name(self.name, "name")


def compare_pair(
    console: Console, store: str, a: RunHeader, b: RunHeader, ks: Sequence[int], windows: Sequence[int], how: Display
) -> tuple[list[Difference], Path]:
    """Compare two runs of one corpus: print the headline, the differences and the documents that carry them.

    A report, differences.csv and documents.csv are kept below the store's comparisons. Returns the differences and
    where the report is. Raises LabError when the runs share no document.
    """
    pair = load_pair(store, a, b)
    chosen = paired_sums(pair.a_documents, pair.b_documents, ks, windows, pair.same_tokens)
    found = compare(chosen, how.confidence)
    documents = documents_table(pair, chosen)
    files = Store(store).comparison(a.key, b.key, how.name)
    write_csv(pd.DataFrame([asdict(d) for d in found]), files.differences)
    write_csv(documents, files.documents)
    said, remarks = headline(found, *models_of(pair.a.header, pair.b.header)), notes(pair, found)
    report = write_comparison(files.report, pair, found, documents, said, remarks, how.detect)
    print_line(console, f"\na: {label(pair.a.header)}\nb: {label(pair.b.header)}")
    for line in (said, *remarks):
        print_line(console, line)
    print_table(console, differences_table(found, how.detect))
    if how.worst and len(documents):
        print_table(console, worst_table(documents.head(how.worst), documents))
    print_line(console, f"report: {report}")
    return found, report


def label(header: RunHeader) -> str:
    """A run in words: model, format, corpus, key."""
    return visible(f"{header.model.name} ({format_of(header)}) on {header.dataset.name}, run {header.key}")


def headline(found: Sequence[Difference], a: str, b: str) -> str:
    """The first difference as one sentence with its interval. a, b: what the models are called."""
    if not found:
        return "nothing can be compared: the texts' sizes in bytes are unknown, and the tokens differ"
    first = found[0]
    unit = f" {first.unit}" if first.unit else ""
    one, other = f"run a, {visible(a)}", f"run b, {visible(b)}"
    if first.low is None:
        value = f"{number(first.difference)}{unit}"
        return f"{other}, beside {one}: b − a of {first.name}: {value}; one document has no interval"
    if first.low <= 0 <= first.high:
        said = f"no difference is shown between {one}, and {other}"
    else:
        said = f"{other}, is {'worse' if first.low > 0 else 'better'} than {one}"
    digits = decimals(first.se)
    ends = bracket(first.low, first.high, digits)
    between = f"b − a of {first.name} is {number(first.difference, digits)}{unit} {ends}"
    if first.low <= 0 <= first.high:
        between += f"; one of {number(first.detectable, digits)} would have been with a probability of 80 %"
    return f"{said}: {between} over {several(first.documents, 'document')}"


def notes(pair: Pair, found: Sequence[Difference]) -> list[str]:
    """What a reader must know of the table."""
    lines = []
    if not pair.same_tokens:
        lines.append("the models' tokens differ, so only bits per byte of the text can be compared")
    if pair.left_out:
        lines.append(f"{count(pair.left_out)} documents that only one run has scored are left out")
    numbers = sum(d.p is not None for d in found)
    if numbers > 1:
        lines.append(f"each p is of one comparison alone, the adjusted ones are of all {numbers} in the table (Holm)")
    return lines


def differences_table(
    found: Sequence[Difference], detect: float | None, floor: Mapping[str, Floor] = NO_FLOOR
) -> Table:
    """One row for each quantity. detect: the difference for which documents are counted, None for no such column.
    floor: by perturbation, within what a differs from itself."""
    table = Table()
    table.add_column("")
    for name in ("a", "b", "b − a"):
        table.add_column(name, justify="right")
    for name in ("interval", "resampled"):
        table.add_column(name)
    last = [f"documents for {significant(detect)}"] if detect else []
    for name in ("p", "adjusted p", "detectable", *(f"a with {name}" for name in floor), *last):
        table.add_column(name, justify="right")
    for d in found:
        digits = 6 if d.name.startswith("p_") else 4
        row = [d.name, number(d.a, digits), number(d.b, digits)]
        digits = decimals(d.se, digits)
        row += [number(d.difference, digits), bracket(d.low, d.high, digits)]
        row += [bracket(d.resampled_low, d.resampled_high, digits)]
        row += [significant(d.p, 2), significant(d.p_adjusted, 2), significant(d.detectable, 2)]
        row += [f"± {significant(one.differences[d.name], 2)}" for one in floor.values()]
        table.add_row(*map(Text, row), *([Text(count(d.documents_to_show(detect)))] if detect else []))
    return table


def documents_table(pair: Pair, chosen: Sequence[PairedSums]) -> pd.DataFrame:
    """One row a document, those that carry the first difference before the others.

    Columns: document, tokens of a and b, nll of a and b in nats, and ``carries``: what it adds to the first difference
    beyond its share (``differences.influence``), which sums to 0. Where the tokens differ, also bytes of a and b.
    """
    a, b = pair.a_documents, pair.b_documents
    carries = influence(chosen[0]) if chosen else np.zeros(len(a))
    table = pd.DataFrame(
        {
            "document": pair.names,
            "tokens_a": a.num_scored,
            "tokens_b": b.num_scored,
            "nll_a": a.nll_units * UNIT,
            "nll_b": b.nll_units * UNIT,
            "carries": carries,
            **({} if pair.same_tokens else {"bytes_a": a.num_bytes, "bytes_b": b.num_bytes}),
        }
    )
    return table.iloc[np.argsort(-np.abs(carries), kind="stable")].reset_index(drop=True)


def worst_table(worst: pd.DataFrame, whole: pd.DataFrame) -> Table:
    """The documents that carry the first difference, with their share of its variance."""
    table = Table(title="documents that carry the difference", title_justify="left")
    table.add_column("document", overflow="fold")
    unit, *each = per_document(worst)
    for name in ("tokens", f"{unit}, a", "b", "adds beyond its share", "share of the variance"):
        table.add_column(name, justify="right")
    variance = float((whole["carries"] ** 2).sum())
    for (_, row), value_a, value_b in zip(worst.iterrows(), *each, strict=True):
        share = row["carries"] ** 2 / variance if variance else 0.0
        table.add_row(
            Text(visible(row["document"])), count(row["tokens_a"]), number(value_a), number(value_b),
            significant(row["carries"], 2), f"{number(100 * share, 0)}%",
        )  # fmt: skip
    return table
