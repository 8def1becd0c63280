"""Numbers and names in print."""

import math

import pandas as pd
import pytest

from rbp_lab.errors import note_once
from rbp_lab.jobs.failures import Failures
from rbp_lab.text import (
    alike,
    between,
    bracket,
    byte_size,
    count,
    decimals,
    interval,
    number,
    percent,
    several,
    shortened,
    si,
    significant,
    visible,
)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.04123, 4, "0.0412"), (-1.5, 1, "−1.5"), (-0.001, 2, "0.00"), (-0.0, 3, "0.000"), (12345.678, 1, "12,345.7"),
     (math.inf, 2, "∞"), (-math.inf, 2, "−∞"), (None, 2, "–"), (math.nan, 2, "–"), (pd.NA, 2, "–")],
)  # fmt: skip
def test_numbers_have_decimals_a_true_minus_and_no_minus_zero(value, digits, text):
    assert number(value, digits) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(85056000, "85.1M"), (11327027200, "11.3B"), (999.7e6, "1B"), (12, "12"), (999.4e12, "999T"),
     (9.6e28, "9.6·10²⁸"), (1e15, "1·10¹⁵"), (math.inf, "∞"), (None, "–")],
)  # fmt: skip
def test_short_counts_end_at_thousands_of_t(value, text):
    assert si(value) == text


def test_one_of_something_has_no_s():
    assert [several(n, "document") for n in (0, 1, 2000)] == ["0 documents", "1 document", "2,000 documents"]


def test_small_numbers_show_their_power():
    assert significant(1.28e-7, 3) == "1.28·10⁻⁷" and significant(-0.25) == "−0.25" and significant(-0.0, 2) == "0"
    assert count(1234567) == "1,234,567" and count(pd.NA) == "–"


def test_an_interval_stands_below_its_value():
    assert interval(0.5, 0.4, 0.6, 2) == "0.50\n[0.40, 0.60]" and interval(0.5, None, 0.6, 2) == "0.50"
    assert interval(None, 0.4, 0.6) == bracket(None, 1) == "–"


def test_names_keep_their_letters_and_show_what_would_steer_a_terminal():
    assert visible("a\x1b[31mb\u202ec\r\n") == "a\\x1b[31mb\\u202ec\\r\\n"
    assert visible("naïve [x] $y$ 日本") == "naïve [x] $y$ 日本"
    assert shortened("short") == "short"
    cut = shortened("a" * 200 + "b" * 100)
    assert len(cut) == 48 and cut.startswith("aaa") and "…" in cut and cut.endswith("bbb")


def test_what_every_model_of_a_sweep_meets_is_said_once(capsys):
    for dataset in "aba":
        note_once(f"dataset said-once-{dataset}: 1 document left out")
    assert capsys.readouterr().err.splitlines() == [f"note: dataset said-once-{x}: 1 document left out" for x in "ab"]


def test_bytes_are_not_counted_in_billions():
    assert [byte_size(n) for n in (0, 1023, 1024, 1536, 10**9, 2**40, None)] == [
        "0 B", "1023 B", "1 KiB", "1.5 KiB", "953.7 MiB", "1 TiB", "–",
    ]  # fmt: skip


def test_a_level_of_confidence_is_not_rounded_to_another():
    assert [percent(level) for level in (0.95, 0.975, 0.999, 1.0, None)] == ["95%", "97.5%", "99.9%", "100%", "–"]


def test_an_error_shows_with_two_digits():
    assert [decimals(e) for e in (0.5, 0.00012, 3.1e-6, 0, None, float("nan"), 1e-30)] == [4, 5, 7, 4, 4, 4, 12]
    assert decimals(0.00012, 6) == 6
    assert between(3.361e-5, 0.5) == "[3.361·10⁻⁵, 0.5]" and between(None, 1) == "–"


def test_what_is_said_of_many_is_said_once():
    said = [("a-1", "no config of org/a-1: away"), ("b", "too large"), ("a-2", "no config of org/a-2: away")]
    assert alike(said) == [(("a-1",), said[0][1]), (("a-2",), said[2][1]), (("b",), said[1][1])]
    assert alike([*said, ("c", "no config of org/c: away")]) == [
        (("a-1", "a-2", "c"), "no config of org/…: away"), (("b",), "too large")
    ]  # fmt: skip
    assert alike([("", "x")] * 3) == [(("", "", ""), "x")]


def test_jobs_that_failed_alike_share_a_sentence():
    failed = Failures(5, failed=[("model=a", "no\nhub"), ("model=b", "broken"), ("model=c", "no\nhub")])
    assert failed.table().splitlines()[1:] == ["  model=a: no hub", "  model=c: no hub", "  model=b: broken"]
    failed.failed.append(("model=d", "no\nhub"))
    assert failed.table().splitlines() == [
        "4 of 5 jobs failed:", "  no hub:", "    model=a", "    model=c", "    model=d", "  model=b: broken"
    ]  # fmt: skip
