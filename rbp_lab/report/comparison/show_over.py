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
from rbp_lab.comparison.pairs import what_counts
from rbp_lab.comparison.record import PairHeader, PairRecord
from rbp_lab.figures.forest import forest_figure
from rbp_lab.records import RunHeader
from rbp_lab.report.comparison.page import differences_frame, models_of, run_row, title_of
from rbp_lab.report.fitting import print_table
from rbp_lab.report.page import write_report
from rbp_lab.report.sections import ReportFigure, ReportTable, Section
from rbp_lab.report.terminal import print_line
from rbp_lab.store.layout import Store
from rbp_lab.store.tables import write_csv
from rbp_lab.text import between, bracket, count, decimals, number, percent, significant, visible

LEAD = (
    "Each data set by itself; nothing is pooled over them. Adjusted p values are for all comparisons on all data sets "
    "together (Holm)."
)


def show_over(
    console: Console,
    store: str,
    runs: Sequence[tuple[RunHeader, RunHeader]],
    sets: Sequence[OnDataSet],
    name: str | None = None,
) -> Path | None:
    """Print the table over the data sets of several comparisons and write it as a page; nothing for one comparison.

    runs: a and b on each of them. name: as of ``show.Display``. Returns the page's path, which is another one for other
    data sets or quantities.
    """
    if len(sets) < 2:
        return None
    sets, (a, b) = together(sets), runs[0]
    names = dict.fromkeys(one.name for on in sets for one in (*on.differences, *on.distances.values()))
    files = Store(store).over(digest_of(runs, tuple(names)), name)
    write_csv(differences_over(sets), files.differences)
    if len(apart := distances_over(sets)):
        write_csv(apart, files.distances)
    said = verdict(sets, *models_of(a, b))
    title = title_of(a, b, f"{len(sets)} data sets")
    rows = [
        run_row(side, header) | {"page": Path(os.path.relpath(one.report, files.directory)).as_posix()}
        for one, pair in zip(sets, runs, strict=True) for side, header in zip("ab", pair, strict=True)
    ]  # fmt: skip
    page = write_report(files.report, title, [_section(sets, said, title)], pd.DataFrame(rows))[-1]
    print_line(console, f"\n{said}")
    print_table(console, over_table(sets), names=2)
    print_line(console, f"report over {len(sets)} data sets: {page}")
    return page


def show_pairs(
    console: Console, store: str, records: Sequence[PairRecord], level: float, name: str | None = None
) -> list[Path]:
    """``show_over`` for the comparisons in one pass of each two models; returns the pages' paths."""
    models: dict[object, dict[object, PairRecord]] = {}
    for record in records:
        models.setdefault(_models(record.header), {}).setdefault(_corpus(record.header), record)
    pages = []
    for on in map(list, (by_corpus.values() for by_corpus in models.values())):
        headers = [record.header for record in on]
        sets = [
            OnDataSet(
                data_set,
                compare(paired(record.sums), level),
                Store(store).pair(record.header.key, name).report,
                {f.name: f for f in findings(record.sums, level) if f.cell == WHOLE},
            )
            for data_set, record in zip(names_of([header.a for header in headers]), on, strict=True)
        ]
        pages.append(show_over(console, store, [(header.a, header.b) for header in headers], sets, name))
    return [page for page in pages if page is not None]


def _models(header: PairHeader) -> object:
    return what_counts(header.a), what_counts(header.b), header.ks, header.perturbation


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
