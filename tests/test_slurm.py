"""A real Slurm of two nodes on this machine: sweeps as arrays, jobs that are killed and requeued, waiting for them."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.slurm_cluster import Cluster, why_not

ROOT = Path(__file__).resolve().parent.parent
WHY_NOT = why_not() or (
    None if importlib.util.find_spec("submitit") else "the extra slurm is not installed: pip install 'rbp-lab[slurm]'"
)
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
        cluster, user, "measure", "--config-dir", "mine", "-m", "hydra/launcher=slurm", "model=our-a,our-b,our-c",
        "dataset=local", "dataset.files=texts.jsonl", "dataset.protocol.max_tokens=64", "k=table2", "tracking=none",
        "hydra.launcher.partition=other",
        "hydra.launcher.account=lab", *SMALL,
    )  # fmt: skip
    (job,) = until(lambda: jobs(cluster), sweep, what="the array was queued")
    analysis = Started(cluster, user, "analyze", f"wait={job}", "k=table2", "fit=power", "tracking=none")
    code, _, err = sweep.end()
    assert code == 1 and "nowhere" in err and "Traceback" not in err, err  # the third model
    code, out, err = analysis.end()
    assert code == 0, err
    assert out.startswith(f"waiting for Slurm job {job}: 3 ")
    assert set(pd.read_csv(user / "multirun" / "analysis" / "default" / "points.csv").model) == {"our-a", "our-b"}
    tasks = accounts(cluster, job)
    assert list(tasks.index) == [f"{job}_0", f"{job}_1", f"{job}_2"]
    assert set(zip(tasks.Partition, tasks.Account, tasks.ReqCPUS, tasks.ReqMem, tasks.JobName, strict=True)) == {
        ("other", "lab", "1", "2G", "rbp-lab")
    }
    again = Started(cluster, user, "analyze", "wait=999999", "k=table2", "tracking=none").end()
    assert again[0] == 1 and again[2].startswith("error: wait=999999: ") and "nvalid job id" in again[2]


WORDS = ("train", "-m", "model=ladder", "model.vocabulary=280", "model.width=32", "model.tokens=600000",
         "dataset=local", "dataset.files=texts.jsonl", "tracking=none", "checkpoint_seconds=0.1")  # fmt: skip


@pytest.mark.parametrize("how", ["preempted", "killed"])
def test_a_job_that_is_requeued_goes_on(cluster, user, how):
    """Preempted: by the signal at which submitit has it requeued. Killed: its process is gone, as with its node."""
    sweep = Started(cluster, user, *WORDS, "hydra/launcher=slurm", *SMALL, "store=there")
    until(lambda: list((user / "there").glob("checkpoints/*/step-*")), sweep, what="the first checkpoint")
    (job,) = jobs(cluster)
    if how == "preempted":
        cluster.run("scancel", "--signal=USR2", job)
    else:
        cluster.run("scancel", "--signal=KILL", job)
        cluster.run("scontrol", "requeue", job)
    code, _, err = sweep.end()
    assert code == 0, err
    assert " Restarts=1 " in cluster.run("scontrol", "show", "job", "--oneliner", job)
    training = json.loads((user / "there" / "models" / "ladder-w32" / "training.json").read_text())
    assert len(training["resumed_at"]) == 1
    alone = Started(cluster, user, *WORDS, "store=here").end()
    assert alone[0] == 0, alone[2]
    weights = [(user / s / "models" / "ladder-w32" / "model.safetensors").read_bytes() for s in ("here", "there")]
    assert weights[0] == weights[1]
