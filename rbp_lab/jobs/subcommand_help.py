"""What ``rbp-lab SUBCOMMAND --help`` prints: what it is for, the groups that it takes, every key, the flags."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

FLAGS = """\
Flags: --cfg job prints this configuration alone, -m runs a sweep (key=1,2 or group=glob(name-*)), --config-dir DIR adds
YAML files of your own, --hydra-help tells of Hydra's own flags."""


def help_template(command: str, about: str, groups: Sequence[str], choices: Callable[[str], Sequence[str]]) -> str:
    """A template of Hydra's, in which ``$CONFIG`` stands for the composed configuration.

    groups: as they are typed, with ``@`` where they fill a key of another name. choices: the names in a group. Groups
    with the same choices share a line.
    """
    named: dict[tuple[str, ...], list[str]] = {}
    for group in groups:
        if group != "output":  # where Hydra's own files go
            named.setdefault(tuple(choices(group.partition("@")[0])), []).append(group)
    lines = [f"rbp-lab {command}: {about}", ""]
    if named:
        lines += ["Groups, written group=choice:", *(_line(names, there) for there, names in named.items()), ""]
    return "\n".join([*lines, "Keys, written key=value:", "", "$CONFIG", FLAGS])


def _line(names: Sequence[str], choices: Sequence[str]) -> str:
    return textwrap.fill(
        f"{', '.join(names)}: {', '.join(choices)}", 118, initial_indent="  ", subsequent_indent="      ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
