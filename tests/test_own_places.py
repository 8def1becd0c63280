"""The jobs of a sweep of analyses, or of comparisons, do not write over each other."""

from pathlib import Path

import pandas as pd
import pytest

from rbp_lab.cli import main
from rbp_lab.jobs.own_places import own_places
from rbp_lab.store.records import write_record
from tests.fits_data import synthetic_record


def config(**given):
    return {"store": "store", "name": None, "out": None, "axis": "size"} | given


def changes(jobs, *configs, command="analyze"):
    return {job: place.change for job, place in own_places(command, jobs, configs).items()}


def test_jobs_are_told_apart_by_what_differs():
    jobs = [("filters.dtype=float32", "papers=true"), ("filters.dtype=bfloat16", "papers=true")]
    names = ("default-filters.dtype-float32", "default-filters.dtype-bfloat16")
    found = own_places("analyze", jobs, [config(), config()])
    assert [place.change for place in found.values()] == [{"name": name} for name in names]
    assert [place.directory for place in found.values()] == [Path("store/analysis") / name for name in names]
    assert changes(jobs, config(axis="tokens"), config(axis="tokens"))[0] == {"name": "tokens-filters.dtype-float32"}
    assert changes(jobs, *[config(out="mine")] * 2)[1] == {"out": "mine/filters.dtype-bfloat16"}


def test_a_place_below_home_is_where_the_results_go():
    jobs = [("size=a",), ("size=b",)]
    place = own_places("analyze", jobs, [config(out="~/mine")] * 2)[0]
    assert place.directory == Path.home() / "mine" / "size-a" and place.change == {"out": str(place.directory)}


def test_what_is_no_name_is_left_to_the_job_to_refuse():
    jobs = [("size=a",), ("size=b",)]
    assert own_places("analyze", jobs, [config(out=["x"])] * 2) == {}
    assert changes(jobs, *[config(name=2024)] * 2)[0] == {"name": "2024-size-a"}


def test_names_that_would_be_equal_or_too_long_have_the_number_of_their_job():
    assert changes([("size=a*",), ("size=a?",)], config(), config())[1] == {"name": "default-job1"}
    long = [(f"filters.key=[{'x' * 200}]",), ("filters.key=[y]",)]
    assert changes(long, config(), config())[0] == {"name": "default-job0"}


@pytest.mark.parametrize("what", ["name", "store", "out"])
def test_places_that_differ_stay(what):
    assert own_places("analyze", [("a=1",), ("a=2",)], [config(**{what: "one"}), config(**{what: "two"})]) == {}
    assert own_places("analyze", [("a=1",)], [config()]) == {}


def test_a_name_that_no_directory_can_have_is_left_to_the_job():
    assert own_places("analyze", [("a=1",), ("a=2",)], [config(name="x/y")] * 2) == {}


def test_a_sweep_of_analyses_keeps_the_results_of_each_job(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        write_record("multirun", synthetic_record(f"model-{i}", 10_000 * 2**i, seed=i, vocab=500))
    with pytest.raises(SystemExit) as exit:
        main(["analyze", "-m", "fit.laws=false", "filters.model='model-[0-2]','model-[0-3]'"])
    names = ["default-filters.model-model--0-2", "default-filters.model-model--0-3"]
    assert exit.value.code == 0
    for name, models in zip(names, (3, 4), strict=True):
        points = pd.read_csv(tmp_path / "multirun" / "analysis" / name / "points.csv")
        assert points["model"].nunique() == models
    assert not (tmp_path / "multirun" / "analysis" / "default").exists()
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("results of a job")]
    assert told == [f"results of a job of this sweep: multirun/analysis/{name}" for name in names]


def compared(**given):
    return {"store": "store", "a": "x", "b": "y", "name": None, "ks": [1], "confidence": 0.95, "worst": 5} | given


@pytest.mark.parametrize(("command", "option"), [("compare", "ks"), ("compare", "confidence"), ("compare", "windows"),
                                                 ("compare", "detect"), ("compare_models", "confidence"),
                                                 ("compare_models", "tokens"), ("compare_models", "floor"),
                                                 ("compare_models", "detect")])  # fmt: skip
def test_comparisons_of_the_same_are_told_apart_by_how_they_are_shown(command, option):
    jobs = [("b=y", f"{option}=2"), ("b=y", f"{option}=3"), ("b=z", f"{option}=2")]
    configs = [compared(**{option: 2}), compared(**{option: 3}), compared(b="z", **{option: 2})]
    found = changes(jobs, *configs, command=command)
    assert found == {0: {"name": f"{option}-2"}, 1: {"name": f"{option}-3"}}
    named = changes(jobs[:2], *(one | {"name": "mine"} for one in configs[:2]), command=command)
    assert named[1] == {"name": f"mine-{option}-3"}


def test_comparisons_of_other_things_stay_and_so_do_those_with_the_same_results():
    for command, option in (("compare", "b"), ("compare", "name"), ("compare_models", "ks"), ("compare", "worst")):
        jobs = [(f"{option}=2",), (f"{option}=3",)]
        assert changes(jobs, compared(**{option: 2}), compared(**{option: 3}), command=command) == {}
