"""CSV files that a spreadsheet may open hold no formula, and are read back as they were written."""

import numpy as np
import pandas as pd
import pytest

from rbp_lab.analysis.csv_points import points_from_csv
from rbp_lab.points import validate
from rbp_lab.store.tables import escaped, read_csv, unescaped, write_csv

FORMULAS = ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''=1"]


@pytest.mark.parametrize("name", [*FORMULAS, "plain", "'quoted'", "a=b", ""])
def test_text_that_begins_a_formula_is_escaped_and_comes_back(name):
    cell = escaped(name)
    assert unescaped(cell) == name
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert (cell == name) == (name not in FORMULAS)


def test_numbers_stay_numbers(tmp_path):
    table = pd.DataFrame({
        "name": ["=x", "y", None], "v": [-1.5, np.nan, 0.1 + 0.2], "n": pd.array([-3, None, 2], dtype="Int64"),
        "mixed": [-0.5, "-a", None],
    })  # fmt: skip
    write_csv(table, tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines == ["name,v,n,mixed", "'=x,-1.5,-3,-0.5", "y,,,'-a", ",0.30000000000000004,2,"]
    assert table["name"][0] == "=x"
    again = read_csv(tmp_path / "t.csv")
    assert again["name"].tolist()[:2] == ["=x", "y"] and again["v"][0] == -1.5 and again["mixed"][1] == "-a"


def test_points_with_such_names_are_read_back(tmp_path):
    names = [n for n in FORMULAS if n == n.strip()]
    points = validate(pd.DataFrame({
        "model": [f"{n}m" for n in names], "family": names, "size": 1e6, "dataset": "=d", "metric": "ce", "k": pd.NA,
        "window": 1, "value": 2.5, "se_log": np.nan, "n": pd.NA, "key": "",
    }))  # fmt: skip
    write_csv(points, tmp_path / "points.csv")
    pd.testing.assert_frame_equal(points_from_csv(tmp_path / "points.csv"), points)
