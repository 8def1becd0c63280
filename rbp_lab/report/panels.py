"""Figures as they stand in a page and as files: each is drawn when it is its turn, and then forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rbp_lab.errors import LabError
from rbp_lab.figures.style import save
from rbp_lab.report.sections import ReportFigure
from rbp_lab.report.svg import inline_svg
from rbp_lab.text import visible

WIDE = 500  # points: figures from this width on keep a least width on a phone and scroll in their own box


@dataclass(frozen=True)
class Panel:
    """A drawn figure. svg: for a page. choice: text of its button, "" without a switch. files: written of it."""

    svg: str
    choice: str
    wide: bool
    files: tuple[Path, ...] = ()


def draw_panels(shown: ReportFigure, directory: Path | None = None, formats: Sequence[str] = ()) -> list[Panel]:
    """Draw every choice of a figure that has something to show.

    formats: of the files that are written to ``directory``, atomically, one a choice; a figure without files has none.
    """
    alt, panels = shown.alt or shown.caption, []
    for stem, choice, drawing in shown.choices():
        try:
            figure = drawing()
        except LabError:  # nothing to show, and its table says why
            continue
        files = save(figure, directory / stem, formats) if directory is not None and shown.files else []
        svg = inline_svg(figure, stem, visible(f"{shown.switch} = {choice}. {alt}" if choice else alt))
        panels.append(Panel(svg, visible(choice), figure.get_figwidth() * 72 >= WIDE, tuple(files)))
    return panels
