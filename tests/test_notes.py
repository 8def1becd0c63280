"""What a report and the terminal say of many laws: each sentence once, the first few by name, and what to do."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import WARNINGS
from rbp_lab.report.page import page
from rbp_lab.report.sections import ReportTable, Section, laws, refusal_notes, warning_notes
from rbp_lab.report.terminal import MOST_FITS, in_print, notes, print_note

SIZES = np.geomspace(1e6, 1e9, 4)


def fitted(k=None, family="f", zeros=0):
    value = 5 * SIZES**-0.1
    value[len(value) - zeros :] = 0
    points = FitPoints(SIZES, value, tuple(f"{family}-{i}" for i in range(len(SIZES))))
    return fit_power(points, Label(family, "d", "ce" if k is None else "neg_log_rbp", k))


def test_laws_of_one_family_share_its_name_and_of_many_the_first_are_named():
    labels = [Label("f", "d", "neg_log_rbp", k) for k in range(1, 9)]
    assert laws([labels[0], Label("g", "d", "ce"), labels[1]]) == "−log RBP_1, −log RBP_2 (f, d); CE (g, d)"
    assert laws(labels).endswith("−log RBP_6 (f, d) and 2 more") and laws([Label(metric="ce")]) == "CE"


def test_a_warning_of_every_law_names_none_and_each_reason_for_refusing_is_read_once():
    fits = [fitted(), fitted(1), fitted(10)]
    assert warning_notes(fits) == [f"few_models: {WARNINGS['few_models']} (all of these laws)."]
    assert "(CE, −log RBP_1 (f, d))" in warning_notes([*fits[:2], fitted(5, zeros=1)])[0]
    refused = [fitted(k, family, zeros=1) for family in "abcdefghij" for k in (1, 2)]
    said = refusal_notes(refused)
    assert len(said) == 9 and said[0].startswith("No fit for −log RBP_1, −log RBP_2 (a, d): the value is 0 for a-3: it")
    assert said[-1] == "No fit for 4 more, for reasons that the table gives."


@pytest.mark.parametrize("code", sorted(set(WARNINGS) - {"earlier_checkpoints"}))
def test_a_warning_says_what_to_do_or_how_to_read_the_number(code):
    assert ";" in WARNINGS[code]


def test_of_many_models_without_a_value_the_first_four_are_named():
    value = np.array([3.0, *[0.0] * 9])
    points = FitPoints(np.geomspace(1e6, 1e9, 10), value, tuple("abcdefghij"))
    assert "for b, c, d, e and 5 more: it has no logarithm" in fit_power(points).message


def test_of_very_many_laws_the_terminal_has_those_of_the_k_shown_and_counts_the_rest():
    fits = [fitted(), *(fitted(k) for k in range(1, MOST_FITS)), fitted(999, zeros=2)]
    few, rest = in_print(fits, "d", (1, 10, 999))
    assert [f.label.k for f in few] == [None, 1, 10, 999] and len(notes(few, "d")) == 2
    assert rest == f"{MOST_FITS - 3} more laws, of other k, are in the report and in fits.csv"
    assert in_print(fits, "d", (1,))[1].endswith(", 1 of which could not be fitted")
    assert in_print(fits[:-1], "d", (1, 10)) == (fits[:-1], "") == in_print(fits[:-1], "d", ())
    assert in_print(fits[1:], "d", (77,)) == (fits[1:], "")


def test_printed_numbers_stand_right_and_a_column_of_dashes_is_left_out():
    frame = pd.DataFrame({
        "model": ["7"] * 3, "tokens": ["301,019", "9", "–"], "share": ["9.8%", "× 0.1", "≤ 3M"], "k": ["1 2", "3", "5"],
        "floor": ["–"] * 3, "of": ["0.1.0"] * 3,
    })  # fmt: skip
    html = page("t", [Section("a", "A", "", tables=(ReportTable("T", frame),))])
    body = html[html.index("<tbody>") : html.index("</tbody>")]
    assert body.count('class="n"') == 6 and "<td>1 2</td>" in body and "floor" not in html
    assert "In every row: model 7; of 0.1.0." in re.sub("<[^>]*>", "", html)


def test_a_note_is_one_line_in_a_file_and_broken_between_words_in_a_terminal():
    sentence = "no fit for ladder: " + "the value is 0 [b]for every model " * 5
    for terminal in (False, True):
        console = Console(file=io.StringIO(), width=60, force_terminal=terminal, color_system=None)
        print_note(console, sentence)
        lines = console.file.getvalue().rstrip("\n").split("\n")
        assert (len(lines) == 1) != terminal and " ".join(line.strip() for line in lines) == sentence.strip()
