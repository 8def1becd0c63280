"""What ``--help`` prints: what every key is for, in lines that a terminal shows whole."""

import pytest
import yaml

from rbp_lab.cli import COMMANDS, main
from rbp_lab.config.directory import CONF
from rbp_lab.jobs.config_comments import comments
from tests.test_command_lines import COMPARES


def printed(capsys, *words):
    """What ``rbp-lab WORDS`` prints."""
    with pytest.raises(SystemExit) as exit:
        main(list(words))
    assert exit.value.code == 0
    return capsys.readouterr().out


def test_help_says_what_every_key_is_for(capsys, tmp_path, monkeypatch):
    """Of the packaged choices, and of a user's own that starts from one, which says more of its keys."""
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "mine" / "model").mkdir(parents=True)
    text = "defaults: [hf, _self_]\npath: /models/ours # kept in '/models', see #3\nlicence: 'MIT # really'\n"
    (tmp_path / "mine" / "model" / "ours.yaml").write_text(text)
    out = printed(capsys, "measure", "--config-dir", str(tmp_path / "mine"), "model=ours", "dataset=local", "--help")
    assert "  path: /models/ours          # kept in '/models', see #3\n" in out
    assert "  family: hf                  # models of one family share a law\n" in out
    assert "  licence: 'MIT # really'     # for listings, and whether the hub asks to accept" in out
    assert "  max_tokens: 512           # tokens of a row\n" in out and "_target_" not in out


@pytest.mark.parametrize("file", sorted(p.relative_to(CONF) for p in CONF.rglob("*.yaml")), ids=str)
def test_every_key_of_a_packaged_file_has_a_comment(file):
    def keys(node, above=()):
        for key, value in node.items():
            if isinstance(value, dict) and value:
                yield from keys(value, (*above, key))
            else:
                yield (*above, key)

    group = file.parts[0]
    if group in {"hydra", "output", "checkpoints", "published", "experiment"}:
        return  # of Hydra, parts of other files, or values of keys that others comment
    text, of_a_group = (CONF / file).read_text(), len(file.parts) > 1
    here = "here." if of_a_group and "_global_" not in text else ""
    said = comments("ls", {f"{group}@{here[:-1]}": file.stem}) if of_a_group else comments(file.stem, {})
    node = {k: v for k, v in (yaml.safe_load(text) or {}).items() if k not in {"defaults", "hydra"}}
    for key in keys(node):
        paths = [here + ".".join(key[: i + 1]) for i in range(len(key))]
        assert key[-1] == "_target_" or any(path in said for path in paths), f"{'.'.join(key)} has no comment"


@pytest.mark.parametrize("command", [*COMMANDS, "compare_models"])
@pytest.mark.parametrize("width", [80, 100])
def test_help_is_no_wider_than_the_terminal(capsys, monkeypatch, command, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for words in ((command.partition("_")[0], *COMPARES.get(command, ()), "--help"), ("--help",)):
        assert all(len(line) <= width for line in printed(capsys, *words).splitlines())
