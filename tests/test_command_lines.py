"""What holds of every subcommand: what it says of itself, and of a store that cannot be one."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from rbp_lab.cli import COMMANDS, main
from rbp_lab.errors import MANY, no_such

COMPARES = {"compare": ("a", "b"), "compare_models": ("model@a=ladder-1", "model@b=ladder-2")}


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """``rbp-lab WORDS`` in this process: exit code, stdout and stderr."""

    def run(*words):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as exit:
            main(list(words))
        return exit.value.code, *capfd.readouterr()

    return run


@pytest.mark.parametrize("command", [*COMMANDS, "compare_models"])
def test_a_store_that_is_a_file_is_named_as_one(run, tmp_path, command):
    (tmp_path / "notes.txt").write_text("mine")
    words = command.partition("_")[0], *COMPARES.get(command, ())
    for store in ("notes.txt", "notes.txt/below"):
        code, out, err = run(*words, f"store={store}")
        said = f"store={store}: {tmp_path / 'notes.txt'} is a file, and a store is a directory"
        assert (code, out) == (2, "") and err.startswith(f"error: {said}") and err.count("\n") == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("command", [*COMMANDS, "compare_models"])
def test_help_names_the_command_and_the_groups_that_it_takes_alone(run, command):
    words = command.partition("_")[0], *COMPARES.get(command, ())
    code, out, err = run(*words, "--help")
    assert (code, err) == (0, "") and " ".join(out.split()).startswith(f"rbp-lab {words[0]}: {COMMANDS[words[0]]} ")
    assert "powered by" not in out and "\nstore: multirun  " in out
    groups = re.findall(r"^  (\S.*?): ", out.partition("Keys, written")[0], re.MULTILINE)
    taken = {
        "ls": ["dataset", "precision"], "compare": ["tracking"], "sync": ["tracking"], "clean": [],
        "analyze": ["k", "fit", "tracking", "experiment"],
        "measure": ["model", "dataset", "k", "precision", "callbacks", "tracking"],
        "compare_models": ["model@a, model@b", "precision@a, precision@b", "dataset", "k", "tracking"],
    }  # fmt: skip
    assert groups == taken.get(command, groups)


def test_help_lists_groups_with_a_users_own_choices(run, tmp_path):
    (tmp_path / "mine" / "precision").mkdir(parents=True)
    (tmp_path / "mine" / "precision" / "ours.yaml").write_text("dtype: float32\n")
    out = run("measure", "--config-dir", "mine", "--help")[1]
    assert "  precision: bf16, fp16, fp32, fp8, int4, int8, ours, tf32\n" in out


def test_of_many_choices_the_nearest_few_are_named_and_how_to_list_them():
    sizes = [f"pythia-{n}m" for n in range(10, 10 + MANY)]
    nearest = "pythia-10m or pythia-11m or pythia-12m or pythia-13m or pythia-14m"
    said = no_such("model", "model=Pythia-1", "Pythia-1", [*sizes, "gpt2-xl"], "rbp-lab ls models")
    choose = f"there are {MANY + 1} to choose from"
    assert said == f"model: no such model=Pythia-1; did you mean {nearest}? {choose}, which rbp-lab ls models lists"
    assert "did you mean gpt2-xl? there are" in no_such("model", "model=gpt2xl", "gpt2xl", [*sizes, "gpt2-xl"])
    assert no_such("x", "x", "zzz", [*sizes, "gpt2-xl"]).endswith(f"{choose}, such as {', '.join(sizes[:5])}")
    assert all(size in no_such("x", "x", "zzz", sizes) for size in sizes)


@pytest.mark.parametrize(
    ("given", "kept"), [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_waiting_threads_spin_briefly_unless_the_user_says_otherwise(given, kept):
    """Set before torch is imported, for the process and those that it starts."""
    code = (
        "import os, sys; from rbp_lab import cli, __main__\n"
        "cli.main = lambda: print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)\n__main__.run()"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)} | given
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == f"{kept} False\n" and done.stderr == ""


USAGE = [
    "mesure",
    "ls runs datasets=",
    "ls what=nothing",
    "ls what=[runs",
    "ls foo",
    "ls --check",
    "ls -m what=nothing,never",  # no job of it began
    "ls -m 'what=glob(nothing*)'",
    "ls what=runs,models",  # a sweep without -m
    "ls +store.x=1",
    "ls dataset=nowhere",
    "ls --config-dir nowhere",
    "ls --cfg jobs",
    "measure -m hydra/launcher=nowhere",
    "measure hydra/launcher=devices",
    "measure launch.processes=many",
    "measure launch.placement=far",
    "measure dataset.num_documents=-1",
    "train observation=bag",
    "train objective=supervised task=digits classifier=cnn observation=similarity",
    "train objective=supervised task=digits classifier=mlp-1 training.draw=balanced",
    "analyze source=csv",
    "analyze source=csv+local csv=x.csv",
    "analyze axis=time",
    "analyze csv=x.csv",
    "analyze name=a/b",
    "demo axis=time",
    "compare a",
    "compare a b ks=[0]",
    "compare model@a=ladder-1",
    "compare model@a=ladder-1 model@b=ladder-2 states=far",
    "clean unfinished=perhaps",
]


@pytest.mark.parametrize("words", USAGE)
def test_wrong_usage_that_kept_work_from_beginning_ends_with_2(run, words):
    code, _, err = run(*shlex.split(words))
    assert code == 2 and "error: " in err and "Traceback" not in err


@pytest.mark.parametrize(
    "words",
    [
        "ls -m what=runs,nothing",  # one job held, the other's mistake is a failed job
        "analyze",  # an empty store
        "analyze source=csv csv=nowhere.csv",
        "compare a b",
        "measure model=ladder-1",  # which was not trained
    ],
)
def test_what_fails_at_work_ends_with_1(run, words):
    code, _, err = run(*shlex.split(words))
    assert code == 1 and "error: " in err and "Traceback" not in err
