"""Numbers, warnings and switches in the words of the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
from matplotlib.figure import Figure

from rbp_lab.fits.result import WARNINGS, FitResult
from rbp_lab.report.sections import ReportFigure, file_stem

DASH = "–"


def fixed(value: object, digits: int = 4) -> str:
    """A number with so many decimals, or a dash when it is missing."""
    return DASH if value is None or pd.isna(value) else f"{float(value):,.{digits}f}".replace("-", "−")


def interval(value: object, low: object, high: object, digits: int = 4) -> str:
    """A value with its interval below it, or a dash."""
    if value is None or pd.isna(value):
        return DASH
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return fixed(value, digits)
    return f"{fixed(value, digits)}\n[{fixed(low, digits)}, {fixed(high, digits)}]"


def exponent(fit: FitResult) -> str:
    """α of a fit with its interval and R², or why there is none."""
    if not fit.ok:
        return f"{DASH}\n{'saturated' if 'saturated' in fit.warnings else fit.status}"
    return f"{interval(fit.params['alpha'], *fit.intervals['alpha'])}\nR² {fixed(fit.r2, 3)}"


def warning_notes(fits: Iterable[FitResult]) -> list[str]:
    """One sentence per warning code that occurs, with the laws it is about."""
    about: dict[str, list[str]] = {}
    for fit in fits:
        for code in fit.warnings:
            about.setdefault(code, []).append(str(fit.label))
    return [f"{code}: {WARNINGS[code]} ({some(names)})." for code, names in about.items()]


def refusal_notes(fits: Iterable[FitResult]) -> list[str]:
    """One sentence per reason for refusing a fit, with the laws it is about."""
    about: dict[str, list[str]] = {}
    for fit in fits:
        if not fit.ok:
            about.setdefault(fit.message, []).append(str(fit.label))
    return [f"No fit for {some(names)}: {why}." for why, names in about.items()]


def some(names: Sequence[str], most: int = 6) -> str:
    """The names, or the first few and how many more."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def switched(name: str, choices: dict[str, Figure], caption: str, switch: str = "data set") -> tuple[ReportFigure, ...]:
    """One figure of the report with a switch over the choices; without buttons when there is one, nothing for none."""
    if len(choices) > 1:
        return (ReportFigure(name, None, caption, choices, switch=switch),)
    return tuple(ReportFigure(f"{name}_{file_stem(c)}", figure, caption) for c, figure in choices.items())
