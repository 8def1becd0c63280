"""The report as a reader meets it: in a real browser, where there is one."""

import csv
import io

import pandas as pd
import pytest

from rbp_lab.report.page import page
from rbp_lab.report.sections import ReportTable, Section
from rbp_lab.text import si
from tests.browser import FOUND, Browser

pytestmark = pytest.mark.skipif(FOUND is None, reason="there is no Chromium here")
FRAME = pd.DataFrame({
    "model": ["b <i>&amp;", "a10", "a2", "=1+1"], "S": [3e6, 5e5, 2e9, 4e19], "α": [-0.5, 1234.5, None, 0.25],
    "data set": "d, 'one'", "range": ["0.2\n[0.1, 0.3]", "−0.1\n[−0.2, 0]", "∞", "1"],
})  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    tables = (ReportTable("T: one", FRAME, {"S": si, "α": 1}), ReportTable("folded", FRAME[["model"]], folded=True))
    path.write_text(page("t", [Section("a", "A", "lead", tables=tables)]), encoding="utf-8")
    with Browser() as tab:
        tab.open(path)
        yield tab


def column(browser, head):
    """The column of that name after a click on its head."""
    return browser.run(f"""(() => {{
        const table = document.querySelector("table"), heads = [...table.tHead.rows[0].cells];
        const at = heads.findIndex((h) => h.textContent === "{head}");
        heads[at].click();
        return [...table.tBodies[0].rows].map((r) => r.cells[at].firstChild.textContent);
    }})()""")


@pytest.mark.parametrize(
    ("head", "rising"),
    [
        ("S", ["500k", "3M", "2B", "4·10¹⁹"]),
        ("α", ["−0.5", "0.2", "1,234.5", "–"]),
        ("range", ["−0.1", "0.2", "1", "∞"]),
        ("model", ["=1+1", "a2", "a10", "b <i>&amp;"]),
    ],
)
def test_a_click_on_a_head_sorts_by_numbers_or_texts(browser, head, rising):
    known, missing = [v for v in rising if v != "–"], [v for v in rising if v == "–"]
    assert column(browser, head) == rising
    assert column(browser, head) == known[::-1] + missing
    assert browser.run("document.querySelectorAll('[aria-sort]').length") == 1


def test_every_table_is_a_csv_that_programs_and_spreadsheets_read(browser):
    column(browser, "S")
    links = "[...document.querySelectorAll('.table > a.csv')].map((a) => a.download)"
    assert browser.run(links) == ["T-one.csv", "folded.csv"]
    text = browser.run("""(async () => {
        const link = document.querySelector("a.csv");
        link.addEventListener("click", (event) => event.preventDefault());
        link.click();
        return csvOf(link.parentElement);
    })()""")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == ["model", "S", "α", "range", "data set"]
    assert rows[1:] == [
        ["a10", "500k", "1234.5", "−0.1 [−0.2, 0]", "d, 'one'"],
        ["b <i>&amp;", "3M", "-0.5", "0.2 [0.1, 0.3]", "d, 'one'"],
        ["a2", "2B", "", "∞", "d, 'one'"],
        ["'=1+1", "4·10¹⁹", "0.2", "1", "d, 'one'"],
    ]
    assert browser.run("document.querySelector('a.csv').href").startswith("blob:")


def test_the_page_asks_for_nothing_and_complains_of_nothing(browser):
    assert browser.complaints == [] and [r for r in browser.requests if not r.startswith(("file:", "data:"))] == []
