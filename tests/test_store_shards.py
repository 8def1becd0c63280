"""Shards on disk: each is done once, damage is named, and what is of other work is not taken."""

import threading

import numpy as np
import pytest

from rbp_lab.errors import LabError
from rbp_lab.store.layout import Store
from rbp_lab.store.lease import Leases
from rbp_lab.store.shards import DamagedShard, Gone, Partial, Plan

KEY = "0123456789abcdef"
PLAN = Plan("who", (0, 3, 4, 9), {"model": "m"})


def begin(tmp_path, plan=PLAN):
    return Partial.begin(Store(tmp_path), KEY, plan)


def some(index):
    return {"x": np.arange(index + 1), "y": np.array([[1.5]])}


def test_shards_are_taken_in_order_until_all_are_there(tmp_path):
    partial, taken = begin(tmp_path), []
    for (index,) in partial.take(Leases()):
        taken.append(index)
        assert partial.files.lease(index).exists()
        partial.write(index, some(index), {"at": index})
    assert taken == [0, 1, 2] and partial.finished() == {0, 1, 2} and partial.files.leases() == []
    arrays, about = partial.read(2)
    assert arrays["x"].tolist() == [0, 1, 2] and arrays["y"].tolist() == [[1.5]] and about == {"at": 2}
    assert list(partial.take(Leases())) == []


def test_several_are_taken_as_they_fit_and_those_with_hidden_states_first(tmp_path):
    partial, others = begin(tmp_path, Plan("who", tuple(range(8)), {})), Leases()
    partial.files.states(5).mkdir()
    taken = []
    with others.take(partial.files.lease(1)):
        for shards in partial.take(Leases(), lambda taken, index: len(taken) < 3):
            assert all(partial.files.lease(index).exists() for index in shards)
            taken.append(shards)
            if 6 not in shards:
                for index in shards:
                    partial.write(index, some(1), {})
            else:  # one is left for later
                partial.write(6, some(1), {})
                break
    assert taken == [[5, 0, 2], [3, 4, 6]] and partial.finished() == {0, 2, 5, 6} and partial.files.leases() == []
    assert next(partial.take(Leases(), lambda taken, index: True)) == [1, 3, 4]


def test_a_shard_that_was_not_written_is_taken_again(tmp_path):
    partial = begin(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        for _ in partial.take(Leases()):
            raise KeyboardInterrupt
    assert next(partial.take(Leases())) == [0]


def test_many_takers_do_each_shard_once(tmp_path):
    plan = Plan("who", tuple(range(41)), {})
    done, lock = [], threading.Lock()

    def take():
        partial = begin(tmp_path, plan)
        for (index,) in partial.take(Leases(), wait=0.001):
            with lock:
                done.append(index)
            partial.write(index, some(1), {})

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(done) == list(range(40))


def test_work_goes_on_as_it_was_cut_and_other_work_is_removed(tmp_path):
    begin(tmp_path).write(1, some(1), {})
    again = begin(tmp_path, Plan("who", (0, 9), {}))
    assert again.plan.bounds == PLAN.bounds and again.finished() == {1}
    other = begin(tmp_path, Plan("other texts", (0, 9), {}))
    assert len(other.plan) == 1 and other.finished() == set()
    for text in ("{", "{}", "[]", '{"identity": "who", "bounds": 3, "about": {}}'):
        begin(tmp_path).files.plan.write_text(text)
        assert begin(tmp_path).plan == PLAN


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "of another shard", "of other work"])
def test_a_damaged_shard_is_named(tmp_path, how):
    partial = begin(tmp_path)
    partial.write(1, some(9), {})
    file = partial.files.shard(1)
    data = bytearray(file.read_bytes())
    if how == "cut":
        data = data[:-5]
    elif how == "flipped":
        data[-3] ^= 4
    elif how == "empty":
        data = b""
    elif how == "of another shard":
        partial.write(2, some(9), {})
        data = partial.files.shard(2).read_bytes()
    else:
        other = Partial(partial.files, Plan("other", PLAN.bounds, {}))
        other.write(1, some(9), {})
        data = file.read_bytes()
    file.write_bytes(data)
    with pytest.raises(DamagedShard, match="shard 1 is damaged"):
        partial.read(1)
    for _ in range(2):  # two processes may find it
        partial.discard(1)
    with pytest.raises(DamagedShard, match="shard 1 is missing"):
        partial.read(1)
    assert 1 not in partial.finished()


def test_why_work_broke_off_is_kept_until_it_goes_on(tmp_path):
    partial = begin(tmp_path)
    partial.begins()
    partial.failed("the disk is full")
    assert partial.files.error.read_text() == "the disk is full"
    partial.begins()
    assert not partial.files.error.exists() and len(partial.plan) == 3
    partial.remove()
    partial.failed("nobody is there to read it")
    assert not partial.files.directory.exists()


def test_nothing_is_made_anew_once_another_has_finished(tmp_path):
    partial = begin(tmp_path)
    partial.remove()
    partial.remove()
    for attempt in (
        lambda: partial.write(0, some(0), {}), lambda: partial.read(0), lambda: list(partial.take(Leases())),
        lambda: partial.last(Leases()),
    ):  # fmt: skip
        with pytest.raises(Gone):
            attempt()
    assert list((tmp_path / "partial").iterdir()) == []


def test_a_store_that_takes_nothing_is_an_error_in_words(tmp_path):
    (tmp_path / "partial").write_text("in the way")
    with pytest.raises(LabError, match="cannot write"):
        begin(tmp_path)
