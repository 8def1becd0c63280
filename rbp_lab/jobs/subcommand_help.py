"""What ``rbp-lab SUBCOMMAND --help`` prints: what it is for, the groups that it takes, every key, the flags."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import yaml

FLAGS = (
    "Flags: --cfg job prints this configuration alone, -m runs a sweep (key=1,2 or group=glob(name-*)), "
    "--config-dir DIR adds YAML files of your own, --hydra-help tells of Hydra's own flags."
)
COLUMN = 30  # in which comments begin, where there is room


def help_text(
    command: str, about: str, groups: Sequence[str], choices: Callable[[str], Sequence[str]],
    config: Mapping[str, Any], comments: Mapping[str, str],
) -> str:  # fmt: skip
    """The help of a subcommand, no wider than the terminal.

    groups: as they are typed, with ``@`` where they fill a key of another name. choices: the names in a group. Groups
    with the same choices share a line. config: as composed. comments: of its keys, by path; each is printed once.
    """
    named: dict[tuple[str, ...], list[str]] = {}
    for group in groups:
        if group != "output":  # where Hydra's own files go
            named.setdefault(tuple(choices(group.partition("@")[0])), []).append(group)
    lines = [wrapped(f"rbp-lab {command}: {about}", "  "), ""]
    if named:
        about_groups = [wrapped(f"  {', '.join(names)}: {', '.join(there)}", " " * 6) for there, names in named.items()]
        lines += ["Groups, written group=choice:", *about_groups, ""]
    keys = _keys(config, "", comments, set())
    return "\n".join([*lines, "Keys, written key=value; below another as dataset.name=value:", "", *keys, "",
                      wrapped(FLAGS, "  ")])  # fmt: skip


def wrapped(text: str, indent: str) -> str:
    """The text in lines of the terminal's width, 80 to 120, those after the first indented. Names stay whole."""
    width = min(max(shutil.get_terminal_size().columns, 80), 120)
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _keys(node: Mapping[str, Any], path: str, comments: Mapping[str, str], printed: set[str]) -> Iterator[str]:
    """Each key with its value and its comment, unless that is ``printed``, and below it those of the keys within."""
    indent = "  " * (path.count(".") if path else 0)
    for key, value in node.items():
        if key == "_target_":  # a class, which the files name; no choice of a command line
            continue
        nested = isinstance(value, Mapping) and value
        line = f"{indent}{key}:" if nested else wrapped(f"{indent}{key}: {_shown(value)}", f"{indent}  ")
        said = comments.get(f"{path}{key}")
        if said and said not in printed:
            printed.add(said)
            line = _beside(line, said)
        yield line
        if nested:
            yield from _keys(value, f"{path}{key}.", comments, printed)


def _beside(line: str, said: str) -> str:
    """A line, or several, with a comment behind it, or below where it has no room."""
    gap = " " * COLUMN + "# "
    below = wrapped(f"{gap}{said}", gap)
    if len(line) < COLUMN:
        return line + below[len(line) :]
    return f"{line}\n{below}"


def _shown(value: Any) -> str:
    """A value as YAML, in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
