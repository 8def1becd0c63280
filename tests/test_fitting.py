"""Tables in a narrow terminal: every cell is whole on one line, and the names stand beside each part."""

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rbp_lab.comparison.differences import PairedSums, compare
from rbp_lab.comparison.summary import Floor
from rbp_lab.report.comparison.show import differences_table
from rbp_lab.report.fitting import fitting, print_table


def printed(table, width, names=1):
    console = Console(width=width, no_color=True)
    with console.capture() as captured:
        print_table(console, table, names)
    return captured.get()


def differences(names, floor=(), detect=None):
    rng = np.random.default_rng(0)
    n = rng.integers(50, 900, 40).astype(float)
    a, b = (n * (0.3 + rng.normal(0, 1e-3, (len(names), 40))) for _ in "ab")
    found = compare([PairedSums(name, "", x, n, y, n) for name, x, y in zip(names, a, b, strict=True)])
    return differences_table(found, detect, {one: Floor(dict.fromkeys(names, 1.234e-5), {}) for one in floor})


TABLES = {
    "floor": differences(["cross-entropy", "RBP_1", "predictive entropy"], ("noise", "batch")),
    "windows": differences(["cross-entropy", "p_{5,100}", "error entropy", "bits per byte"], detect=0.01),
    "both": differences(["cross-entropy", "p_{5,100}"], ("noise", "batch"), 0.01),
}


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_no_cell_is_cut_or_broken_at_any_width(table, width):
    out = printed(table, width)
    assert "…" not in out and all(len(line) <= width for line in out.splitlines())
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line[:1] == "│"]
    for column in table.columns[1:]:
        for cell in map(str, column.cells):
            assert any(cell in line[1:] for line in lines), cell
    parts = fitting(table, width)
    assert [str(c.header) for part in parts for c in part.columns[1:]] == [str(c.header) for c in table.columns[1:]]
    assert all(list(part.columns[0].cells) == list(table.columns[0].cells) for part in parts)


def test_a_table_for_which_there_is_room_stays_as_it_is():
    table = TABLES["floor"]
    assert fitting(table, 200) == [table]
    assert len(fitting(table, 80)) > len(fitting(table, 120)) > 1


def test_long_names_take_several_lines_before_columns_are_parted():
    table = Table(title="documents", caption="of a corpus")
    for name in ("document", "run", "nats per token, a", "share of its variance"):
        table.add_column(name, justify="right")
    name = "a/very/long/path/of/a/document/" * 3
    table.add_row(Text(name), "first", "1.2345", "31%", end_section=True)
    table.add_row(Text("b"), "second", "2.3456", "3%")
    (one,) = fitting(table, 60, names=2)
    out = printed(table, 60, names=2)
    assert one.title == "documents" and one.caption == "of a corpus" and one.rows[0].end_section
    body = [line.split("│")[1].strip() for line in out.splitlines() if line[:1] == "│"]
    assert "1.2345" in out and "share of" in out and "".join(body) == name + "b"
    parts = fitting(table, 38, names=2)
    assert [part.title for part in parts] == ["documents", None] and [p.caption for p in parts] == [None, "of a corpus"]
    assert [str(column.header) for column in parts[1].columns] == ["document", "run", "share of its variance"]
