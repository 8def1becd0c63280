"""What a report consists of: plain values, made by the laws and written by ``report.page``."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

from rbp_lab.comparison.summary import TokenText
from rbp_lab.fits.points import Label
from rbp_lab.fits.result import WARNINGS, FitResult
from rbp_lab.text import DASH, interval, number

# How a figure is drawn, once a page or a file needs it; LabError when there is nothing to show.
Drawing = Callable[[], Figure]
LONGEST_STEM = 80  # of a name in letters: file systems allow 255 for prefix, name and ending
# How a column is printed: a function of one value, or the decimals of a number.
Format = Callable[[object], str] | int
# Columns that hold names which users choose.
NAMES = ("model", "family", "data set", "weights", "source")


@dataclass(frozen=True, eq=False)
class ReportFigure:
    """One figure, or several between which the reader switches.

    name: file stem, unique in an analysis. figure: draws it. by_k: choices of a switch, by the text of its button, in
    order; then figure is None. A choice that has nothing to show is left out when it is drawn. caption: one or two
    sentences, with what bars and bands mean, also for a reader who does not see it. switch: what the buttons choose.
    files: False for a figure that is of use in the report alone.
    """

    name: str
    figure: Drawing | None
    caption: str
    by_k: dict[str, Drawing] = field(default_factory=dict)
    switch: str = "k"
    files: bool = True

    def __post_init__(self) -> None:
        if (self.figure is None) == (not self.by_k):
            raise ValueError(f"{self.name} needs either a figure or a switch of several")

    def choices(self) -> list[tuple[str, str, Drawing]]:
        """(file stem, text of the button, drawing) of every choice; one without a text when there is no switch."""
        if self.figure is not None:
            return [(self.name, "", self.figure)]
        stems = [f"{self.name}_{stem}" for stem in unique_stems(self.by_k)]
        return list(zip(stems, self.by_k, self.by_k.values(), strict=True))


@dataclass(frozen=True, eq=False)
class ReportTable:
    """One table. frame: its rows, columns named as they are printed. formats: by column, plain text otherwise.

    The part of a cell after a line break is printed small. Names, in the columns of NAMES, are printed as they are;
    elsewhere RBP_k and the like are set with subscripts. folded: closed until the reader opens it (long tables).
    """

    title: str
    frame: pd.DataFrame
    formats: Mapping[str, Format] = field(default_factory=dict)
    folded: bool = False


@dataclass(frozen=True, eq=False)
class Section:
    """One law. anchor: its name in the address. lead: what it is about. notes: warnings and refusals in words.

    tokens: documents to show token by token.
    """

    anchor: str
    title: str
    lead: str
    figures: tuple[ReportFigure, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    notes: tuple[str, ...] = ()
    tokens: tuple[TokenText, ...] = ()


def file_stem(text: str) -> str:
    """Any text as part of a file name and of an id in a page; long texts are cut and end in a hash of the whole."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", text.replace(", ", "_"))
    return stem if len(stem) <= LONGEST_STEM else f"{stem[:LONGEST_STEM]}-{_hash(text)}"


def unique_stems(names: Iterable[str | tuple[str, ...]]) -> list[str]:
    """A file stem for each name; names that would share one, in upper or lower case, end in a hash of their own."""
    texts = [name if isinstance(name, str) else ", ".join(name) for name in names]
    stems = [file_stem(text) for text in texts]
    taken = Counter(stem.casefold() for stem in stems)
    return [
        stem if taken[stem.casefold()] == 1 else f"{stem}-{_hash(text)}"
        for text, stem in zip(texts, stems, strict=True)
    ]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def switched(
    name: str, choices: dict[str, Drawing], caption: str, switch: str = "data set"
) -> tuple[ReportFigure, ...]:
    """One figure of the report with a switch over the choices; without buttons when there is one, nothing for none."""
    if len(choices) > 1:
        return (ReportFigure(name, None, caption, choices, switch=switch),)
    return tuple(ReportFigure(f"{name}_{file_stem(c)}", figure, caption) for c, figure in choices.items())


def exponent(fit: FitResult) -> str:
    """α of a fit with its interval and R², or why there is none."""
    if not fit.ok:
        return f"{DASH}\n{'saturated' if 'saturated' in fit.warnings else fit.status}"
    return f"{interval(fit.params['alpha'], *fit.intervals['alpha'])}\nR² {number(fit.r2, 3)}"


def warning_notes(fits: Iterable[FitResult]) -> list[str]:
    """One sentence per warning code that occurs, with the laws it is about."""
    fits = list(fits)
    about: dict[str, list[Label]] = {}
    for fit in fits:
        for code in fit.warnings:
            about.setdefault(code, []).append(fit.label)
    return [
        f"{code}: {WARNINGS[code]} ({'all of these laws' if len(labels) == len(fits) > 2 else laws(labels)})."
        for code, labels in about.items()
    ]


def warning_note(code: str, names: Sequence[str]) -> str:
    """The sentence of a warning code, with what it is about."""
    return f"{code}: {WARNINGS[code]} ({some(names)})."


def refusal_notes(fits: Iterable[FitResult], most: int = 8) -> list[str]:
    """One sentence per reason for refusing a fit, with the laws it is about; reasons beyond ``most`` are counted."""
    about: dict[str, list[Label]] = {}
    for fit in fits:
        if not fit.ok:
            about.setdefault(fit.message, []).append(fit.label)
    notes = [f"No fit for {laws(labels)}: {why}." for why, labels in about.items()]
    rest = sum(len(labels) for labels in list(about.values())[most:])
    return [*notes[:most], *([f"No fit for {rest} more, for reasons that the table gives."] if rest else [])]


def laws(labels: Sequence[Label], most: int = 6) -> str:
    """Laws by name, those of one family and data set together; of many the first few and how many more."""
    groups: dict[str, list[str]] = {}
    for label in labels[:most]:
        groups.setdefault(label.where, []).append(label.quantity)
    shown = "; ".join(", ".join(quantities) + (f" ({where})" if where else "") for where, quantities in groups.items())
    return shown if len(labels) <= most else f"{shown} and {len(labels) - most} more"


def some(names: Sequence[str], most: int = 6) -> str:
    """The names, or the first few and how many more; with semicolons between names that have commas of their own."""
    shown = ("; " if any("," in name for name in names) else ", ").join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
