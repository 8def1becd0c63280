"""Having the files of a hub repository here before transformers reads them.

It would fetch them as well, but takes some that the hub fails to give for files that are not there: without its
tokenizer_config.json a tokenizer may be another one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from rbp_lab.errors import LabError
from rbp_lab.hub.files import persistently
from rbp_lab.models.files import ALWAYS, WEIGHTS, named_in_config, weight_files


def fetch_small_files(path: str, commit: str) -> None:
    """Have config, tokenizer and code of a repository at a commit in the local cache; errors are the hub's own.

    Where the hub is out of order, those of an earlier visit do.
    """
    from huggingface_hub import list_repo_files, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    try:
        names = list_repo_files(path, revision=commit)
    except HfHubHTTPError:
        if try_to_load_from_cache(path, "tokenizer_config.json", revision=commit) is None:  # nor known to be missing
            raise
        return
    _fetch(path, commit, [name for name in names if name.endswith(".py") or any(fnmatch(name, one) for one in ALWAYS)])


def fetch_weights(path: str, commit: str) -> None:
    """Have the weights of a repository at a commit in the local cache, complete; errors are the hub's own."""
    from huggingface_hub import list_repo_files, try_to_load_from_cache

    config = try_to_load_from_cache(path, "config.json", revision=commit)
    with suppress(LabError):
        weight_files(Path(str(config)).parent)
        return
    _fetch(path, commit, weights_of(path, commit, list_repo_files(path, revision=commit)))


def weights_of(path: str, commit: str, names: Collection[str]) -> list[str]:
    """The files of a repository that ``files.weight_files`` will look for; its config is in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(path, "config.json", revision=commit)
    named = named_in_config(Path(str(config)).parent)
    if named is None:
        pairs = WEIGHTS
    else:
        whole = named.removesuffix(".index.json")
        pairs = ((whole, named if named != whole else f"{named}.index.json"),)
    for whole, index in pairs:
        if whole in names:
            return [whole]
        if index in names:
            stem, suffix = os.path.splitext(whole)
            part = re.compile(rf"{re.escape(stem)}-\d+-of-\d+{re.escape(suffix)}")
            return [index, *(name for name in names if part.fullmatch(name))]
    return []


def _fetch(path: str, commit: str, names: list[str]) -> None:
    from huggingface_hub import snapshot_download

    persistently(lambda: snapshot_download(path, revision=commit, allow_patterns=names))
