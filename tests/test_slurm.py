"""A real Slurm of two nodes on this machine: sweeps as arrays, jobs that are killed and requeued, waiting for them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from rbp_lab.measurement.observers import Callback
from rbp_lab.store.records import list_records
from tests.slurm_cluster import Cluster, why_not

ROOT = Path(__file__).resolve().parent.parent
WHY_NOT = why_not()
pytestmark = [pytest.mark.slurm, pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")]
SMALL = ("hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def user(tmp_path, tiny_model_dir, tiny_gpt2_dir):
    """A directory that a user works in, with two models and a text."""
    for name, path in (("our-a", tiny_model_dir), ("our-b", tiny_gpt2_dir), ("our-c", tmp_path / "nowhere")):
        (tmp_path / "mine" / "model").mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / "model" / f"{name}.yaml").write_text(
            f"defaults: [hf, _self_]\nname: {name}\nfamily: ours\npath: {path}\n"
        )
    (tmp_path / "mine" / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "mine" / "hydra" / "launcher" / "ours.yaml").write_text(
        "defaults: [slurm, _self_]\npartition: other\naccount: lab\n"
    )
    texts = [f"the quick brown fox number {i} " + "jumps over the lazy dog " * (3 + i % 5) for i in range(60)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return tmp_path


class Started:
    """``rbp-lab WORDS`` as a process of its own that sees the cluster."""

    def __init__(self, cluster, cwd, *words):
        environment = {**cluster.environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self._printed = [cwd / f"{words[0]}-{time.monotonic_ns()}.{name}" for name in ("out", "err")]
        with self._printed[0].open("w") as out, self._printed[1].open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rbp_lab", *words], cwd=cwd, env=environment, stdout=out, stderr=err
            )

    def end(self) -> tuple[int, str, str]:
        """Its exit code and what it printed, once it has ended."""
        return self.process.wait(), *(path.read_text() for path in self._printed)


def until(holds, *started, what="what was waited for"):
    """What ``holds`` returns once it is true; fails when a command that should bring it about has ended before."""
    while not (value := holds()):
        ended = [one.end() for one in started if one.process.poll() is not None]
        assert not ended, f"ended before {what}: {ended}"
        time.sleep(0.2)
    return value


def jobs(cluster) -> list[str]:
    """Numbers of the jobs and arrays that wait or run."""
    return sorted(set(cluster.run("squeue", "-h", "-o", "%F").split()))


def accounts(cluster, job) -> pd.DataFrame:
    """What Slurm has noted of each task of a job."""
    names = ["JobID", "State", "Partition", "Account", "ReqCPUS", "ReqMem", "JobName"]
    rows = cluster.run("sacct", "-nXP", "-j", job, "-o", ",".join(names)).splitlines()
    return pd.DataFrame([row.split("|") for row in rows], columns=names).set_index("JobID")


def test_a_sweep_is_an_array_and_the_analysis_waits_for_it(cluster, user):
    sweep = Started(
        cluster, user, "measure", "--config-dir", "mine", "-m", "hydra/launcher=ours", "model=our-a,our-b,our-c",
        "dataset=local", "dataset.files=texts.jsonl", "dataset.protocol.max_tokens=64", "k=table2", "tracking=none",
        *SMALL,
    )  # fmt: skip
    (job,) = until(lambda: jobs(cluster), sweep, what="the array was queued")
    analysis = Started(cluster, user, "analyze", f"wait={job}", "k=table2", "fit=power", "tracking=none")
    code, out, err = sweep.end()
    assert code == 1 and "nowhere" in err and "Traceback" not in err, err  # the third model
    assert out.endswith("\n3 jobs: 2 measured, 1 failed\n") and "\n1 of 3 jobs failed:\n" in err
    assert out.startswith(f"waiting for Slurm job {job}: ")
    code, out, err = analysis.end()
    assert code == 0, err
    assert out.startswith(f"waiting for Slurm job {job}: ")
    assert set(pd.read_csv(user / "multirun" / "analysis" / "default" / "points.csv").model) == {"our-a", "our-b"}
    tasks = accounts(cluster, job)
    assert tasks.State.to_dict() == {f"{job}_0": "COMPLETED", f"{job}_1": "COMPLETED", f"{job}_2": "FAILED"}
    assert set(zip(tasks.Partition, tasks.Account, tasks.ReqCPUS, tasks.ReqMem, tasks.JobName, strict=True)) == {
        ("other", "lab", "1", "2G", "rbp-lab")
    }
    again = Started(cluster, user, "analyze", "wait=999999", "k=table2", "tracking=none").end()
    assert again[0] == 1 and again[2].startswith("error: wait=999999: ") and "nvalid job id" in again[2]


def test_a_refused_and_a_cancelled_job_are_one_sentence_each(cluster, user):
    words = ("train", "-m", "hydra/launcher=slurm", "tracking=none", *SMALL)
    code, out, err = Started(cluster, user, *words, "hydra.launcher.partition=nowhere").end()
    *sbatch, last = err.splitlines()
    assert (code, out) == (1, "") and last.startswith("error: Slurm: ") and "partition" in last
    assert all(line.startswith("sbatch: ") for line in sbatch)
    sweep = Started(cluster, user, *words, "+hydra.launcher.additional_parameters.begin=now+1hour")
    (job,) = until(lambda: jobs(cluster), sweep, what="the job was queued")
    cluster.run("scancel", job)
    code, out, err = sweep.end()
    assert code == 1 and out in ("", f"waiting for Slurm job {job}: 1 pending\n")  # the queue is asked now and then
    assert err.startswith(f"error: Slurm job {job} ended without a result (")
    assert len(err.splitlines()) == 1


def test_tasks_that_are_cancelled_hide_none_of_the_others(cluster, user):
    """One that waits, of which sacct may say nothing, and one that runs."""
    sweep = Started(cluster, user, *TRAIN, "model.width=16,20,24", "model.tokens=60000", "hydra/launcher=slurm",
                    *SMALL, "hydra.launcher.array_parallelism=1")  # fmt: skip
    running = ("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%F_%K")
    until(lambda: "_0\n" in cluster.run(*running), sweep, what="the first task ran")
    (job,) = jobs(cluster)
    cluster.run("scancel", f"{job}_1")
    until(lambda: "_2\n" in cluster.run(*running), sweep, what="the last task ran")
    cluster.run("scancel", f"{job}_2")
    code, out, err = sweep.end()
    assert code == 1 and out.endswith("\n3 jobs: 1 trained, 2 failed\n"), out + err
    assert err.startswith(f"error: Slurm job {job}_1 ended without a result (")
    assert all(line.endswith(": it ended without a result") for line in err.splitlines()[-2:])
    assert "model.width=20" in err.splitlines()[-2] and "model.width=24" in err.splitlines()[-1]


MEASURE = ("measure", "--config-dir", "mine", "-m", "model=our-a", "dataset=local", "dataset.files=texts.jsonl",
           "dataset.protocol.max_tokens=64", "k=table2", "tracking=none", "launch.shard_tokens=200")  # fmt: skip
TRAIN = ("train", "-m", "model=ladder", "model.vocabulary=280", "model.width=32", "model.tokens=600000",
         "dataset=local", "dataset.files=texts.jsonl", "tracking=none", "checkpoint_seconds=0.1")  # fmt: skip


class Noted(Callback):
    """Notes each shard that a task measures, as ``<rank>-<shard>.<restarts>`` in a directory, and can wait.

    all: after its first shard, until every task has one. block: after so many shards of a first start, for good.
    """

    def __init__(self, directory: str, all: bool = False, block: int = 0):
        self._directory, self._all, self._block = Path(directory), all, block
        self._done = 0

    def on_start(self, run):
        self._rank, self._world = run.rank, run.world

    def on_shard(self, measurement):
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
        (self._directory / f"{self._rank}-{self._done}.{restarts}").touch()
        self._done += 1
        while self._all and len(list(self._directory.glob("*-0.*"))) < self._world:
            time.sleep(0.05)
        while self._done == self._block and restarts == "0":
            time.sleep(1)


def noted(user, **how) -> Path:
    """The directory of notes of a measurement with ``callbacks=noted``."""
    notes = user / "notes"
    notes.mkdir()
    (user / "mine" / "callbacks").mkdir()
    node = {"_target_": "tests.test_slurm.Noted", "directory": str(notes), **how}
    (user / "mine" / "callbacks" / "noted.yaml").write_text(json.dumps({"noted": node}))
    return notes


def assert_same_records(user, here, there):
    """Two stores hold the same record, but for what made it."""
    one, other = (list_records(user / store) for store in (here, there))
    assert len(one) == 1 and [r.key for r in one] == [r.key for r in other]
    assert one[0].stats == other[0].stats and one[0].documents == other[0].documents


def test_two_nodes_with_two_tasks_each_share_one_measurement(cluster, user):
    notes = noted(user, all=True)
    nodes = ("hydra/launcher=slurm", "hydra.launcher.nodes=2", "hydra.launcher.tasks_per_node=2", *SMALL)
    sweep = Started(cluster, user, *MEASURE, *nodes, "callbacks=noted", "store=there")
    code, out, err = sweep.end()
    assert code == 0, out + err
    assert {note.name[0] for note in notes.iterdir()} == {"0", "1", "2", "3"}
    code, out, err = Started(cluster, user, *MEASURE, "store=here").end()
    assert code == 0, out + err
    assert_same_records(user, "here", "there")
    (record,) = list_records(user / "there")
    assert len(list(notes.iterdir())) == record.provenance["shards"] > 8  # no shard was measured twice
    assert not list((user / "there").glob("partial/*"))


@pytest.mark.parametrize(("tasks", "processes", "first"), [(1, 1, "--signal=KILL"), (2, 2, None)])
def test_a_measurement_that_is_killed_goes_on_in_the_requeued_job(cluster, user, tasks, processes, first):
    """At once, as when its node fails, or as Slurm ends a job: SIGTERM to every process of it, then SIGKILL."""
    notes = noted(user, block=2)
    how = (f"hydra.launcher.tasks_per_node={tasks}", f"launch.processes={processes}")
    sweep = Started(cluster, user, *MEASURE, "hydra/launcher=slurm", *SMALL, "callbacks=noted", "store=there", *how)
    world = tasks * processes
    until(lambda: len(list(notes.glob("*-1.0"))) == world, sweep, what="each process had measured two shards")
    (job,) = jobs(cluster)
    if first:
        cluster.run("scancel", first, job)
    cluster.run("scontrol", "requeue", job)
    code, out, err = sweep.end()
    assert code == 0, out + err
    code, out, err = Started(cluster, user, *MEASURE, "store=here").end()
    assert code == 0, out + err
    assert_same_records(user, "here", "there")
    (record,) = list_records(user / "there")
    assert record.provenance["processes"] == world
    assert len(list(notes.glob("*.0"))) == 2 * world
    assert len(list(notes.iterdir())) == record.provenance["shards"] > 2 * world  # no shard was measured twice


def test_a_training_that_is_preempted_goes_on_in_the_requeued_job(cluster, user):
    """By the signal at which submitit has a job requeued."""
    sweep = Started(cluster, user, *TRAIN, "hydra/launcher=slurm", *SMALL, "store=there")
    until(lambda: list((user / "there").glob("checkpoints/*/step-*")), sweep, what="the first checkpoint")
    (job,) = jobs(cluster)
    cluster.run("scancel", "--signal=USR2", job)
    code, out, err = sweep.end()
    assert code == 0, out + err
    assert " Restarts=1 " in cluster.run("scontrol", "show", "job", "--oneliner", job)
    training = json.loads((user / "there" / "models" / "ladder-w32" / "training.json").read_text())
    assert len(training["resumed_at"]) == 1
    code, out, err = Started(cluster, user, *TRAIN, "store=here").end()
    assert code == 0, out + err
    weights = [(user / s / "models" / "ladder-w32" / "model.safetensors").read_bytes() for s in ("here", "there")]
    assert weights[0] == weights[1]
