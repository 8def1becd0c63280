"""What holds of every subcommand: what it says of itself, and of a store that cannot be one."""

import pytest

from rbp_lab.cli import COMMANDS, main

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
