"""The real command line: composing, mistakes in one line, exit codes, sweeps, from any directory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments, cwd, env=None, module=False):
    """``rbp-lab ARGUMENTS`` as a user starts it; returns the finished process."""
    command = [sys.executable, "-m", "rbp_lab"] if module else [str(Path(sys.executable).parent / "rbp-lab")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(env or {})}
    return subprocess.run(
        [*command, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=280
    )


def error_of(done):
    """The single line on stderr of a command that refused; asserts that it is one, and no traceback."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout
    (line,) = [x for x in done.stderr.splitlines() if x.strip()]
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.fixture(scope="module")
def family(tmp_path_factory, tiny_model_dir, tiny_gpt2_dir):
    """A user's own directory: two models of a family, a dataset of text files, and nothing else."""
    home = tmp_path_factory.mktemp("user")
    for group in ("model", "dataset"):
        (home / "mine" / group).mkdir(parents=True)
    for name, path in (("our-a", tiny_model_dir), ("our-b", tiny_gpt2_dir)):
        node = {"defaults": ["hf", "_self_"], "name": name, "family": "ours", "path": str(path)}
        (home / "mine" / "model" / f"{name}.yaml").write_text(yaml.safe_dump(node))
    texts = [f"the quick brown fox number {i} " + "jumps over the lazy dog " * (3 + i % 5) for i in range(12)]
    (home / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    node = {"defaults": ["local", "_self_"], "name": "foxes", "files": "texts.jsonl", "protocol": {"max_tokens": 64}}
    (home / "mine" / "dataset" / "foxes.yaml").write_text(yaml.safe_dump(node))
    return home


def test_usage_and_version(tmp_path):
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0 and "usage: rbp-lab SUBCOMMAND" in done.stdout
    assert run(cwd=tmp_path).returncode == 2
    assert run("--version", cwd=tmp_path, module=True).stdout.startswith("rbp-lab ")
    done = run("mesure", cwd=tmp_path)
    assert done.returncode == 2
    choices = "demo, train, measure, analyze, sync, dashboard, ls"
    gone = run("bench", "shape=tiny", cwd=tmp_path)
    assert gone.returncode == 2 and error_of(gone).endswith("make bench, or python -m tests.benchmarks")
    assert error_of(done) == f"no subcommand 'mesure': did you mean measure? choose from {choices}"


@pytest.mark.parametrize(
    ("overrides", "starts", "contains"),
    [
        (["model=pythia-12bb"], "model: there is no model=pythia-12bb; did you mean pythia-12b?", "gpt2-xl"),
        (["dataset.max_tokens=12"], "dataset.max_tokens: no such key;", "protocol"),
        (["dataset.protocol.max_tokens=many"], "dataset.protocol.max_tokens: ", "Integer"),
        (["dataset.protocol.windows=sliding"], "dataset.protocol: protocol.windows", "truncate, rolling, packed"),
        (["scoring.batch_tokens=x"], "scoring.batch_tokens: ", "Integer"),
        (["scoring.implementation=fast"], "scoring.implementation must be one of", "native"),
        (["modle=ladder-1"], "modle: no such key; did you mean model?", "precision"),
        (["force=maybe"], "force: ", "true or false"),
        (["precision=fp8"], "precision: there is no precision=fp8", "bf16, fp16, fp32, tf32"),
        (["k.thresholds=[3,1]"], "k.thresholds ", "rising list"),
        (["model=hf"], "model.path must be given", ""),
        (["model._target_=no.such.Thing"], "model._target_: cannot import 'no.such.Thing'", ""),
        (["launch.processes=0"], "launch.processes must be at least 1", ""),
        (["model=ladder-1"], "model ladder-1 is not in ", "run: rbp-lab train model=ladder-1"),
        (["dataset=local", "dataset.files=nowhere.txt"], "", "nowhere.txt"),
        (["-m", "model=glob(nothing-*)"], "the sweep has no job", "rbp-lab ls"),
        (["foo"], "Error parsing override 'foo'", "EQUAL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_with_path_and_choices(tmp_path, overrides, starts, contains):
    line = error_of(run("measure", *overrides, cwd=tmp_path))
    assert line.startswith(starts) and contains in line
    assert not (tmp_path / "multirun" / "runs").exists()


def test_a_process_group_from_outside_is_refused(tmp_path):
    done = run("measure", cwd=tmp_path, env={"RANK": "0", "WORLD_SIZE": "2"})
    assert "without torchrun or accelerate launch" in error_of(done)


def test_hydras_own_flags(tmp_path):
    composed = run("measure", "--cfg", "job", "model=pythia-14m", "k=table2", cwd=tmp_path)
    node = yaml.safe_load(composed.stdout)
    assert node["model"]["path"] == "EleutherAI/pythia-14m" and node["k"]["thresholds"][-1] == 10000
    for command in ("demo", "train", "measure", "analyze", "sync", "dashboard", "ls"):
        done = run(command, "--help", cwd=tmp_path)
        assert done.returncode == 0 and "store" in done.stdout, done.stderr


def test_sweep_over_a_users_own_family_then_analysis(family):
    """One command measures a family from YAML files alone; the next finds it done; the next fits it."""
    sweep = ["measure", "--config-dir", "mine", "-m", "model=glob(our-*)", "dataset=foxes", "k=table2"]
    first = run(*sweep, cwd=family)
    assert first.returncode == 0, first.stderr
    assert [line.split(":")[0] for line in first.stdout.splitlines()] == ["our-a on foxes", "our-b on foxes"]
    assert first.stdout.count("measured in") == 2
    records = sorted((family / "multirun" / "runs").glob("*/record.json"))
    assert len(records) == 2
    again = run(*sweep, cwd=family)
    assert again.returncode == 0 and again.stdout.count("found measured") == 2
    listed = run("ls", "--config-dir", "mine", cwd=family)
    assert "our-a" in listed.stdout and records[0].parent.name in listed.stdout
    other_tables = run(*sweep[:4], "model=our-a", "dataset=foxes", "k=emergence", cwd=family)
    assert other_tables.returncode == 0 and other_tables.stdout.count("measured in") == 1
    fitted = run("analyze", "k=table2", "fit=power", cwd=family)
    assert "counted the same tokens for other thresholds" in fitted.stdout
    assert fitted.returncode == 0, fitted.stderr
    assert (family / "multirun" / "analysis" / "default" / "fits.csv").is_file()
    assert "nan" not in fitted.stdout.lower()


def test_a_failing_job_does_not_stop_the_sweep_and_is_listed(family, tmp_path):
    done = run(
        "measure", "--config-dir", str(family / "mine"), "-m", "model=ladder-1,our-a", "dataset=foxes",
        f"dataset.files={family / 'texts.jsonl'}", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "1 of 2 jobs failed:" in done.stderr
    assert "our-a on foxes: measured in" in done.stdout


def test_several_processes_from_the_command_line(family):
    done = run(
        "measure", "--config-dir", "mine", "model=our-b", "dataset=foxes", "launch.processes=2", "launch.device=cpu",
        "store=two", cwd=family,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = (family / "two" / "runs").glob("*/record.json")
    assert json.loads(record.read_text())["provenance"]["processes"] == 2


def test_a_full_or_forbidden_store_is_one_line(family, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    done = run("measure", "--config-dir", str(family / "mine"), "model=our-a", "dataset=foxes",
               f"dataset.files={family / 'texts.jsonl'}", "store=file", cwd=tmp_path)  # fmt: skip
    assert "file" in error_of(done)


def test_analysis_of_nothing_and_of_a_missing_csv(tmp_path):
    assert "no finished run" in error_of(run("analyze", cwd=tmp_path))
    assert "no CSV file at here.csv" in error_of(run("analyze", "source=csv", "csv=here.csv", cwd=tmp_path))
    assert "source must be one of" in error_of(run("analyze", "source=cloud", cwd=tmp_path))
