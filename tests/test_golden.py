"""One way through everything with frozen numbers: models, documents, records, fits, report."""

from __future__ import annotations

import json
import math

import pytest

from tests import golden


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return golden.run(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def got(store):
    return golden.outcome(store)


@pytest.fixture(scope="module")
def frozen():
    return json.loads(golden.FILE.read_text())


def test_no_rank_hangs_on_rounding(store):
    """Ranks can be frozen: no candidate comes within ten times the error of float32 logits of the right token."""
    assert min(golden.closest(place) for place in sorted(store.parent.glob("golden-*"))) > 2e-5


def test_records_hold_the_frozen_counts(got, frozen):
    assert set(got["records"]) == {f"golden-{width}" for width in golden.WIDTHS}
    for name, record in got["records"].items():
        expected = dict(frozen["records"][name])
        assert record.pop("nll") == pytest.approx(expected.pop("nll"), rel=1e-6), name
        assert record == expected, name


def test_fits_hold_the_frozen_numbers(got, frozen):
    assert len(got["fits"]) == len(frozen["fits"])
    for fit, expected in zip(got["fits"], frozen["fits"], strict=True):
        assert fit.keys() == expected.keys()
        for name, value in expected.items():
            if isinstance(value, float):
                assert fit[name] == pytest.approx(value, rel=1e-4, abs=1e-9), (expected["metric"], expected["k"], name)
            elif name != "points_hash":  # of floats to the last bit
                assert fit[name] == value, (expected["metric"], expected["k"], name)


def test_the_report_has_the_frozen_headings_and_table_cells(got, frozen):
    assert got["report"]["headings"] == frozen["report"]["headings"]
    rows, expected = got["report"]["rows"], frozen["report"]["rows"]
    assert [[golden.words(c) for c in row] for row in rows] == [[golden.words(c) for c in row] for row in expected]
    for row, old in zip(rows, expected, strict=True):
        if "run off" in row[-1]:  # a fit without an optimum stops where rounding says
            continue
        for cell, was in zip(row, old, strict=True):
            for a, b in zip(golden.numbers(cell), golden.numbers(was), strict=True):
                assert math.isclose(a, b, rel_tol=2e-3, abs_tol=1.1e-3), (cell, was, row)
