"""The words after ``rbp-lab SUBCOMMAND``: Hydra's flags and overrides, in any order."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rbp_lab.errors import WrongUsage

FILTERS = ("model", "family", "dtype", "quantisation", "key")  # a data set is chosen with dataset=…
LISTED = ("models", "datasets", "runs")  # what rbp-lab ls can be asked for by a word
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


_SEVERAL_DATA_SETS = re.compile(r"dataset=((glob|choice)\(|[^\[\]{}()'\"]*,)")


@dataclass(frozen=True)
class Arguments:
    """command: the module of ``commands`` and the file of conf/ that the words mean. flags: for Hydra, before the
    overrides. config_dir: the user's own YAML files, absolute. asks: a question about the configuration is answered, no
    job is run. shows_jobs: the configuration of each job of a sweep is that question, to which Hydra has no answer.
    launcher: what Hydra is to run jobs with, "" for itself."""

    command: str
    flags: tuple[str, ...]
    overrides: tuple[str, ...]
    config_dir: str | None
    multirun: bool
    asks: bool
    shows_jobs: bool
    launcher: str


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WrongUsage(f"{message}; {self.prog} --help shows what there is")


def parse(command: str, words: list[str]) -> Arguments:
    """The words of one command line; WrongUsage on an unknown flag or a missing value."""
    parser = _Parser(f"rbp-lab {command}", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    for names in (("-h", "--help"), ("--hydra-help",), ("--resolve",), ("-r", "--run"), ("-m", "--multirun")):
        parser.add_argument(*names, action="store_true")
    parser.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    parser.add_argument("-i", "--info", nargs="?", const="all", choices=INFO)
    for names in (("-p", "--package"), ("-cn", "--config-name"), ("-cp", "--config-path"), ("-cd", "--config-dir")):
        parser.add_argument(*names)
    if command == "ls":
        parser.add_argument("--check", metavar="PATTERN")
    given = vars(parser.parse_intermixed_args(words))
    command, overrides = _compared(command, given.pop("overrides"))
    if command == "compare_models" and any(map(_SEVERAL_DATA_SETS.match, overrides)):
        given["multirun"] = True  # each is a job, and all of them are one comparison
    directory = given.pop("config_dir")
    if command == "ls":
        overrides = _about_listing(overrides, given.pop("check"))
    if directory is not None:
        directory = Path(os.path.expanduser(directory)).absolute()
        if not directory.is_dir():
            raise WrongUsage(f"--config-dir must be a directory with YAML files; there is none at {directory}")
    flags = []
    for name, value in given.items():
        if value:
            flags += [f"--{name.replace('_', '-')}", *([] if value is True else [value])]
    asked = [name for name in ("run", "multirun", "cfg", "info") if given[name]]
    shows_jobs = asked == ["multirun", "cfg"] and given["cfg"] == "job"
    if len(asked) > 1 and not shows_jobs:
        raise WrongUsage("only one of --run, --multirun, --cfg and --info can be asked for, or -m with --cfg job")
    return Arguments(
        command=command,
        flags=tuple(flags),
        overrides=tuple(_home(o) for o in overrides),
        config_dir=None if directory is None else str(directory),
        multirun=bool(given["multirun"]) or any(o.lstrip("+").lower() == "hydra.mode=multirun" for o in overrides),
        asks=any(given[name] for name in ("help", "hydra_help", "cfg", "info")),
        shows_jobs=shows_jobs,
        launcher="".join(o.partition("=")[2] for o in overrides if o.lstrip("+").startswith("hydra/launcher=")),
    )


def _compared(command: str, words: list[str]) -> tuple[str, list[str]]:
    """The command that the words mean, and the words as Hydra takes them.

    ``rbp-lab compare model@a=… model@b=…`` runs two models, whose nodes are a.model and b.model, and a precision
    without a side is of both; ``rbp-lab compare A B`` names records.
    """
    models = [word for word in words if word.startswith(("model@a=", "model@b="))]
    if command != "compare" or not models:
        return command, _named_sides(words) if command == "compare" else words
    if {word[:8] for word in models} != {"model@a=", "model@b="}:
        raise WrongUsage(f"rbp-lab compare takes two models, model@a=… and model@b=…; got {' '.join(models)}")
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("model@a", "model@b"):
            found.append(f"{name}.model{equals}{value}")
        elif name == "precision":
            found += [f"precision@{side}{equals}{value}" for side in "ab"]
        else:
            found.append(word)
    return "compare_models", found


def _named_sides(words: list[str]) -> list[str]:
    """The words of ``rbp-lab compare A B``, those that name records as the overrides a=A and b=B.

    A word that begins with a filter's name, as model=… , is one of them too where a= and b= are not given. dataset=…
    chooses among what was measured, and to Hydra would be a YAML of that group.
    """
    words = [_pattern(word) if word.startswith("dataset=") else word for word in words]
    if any(word.startswith(("a=", "b=")) for word in words):
        return words
    sides = [word for word in words if "=" not in word or word.partition("=")[0] in FILTERS]
    if not sides:  # --help and --cfg need none
        return words
    if len(sides) != 2:
        raise WrongUsage(f"rbp-lab compare takes two runs: a key, a model's name or model=…,dtype=…; got {len(sides)}")
    quoted = [word.replace("\\", "\\\\").replace('"', '\\"') for word in sides]
    return [f'{name}="{word}"' for name, word in zip("ab", quoted, strict=True)] + [w for w in words if w not in sides]


def _pattern(word: str) -> str:
    value = word.removeprefix("dataset=")
    return f"datasets={value}" if value.startswith(("'", '"')) else f'datasets="{value}"'


def _about_listing(words: list[str], check: str | None) -> list[str]:
    """The words of ``rbp-lab ls`` as overrides: ``models --check 'pythia-*'`` asks for those models, checked."""
    found = [f"what={word}" if word in LISTED else word for word in words]
    if check is not None:
        found += ["what=models", f'pattern="{check}"', "check=true"]
    elif "models" in words:
        found.append('pattern="*"')
    return found


def _home(override: str) -> str:
    """``~/`` where a path begins becomes the home directory, as a shell does it; not within quotes."""
    if "'" in override or '"' in override:
        return override
    return re.sub(r"(?<=[=,\[])~(?=/|$|,|\])", lambda _: os.path.expanduser("~"), override)
