"""Real processes on the CPU: uneven shares, every document once, the record of one process to the last bit."""

import pytest

from rbp_lab.commands.measure import measure
from rbp_lab.errors import LabError
from rbp_lab.store.records import list_records
from tests.sources import measure_config


@pytest.fixture(scope="module")
def alone(tiny_model_dir, tmp_path_factory):
    return measure(measure_config(tiny_model_dir, tmp_path_factory.mktemp("alone"))).record


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_give_the_record_of_one(tiny_model_dir, tmp_path, alone, processes):
    outcome = measure(measure_config(tiny_model_dir, tmp_path, launch__processes=processes))
    record = outcome.record
    assert len(alone.documents) % processes != 0  # 23 documents have tokens: the shares are uneven
    assert record.provenance["processes"] == processes
    assert record.key == alone.key
    assert record.stats == alone.stats and record.documents == alone.documents
    assert not list(tmp_path.glob("cache/job-*"))


def test_more_processes_than_documents(tiny_model_dir, tmp_path):
    config = measure_config(tiny_model_dir, tmp_path, dataset__num_documents=3, launch__processes=2)
    alone = measure(measure_config(tiny_model_dir, tmp_path / "x", dataset__num_documents=3)).record
    record = measure(config).record  # one document has tokens, one process has nothing to do
    assert record.stats == alone.stats and len(record.documents) == 1


def test_a_mistake_in_a_process_comes_back_as_one_sentence(tiny_model_dir, tmp_path):
    config = measure_config(tiny_model_dir, tmp_path, launch__processes=2)
    config["callbacks"] = {"mine": {"_target_": "tests.test_runtime.only_in_workers"}}
    with pytest.raises(LabError, match=r"^callbacks\.mine: this callback is for nobody$"):
        measure(config)
    assert list_records(tmp_path) == [] and not list(tmp_path.glob("cache/job-*"))


def only_in_workers():
    """A callback that can be built by the parent, but not by a launched process."""
    import os

    if "RANK" in os.environ:
        raise LabError("this callback is for nobody")
    from rbp_lab.measurement.observers import Callback

    return Callback()
