"""One HTML file that shows an analysis: no network, no library, light and dark, on a desk and on a phone.

A Content-Security-Policy allows the page its own style and script, by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from rbp_lab.comparison.summary import TokenText
from rbp_lab.report.beside import Drawer
from rbp_lab.report.panels import Panel, draw_panels
from rbp_lab.report.sections import NAMES, Format, ReportFigure, ReportTable, Section, file_stem
from rbp_lab.report.svg import colour_rules, style_rules
from rbp_lab.store.atomic import atomic_path
from rbp_lab.text import DASH, count, is_missing, number, significant, visible

_END = r"−?[\d∞][\d.,·⁻⁰¹²³⁴⁵⁶⁷⁸⁹]*%?"
INTERVAL = re.compile(rf"\[{_END}, {_END}\]")  # as ``text.bracket`` and ``text.between`` print it
PRINTED_NUMBER = re.compile(rf"{DASH}|[<>≤≥×+−]? ?(\d{{1,3}}(,\d{{3}})+|\d+)(\.\d+)? ?[%kMBT]?")
LONG = 26  # characters: columns of longer texts wrap
SHARED_ROWS = 3  # from so many rows on, a text that all rows share stands above the table, once


def write_report(
    path: str | Path,
    title: str,
    sections: Sequence[Section],
    provenance: pd.DataFrame,
    drawer: Drawer | None = None,
) -> list[Path]:
    """Write the report to ``path``, complete or not at all, and its figures beside it; the paths, the report's last.

    The same input gives the same bytes. drawer: draws the figures, also as files of their own; by default they are in
    the report alone. provenance: where every point came from, one row per run (or per source file); the last section.
    Anchors of sections and names of figures must be unique (ValueError).
    """
    where = Section(
        "provenance", "Where every point comes from",
        "One row per model and data set: all its points come from the measurement, or the file, that the row names.",
        tables=(ReportTable("Measurements", provenance),),
    )  # fmt: skip
    path = Path(path)
    drawer = drawer or Drawer(path.parent)
    files: list[Path] = []

    def draw(figure: ReportFigure) -> list[Panel]:
        panels = drawer.panels(figure)
        files.extend(file for panel in panels for file in panel.files)
        return panels

    html = page(title, [*sections, where], draw)
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return [*files, path]


def page(title: str, sections: Sequence[Section], draw: Callable[[ReportFigure], list[Panel]] = draw_panels) -> str:
    """The whole HTML document. draw: makes the panels of a figure; one without any is left out."""
    for what, names in (
        ("anchor", [s.anchor for s in sections]),
        ("figure", [f.name for s in sections for f in s.figures]),
    ):
        if len(set(names)) < len(names):
            raise ValueError(f"every {what} of a report needs a name of its own; got {names}")
    shown = [_section(section, draw) for section in sections]
    rules, light, dark = _figure_rules(shown)
    style = _asset("page.css").replace("/*light*/", light).replace("/*dark*/", dark) + rules
    script = _asset("page.js") + (_asset("tokens.js") if any(section.tokens for section in sections) else "")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return _template().render(
        title=visible(title), sections=shown, policy=policy, style=Markup(style), script=Markup(script)
    )


def _template():
    environment = Environment(
        loader=PackageLoader("rbp_lab.report", "."), autoescape=True, undefined=StrictUndefined,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["prose"] = prose
    return environment.get_template("page.html.j2")


def _asset(name: str) -> str:
    return files("rbp_lab.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source expression of a Content-Security-Policy that allows exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _section(section: Section, draw: Callable[[ReportFigure], list[Panel]]) -> dict[str, Any]:
    figures = [(figure, draw(figure)) for figure in section.figures]
    return {
        "anchor": section.anchor, "title": section.title, "lead": section.lead, "notes": section.notes,
        "figures": [_figure(figure, panels) for figure, panels in figures if panels],
        "tables": [_table(table) for table in section.tables],
        "tokens": _token_data(section.tokens) if section.tokens else "",
    }  # fmt: skip


def _token_data(documents: Sequence[TokenText]) -> Markup:
    """Documents as JSON within a script element, which nothing in them can end."""
    found = [
        {"name": visible(d.name), "t": list(d.pieces), "a": list(d.rank_a), "b": list(d.rank_b),
         "p": [float(f"{p:.3g}") for p in d.p_a], "q": [float(f"{p:.3g}") for p in d.p_b]} for d in documents
    ]  # fmt: skip
    return Markup(json.dumps(found, separators=(",", ":")).replace("<", "\\u003c"))


def _figure(shown: ReportFigure, panels: Sequence[Panel]) -> dict[str, Any]:
    choices = [panel.choice for panel in panels] if len(panels) > 1 else []
    return {
        "name": shown.name, "switch": shown.switch, "caption": shown.caption, "choices": choices,
        "panels": [{"svg": panel.svg, "choice": panel.choice, "wide": panel.wide} for panel in panels],
    }  # fmt: skip


def _figure_rules(sections: Sequence[dict[str, Any]]) -> tuple[str, str, str]:
    """Take the style attributes out of all figures: (their rules, colours of a light page, of a dark one)."""
    panels = [panel for section in sections for figure in section["figures"] for panel in figure["panels"]]
    svgs, rules = style_rules([panel["svg"] for panel in panels])
    for panel, svg in zip(panels, svgs, strict=True):
        panel["svg"] = Markup(svg)
    return rules, *colour_rules(rules + "".join(svgs))


def _table(table: ReportTable) -> dict[str, Any]:
    frame = table.frame
    cells = [[cell_text(value, table.formats.get(name)) for value in frame[name]] for name in frame.columns]
    kinds = [_kind(table, name, texts) for name, texts in zip(frame.columns, cells, strict=True)]
    html = [[_cell(text, name in NAMES) for text in texts] for name, texts in zip(frame.columns, cells, strict=True)]
    same = [
        len(frame) >= SHARED_ROWS and kind != "n" and len(set(texts)) == 1
        for kind, texts in zip(kinds, cells, strict=True)
    ]
    if all(same):
        same = [False] * len(same)  # rows that are equal in everything are still rows
    known = [i for i in range(len(same)) if same[i] and cells[i][0] != DASH]  # a column of dashes says nothing
    shared = [(str(frame.columns[i]), html[i][0]) for i in known]
    kept = [i for i in range(len(same)) if not same[i]]
    return {
        "title": table.title, "name": file_stem(table.title), "folded": table.folded, "shared": shared,
        "columns": [{"name": str(frame.columns[i]), "kind": kinds[i]} for i in kept],
        "rows": list(zip(*(html[i] for i in kept), strict=True)),
    }  # fmt: skip


@functools.lru_cache(10_000)  # the same names and numbers stand in many cells
def _cell(text: str, verbatim: bool) -> Markup:
    """A cell in HTML: its first line as it is or as prose, the others small."""
    first, *others = text.split("\n")
    small = (f"<br><small>{prose(line)}</small>" for line in others)
    return Markup((escape(first) if verbatim else prose(first)) + Markup("".join(small)))


def _kind(table: ReportTable, name: str, texts: Sequence[str]) -> str:
    """How a column is set: "n" for numbers, "w" for texts that wrap, "name" for names that do not, "" for others."""
    values = table.frame[name]
    if isinstance(table.formats.get(name), int):
        return "n"
    if name not in NAMES and any(text != DASH for text in texts) and all(map(PRINTED_NUMBER.fullmatch, texts)):
        return "n"
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return "n"
    if any(len(line) > LONG for text in texts for line in text.split("\n")):
        return "w"
    return "name" if name in NAMES else ""


def cell_text(value: object, how: Format | None) -> str:
    """A value in print: a dash when it is missing, never NaN."""
    if is_missing(value):
        return number(None)
    if callable(how):
        return how(value)
    if isinstance(how, int):
        return number(value, how)
    if isinstance(value, bool) or (hasattr(value, "dtype") and value.dtype == bool):
        return "yes" if value else "no"
    if isinstance(value, float) or (hasattr(value, "dtype") and value.dtype.kind == "f"):
        return significant(value)
    if isinstance(value, int) or (hasattr(value, "dtype") and value.dtype.kind in "iu"):
        return count(value)
    return "\n".join(visible(line) for line in str(value).split("\n"))


def prose(text: str) -> Markup:
    """Escaped text in which RBP_k, p_{N,k}, α_CE and S^−α are set with subscripts and superscripts, and intervals
    ("[−0.2, 1.3]") do not break."""
    safe = INTERVAL.sub(r'<span class="interval">\g<0></span>', str(escape(visible(text))))
    safe = re.sub(r"\b(RBP|α|p|q)_(\{[^}]*\}|[A-Za-z0-9]+)\b|\b(p)_(\{[^}]*\})", _lowered, safe)
    return Markup(re.sub(r"(?<=[A-Za-z>])\^(−?[A-Za-zαβ]+)", r"<sup>\1</sup>", safe))


def _lowered(match: re.Match) -> str:
    name, below = match.group(1) or match.group(3), match.group(2) or match.group(4)
    return f"{name}<sub>{below.strip('{}')}</sub>"
