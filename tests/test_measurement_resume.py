"""Measurements that break off: nothing that was finished is lost, and the record is that of an undisturbed one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rbp_lab.commands.measure import measure
from rbp_lab.errors import LabError
from rbp_lab.measurement import instrument
from rbp_lab.store.arrays import read_arrays, write_arrays
from rbp_lab.store.layout import Store
from rbp_lab.store.records import read_record
from rbp_lab.store.shards import Partial
from tests import kills
from tests.sources import measure_config

OFFLINE = {"mode": "offline"}


def small_shards(model, store, **changes):
    return measure_config(model, store, launch__shard_tokens=100, scoring__batch_tokens=64, **changes)


@pytest.fixture(scope="module")
def whole(tiny_model_dir, tmp_path_factory):
    return measure(measure_config(tiny_model_dir, tmp_path_factory.mktemp("whole"))).record


def same(record, other):
    return record.stats == other.stats and record.documents == other.documents and record.key == other.key


def break_off(monkeypatch, config, shards=3, error=KeyboardInterrupt):
    """Measure until so many shards are kept, and raise ``error`` when the next one is to be."""
    real, kept = Partial.write, []

    def broken(self, *what):
        if len(kept) == shards:
            raise error
        kept.append(real(self, *what))

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, OSError)):
        patch.setattr(Partial, "write", broken)
        measure(config)
    (partial,) = Store(config["store"]).partials()
    assert len(partial.finished()) == shards and not partial.leases()
    return partial


def test_an_interrupted_measurement_goes_on_where_it_was(tiny_model_dir, tmp_path, whole, monkeypatch, capsys):
    config = small_shards(tiny_model_dir, tmp_path)
    break_off(monkeypatch, config)
    assert not list(tmp_path.glob("runs/*"))
    assert "3 of 2" in (said := capsys.readouterr().err) and "the same command goes on from there" in said
    config["callbacks"] = {"tally": {"_target_": "tests.kills.Slow", "tally": str(tmp_path / "tally"), "seconds": 0}}
    record = measure(config).record
    assert same(record, whole) and record.provenance["shards"] > 6
    assert 0 < sum(map(int, (tmp_path / "tally").read_text().split())) < whole.stats.num_tokens  # the rest of them
    assert f"run {record.key} goes on: 3 of " in capsys.readouterr().err
    assert not list(tmp_path.glob("partial/*"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("cut", "is damaged"), ("of other work", "is damaged"), ("counts", "has other totals than its documents"),
        ("documents.document_id", "does not hold the documents from which it was made"),
    ],
)  # fmt: skip
def test_a_damaged_shard_is_named_and_measured_again(
    tiny_model_dir, tmp_path, whole, monkeypatch, capsys, damage, words
):
    config = small_shards(tiny_model_dir, tmp_path)
    partial = break_off(monkeypatch, config)
    file = partial.shard(1)
    if damage in ("cut", "of other work"):
        file.write_bytes(file.read_bytes()[:-7] if damage == "cut" else partial.shard(0).read_bytes())
    else:  # wrong before it was written, so that its checksum is right
        arrays, about = read_arrays(file)
        arrays[damage][0] += 1
        write_arrays(file, arrays, about)
    record = measure(config).record
    assert same(record, whole)
    assert f"note: run {record.key}: shard 1 {words}" in capsys.readouterr().err


def test_shards_whose_rows_followed_other_rules_are_not_gone_on_with(tiny_model_dir, tmp_path, monkeypatch):
    config = small_shards(tiny_model_dir, tmp_path)
    break_off(monkeypatch, config)
    monkeypatch.setattr(instrument, "probe_rows", lambda *_: instrument.RowRules(padded=False))
    with pytest.raises(LabError, match=r"were computed on cpu with rows .*go on there, or delete"):
        measure(config)


def test_a_full_disk_stops_it_with_one_sentence_and_it_goes_on(tiny_model_dir, tmp_path, whole, monkeypatch, capsys):
    config = small_shards(tiny_model_dir, tmp_path)
    break_off(monkeypatch, config, 3, OSError(28, "No space left on device", "somewhere"))
    assert same(measure(config).record, whole)


def test_what_ran_other_shards_is_in_the_record(tiny_model_dir, tmp_path, whole, monkeypatch):
    config = small_shards(tiny_model_dir, tmp_path, scoring__implementation="torch")
    break_off(monkeypatch, config)
    monkeypatch.setattr("platform.processor", lambda: "another processor")
    provenance = measure(config).record.provenance
    (other,) = provenance["other_shards"]
    machines = {provenance["machine"], other["machine"]}
    assert "another processor" in machines and len(machines) == 2 and set(other) == {"machine", "shards"}
    assert 0 < other["shards"] < provenance["shards"]


def disturbed(model, directory, seeds, task, **changes):
    """Results of measurements of ``model``, one for each seed, that are disturbed as ``task`` of tests.kills says."""
    config = small_shards(model, "STORE", **changes)
    config["callbacks"] = {"slow": {"_target_": "tests.kills.Slow", "tally": "STORE/tally", "seconds": 0.02}}
    task = {"config": config, "directory": str(directory), "seeds": seeds, **task}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(kills.ROOT)}
    command = [sys.executable, "-m", "tests.kills", json.dumps(task)]
    done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(results) == len(seeds) and all(result["left"] == [] for result in results)
    return results


def try_kills(model, directory, seeds, number, signals=("SIGKILL",), **changes):
    """Results of measurements that get so many signals; each asserted to have ended as it must."""
    results = disturbed(model, directory, seeds, {"kills": number, "signals": signals}, **changes)
    for result in results:
        assert result["orphans"] == result["slow"] == result["wrong"] == 0, result
    return results


def test_commands_on_one_store_share_the_work_and_take_over_from_one_that_stands_still(tiny_model_dir, tmp_path, whole):
    (result,) = disturbed(tiny_model_dir, tmp_path, [0], {"commands": 3})
    assert result["codes"] == [0, 0, 0] and same(read_record(Path(result["record"])), whole)
    assert result["scored"] <= whole.stats.num_tokens + 400  # but for the shard of the one that stood still


@pytest.mark.parametrize("processes", [1, 2])
def test_stopped_at_any_moment_it_resumes_to_the_same_record(tiny_model_dir, tmp_path, whole, processes):
    signals = ["SIGKILL", "SIGTERM", "SIGINT"]
    (result,) = try_kills(tiny_model_dir, tmp_path, [0], 5, signals, launch__processes=processes)
    assert result["kills"] >= 1  # how many it takes depends on when they come
    assert same(read_record(Path(result["record"])), whole)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("tracking", [{"mode": "none"}, OFFLINE], ids=["untracked", "offline"])
def test_sixty_kills(tiny_model_dir, tmp_path, whole, processes, tracking):
    results = try_kills(tiny_model_dir, tmp_path, list(range(5)), 4, launch__processes=processes, tracking=tracking)
    for result in results:
        assert same(read_record(Path(result["record"])), whole)
    print(sum(r["kills"] for r in results), "kills; median share lost", kills.lost(results, whole.stats.num_tokens))
