"""What a report consists of: plain values, made by ``report.laws`` and written by ``report.page``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rbp_lab.figures.style import save

# How a column is printed: a function of one value, or the decimals of a number.
Format = Callable[[object], str] | int


@dataclass(frozen=True, eq=False)
class ReportFigure:
    """One figure, or several between which the reader switches.

    name: file stem, unique in an analysis. figure: what is drawn. by_k: choices of a switch, by the text of its button,
    in order; then figure is None. caption: one or two sentences, with what bars and bands mean. alt: what a reader who
    does not see it should know; the caption by default. switch: what the buttons choose. files: False for a figure
    that is of use in the report alone.
    """

    name: str
    figure: Figure | None
    caption: str
    by_k: dict[str, Figure] = field(default_factory=dict)
    alt: str = ""
    switch: str = "k"
    files: bool = True

    def __post_init__(self) -> None:
        if (self.figure is None) == (not self.by_k):
            raise ValueError(f"{self.name} needs either a figure or a switch of several")

    def panels(self) -> dict[str, Figure]:
        """File stem → figure, one entry without a switch."""
        if self.figure is not None:
            return {self.name: self.figure}
        return {f"{self.name}_{file_stem(choice)}": figure for choice, figure in self.by_k.items()}

    def save(self, directory: Path, formats: Sequence[str] = ("png", "svg", "pdf")) -> list[Path]:
        """Write every panel as ``directory``/stem.format, atomically; the paths. Nothing for a figure without files."""
        if not self.files:
            return []
        return [path for stem, figure in self.panels().items() for path in save(figure, directory / stem, formats)]


@dataclass(frozen=True, eq=False)
class ReportTable:
    """One table. frame: its rows, columns named as they are printed. formats: by column, plain text otherwise.

    The part of a cell after a line break is printed small. folded: closed until the reader opens it (long tables).
    """

    title: str
    frame: pd.DataFrame
    formats: Mapping[str, Format] = field(default_factory=dict)
    folded: bool = False


@dataclass(frozen=True, eq=False)
class Section:
    """One law. anchor: its name in the address. lead: what it is about. notes: warnings and refusals in words."""

    anchor: str
    title: str
    lead: str
    figures: tuple[ReportFigure, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    notes: tuple[str, ...] = ()


def file_stem(text: str) -> str:
    """Any text as part of a file name and of an id in a page."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text.replace(", ", "_"))
