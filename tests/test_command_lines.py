"""What holds of every subcommand: what it says of itself, and of a store that cannot be one."""

import re

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
        assert (code, out) == (1, "") and err.startswith(f"error: {said}") and err.count("\n") == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("command", [*COMMANDS, "compare_models"])
def test_help_names_the_command_and_the_groups_that_it_takes_alone(run, command):
    words = command.partition("_")[0], *COMPARES.get(command, ())
    code, out, err = run(*words, "--help")
    assert (code, err) == (0, "") and out.startswith(f"rbp-lab {words[0]}: {COMMANDS[words[0]]}\n")
    assert "powered by" not in out and "\nstore: multirun\n" in out
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
