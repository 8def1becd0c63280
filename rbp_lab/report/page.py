"""One HTML file that shows an analysis: no network, no library, light and dark, on a desk and on a phone."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import pandas as pd

from rbp_lab.report.sections import Format, ReportFigure, ReportTable, Section
from rbp_lab.report.svg import colour_rules, inline_svg
from rbp_lab.store.atomic import atomic_path

DASH = "–"
WIDE = 500  # points: figures from this width on keep a least width on a phone and scroll in their own box
LONG = 26  # characters: columns of longer texts wrap


def write_report(
    path: str | Path, title: str, sections: Sequence[Section], provenance: pd.DataFrame, subtitle: str = ""
) -> Path:
    """Write the report to ``path``, complete or not at all; the same input gives the same bytes.

    provenance: where every point came from, one row per run (or per source file); shown as the last section. Anchors
    of sections and names of figures must be unique (ValueError).
    """
    where = Section(
        "provenance", "Where every point comes from",
        "One row per model and data set: all its points come from the measurement, or the file, that the row names.",
        tables=(ReportTable("Measurements", provenance),),
    )  # fmt: skip
    html = page(title, [*sections, where], subtitle)
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return Path(path)


def page(title: str, sections: Sequence[Section], subtitle: str = "") -> str:
    """The whole HTML document."""
    for what, names in (
        ("anchor", [s.anchor for s in sections]),
        ("figure", [f.name for s in sections for f in s.figures]),
    ):
        if len(set(names)) < len(names):
            raise ValueError(f"every {what} of a report needs a name of its own; got {names}")
    body = "\n".join(_section(section) for section in sections)
    light, dark = colour_rules(body)
    css = _asset("page.css").replace("/*light*/", light).replace("/*dark*/", dark)
    links = "".join(f'<li><a href="#{s.anchor}">{_prose(s.title)}</a></li>' for s in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>\n{css}</style>\n</head>\n<body>\n'
        f'<a class="skip" href="#main">To the content</a>\n<header><h1>{escape(title)}</h1>'
        f'<p class="sub">{escape(subtitle)}</p></header>\n<nav aria-label="Sections"><ul>{links}</ul></nav>\n'
        f'<main id="main">\n{body}\n</main>\n<div id="tip" role="status" aria-live="polite" hidden></div>\n'
        f"<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return files("rbp_lab.report").joinpath(name).read_text(encoding="utf-8")


def _section(section: Section) -> str:
    parts = [f'<section id="{section.anchor}">', f"<h2>{_prose(section.title)}</h2>", f"<p>{_prose(section.lead)}</p>"]
    parts += [_figure(figure) for figure in section.figures]
    parts += [_table(table) for table in section.tables]
    if section.notes:
        notes = "".join(f"<li>{_prose(note)}</li>" for note in section.notes)
        parts.append(f'<div class="notes" role="note"><ul>{notes}</ul></div>')
    return "\n".join([*parts, "</section>"])


def _figure(shown: ReportFigure) -> str:
    panels, first = [], True
    alt = shown.alt or shown.caption
    for stem, choice, figure in zip(shown.panels(), shown.by_k or [""], shown.panels().values(), strict=True):
        about = f"{shown.switch} = {choice}. {alt}" if choice else alt
        wide = " wide" if figure.get_figwidth() * 72 >= WIDE else ""
        svg = inline_svg(figure, stem, about)
        extra = f' data-choice="{escape(choice)}"' if choice else ""
        panels.append(f'<div class="plot panel{wide}{" shown" if first else ""}"{extra}>{svg}</div>')
        first = False
    buttons = ""
    if shown.by_k:
        buttons = "".join(
            f'<label><input type="radio" name="{shown.name}" value="{escape(choice)}"{" checked" if i == 0 else ""}>'
            f"{escape(choice)}</label>"
            for i, choice in enumerate(shown.by_k)
        )
        buttons = f'<fieldset class="choices"><legend>{escape(shown.switch)}</legend>{buttons}</fieldset>'
    caption = f"<figcaption>{_prose(shown.caption)}</figcaption>"
    return f'<figure id="fig-{shown.name}">{buttons}{"".join(panels)}{caption}</figure>'


def _table(table: ReportTable) -> str:
    frame = table.frame
    cells = {name: [_cell(v, table.formats.get(name)) for v in frame[name]] for name in frame.columns}
    kind = {}
    for name in frame.columns:
        numeric = name in table.formats and isinstance(table.formats[name], int)
        numeric |= pd.api.types.is_numeric_dtype(frame[name]) and not pd.api.types.is_bool_dtype(frame[name])
        wide = any(len(line) > LONG for text in cells[name] for line in text.split("\n"))
        kind[name] = ' class="n"' if numeric else ' class="w"' if wide else ""
    head = "".join(f'<th scope="col"{kind[n]}>{_prose(str(n))}</th>' for n in frame.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td{kind[n]}>{_markup(cells[n][i])}</td>" for n in frame.columns) + "</tr>\n"
        for i in range(len(frame))
    )
    title = escape(table.title)
    inner = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{rows}</tbody></table></div>"
    )
    if table.folded:
        return f'<details class="table"><summary>{_prose(table.title)} ({len(frame)} rows)</summary>{inner}</details>'
    return f'<div class="table"><h3>{_prose(table.title)}</h3>{inner}</div>'


def _cell(value: object, how: Format | None) -> str:
    """A value in print: a dash when it is missing, never NaN."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return DASH
    if callable(how):
        return how(value)
    if isinstance(how, int):
        return "∞" if math.isinf(value) else f"{float(value):,.{how}f}".replace("-", "−")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if hasattr(value, "dtype") and value.dtype == bool:
        return "yes" if bool(value) else "no"
    if isinstance(value, float) or (hasattr(value, "dtype") and value.dtype.kind == "f"):
        return f"{float(value):.4g}".replace("-", "−")
    if (hasattr(value, "dtype") and value.dtype.kind in "iu") or isinstance(value, int):
        return f"{int(value):,}".replace("-", "−")
    return str(value)


def _markup(text: str) -> str:
    first, *rest = text.split("\n")
    return _prose(first) + "".join(f"<br><small>{_prose(line)}</small>" for line in rest)


def _prose(text: str) -> str:
    """Escaped text in which RBP_k, p_{N,k}, α_CE and S^−α are set with subscripts and superscripts."""
    text = re.sub(r"\b(RBP|α|p|q)_(\{[^}]*\}|[A-Za-z0-9]+)\b|\b(p)_(\{[^}]*\})", _lowered, escape(text))
    return re.sub(r"(?<=[A-Za-z>])\^(−?[A-Za-zαβ]+)", r"<sup>\1</sup>", text)


def _lowered(match: re.Match) -> str:
    name, below = match.group(1) or match.group(3), match.group(2) or match.group(4)
    return f"{name}<sub>{below.strip('{}')}</sub>"
