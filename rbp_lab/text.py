"""Numbers and names in print: in the terminal, in figures and in the report."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable

DASH = "–"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def is_missing(value: object) -> bool:
    """True for None, NaN and pandas' NA."""
    return value is None or type(value).__name__ == "NAType" or value != value


def number(value: object, digits: int = 4) -> str:
    """A number with so many decimals: "−0.0412", "∞", a dash when it is missing; never "−0.00"."""
    if is_missing(value):
        return DASH
    value = float(value)
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:,.{digits}f}"
    if text.startswith("-") and not text.strip("-0.,"):  # rounded to zero
        text = text[1:]
    return text.replace("-", "−")


def significant(value: object, digits: int = 4) -> str:
    """A number with so many significant digits, a dash when it is missing."""
    if is_missing(value):
        return DASH
    value = float(value)
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return _with_powers(f"{value + 0.0:.{digits}g}")


def decimals(error: object, least: int = 4) -> int:
    """Decimals that show two digits of an error, from ``least`` to 12; ``least`` when it is 0 or missing."""
    if is_missing(error) or not 0 < abs(float(error)) < math.inf:
        return least
    return min(12, max(least, 1 - math.floor(math.log10(abs(float(error))))))


def percent(share: object) -> str:
    """A share in percent, four significant digits: "95%", "97.5%", a dash when it is missing."""
    return DASH if is_missing(share) else f"{significant(100 * float(share))}%"


def _with_powers(text: str) -> str:
    """A formatted number with "·10⁻⁷" in place of "e-07"."""
    mantissa, _, exponent = text.partition("e")
    power = f"·10{str(int(exponent)).translate(SUPERSCRIPTS)}" if exponent else ""
    return mantissa.replace("-", "−") + power


def count(value: object) -> str:
    """A whole number with its thousands apart, a dash when it is missing."""
    return DASH if is_missing(value) else f"{int(value):,}".replace("-", "−")


def several(number: int, noun: str) -> str:
    """So many of something: "1 document", "2,000 documents"."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def bracket(low: object, high: object, digits: int = 4) -> str:
    """An interval: "[0.0412, 0.0533]", a dash when either end is missing."""
    return DASH if is_missing(low) or is_missing(high) else f"[{number(low, digits)}, {number(high, digits)}]"


def between(low: object, high: object, digits: int = 4) -> str:
    """An interval whose ends have so many significant digits: "[3.36·10⁻⁵, 3.54·10⁻⁵]"."""
    if is_missing(low) or is_missing(high):
        return DASH
    return f"[{significant(low, digits)}, {significant(high, digits)}]"


def interval(value: object, low: object, high: object, digits: int = 4) -> str:
    """A value with its interval on a line below it, the value alone without one, or a dash."""
    if is_missing(value) or is_missing(low) or is_missing(high):
        return number(value, digits)
    return f"{number(value, digits)}\n{bracket(low, high, digits)}"


def si(value: object) -> str:
    """A count in short, three significant digits: "85.1M", "11.3B", "960k"; "9.6·10¹⁸" above thousands of T."""
    if is_missing(value):
        return DASH
    value = float(value)
    if math.isinf(value):
        return "∞"
    if value >= 999.5e12:
        return _with_powers(f"{value:.3g}")
    for unit, factor in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor * 0.9995:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"


def byte_size(value: object) -> str:
    """Bytes in short: "9.6 GiB", "512 MiB", "17 B", a dash when they are not known."""
    if is_missing(value):
        return DASH
    for unit, power in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if value >= 2**power:
            return f"{value / 2**power:.4g} {unit}"
    return f"{int(value)} B"


def visible(name: object) -> str:
    """A name as it may be printed: control and direction characters become escapes such as ``\\x1b``."""
    if isinstance(name, str) and name.isprintable():
        return name
    return "".join(
        ch if unicodedata.category(ch) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else ch.encode("unicode_escape").decode()
        for ch in str(name)
    )


def shortened(name: object, most: int = 48) -> str:
    """A printable name of at most ``most`` characters; a longer one keeps its two ends around an ellipsis."""
    text = visible(name)
    if len(text) <= most:
        return text
    head = (most - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def alike(said: Iterable[tuple[str, str]]) -> list[tuple[tuple[str, ...], str]]:
    """Names and what is said of them, (name, sentence), so that a sentence is read once: ((name, …), sentence).

    Sentences of three names or more that differ in the name alone are one, with "…" in the name's place.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, sentence in said:
        shared = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "…", sentence) if name else sentence
        groups.setdefault(shared, []).append((name, sentence))
    found: list[tuple[tuple[str, ...], str]] = []
    for sentence, members in groups.items():
        if len(members) < 3:
            found += [((name,), own) for name, own in members]
        else:
            found.append((tuple(name for name, _ in members), sentence))
    return found


def one_line(text: str) -> str:
    """The text without line breaks; control characters become the escapes that Python writes for them."""
    text = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
