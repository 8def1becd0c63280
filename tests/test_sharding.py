"""Shards of a pass: made until all are there, counted once, and what they ran on is told."""

from types import SimpleNamespace

import numpy as np
import pytest

from rbp_lab.errors import LabError
from rbp_lab.measurement.sharding import provenance, read_shard, refuse_other_rules, until_all_are_there
from rbp_lab.store.layout import Store
from rbp_lab.store.shards import DamagedShard, Partial, Plan

KEY = "0123456789abcdef"
ROWS = {"padded": True, "together": True}
HERE = {"device": "cpu", "rows": ROWS, "torch": "2"}


@pytest.fixture
def ready(tmp_path):
    """A pass of three shards, each of ten positions."""
    partial = Partial.begin(Store(tmp_path), KEY, Plan("who", (0, 3, 4, 9), {}))
    return SimpleNamespace(
        partial=partial, positions=lambda shards: 10 * len(shards), identity=SimpleNamespace(key=KEY)
    )


def write(ready, index, ran=HERE):
    ready.partial.write(index, {"x": np.arange(index + 1)}, {"ran": ran})


def test_only_the_positions_of_others_are_counted_and_a_damaged_shard_is_made_again(ready, capsys):
    write(ready, 0)  # by a command that was broken off before
    made, seen, counters = [], [], []

    def make(some):
        (index,) = some
        made.append(index)
        write(ready, index)
        if index == 1:
            write(ready, 2)  # another process
        seen.append(counters[0]())

    def finish():
        if made.count(1) == 1:
            ready.partial.discard(1)
            raise DamagedShard("shard 1 is damaged")

    until_all_are_there(ready, make, finish, counters.append)
    assert made == [1, 1] and ready.partial.finished() == {0, 1, 2} and ready.partial.files.leases() == []
    assert seen[-1] == counters[0]() == 10
    assert f"run {KEY}: shard 1 is damaged; it is measured again" in capsys.readouterr().err


def test_a_shard_that_cannot_be_right_is_removed(ready):
    write(ready, 1)
    arrays, about = read_shard(ready, 1, lambda arrays: None)
    assert arrays["x"].tolist() == [0, 1] and about == {"ran": HERE}
    with pytest.raises(DamagedShard, match="shard 1 has too many tokens"):
        read_shard(ready, 1, lambda arrays: "has too many tokens" if len(arrays["x"]) == 2 else None)
    assert ready.partial.finished() == set()
    with pytest.raises(DamagedShard, match="shard 1 is missing"):
        read_shard(ready, 1, lambda arrays: None)


def test_shards_of_other_rules_are_not_gone_on_with(ready):
    other = {"padded": False, "together": True}
    refuse_other_rules(ready, other, "cpu")  # nothing is there yet
    write(ready, 1)
    refuse_other_rules(ready, ROWS, "cuda")
    with pytest.raises(LabError, match=rf"of run {KEY} were computed on cpu with rows .*: True.* on cuda; go on there"):
        refuse_other_rules(ready, other, "cuda")
    ready.partial.files.shard(1).write_bytes(b"damaged")
    refuse_other_rules(ready, other, "cuda")  # found when the record is made


def test_shards_of_another_implementation_are_gone_on_with_and_noted(ready, capsys):
    ready.partial.write(1, {"x": np.arange(2)}, {"ran": HERE | {"implementation": "numba"}})
    refuse_other_rules(ready, ROWS, "cpu", "numba")
    assert not capsys.readouterr().err
    refuse_other_rules(ready, ROWS, "cpu", "torch")
    assert f"run {KEY} were scored by numba, the others are scored by torch; " in capsys.readouterr().err


def test_what_ran_most_shards_is_named_and_of_the_others_what_was_different():
    gpu = HERE | {"device": "cuda", "kernel": "triton"}
    assert provenance([HERE]) == HERE | {"shards": 1}
    turned = dict(reversed((HERE | {"rows": dict(reversed(HERE["rows"].items()))}).items()))
    assert provenance([HERE, turned]) == HERE | {"shards": 2}
    assert provenance([gpu, HERE, HERE]) == HERE | {
        "shards": 3, "other_shards": [{"shards": 1, "device": "cuda", "kernel": "triton"}],
    }  # fmt: skip
    with pytest.raises(LabError, match="different rules for rows on different devices"):
        provenance([HERE, HERE | {"rows": {"padded": False, "together": True}}])
