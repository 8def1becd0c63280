"""The jobs of a sweep as the command line learns of them, and what became of those that ran elsewhere."""

import json
import os
import sys
import types
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from rbp_lab.cli import main
from rbp_lab.config.directory import CONF
from rbp_lab.jobs.composition import writable
from rbp_lab.jobs.outcomes import FILE, JobOutcome, leave, left_in
from rbp_lab.jobs.sweeps import BASIC, compose_once, composed_jobs, jobs_of, launcher_of
from rbp_lab.measurement import devices


@pytest.fixture
def sweep(tmp_path):
    """Makes the configuration of a sweep of measurements, as Hydra has it when the sweep starts."""
    OmegaConf.register_new_resolver("writable", writable, replace=True)
    setup_globals()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield lambda *words: loader.load_configuration("measure", [f"store={tmp_path}", *words], RunMode.MULTIRUN)


def test_a_job_is_composed_once_and_lies_in_the_directory_of_its_sweep(sweep):
    loader, calls = GlobalHydra.instance().config_loader(), []
    compose = loader.load_sweep_config
    loader.load_sweep_config = lambda *given: calls.append(given) or compose(*given)
    compose_once()
    master = sweep("model=ladder-1,ladder-2")
    assert [job["model"]["name"] for job in composed_jobs(master)] == ["ladder-1", "ladder-2"]
    directory = master.hydra.sweep.dir  # Hydra resolves the time in it after its callbacks
    for overrides in jobs_of(master):
        one, again = (loader.load_sweep_config(master, list(overrides)) for _ in range(2))
        assert one is not again and one == again == compose(master, list(overrides))
        assert one.hydra.sweep.dir == again.hydra.sweep.dir == directory
    assert len(calls) == 2


def test_a_sweep_that_cannot_be_composed_is_left_to_say_so_itself(sweep):
    assert composed_jobs(sweep("k.thresholds=[1],[2]", "dataset.num_documents=${nowhere}")) == []
    words = ("model=ladder-1", "model.name=ladder-w${.width}", "model.width=range(4)")
    assert [overrides[2:] for overrides in jobs_of(sweep(*words))] == [
        ("model.name=ladder-w$\\{.width\\}", f"model.width={width}") for width in range(4)
    ]


def test_jobs_of_another_launcher_do_not_run_here(sweep):
    assert launcher_of(sweep()) == BASIC
    assert launcher_of(sweep("hydra.launcher._target_=elsewhere.Launcher")) == "elsewhere.Launcher"


KILLED = "pattern=killed"


class Forked(Launcher):
    """Runs each job in a process of its own; a job that is killed is an exception once all have ended."""

    def __init__(self, ray=None):
        """ray: what Ray's launcher is given."""

    def setup(self, *, hydra_context, task_function, config):
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides, initial_job_idx):
        lost = 0
        for number, overrides in enumerate(job_overrides):
            if (child := os.fork()) == 0:
                job = self._context.config_loader.load_sweep_config(self._config, list(overrides))
                with open_dict(job):
                    job.hydra.job.num = number
                if KILLED not in overrides:
                    run_job(self._task, job, "hydra.sweep.dir", "hydra.sweep.subdir", self._context)
                os._exit(KILLED in overrides)
            lost += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if lost:
            raise RuntimeError("a process died")
        return []


@pytest.fixture
def launched(tmp_path, monkeypatch, capfd):
    """``rbp-lab ls -m WORDS``, each job in a process of its own: exit code, and lines of stdout and stderr."""
    Forked.__module__ = "hydra_plugins.forked"  # where Hydra looks for launchers
    for name in ("hydra_plugins", "hydra_plugins.forked"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["hydra_plugins"], "forked", sys.modules["hydra_plugins.forked"], raising=False)
    monkeypatch.setattr(sys.modules["hydra_plugins.forked"], "Forked", Forked, raising=False)
    Plugins.instance().register(Forked)
    (tmp_path / "mine" / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "mine" / "hydra" / "launcher" / "forked.yaml").write_text("_target_: hydra_plugins.forked.Forked\n")
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as exit:
            main(["ls", "-m", "--config-dir", "mine", "hydra/launcher=forked", *words])
        return exit.value.code, *(text.splitlines() for text in capfd.readouterr())

    return run


def test_what_became_of_launched_jobs_is_told_at_the_end(launched):
    code, out, err = launched("what=runs,nothing,datasets")
    why = "what must be one of all, models, datasets, runs; got 'nothing'"
    assert code == 1
    assert [line for line in out if line.startswith("what=")] == ["what=runs: done", "what=datasets: done"]
    assert out[-1] == "3 jobs: 2 done, 1 failed"
    assert err[-2:] == ["1 of 3 jobs failed:", f"  what=nothing: {why}"]
    code, out, err = launched("what=runs")
    assert (code, out[-1], err) == (0, "what=runs: done", [])
    assert launched("what=nothing,never")[0] == 2  # no job of it had begun


def test_a_job_that_is_lost_hides_none_of_the_others(launched):
    code, out, err = launched("what=runs", "pattern=killed,null,killed")
    assert code == 1 and out[-1] == "3 jobs: 1 done, 2 failed"
    assert any(line.startswith("error: RuntimeError: a process died") for line in err) and "Traceback" not in str(err)
    assert "RuntimeError: a process died" in next(Path("multirun/errors").iterdir()).read_text()
    assert err[-3:] == ["2 of 3 jobs failed:"] + ["  what=runs pattern=killed: it ended without a result"] * 2
    code, out, err = launched("what=runs", "pattern=killed")
    assert (code, out) == (1, []) and err[-1].startswith("error: RuntimeError: a process died")


@pytest.mark.parametrize(
    ("given", "why"), [("null", "RuntimeError: Hydra launcher is not configured"), ("5", "TypeError: argument of type")]
)
def test_a_launcher_that_is_none_is_one_sentence(launched, given, why):
    code, out, err = launched("what=runs", f"hydra.launcher={given}")
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"error: {why}") and "a mistake in hydra.launcher, or a defect of that launcher" in err[0]


def test_what_ray_would_wait_for_in_vain_is_refused_at_once(launched, monkeypatch):
    monkeypatch.setattr(devices, "visible_gpus", list)
    monkeypatch.setattr(devices, "processors", lambda: 2)
    remote, init = "+hydra.launcher.ray.remote", "+hydra.launcher.ray.init"
    for words, asked, there in (
        ([f"{remote}.num_gpus=0.5"], "num_gpus=0.5", 0),
        ([f"{remote}.num_gpus=2", f"{init}.num_gpus=1"], "num_gpus=2", 1),
        ([f"{remote}.num_gpus=0", f"{remote}.num_cpus=3"], "num_cpus=3", 2),
    ):
        code, out, err = launched("what=runs", *words)
        said = f"error: hydra.launcher.ray.remote.{asked} is what each job asks for, and there are {there} here"
        assert (code, out, len(err)) == (2, [], 1) and err[0].startswith(said)
    for words in (
        [f"{remote}.num_gpus=0", f"{remote}.num_cpus=2"],
        [f"{remote}.num_gpus=1", f"{init}.num_gpus=1"],
        [f"{remote}.num_gpus=1", f"{init}.address=auto"],  # of a Ray that runs already, elsewhere perhaps
    ):
        assert launched("what=runs", *words)[0] == 0
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert launched("what=runs", f"{remote}.num_gpus=1")[0] == 0


def test_the_first_task_of_a_job_speaks_and_what_is_no_outcome_is_passed_over(tmp_path, monkeypatch):
    for rank, job in enumerate("abc"):
        monkeypatch.setenv("SLURM_PROCID", str(rank))
        leave(JobOutcome(7, job, "done", None), tmp_path / "7")
    for number, text in enumerate(("{", "[1]", json.dumps({"job": 1}))):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / FILE).write_text(text)
    assert left_in(tmp_path) == {7: JobOutcome(7, "a", "done", None)}
