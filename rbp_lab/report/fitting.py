"""Tables in a terminal that is narrower than they are: no number is cut."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

NAME = 16  # cells of a terminal that a name keeps at least; a longer one goes on in the next line


def print_table(console: Console, table: Table, names: int = 1) -> None:
    """Print a table as wide as the console has room for.

    Cells of text are whole; headers take several lines, and names too, which are the first ``names`` columns. Columns
    for which there is no room then go to further tables below, where the names stand again.
    """
    for part in fitting(table, console.width, names):
        console.print(part)


def fitting(table: Table, width: int, names: int = 1) -> list[Table]:
    """The tables that ``print_table`` prints."""
    whole = [max(_cells(column), cell_len(str(column.header))) for column in table.columns]
    if _width(whole) <= width:
        return [table]
    heads = [max(map(cell_len, str(column.header).split()), default=0) for column in table.columns]
    least = [max(pair) for pair in zip(map(_cells, table.columns), heads, strict=True)]
    least[:names] = [min(whole[i], max(NAME, heads[i])) for i in range(names)]
    groups: list[list[int]] = [[]]
    for i in range(names, len(whole)):
        if groups[-1] and _width([*least[:names], *(least[j] for j in (*groups[-1], i))]) > width:
            groups.append([])
        groups[-1].append(i)
    parts = [_part(table, [*range(names), *group], least, whole, names, width) for group in groups]
    parts[0].title, parts[0].title_justify, parts[-1].caption = table.title, table.title_justify, table.caption
    return parts


def _part(
    table: Table, chosen: Sequence[int], least: Sequence[int], whole: Sequence[int], names: int, width: int
) -> Table:
    """Some columns as a table of their own; room that is left goes to the names, then to headers."""
    widths = [least[i] for i in chosen]
    for at, i in enumerate(chosen):
        widths[at] += min(whole[i] - least[i], max(0, width - _width(widths)))
    columns = [
        Column(table.columns[i].header, justify=table.columns[i].justify, width=size, overflow="fold")
        for i, size in zip(chosen, widths, strict=True)
    ]
    part = Table(*columns)
    rows = zip(*(table.columns[i].cells for i in chosen), strict=True)
    for row, cells in zip(table.rows, rows, strict=True):
        part.add_row(*cells, end_section=row.end_section)
    return part


def _cells(column: Column) -> int:
    """How many cells of a terminal the widest cell of a column takes."""
    return max((cell_len(str(cell)) for cell in column.cells), default=0)


def _width(columns: Sequence[int]) -> int:
    """How wide a table with columns of these widths is: each has a border beside it and a space on both sides."""
    return sum(columns) + 3 * len(columns) + 1
