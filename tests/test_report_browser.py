"""The report as a reader meets it: in a real browser, where there is one."""

import csv
import io
from functools import partial

import pandas as pd
import pytest

from rbp_lab.figures.style import describe_points, new_figure
from rbp_lab.report.page import page
from rbp_lab.report.sections import ReportFigure, ReportTable, Section
from rbp_lab.text import si
from tests.browser import FOUND, Browser

pytestmark = pytest.mark.skipif(FOUND is None, reason="there is no Chromium here")
FRAME = pd.DataFrame({
    "model": ["b <i>&amp;", "a10", "a2", "=1+1"], "S": [3e6, 5e5, 2e9, 4e19], "α": [-0.5, 1234.5, None, 0.25],
    "data set": "d, 'one'", "range": ["0.2\n[0.1, 0.3]", "−0.1\n[−0.2, 0]", "∞", "1"],
})  # fmt: skip


def drawing(name):
    """Of one point of that name."""
    figure = new_figure(3, 2)
    (line,) = figure.add_subplot().plot([1.0], [1.0], "o")
    describe_points(line, [name])
    return figure


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    tables = (ReportTable("T: one", FRAME, {"S": si, "α": 1}), ReportTable("folded", FRAME[["model"]], folded=True))
    figures = (ReportFigure("f", None, "cap", {name: partial(drawing, f"{name}</noscript>&") for name in ("1", "2")}),)
    path.write_text(page("t", [Section("a", "A", "lead", figures, tables)]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(report):
    with Browser() as tab:
        tab.open(report)
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


def test_what_is_folded_is_made_when_it_is_opened(browser):
    rows = "document.querySelectorAll('details tr').length"
    assert browser.run(rows) == 0
    browser.run("new Promise((done) => { const d = document.querySelector('details');"
                "d.addEventListener('toggle', done, { once: true }); d.open = true; })")  # fmt: skip
    assert browser.run(rows) == 1 + len(FRAME)
    cells = "[...document.querySelectorAll('details td')].map((cell) => cell.textContent)"
    browser.run("document.querySelector('details th').click()")
    assert browser.run(cells) == ["=1+1", "a2", "a10", "b <i>&amp;"]
    rows = browser.run("csvOf(document.querySelector('details'))").splitlines()
    assert rows == ["model", "'=1+1", "a2", "a10", "b <i>&amp;"]
    assert browser.run("document.querySelectorAll('details noscript').length") == 0


def test_a_long_table_is_laid_out_as_it_is_read(tmp_path):
    frame = pd.DataFrame({"i": range(2500)})
    (tmp_path / "long.html").write_text(page("t", [Section("a", "A", "lead", tables=(ReportTable("long", frame),))]))
    with Browser() as tab:
        tab.open(tmp_path / "long.html")
        laid_out = "[...document.querySelectorAll('tbody tr')].filter((row) => row.checkVisibility()).length"
        to_the_end = """new Promise((done) => { const box = document.querySelector(".scroll");
            box.addEventListener("scroll", () => requestAnimationFrame(done), { once: true });
            box.scrollTop = box.scrollHeight; })"""
        for most in (1000, 2000, 2500):
            assert tab.run(laid_out) == most
            tab.run(to_the_end)
        tab.run("document.querySelector('th').click(); document.querySelector('th').click()")
        assert tab.run(laid_out) == 1000
        assert tab.run("document.querySelector('tbody td').textContent") == "2,499"
        assert len(tab.run("csvOf(document.querySelector('.table'))").splitlines()) == 2501


def test_on_paper_a_table_is_whole_and_what_is_for_the_screen_is_not_there(tmp_path):
    frame = pd.DataFrame({"row": range(1100), "text": "x" * 20})
    figure = ReportFigure("f", None, "cap", {name: partial(drawing, name) for name in ("1", "2")})
    path = tmp_path / "long.html"
    section = Section("a", "A", "lead", (figure,), (ReportTable("long", frame),))
    path.write_text(page("t", [section]), encoding="utf-8")
    with Browser() as tab:
        tab.open(path)
        seen = {}
        for printed in (False, True):
            tab.as_printed(printed)
            seen[printed] = tab.run("""(() => {
                const box = document.querySelector(".scroll"), is = (what) => getComputedStyle(what);
                return {
                    whole: box.clientHeight >= box.querySelector("table").offsetHeight,
                    rows: [...box.querySelectorAll("tbody tr")].filter((r) => r.offsetHeight > 0).length,
                    links: [...document.querySelectorAll("nav, .csv")].filter((e) => e.offsetHeight > 0).length,
                    choices: [...document.querySelectorAll(".choices label")].filter((e) => e.offsetHeight > 0).length,
                    breaks: [is(document.querySelector("figure")).breakInside, is(box.querySelector("tr")).breakInside],
                };
            })()""")
    assert seen[False] == {"whole": False, "rows": 1000, "links": 2, "choices": 2, "breaks": ["auto", "auto"]}
    assert seen[True] == {"whole": True, "rows": 1100, "links": 0, "choices": 1, "breaks": ["avoid", "avoid"]}


@pytest.mark.parametrize(("width", "printed"), [(1280, False), (400, False), (680, True)])
def test_an_interval_stays_on_one_line_and_the_window_as_wide(tmp_path, width, printed):
    ends = ["[−0.0983, −0.0546]", "[3.36·10⁻⁵, 3.54·10⁻⁵]", "[1,036.44%, 1,045.38%]", "[−∞, 0]"]
    texts = {"quantity": "cross-entropy of many tokens", "unit": "nats per token", "resampled documents": ends * 2,
             "a with noise": "± 0.0001"}  # fmt: skip
    frame = pd.DataFrame({f"{name} {i}": value for i in range(3) for name, value in texts.items()})
    path, lead = tmp_path / "page.html", " and ".join(ends * 9)
    path.write_text(page("t", [Section("a", "A", lead, (), (ReportTable("T", frame),))]), encoding="utf-8")
    with Browser() as tab:
        tab.as_wide(width)
        tab.as_printed(printed)
        tab.open(path)
        lines, across = tab.run("""[[...document.querySelectorAll(".interval")].map((e) => e.getClientRects().length),
            document.documentElement.scrollWidth <= innerWidth]""")
    assert lines == [1] * (9 * 4 + 3 * 8) and (across or printed)


def test_a_figure_is_made_when_it_is_chosen(browser):
    panels = "[...document.querySelectorAll('.panel')]"
    shown = f"{panels}.map((panel) => [panel.querySelectorAll('svg').length, panel.checkVisibility()])"
    assert browser.run(shown) == [[1, True], [0, False]]
    names = "[...document.querySelectorAll('.pt')].map((point) => point.dataset.tip)"
    assert browser.run(names) == ["1</noscript>&"]
    for choice in (1, 0, 1):
        browser.run(f"document.querySelectorAll('.choices input')[{choice}].click()")
    assert browser.run(shown) == [[1, False], [1, True]]
    assert browser.run(names) == ["1</noscript>&", "2</noscript>&"]


def test_without_a_script_everything_is_there(browser, report):
    browser.allow_scripts(False)
    try:
        browser.open(report)
        assert browser.run("document.querySelectorAll('svg').length") == 2
        assert browser.run("[...document.querySelectorAll('.panel')].every((panel) => panel.checkVisibility())")
        assert browser.run("document.querySelectorAll('details td').length") == len(FRAME)
    finally:
        browser.allow_scripts(True)
        browser.open(report)


def test_the_page_asks_for_nothing_and_complains_of_nothing(browser):
    assert browser.complaints == [] and [r for r in browser.requests if not r.startswith(("file:", "data:"))] == []
