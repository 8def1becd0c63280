"""Two models on several data sets: one page with a forest plot, its tables as CSV, and the table in the terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rbp_lab.comparison.differences import compare
from rbp_lab.comparison.findings import WHOLE, findings, paired
from rbp_lab.comparison.overview import (
    OnDataSet,
    differences_over,
    digest_of,
    distances_over,
    names_of,
    together,
    verdict,
)
from rbp_lab.comparison.page import differences_frame, run_row, title_of
from rbp_lab.comparison.record import PairHeader, PairRecord, list_pairs, read_pair
from rbp_lab.comparison.summary import Summary
from rbp_lab.errors import note
from rbp_lab.figures.forest import forest_figure
from rbp_lab.records import RunHeader
from rbp_lab.report.page import write_report
from rbp_lab.report.sections import ReportFigure, ReportTable, Section
from rbp_lab.report.terminal import print_line
from rbp_lab.store.header import DamagedRecord
from rbp_lab.store.layout import Store
from rbp_lab.store.tables import write_csv
from rbp_lab.text import between, bracket, count, decimals, number, percent, significant, visible

LEAD = (
    "Each data set by itself; nothing is pooled over them. Adjusted p values are for all comparisons on all data sets "
    "together (Holm)."
)


def show_over(
    console: Console, store: str, runs: Sequence[tuple[RunHeader, RunHeader]], sets: Sequence[OnDataSet], listed: bool
) -> Path | None:
    """Write the page over the data sets of several comparisons and print where it is; nothing for one comparison.

    runs: a and b on each of them. listed: whether to print the table as well. Returns the page's path.
    """
    if len(sets) < 2:
        return None
    sets, (a, b) = together(sets), runs[0]
    files = Store(store).over(digest_of(a, b, "pass" if any(one.distances for one in sets) else "records"))
    write_csv(differences_over(sets), files.differences)
    if len(apart := distances_over(sets)):
        write_csv(apart, files.distances)
    said = verdict(sets)
    title = title_of(a, b, f"{len(sets)} data sets")
    rows = [
        run_row(side, header) | {"page": Path(os.path.relpath(one.report, files.directory)).as_posix()}
        for one, pair in zip(sets, runs, strict=True) for side, header in zip("ab", pair, strict=True)
    ]  # fmt: skip
    page = write_report(files.report, title, [_section(sets, said, title)], pd.DataFrame(rows))[-1]
    print_line(console, f"\n{said}")
    if listed:
        console.print(over_table(sets))
    print_line(console, f"report over {len(sets)} data sets: {page}")
    return page


def show_others(console: Console, store: str, record: PairRecord, found: Summary) -> Path | None:
    """The page over this comparison in one pass and those of the same two models on other data sets of the store."""
    files = Store(store)
    headers, records = [record.header], {record.header.key: record}
    for other in list_pairs(store):
        if _models(other) == _models(record.header) and _corpus(other) not in set(map(_corpus, headers)):
            try:
                records[other.key] = read_pair(store, other.key)
                headers.append(other)
            except DamagedRecord as error:
                note(f"left out of the page over data sets: {error}")
    names = dict(zip(map(_corpus, headers), names_of([h.a for h in headers]), strict=True))
    headers.sort(key=lambda header: names[_corpus(header)])
    sets = []
    for header in headers:
        sums = records[header.key].sums
        mine = header.key == record.header.key
        differences = found.differences if mine else compare(paired(sums), found.level)
        distances = found.whole if mine else {f.name: f for f in findings(sums, found.level) if f.cell == WHOLE}
        sets.append(OnDataSet(names[_corpus(header)], differences, files.pair(header.key).report, distances))
    return show_over(console, store, [(h.a, h.b) for h in headers], sets, listed=False)


def _models(header: PairHeader) -> object:
    return digest_of(header.a, header.b, header.ks, header.perturbation)


def _corpus(header: PairHeader) -> tuple[str, str, str]:
    spec = header.a.scoring
    return header.a.dataset.fingerprint, repr(sorted(spec.protocol.items())), spec.candidates


def _section(sets: Sequence[OnDataSet], said: str, title: str) -> Section:
    frames = {one.name: differences_frame(one.differences) for one in sets}
    table = pd.concat(frames, names=["data set", ""]).reset_index(level=0)
    levels = {percent(d.level) for one in sets for d in one.differences}
    caption = f"Bars: {', '.join(sorted(levels))} intervals over paired documents. Right of 0 b has the larger value."
    tables = [ReportTable("Differences", table)]
    if len(apart := distances_over(sets)):
        tables.append(ReportTable("How far the distributions are apart", _distances_frame(apart)))
    return Section(
        "over", "b − a over data sets", f"{said[:1].upper()}{said[1:]}. {LEAD}",
        (ReportFigure("forest", lambda: forest_figure(sets, title), caption),), tuple(tables),
    )  # fmt: skip


def _distances_frame(apart: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame([
        {"data set": row.dataset, "quantity": row.name, "unit": row.unit, "tokens": count(row.tokens),
         "documents": count(row.documents), "value": significant(row.value),
         "interval": between(row.low, row.high)}
        for row in apart.itertuples(index=False)
    ])  # fmt: skip


def over_table(sets: Sequence[OnDataSet]) -> Table:
    """One row for each data set and quantity."""
    table = Table(title="over data sets; adjusted p are for all of them together", title_justify="left")
    for name in ("data set", ""):
        table.add_column(name)
    for name in ("documents", "b − a"):
        table.add_column(name, justify="right")
    table.add_column("interval")
    table.add_column("adjusted p", justify="right")
    for one in sets:
        for i, d in enumerate(one.differences):
            digits = decimals(d.se)
            table.add_row(*map(Text, (
                visible(one.name) if i == 0 else "", d.name, count(d.documents), number(d.difference, digits),
                bracket(d.low, d.high, digits), significant(d.p_adjusted, 2),
            )), end_section=i == len(one.differences) - 1)  # fmt: skip
    return table
