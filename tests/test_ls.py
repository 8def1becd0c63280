"""What ``rbp-lab ls`` prints of a store."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from rbp_lab.records import record_key
from rbp_lab.report.listing import print_names, print_runs
from rbp_lab.store.records import write_record
from tests.kills import ROOT
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


def test_runs_of_the_same_names_say_what_they_differ_in(tmp_path, listed):
    def record(name="a", thresholds=(1, 10), **dataset):
        plain = make_record(name, thresholds=thresholds)
        of = replace(plain.dataset, **dataset)
        key = record_key(plain.model, of, plain.scoring)
        return replace(plain, header=replace(plain.header, key=key, dataset=of))

    write_record(tmp_path, record())
    write_record(tmp_path, record("b"))
    assert "differs in" not in listed(tmp_path)
    write_record(tmp_path, record(thresholds=(1, 2, 3, 5, 50)))
    write_record(tmp_path, record(num_documents=70, fingerprint="other"))
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in listed(tmp_path).splitlines() if "│" in line]
    assert sorted((row[0], row[8]) for row in cells) == [
        ("a", "6 documents, 5 k from 1 to 50"), ("a", "6 documents, k = 1, 10"), ("a", "70 documents, k = 1, 10"),
        ("b", "–"),
    ]  # fmt: skip


def test_a_table_that_nobody_reads_ends_the_process_as_other_output_does(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stdout, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as end:
            print_names("model=", ["one"])
    assert end.value.code == 141


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_error(tmp_path, closed):
    words = [sys.executable, "-P", "-m", "rbp_lab", "ls", "datasets", f"store={tmp_path}"]
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *words]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
