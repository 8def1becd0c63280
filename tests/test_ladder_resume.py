"""A training that is killed, stopped, or runs out of disk, and goes on as if it had not been: the same bits."""

import json
import os
import random
import signal
import statistics
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from rbp_lab.commands.train import train
from rbp_lab.ladder.checkpoint import Checkpoints, alone
from rbp_lab.ladder.model import training_key
from rbp_lab.ladder.rules import kind_of, rate_rule
from rbp_lab.ladder.training import Schedule, train_loop
from rbp_lab.store.layout import Store
from tests import forked
from tests.sources import MadeUpText, tiny_ladder
from tests.test_store_atomic import file_size_limit

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 60
TEXT = MadeUpText(num_documents=200)
small = partial(tiny_ladder, name="small", steps=STEPS)
EVERY_STEP = {"seconds": 0.0, "most": np.inf}


def result(store: Path) -> tuple[bytes, list[float]]:
    """Weights and losses of the finished model."""
    directory = store / "models" / "small"
    return (directory / "model.safetensors").read_bytes(), json.loads((directory / "training.json").read_text())["loss"]


def resumed_at(store: Path) -> list[int]:
    return json.loads((store / "models" / "small" / "training.json").read_text())["resumed_at"]


def places(store: Path) -> list[str]:
    """What lies in the directories of checkpoints, hidden names included."""
    return sorted(name for _, _, names in os.walk(store / "checkpoints") for name in names)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    store = tmp_path_factory.mktemp("uninterrupted")
    small(store).train(TEXT.corpus(), Store(store))
    return result(store)


def interrupted_at(step: int):
    def hook(now, *_):
        if now == step:
            raise KeyboardInterrupt

    return hook


def train_until(store: Path, step: int | None, **options) -> Checkpoints:
    """Train, with a checkpoint after every step and an interrupt before the one of ``step`` (None: to the end)."""
    checkpoints = Checkpoints(store / "checkpoints", **{**EVERY_STEP, **options})
    hooks = [] if step is None else [interrupted_at(step)]
    try:
        small(store).train(TEXT.corpus(), Store(store), hooks, checkpoints)
    except KeyboardInterrupt:
        assert step is not None
    else:
        assert step is None
    return checkpoints


# Killed


NEEDED = (
    "rbp_lab.commands.train", "rbp_lab.ladder.training", "rbp_lab.data.tokenize", "rbp_lab.cli", "hydra",
    "transformers.models.gpt_neox.modeling_gpt_neox", "rbp_lab.measurement.progress",
)  # fmt: skip
# Trains, notes each step in a file, and is killed by another process: at a random moment after step KILL (0: never).
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import numpy, torch
torch.set_num_threads(1)
from rbp_lab.ladder.checkpoint import Checkpoints, alone
from rbp_lab.store.layout import Store
from tests.test_ladder_resume import TEXT, small

store, steps, width, kill, delay, seconds, most = Path(sys.argv[1]), *map(float, sys.argv[2:])
notes = os.open(store / "step", os.O_CREAT | os.O_WRONLY)

def hook(step, *_):
    os.pwrite(notes, step.to_bytes(8, "little"), 0)
    if step == kill:
        me = os.pidfd_open(os.getpid())
        if os.fork() == 0:
            time.sleep(delay)
            signal.pidfd_send_signal(me, signal.SIGKILL)
            os._exit(0)
    if step == steps and kill:
        time.sleep(600)  # the end does not overtake the kill

model = small(store, width=int(width), tokens=int(32 * steps))
with alone(store / "checkpoints", model.name):
    model.train(TEXT.corpus(), Store(store), [hook], Checkpoints(store / "checkpoints", seconds, most=most))
"""


def run_killed(store: Path, steps: int, width: int, kill: int, delay: float, seconds: float, most: float) -> int:
    """Exit code of one process that trains."""
    arguments = [str(store), *map(str, (steps, width, kill, delay, seconds, most))]
    log = str(store / "log")
    (code,) = forked.run(NEEDED, [forked.Script(KILLED, arguments, {**os.environ, "OMP_NUM_THREADS": "1"}, log, log)])
    return code


def newest(store: Path) -> int:
    """Step of the newest checkpoint, 0 without one."""
    return max((int(name[5:15]) for name in places(store) if name.startswith("step-")), default=0)


def kill_many(store: Path, kills: int, steps: int, width: int, seconds: float, most: float, seed: int) -> list[float]:
    """Kill a training at random moments and let it go on, then to its end; the share of work that each kill cost."""
    choose, lost = random.Random(seed), []
    (store / "models").mkdir(parents=True)
    for number in range(kills):
        begin = newest(store)
        kill = choose.randint(begin + 1, begin + max(1, (steps - begin) // (kills - number)))
        code = run_killed(store, steps, width, kill, choose.uniform(0, 0.05), seconds, most)
        assert code == -signal.SIGKILL, (store / "log").read_text()
        done = int.from_bytes((store / "step").read_bytes(), "little")
        lost.append((done - newest(store)) / steps)
    assert run_killed(store, steps, width, 0, 0.0, seconds, most) == 0, (store / "log").read_text()
    return lost


def test_a_killed_training_goes_on_and_gives_the_same_bits(tmp_path, uninterrupted):
    store = tmp_path / "killed"
    lost = kill_many(store, kills=3, steps=STEPS, width=16, **EVERY_STEP, seed=os.getpid())
    assert result(store) == uninterrupted
    assert len(resumed_at(store)) >= 2 and sorted(resumed_at(store)) == resumed_at(store)
    assert max(lost) <= 2 / STEPS  # the step that ran, and one whose checkpoint was being written


@pytest.mark.slow
def test_many_kills_with_the_shares_of_time_that_users_have(tmp_path):
    """24 kills of a training whose checkpoints take 1 % of its time, as they do by default."""
    kills, steps, width, seed = 24, 1500, 64, random.randrange(2**32)
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run_killed(whole, steps, width, 0, 0.0, 1e9, 0.01) == 0
    store = tmp_path / "killed"
    lost = kill_many(store, kills, steps, width, 0.2, 0.01, seed)
    print(f"\nseed {seed}: {kills} kills, resumed at {resumed_at(store)}, median share lost "
          f"{statistics.median(lost):.3f}, most {max(lost):.3f}")  # fmt: skip
    assert result(store) == result(whole) and resumed_at(store)


# Damaged, and nothing else


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a flipped bit": flip_a_byte,
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "another file": lambda path: path.write_text("not a checkpoint"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(tmp_path, uninterrupted, capsys, damage):
    train_until(tmp_path, 20)
    assert places(tmp_path) == ["step-0000000018.safetensors", "step-0000000019.safetensors"]
    DAMAGE[damage](tmp_path / "checkpoints" / "step-0000000019.safetensors")
    train_until(tmp_path, 25)
    said = capsys.readouterr().err
    assert "step-0000000019.safetensors is damaged (" in said and "resumed at step 18 of 60" in said
    assert places(tmp_path) == ["step-0000000023.safetensors", "step-0000000024.safetensors"]
    for name in places(tmp_path):
        DAMAGE[damage](tmp_path / "checkpoints" / name)
    train_until(tmp_path, None)
    assert capsys.readouterr().err.count("is damaged") == 2
    assert result(tmp_path) == uninterrupted and resumed_at(tmp_path) == []


def test_the_losses_and_the_steps_of_a_resumed_training_come_once(tmp_path, uninterrupted):
    seen = []
    for stop in (7, 8, 31, None):
        checkpoints = Checkpoints(tmp_path / "checkpoints", **EVERY_STEP)
        hooks = [lambda step, loss, *_: seen.append((step, loss)), *([interrupted_at(stop)] if stop else [])]
        try:
            small(tmp_path).train(TEXT.corpus(), Store(tmp_path), hooks, checkpoints)
        except KeyboardInterrupt:
            seen.pop()  # the step of the interrupt has no checkpoint, so it comes again
    assert [step for step, _ in seen] == list(range(1, STEPS + 1))
    assert [loss for _, loss in seen] == pytest.approx(uninterrupted[1], abs=1e-4)
    assert result(tmp_path) == uninterrupted and resumed_at(tmp_path) == [6, 7, 30]


def test_no_random_number_is_drawn_while_training():
    """Or a checkpoint would have to hold the generator's state."""
    rows = np.random.default_rng(0).integers(1, 300, (3, 2, 17))
    model, before = small(Path()).build(), torch.get_rng_state()
    train_loop(model, rows, rate_rule(16), kind_of, Schedule(3, 1))
    assert torch.equal(torch.get_rng_state(), before)


def test_other_threads_are_said(tmp_path, capsys):
    train_until(tmp_path, 20)
    torch.set_num_threads(2)
    try:
        train_until(tmp_path, 21)
    finally:
        torch.set_num_threads(1)
    assert "reached with 1 threads" in capsys.readouterr().err


# From the command


def test_the_same_command_goes_on_and_leaves_no_checkpoint(tmp_path, uninterrupted, capsys):
    key = training_key(small(tmp_path).settings(), TEXT.corpus().fingerprint)
    for stop, force in ((3, False), (9, True)):
        with pytest.raises(KeyboardInterrupt):
            train(small(tmp_path), TEXT, tmp_path, force, [interrupted_at(stop)], checkpoint_seconds=0.0)
    said = capsys.readouterr().err.splitlines()
    kept = "the checkpoint of step 1 is kept, and the same command goes on from there"
    assert said[0] == f"note: training of small: {kept}" and "resumed at step 1 of 60" in said[1]
    assert os.listdir(tmp_path / "checkpoints") == [key] and not (tmp_path / "models").exists()
    outcome = train(small(tmp_path), TEXT, tmp_path)
    assert f"resumed at step 1, {resumed_at(tmp_path)[1]}, " in str(outcome)
    assert result(tmp_path) == uninterrupted and places(tmp_path) == []
    assert "resumed" not in str(train(small(tmp_path), TEXT, tmp_path))


# Trains as the command does, and notes each step; does not end before the other process waits.
TOGETHER = """
import os, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from rbp_lab.commands.train import train
from tests.test_ladder_resume import TEXT, small
store = Path(sys.argv[1])
notes = os.open(store / "steps", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

def hook(step, *_):
    os.write(notes, bytes([step]))
    while not any("waiting for it" in log.read_text() for log in store.glob("log-*")):
        time.sleep(0.02)

print(train(small(store), TEXT, store, hooks=[hook]))
"""


def test_of_two_processes_one_trains_and_the_other_waits(tmp_path, uninterrupted):
    logs = [str(tmp_path / f"log-{i}") for i in range(2)]
    both = [forked.Script(TOGETHER, [str(tmp_path)], dict(os.environ), log, log) for log in logs]
    assert forked.run(NEEDED, both) == [0, 0], [Path(log).read_text() for log in logs]
    first, second = sorted((Path(log).read_text() for log in logs), key=len)
    assert "small: trained" in first and "small: found trained" in second
    assert "small is being trained by process " in second
    assert list((tmp_path / "steps").read_bytes()) == list(range(1, STEPS + 1))
    assert result(tmp_path) == uninterrupted and os.listdir(tmp_path / "checkpoints") == []


def test_checkpoints_of_a_finished_model_go_unless_somebody_trains(tmp_path):
    where = Path(train(small(tmp_path), TEXT, tmp_path).directory)
    key = training_key(small(tmp_path).settings(), TEXT.corpus().fingerprint)
    place = tmp_path / "checkpoints" / key
    place.mkdir(parents=True)
    (place / "step-0000000001.safetensors").touch()
    with alone(place, "small"):
        train(small(tmp_path), TEXT, tmp_path)
        assert place.exists()
    train(small(tmp_path), TEXT, tmp_path)
    assert not place.exists() and where.exists()


def test_another_training_of_the_same_name_begins_anew(tmp_path, uninterrupted):
    for changes in ({"seed": 1}, {"tokens": 32 * STEPS + 32}):
        with pytest.raises(KeyboardInterrupt):
            train(small(tmp_path, **changes), TEXT, tmp_path, hooks=[interrupted_at(9)], checkpoint_seconds=0.0)
    train(small(tmp_path), TEXT, tmp_path)
    assert result(tmp_path) == uninterrupted and resumed_at(tmp_path) == []


# Another process sends the signal once there is a new checkpoint.
SIGNALLED = """
import os, signal, sys, time
from pathlib import Path
from rbp_lab.cli import main
store, which = Path(sys.argv[1]), int(sys.argv[2])
me, before = os.pidfd_open(os.getpid()), set(store.glob("checkpoints/*/step-*"))
if os.fork() == 0:
    while not before.symmetric_difference(store.glob("checkpoints/*/step-*")):
        time.sleep(0.05)
    signal.pidfd_send_signal(me, which)
    os._exit(0)
signal.signal(signal.SIGINT, signal.default_int_handler)
main(["train", "model=ladder", "model.width=16", "model.vocabulary=300", "model.tokens=10000000", "dataset=local",
      f"dataset.files={store / 'text.txt'}", f"store={store}", "tracking=none", "checkpoint_seconds=0.1"])
"""


@pytest.mark.parametrize(("which", "code", "word"), [(signal.SIGTERM, 143, "term"), (signal.SIGINT, 130, "interr")])
def test_signals_end_it_and_say_what_is_kept(tmp_path, which, code, word):
    (tmp_path / "text.txt").write_text("\n".join(TEXT.corpus().texts))
    for number in range(2):
        out, err = tmp_path / f"out-{number}", tmp_path / f"err-{number}"
        script = forked.Script(SIGNALLED, [str(tmp_path), str(int(which))], dict(os.environ), str(out), str(err))
        assert forked.run(NEEDED, [script]) == [code], err.read_text()
        said = err.read_text()
        assert word in said and "Traceback" not in said and "the same command goes on from there" in said
        assert all(name.startswith("step-") for name in places(tmp_path))
    assert "resumed at step" in said


# Without room


def test_a_checkpoint_that_cannot_be_written_costs_a_sentence(tmp_path, uninterrupted, capsys):
    train_until(tmp_path, 10)
    with file_size_limit(20_000):
        kept = train_until(tmp_path, 20).kept()
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert warning.startswith("warning: no checkpoint of step 10: cannot write ") and warning.endswith(
        "; the training goes on, and a kill would cost it all since step 9"
    )
    assert "step 9 is kept" in kept
    assert places(tmp_path) == ["step-0000000008.safetensors", "step-0000000009.safetensors"]
    train_until(tmp_path, None)
    assert result(tmp_path) == uninterrupted and resumed_at(tmp_path) == [9]


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be mounted by root")
def test_a_full_disk(tmp_path, uninterrupted, capsys):
    place = tmp_path / "checkpoints"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", place]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        train_until(tmp_path, 10)
        (place / "fill").write_bytes(b"0" * (os.statvfs(place).f_bavail * os.statvfs(place).f_bsize))
        train_until(tmp_path, 20)
        assert "No space left on device; nothing half-written is left; the training" in capsys.readouterr().err
        assert sorted(os.listdir(place)) == ["fill", "step-0000000008.safetensors", "step-0000000009.safetensors"]
        (place / "fill").unlink()
        train_until(tmp_path, None)
        assert result(tmp_path) == uninterrupted and resumed_at(tmp_path) == [9]
    finally:
        subprocess.run(["umount", "-l", place], check=True)
