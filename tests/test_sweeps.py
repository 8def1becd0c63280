"""The jobs of a sweep as the command line learns of them, and Hydra composing each of them once."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import OmegaConf

from rbp_lab.composition import writable
from rbp_lab.config.directory import CONF
from rbp_lab.sweeps import compose_once, composed, jobs_of, runs_here


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
    assert [job["model"]["name"] for job in composed(master)] == ["ladder-1", "ladder-2"]
    directory = master.hydra.sweep.dir  # Hydra resolves the time in it after its callbacks
    for overrides in jobs_of(master):
        one, again = (loader.load_sweep_config(master, list(overrides)) for _ in range(2))
        assert one is not again and one == again == compose(master, list(overrides))
        assert one.hydra.sweep.dir == again.hydra.sweep.dir == directory
    assert len(calls) == 2


def test_a_sweep_that_cannot_be_composed_is_left_to_say_so_itself(sweep):
    assert composed(sweep("k.thresholds=[1],[2]", "dataset.num_documents=${nowhere}")) == []
    assert jobs_of(sweep("model=ladder-1", "model.width=range(4)")) == [
        (f"store={sweep().store}", "model=ladder-1", f"model.width={width}") for width in range(4)
    ]


def test_jobs_of_another_launcher_do_not_run_here(sweep):
    assert runs_here(sweep())
    assert not runs_here(sweep("hydra.launcher._target_=elsewhere.Launcher"))
