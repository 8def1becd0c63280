"""What depends on Slurm's commands, tried against scripts in their place; a real Slurm is in test_slurm."""

import pytest
from hydra.errors import ConfigCompositionException, MissingConfigException

from rbp_lab.cli import main
from rbp_lab.config.arguments import parse
from rbp_lab.errors import LabError
from rbp_lab.jobs.composition import explain
from rbp_lab.jobs.slurm import array_of, check_slurm, job_failure, wait_for, watch_queue

UNABLE = "echo noise >&2; echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1"


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Sets what squeue answers, one script a call; the last one stands for all later calls."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def answer(*scripts):
        for number, script in enumerate(scripts):
            (tmp_path / f"answer-{number}").write_text(script)
        (tmp_path / "squeue").write_text(
            f'#!/bin/sh\ncd {tmp_path}\necho "$@" >> calls\nn=$(($(wc -l < calls) - 1))\n'
            f"[ -e answer-$n ] || n={len(scripts) - 1}\n. ./answer-$n\n"
        )
        (tmp_path / "squeue").chmod(0o755)
        return tmp_path / "calls"

    return answer


def test_jobs_are_waited_for_until_squeue_shows_none(squeue, capsys):
    running = "echo 12_0 RUNNING; echo 12_1 PENDING; echo 12_2 PENDING"
    calls = squeue(running, running, UNABLE, UNABLE, "echo; echo 12_2 RUNNING", "exit 3", "")
    wait_for([12, 15], poll_seconds=0.0)
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "waiting for Slurm job 12: 2 pending, 1 running", "waiting for Slurm job 12: 1 running"
    ]  # fmt: skip
    assert said.err.splitlines() == [
        "warning: slurm_load_jobs error: Unable to contact; asking again",
        "warning: squeue failed with exit code 3; asking again",
    ]
    asked = calls.read_text().splitlines()
    assert [line.rpartition("=")[2] for line in asked] == ["12"] * 7 + ["15"] and all("--array" in one for one in asked)


def test_a_job_that_slurm_has_forgotten_has_ended(squeue, capsys):
    squeue("echo 12 RUNNING", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    wait_for([12], poll_seconds=0.0)
    assert capsys.readouterr().err == ""


def test_a_job_that_slurm_does_not_know_is_refused(squeue):
    squeue("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    with pytest.raises(LabError, match=r"^wait=12: slurm_load_jobs error: Invalid job id specified; Slurm forgets"):
        wait_for([12])


@pytest.mark.parametrize(
    ("accounts", "queue", "state"),
    [
        ("12_0 RUNNING", "echo 12_1 PENDING", "UNKNOWN"),
        ("12_0 RUNNING", "echo 12_10 PENDING", "no longer in the queue"),
        ("12_1 PENDING", "", "PENDING, but no longer in the queue"),
        ("12_1 COMPLETED", "", "COMPLETED"),
        ("12_1 PENDING", UNABLE, "PENDING"),
        ("12_1 RUNNING", "echo 'error: Invalid job id specified' >&2; exit 1", "RUNNING, but no longer in the queue"),
    ],
)
def test_a_task_that_has_left_the_queue_has_ended_whatever_the_accounts_say(
    squeue, tmp_path, monkeypatch, capsys, accounts, queue, state
):
    from submitit.slurm import slurm

    monkeypatch.setattr(slurm.SlurmJob, "watcher", slurm.SlurmJob.watcher)
    squeue(queue)
    (tmp_path / "sacct").write_text(f"#!/bin/sh\necho 'JobID|State|NodeList'; echo '{accounts.replace(' ', '|')}|n1'\n")
    (tmp_path / "sacct").chmod(0o755)
    watch_queue()
    watcher = slurm.SlurmJob.watcher
    watcher.register_job("12_1")
    assert watcher.is_done("12_1") == (state not in ("UNKNOWN", "PENDING"))
    assert watcher.get_state("12_1") == state
    waits = "waiting for Slurm job 12: 1 pending\n"  # once, though it was asked about twice
    assert capsys.readouterr().out == (waits if queue.startswith("echo 12") and state != "COMPLETED" else "")


def test_without_slurm_the_commands_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for words, says in (
        (["analyze", "wait=12", "tracking=none"], "error: wait=12: there is no squeue here; only a machine of the"),
        (["measure", "-m", "hydra/launcher=slurm"], "error: hydra/launcher=slurm: there is no sbatch here;"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert capsys.readouterr().err.startswith(says)


def test_jobs_need_both_of_slurms_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("srun", "sbatch"):
        with pytest.raises(LabError, match="there is no sbatch here; run this on a machine of the cluster"):
            check_slurm()
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    check_slurm()
    (tmp_path / "srun").unlink()
    with pytest.raises(LabError, match="there is no sbatch here"):
        check_slurm()


def test_without_the_plugin_the_extra_is_named():
    error = MissingConfigException("no", missing_cfg_file="hydra/launcher/submitit_slurm", options=["basic"])
    arguments = parse("measure", ["-m", "hydra/launcher=slurm"])
    assert explain(error, "measure", arguments).endswith("pip install 'rbp-lab[slurm]'")
    error = ConfigCompositionException("In 'hydra/launcher/devices': Could not load 'hydra/launcher/ray'.")
    assert explain(error, "measure", arguments).endswith("pip install 'rbp-lab[ray]'")


def test_failures_of_other_kinds_are_not_slurms():
    assert job_failure(RuntimeError("Job 1 with path x")) is None


def test_the_array_of_a_task_that_was_lost_is_known():
    lost = type("UncompletedJobError", (RuntimeError,), {"__module__": "submitit.core.utils"})
    error = lost("Job 12_1 (task: 0) with path /a/.submitit/12_1/12_1_0_result.pkl\nhas not produced any output "
                 "(state: OUT_OF_MEMORY)\nError stream produced:\n")  # fmt: skip
    assert array_of(error) == 12 and array_of(lost("sbatch: error: invalid partition")) is None
    assert job_failure(error).startswith("Slurm job 12_1 ended without a result (OUT_OF_MEMORY); what it printed is")
    assert array_of(RuntimeError(str(error))) is None


def test_of_a_task_that_raised_its_exception_is_told():
    failed = type("FailedJobError", (RuntimeError,), {"__module__": "submitit.core.utils"})
    trace = "Traceback (most recent call last):\n  File x\nOSError: no room\n"
    error = failed(f"Job (task=0) failed during processing with trace:\n------\n{trace}\n------\nYou can check")
    assert job_failure(error) == "Slurm: a task failed with OSError: no room"
