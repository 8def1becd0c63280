"""What the YAML files say of each key: the comment behind it, by the key's path in the composed configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from rbp_lab.config.directory import CONF

_KEY = re.compile(r"""(?P<indent> *)(?P<key>\w+):(?:[^#"']|"[^"]*"|'[^']*'|(?<! )#)*(?: #\s*(?P<said>.*))?$""")
_HEADER = re.compile(r"# @package (\S+)")


def comments(command: str, chosen: Mapping[str, str | None], own: str | None = None) -> dict[str, str]:
    """Path of a key → its comment, in the file of a command and in those of the chosen groups.

    chosen: file by group, as Hydra keeps it (``hydra.runtime.choices``): ``model@a.model`` is a group whose content
    stands at another place. own: the directory of the user's YAML files, which come before the packaged ones.
    """
    found = _of_file(CONF / f"{command}.yaml")
    for group, choice in chosen.items():
        folder, at, place = group.partition("@")
        if not choice or folder.startswith("hydra"):
            continue
        for path in reversed(_family(folder, choice, own)):
            header = _HEADER.search(path.read_text(encoding="utf-8"))
            above = place if at else "" if header and header[1] == "_global_" else folder.replace("/", ".")
            found |= {f"{above}.{key}".removeprefix("."): said for key, said in _of_file(path).items()}
    return found


def _family(folder: str, choice: str, own: str | None) -> list[Path]:
    """The file of a choice, then those that it starts from."""
    path = next((p for root in (own, CONF) if root and (p := Path(root) / folder / f"{choice}.yaml").is_file()), None)
    if path is None:
        return []
    defaults = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("defaults", ())
    below = [one for one in defaults if isinstance(one, str) and re.fullmatch(r"[\w.-]+", one) and one != "_self_"]
    return [path, *(base for one in below if one != choice for base in _family(folder, one, own))]


def _of_file(path: Path) -> dict[str, str]:
    """Path of a key in one file → the comment behind it."""
    found, above = {}, []
    for line in path.read_text(encoding="utf-8").splitlines():
        if (match := _KEY.match(line)) is None:
            continue
        depth = len(match["indent"])
        above = [(one, key) for one, key in above if one < depth] + [(depth, match["key"])]
        if match["said"]:
            found[".".join(key for _, key in above)] = match["said"].strip()
    return found
