"""A comparison as a page: the headline, the differences, the documents that carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from rbp_lab.comparison.differences import Difference
from rbp_lab.comparison.pairs import Pair
from rbp_lab.comparison.summary import NO_FLOOR, Floor, per_document
from rbp_lab.figures.comparison import comparison_figure
from rbp_lab.records import RunHeader
from rbp_lab.report.page import write_report
from rbp_lab.report.sections import ReportFigure, ReportTable, Section
from rbp_lab.text import bracket, count, decimals, number, percent, significant

CAPTION = (
    "Left: relative differences with their intervals over paired documents. Right: one point a document; below the "
    "line b is better."
)


def write_comparison(
    path: Path,
    pair: Pair,
    found: Sequence[Difference],
    documents: pd.DataFrame,
    said: str,
    notes: Sequence[str],
    detect: float | None = None,
) -> Path:
    """Write the page of one comparison. said: its headline. documents: as ``show.documents_table`` has them. detect:
    as of ``differences_frame``."""
    a, b = pair.a.header, pair.b.header
    with_interval = [d for d in found if d.low is not None and d.a != 0]
    title = title_of(a, b, a.dataset.name)
    figures: tuple[ReportFigure, ...] = ()
    if with_interval:
        figures = (ReportFigure("comparison", lambda: comparison_figure(found, documents, title), CAPTION),)
    section = Section("differences", "b − a", f"{said[:1].upper()}{said[1:]}.", figures, (
        ReportTable("Differences", differences_frame(found, detect)),
        ReportTable("Documents, those that carry the difference first", documents_frame(documents), folded=True),
    ), tuple(f"{line[:1].upper()}{line[1:]}." for line in notes))  # fmt: skip
    runs = pd.DataFrame([run_row("a", a), run_row("b", b)])
    return write_report(path, title, [section], runs)[-1]


def title_of(a: RunHeader, b: RunHeader, where: str) -> str:
    """ "B against A on where"; the same model by its formats as well."""
    first, second = models_of(a, b)
    return f"{second} against {first} on {where}"


def models_of(a: RunHeader, b: RunHeader) -> tuple[str, str]:
    """What the models of a and b are called, of one name by their formats as well."""
    if a.model.name == b.model.name:
        return f"{a.model.name} ({format_of(a)})", f"{b.model.name} ({format_of(b)})"
    return a.model.name, b.model.name


def format_of(header: RunHeader) -> str:
    """dtype and rounding of a run: "float32, weights Q4_1"."""
    rounded = header.model.quantisation
    return f"{header.scoring.dtype}, weights {rounded}" if rounded else header.scoring.dtype


def differences_frame(
    found: Sequence[Difference], detect: float | None = None, floor: Mapping[str, Floor] = NO_FLOOR
) -> pd.DataFrame:
    """One row for each quantity. detect: the difference for which documents are counted, None for no such column.
    floor: by perturbation, within what a differs from itself."""
    rows = []
    for d in found:
        least = 6 if d.name.startswith("p_") else 4
        digits = decimals(d.se, least)
        rows.append({
            "quantity": d.name, "unit": d.unit, "a": number(d.a, least), "b": number(d.b, least),
            "b − a": number(d.difference, digits), f"{percent(d.level)} interval": bracket(d.low, d.high, digits),
            "resampled documents": bracket(d.resampled_low, d.resampled_high, digits), "p": significant(d.p, 2),
            "adjusted p": significant(d.p_adjusted, 2), "detectable": significant(d.detectable, 2),
            **{f"a with {name}": f"±\u00a0{significant(one.differences[d.name], 2)}" for name, one in floor.items()},
            **({f"documents for {significant(detect)}": count(d.documents_to_show(detect))} if detect else {}),
        })  # fmt: skip
    return pd.DataFrame(rows)


def documents_frame(documents: pd.DataFrame) -> pd.DataFrame:
    unit, a, b = per_document(documents)
    return pd.DataFrame({
        "document": documents["document"], "tokens": documents["tokens_a"].map(count),
        f"{unit}, a": a.map(number), "b": b.map(number),
        "adds beyond its share": documents["carries"].map(lambda value: significant(value, 2)),
    })  # fmt: skip


def run_row(side: str, header: RunHeader) -> dict[str, str]:
    model, spec = header.model, header.scoring
    return {
        "run": side, "model": model.name, "family": model.family, "data set": header.dataset.name, "dtype": spec.dtype,
        "weights": model.quantisation or "as trained", "S": count(model.params.non_embedding), "key": header.key,
    }  # fmt: skip
