"""Figures as they stand in a page and as files: each is drawn when it is its turn, and then forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rbp_lab.errors import LabError
from rbp_lab.figures.style import save
from rbp_lab.report.sections import Drawing, ReportFigure
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
    panels = [drawing() for drawing in panel_drawings(shown, directory, formats)]
    return [panel for panel in panels if panel is not None]


def panel_drawings(
    shown: ReportFigure, directory: Path | None = None, formats: Sequence[str] = ()
) -> list[Callable[[], Panel | None]]:
    """How each choice of a figure is drawn; a call gives None for one that has nothing to show. As ``draw_panels``."""
    place, alt = directory if shown.files else None, shown.caption
    return [
        partial(_panel, drawing, stem, choice, f"{shown.switch} = {choice}. {alt}" if choice else alt, place, formats)
        for stem, choice, drawing in shown.choices()
    ]


def _panel(
    drawing: Drawing, stem: str, choice: str, alt: str, directory: Path | None, formats: Sequence[str]
) -> Panel | None:
    try:
        figure = drawing()
    except LabError:  # nothing to show, and its table says why
        return None
    files = save(figure, directory / stem, formats) if directory is not None else []
    svg = inline_svg(figure, stem, visible(alt))
    return Panel(svg, visible(choice), figure.get_figwidth() * 72 >= WIDE, tuple(files))
