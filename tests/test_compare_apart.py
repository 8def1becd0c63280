"""Two models that are loaded in turn: the record of both side by side, whatever the disk holds or a kill leaves."""

import gc
import json
import os
import shutil
import signal
import subprocess
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from rbp_lab.commands.clean import run as clean
from rbp_lab.commands.compare_models import job_from_config
from rbp_lab.comparison import apart
from rbp_lab.comparison.pair import Half
from rbp_lab.comparison.record import read_pair
from rbp_lab.comparison.run import floors, run_pair
from rbp_lab.comparison.states import StoredStates, write_states
from rbp_lab.comparison.tokens import token_texts
from rbp_lab.data.windows import TokenBatch
from rbp_lab.errors import LabError
from rbp_lab.measurement import instrument
from rbp_lab.measurement.worker import answer_to
from rbp_lab.models import HFModel
from rbp_lab.models.pair_scorer import Side
from rbp_lab.models.placement import weight_bytes
from rbp_lab.scoring.types import LMHead
from rbp_lab.store.clean import size
from rbp_lab.store.layout import Store
from rbp_lab.store.shards import Partial
from tests import forked
from tests.conftest import build_tiny_model
from tests.sources import begin, interrupted_after, pair_config

SHARDS = {"launch__shard_tokens": 200}
alive = []  # weak references to every network that was loaded
loaded = []  # names of models, in the order in which they were loaded


@dataclass(frozen=True)
class Watched(HFModel):
    """A model of which is written down when it is loaded, and what other one is in memory then."""

    def open(self):
        opened = super().open()
        real = opened.load

        def load(*where):
            gc.collect()
            here = {type(one()) for one in alive if one() is not None}
            loaded.append(self.name if not here else f"{self.name} beside another")
            found = real(*where)
            alive.append(weakref.ref(found.network))
            return found

        object.__setattr__(opened, "load", load)
        return opened


def config_of(tiny_model_dir, tiny_near_dir, store, **changes):
    config = pair_config(tiny_model_dir, tiny_near_dir, store, **changes)
    for side in "ab":
        config[side]["model"]["_target_"] = "tests.test_compare_apart.Watched"
    return config


def run(config):
    loaded.clear()
    alive.clear()
    instrument.release()
    return run_pair(job_from_config(config))[0]


def states(store):
    """Bytes of hidden states below a store."""
    return sum(map(size, store.glob("partial/*/states-*")))


@pytest.fixture(scope="module")
def whole(tiny_model_dir, tiny_near_dir, tmp_path_factory):
    """The comparison of both models side by side."""
    record = run(config_of(tiny_model_dir, tiny_near_dir, tmp_path_factory.mktemp("whole")))
    assert record.provenance["states"] == "memory" and loaded == ["tiny-a", "tiny-b beside another"]
    return record


def share(part):
    """A limit on memory: a part of what both models together need."""
    return {"cpu": int(part * 2 * weight_bytes(build_tiny_model("gpt_neox"), torch.float32))}


@pytest.mark.parametrize(("part", "where"), [(0.9, {"cpu"}), (0.4, {"cpu", "disk"}), (0, {"disk"})])
def test_models_that_do_not_fit_together_are_loaded_in_turn_and_the_record_is_the_same(
    part, where, tiny_model_dir, tiny_near_dir, whole, tmp_path, capsys
):
    changes = {"launch__max_memory": share(part), **SHARDS}
    record = run(config_of(tiny_model_dir, tiny_near_dir, tmp_path, **changes))
    assert record.sums == whole.sums and record.names == whole.names and record.header.key == whole.header.key
    assert loaded == ["tiny-a", "tiny-b"]
    assert record.provenance["states"] == "stored" and record.provenance["shards"] > 3
    assert all(set(record.provenance[side]["placement"]) == where for side in "ab")
    said = capsys.readouterr().err
    assert "the weights of tiny-a and tiny-b take 163 KiB and 163 KiB, and " in said
    assert "in main memory may hold weights; so they are loaded in turn: hidden states of tiny-a, at most 4GB" in said
    assert "only the output layer of tiny-a (48 KiB) stays in memory" in said
    assert not list(tmp_path.glob("partial/*"))


def test_models_that_fit_together_are_loaded_together(tiny_model_dir, tiny_near_dir, tmp_path):
    run(config_of(tiny_model_dir, tiny_near_dir, tmp_path, launch__max_memory=share(1.0)))
    assert loaded == ["tiny-a", "tiny-b beside another"]
    less = config_of(tiny_model_dir, tiny_near_dir, tmp_path / "less", launch__max_memory=share(0.4))
    assert run(less | {"states": "memory"}).provenance["states"] == "memory"  # spread over main memory and disk
    assert loaded == ["tiny-a", "tiny-b beside another"]


def test_each_model_is_loaded_once_for_several_data_sets(tiny_model_dir, tiny_near_dir, tmp_path):
    def made(seed, a=tiny_model_dir, b=tiny_near_dir, part=1.0, **changes):
        config = config_of(a, b, tmp_path, dataset__seed=seed, launch__max_memory=share(part)) | changes
        return run_pair(job_from_config(config))[0]

    run(config_of(tiny_model_dir, tiny_near_dir, tmp_path, launch__max_memory=share(1.0)))
    job = job_from_config(config_of(tiny_model_dir, tiny_near_dir, tmp_path, launch__max_memory=share(1.0)))
    assert len(floors(job)) == 2 and made(1).sums != made(2, states="memory").sums
    assert loaded == ["tiny-a", "tiny-b beside another"]
    # One that a later comparison does not want goes before another comes: two are in memory, never three.
    third = shutil.copytree(tiny_near_dir, tmp_path / "third")
    model = build_tiny_model("gpt_neox")
    model.get_input_embeddings().weight.data[0] += 1
    model.save_pretrained(third)
    made(3, b=third)
    assert loaded[2:] == ["tiny-b beside another"] and sum(ref() is not None for ref in alive) == 2
    made(4, b=third, part=0.9)
    assert loaded[3:] == ["tiny-a", "tiny-b"] and sum(ref() is not None for ref in alive) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_states_keep_their_bits(dtype, tiny_model_dir, tiny_near_dir, tmp_path):
    config = config_of(tiny_model_dir, tiny_near_dir, tmp_path / "memory")
    for side in "ab":
        config[side]["precision"] = {"dtype": dtype}
    assert run(config | {"states": "stored", "store": str(tmp_path / "disk")}).sums == run(config).sums


def test_the_disk_holds_no_more_than_it_may(tiny_model_dir, tiny_near_dir, whole, tmp_path, monkeypatch):
    seen, real = [], Partial.write

    def write(self, *what):
        seen.append(states(tmp_path))
        return real(self, *what)

    monkeypatch.setattr(Partial, "write", write)
    most = 60_000  # two or three shards, of twelve
    config = config_of(tiny_model_dir, tiny_near_dir, tmp_path, **SHARDS) | {"states": "stored"}
    assert run(config | {"max_disk": most}).sums == whole.sums
    assert most / 2 < max(seen) < 1.1 * most and len(loaded) > 6 and loaded == ["tiny-a", "tiny-b"] * (len(loaded) // 2)
    with pytest.raises(
        LabError, match=r"states of a shard take .*, and a process may keep 9\.766 KiB .*raise max_disk"
    ):
        run(config | {"max_disk": 10_000, "force": True})


def test_one_model_is_not_stored(tiny_model_dir, tiny_near_dir, tmp_path):
    config = config_of(tiny_model_dir, tiny_model_dir, tmp_path) | {"states": "stored"}
    same = run(config)
    assert loaded == ["tiny-a"] and not same.sums.column("kl_a").any()
    floors(job_from_config(config))
    assert loaded == ["tiny-a"]


def test_rules_that_b_needs_are_kept_by_a_as_well(tiny_model_dir, tiny_near_dir, tmp_path, monkeypatch):
    def probe(plan, scorer, *more):  # the second model of each run
        return instrument.RowRules(padded=len(loaded) % 2 == 1)

    monkeypatch.setattr(instrument, "probe_rows", probe)
    config = config_of(tiny_model_dir, tiny_near_dir, tmp_path / "memory")
    side_by_side = run(config)
    in_turn = run(config | {"states": "stored", "store": str(tmp_path / "disk")})
    assert loaded == ["tiny-a", "tiny-b"] * 2  # what a made under its own rules was of no use
    assert in_turn.sums == side_by_side.sums and not in_turn.provenance["rows"]["padded"]


def test_states_of_an_interrupted_run_are_used(tiny_model_dir, tiny_near_dir, whole, tmp_path, monkeypatch, capsys):
    config = config_of(tiny_model_dir, tiny_near_dir, tmp_path, **SHARDS) | {"states": "stored"}
    written, real_states = [], apart.write_states
    with interrupted_after(2, monkeypatch):
        run(config)
    (partial,) = Store(tmp_path).partials()
    left = partial.waiting()
    assert partial.finished() == {0, 1} and len(left) > 5 and min(left) == 2
    array = partial.states(4) / "states.npy"
    array.write_bytes(array.read_bytes()[:-3] + b"abc")
    finished = partial.states(0)
    partial.states(3).rename(finished)  # of a shard that is finished
    monkeypatch.setattr(apart, "write_states", lambda path, *more: written.append(path) or real_states(path, *more))
    assert run(config).sums == whole.sums and not Store(tmp_path).partials()
    assert written == [partial.states(3), partial.states(4)] or written == [partial.states(4), partial.states(3)]
    assert "the hidden states of shard 4 are damaged (the checksum of states.npy differs)" in capsys.readouterr().err


KILLED = """
import json, os, signal, sys
from rbp_lab.commands.compare_models import job_from_config
from rbp_lab.comparison import apart
from rbp_lab.comparison.run import run_pair
from rbp_lab.store.shards import Partial
owner, name, after = (apart, "write_states", 3) if sys.argv[2] == "states" else (Partial, "write", 2)
real, calls = getattr(owner, name), []
def killed(*what):
    calls.append(None)
    if len(calls) < after:
        return real(*what)
    if owner is apart:
        path, half, batches, *more = what
        real(path, half, (os.kill(os.getpid(), signal.SIGKILL) for _ in batches), *more)
    real(*what)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, killed)
run_pair(job_from_config(json.loads(sys.argv[1])))
"""


@pytest.mark.parametrize("at", ["shard", pytest.param("states", marks=pytest.mark.slow)])
def test_after_a_kill_the_same_command_goes_on(at, tiny_model_dir, tiny_near_dir, whole, tmp_path, capsys):
    config = pair_config(tiny_model_dir, tiny_near_dir, tmp_path / "store", **SHARDS) | {"states": "stored"}
    log = str(tmp_path / "log")
    script = forked.Script(KILLED, [json.dumps(config), at], dict(os.environ), log, log)
    (code,) = forked.run((*forked.COMMON, "transformers", "numba"), [script])
    assert code == -signal.SIGKILL, (tmp_path / "log").read_text()
    (partial,) = Store(tmp_path / "store").partials()
    assert len(partial.finished()) == (2 if at == "shard" else 0) and len(partial.waiting()) > 1
    clean({"store": str(tmp_path / "store")})
    said = capsys.readouterr().out
    assert "leftovers of crashes" in said and "1 unfinished measurement or training is kept" in said
    assert not partial.waiting() & partial.finished() and not list(partial.directory.glob(".*"))
    assert run(config).sums == whole.sums and not Store(tmp_path / "store").partials()


def test_processes_share_shards_and_disk(tiny_model_dir, tiny_near_dir, whole, tmp_path, monkeypatch):
    taken, real = [], Partial.take

    def take(self, *how):
        for some in real(self, *how):
            taken.append(some)
            yield some

    monkeypatch.setattr(Partial, "take", take)
    config = config_of(tiny_model_dir, tiny_near_dir, tmp_path, launch__shard_tokens=400) | {"states": "stored"}
    begin(job_from_config(config))
    order = {"command": "compare_models", "config": config, "key": whole.header.key}
    assert answer_to(order | {"place": {"rank": 1, "world": 2}}) == {"done": True}
    assert read_pair(tmp_path, whole.header.key).sums == whole.sums
    shards = sum(map(len, taken))
    assert len(taken[0]) == -(-shards // 2)  # the other ones are left to the other process, which does not come


@pytest.mark.slow
def test_two_processes_give_the_record_of_one(tiny_model_dir, tiny_near_dir, whole, tmp_path):
    config = pair_config(tiny_model_dir, tiny_near_dir, tmp_path, launch__processes=2, **SHARDS)
    record = run(config | {"states": "stored"})
    assert record.sums == whole.sums and record.provenance["processes"] == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be mounted by root")
def test_a_full_disk_is_a_sentence(tiny_model_dir, tiny_near_dir, whole, tmp_path, monkeypatch):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        config = config_of(tiny_model_dir, tiny_near_dir, tmp_path) | {"states": "stored"}
        with monkeypatch.context() as patch:
            patch.setattr(apart.Apart, "fits", lambda self, taken, index: not taken)  # whatever is free
            with pytest.raises(LabError, match=r"cannot write .*No space left on device; nothing half-written is left"):
                fill = tmp_path / "fill"
                fill.write_bytes(b"0" * (os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_bsize - 60_000))
                run(config)
        with pytest.raises(LabError, match="or of half of what is free there; raise max_disk, free some"):
            run(config)
        fill.unlink()
        assert run(config).sums == whole.sums
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_the_page_shows_the_same_tokens(tiny_model_dir, tiny_near_dir, tmp_path):
    config = config_of(tiny_model_dir, tiny_near_dir, tmp_path)
    both = token_texts(job_from_config(config), ["text-5", "text-3"])
    alive.clear()
    loaded.clear()
    assert token_texts(job_from_config(config | {"states": "stored"}), ["text-5", "text-3"]) == both
    assert loaded == ["tiny-a", "tiny-b"]


def test_mistakes_are_named(tiny_model_dir, tiny_near_dir, tmp_path):
    config = pair_config(tiny_model_dir, tiny_near_dir, tmp_path)
    for changes, why in (({"states": "disk"}, "states must be one of auto, stored, memory; got 'disk'"),
                         ({"max_disk": "much"}, "max_disk must be a number of bytes")):  # fmt: skip
        with pytest.raises(LabError, match=why):
            job_from_config(config | changes)


def test_rows_of_which_nothing_is_scored_have_no_states(tmp_path):
    def states(tokens, scored):
        return torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)[: int(scored.sum())]

    side = Side(states, LMHead(torch.zeros(1, 3)), "float32", "cpu")
    half = Half("m", side, instrument.RowRules(), {}, str)
    tokens = np.zeros((3, 4), np.int64)
    scored = np.array([[0, 0, 0], [1, 0, 1], [0, 0, 0]], bool)
    batch = TokenBatch(tokens, scored, np.arange(3), np.zeros(3, np.int64))
    write_states(tmp_path / "states", half, [batch], {"of": "it"})
    stored = StoredStates(tmp_path / "states", torch.device("cpu"))
    assert stored.about == {"of": "it", "dtype": "bfloat16", "width": 3}
    for at in (slice(0, 1), slice(1, 2), slice(2, 3)):
        assert torch.equal(stored(torch.from_numpy(tokens[at]), torch.from_numpy(scored[at])), states(None, scored[at]))
    stored.check_end()
    with pytest.raises(ValueError, match="0 bytes of hidden states were asked for, but 12 are stored"):
        StoredStates(tmp_path / "states", torch.device("cpu")).check_end()
