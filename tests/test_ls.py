"""What ``rbp-lab ls`` prints of a store."""

import pytest
from rich.console import Console

from rbp_lab.report.listing import print_runs
from rbp_lab.store.records import write_record
from tests.test_store_records import make_record


@pytest.fixture
def listed(capsys):
    def listed(store):
        print_runs(store, Console(width=300))
        return capsys.readouterr().out

    return listed


def test_a_damaged_record_is_listed_as_such_beside_the_others(tmp_path, listed):
    broken, whole = (write_record(tmp_path, make_record(name)) for name in ("a", "b"))
    (broken / "windows.parquet").write_bytes(b"")
    text = listed(tmp_path)
    assert f"damaged: {broken} is not a readable record (the checksum of windows.parquet does not hold)" in text
    assert whole.name in text and text.count(broken.name) == 1 and "none yet" not in text
    (whole / "record.json").write_bytes(b"")
    assert listed(tmp_path).count("damaged: ") == 2 and "none yet" not in listed(tmp_path)
    assert "none yet" in listed(tmp_path / "nowhere")


def test_names_with_brackets_are_printed_as_they_are(tmp_path, listed):
    write_record(tmp_path, make_record("[bold]x[/red]"))
    assert "[bold]x[/red]" in listed(tmp_path)


def test_a_narrow_terminal_cuts_no_cell(tmp_path, capsys):
    name = "our-model-" + "x" * 40
    key = write_record(tmp_path, make_record(name)).name
    print_runs(tmp_path, Console(width=80))
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 80 and "…" not in narrow
    assert key in narrow and "float32" in narrow
    first = "".join(line.split("│")[1].strip() for line in narrow.splitlines() if line.startswith("│"))
    assert first == name * 2  # broken into lines, and all of it above the columns of both tables
