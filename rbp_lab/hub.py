"""What model and data-set sources share about the Hugging Face Hub: its errors in one sentence, its noise off."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

# First match along the chain of causes wins, so the specific names stand before the general ones.
_REASONS = (
    ("GatedRepoError", "the repository is gated: accept its terms on the hub and log in with `hf auth login`"),
    ("RevisionNotFoundError", "the repository exists, but not this revision; check the branch, tag or commit"),
    ("RepositoryNotFoundError", "the hub has no such public repository; check the id, or log in with `hf auth login`"),
    ("DatasetNotFoundError", "the hub has no such public data set; check the id, or log in with `hf auth login`"),
    ("OfflineModeIsEnabled", "it is not in the local cache and HF_HUB_OFFLINE is set; unset it or download it first"),
    ("LocalEntryNotFoundError", "the hub cannot be reached and it is not in the local cache; check the network"),
    ("EntryNotFoundError", "the repository lacks a file that is needed"),
    ("ConnectError", "the hub cannot be reached; check the network, or give a local path"),
    ("ConnectionError", "the hub cannot be reached; check the network, or give a local path"),
    ("HfHubHTTPError", "the hub answered with an error"),
    ("JSONDecodeError", "a file that should be JSON is not"),
)


def explain(error: BaseException) -> str:
    """Why a hub or loading error happened, as one line: a known cause in words, else the error's own first line."""
    names: list[set[str]] = []
    seen: BaseException | None = error
    while seen is not None and len(names) < 10:
        names.append({cls.__name__ for cls in type(seen).__mro__})
        seen = seen.__cause__ or seen.__context__
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    for name, words in _REASONS:
        if any(name in mro for mro in names):
            if name == "LocalEntryNotFoundError" and offline:
                return dict(_REASONS)["OfflineModeIsEnabled"]
            if name in {"EntryNotFoundError", "HfHubHTTPError", "JSONDecodeError"}:
                return f"{words} ({first_line(error)})"
            return words
    return first_line(error)


def first_line(error: BaseException) -> str:
    """The first non-empty line of an error's message, or its type when it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def quiet(downloads: bool = False) -> Iterator[None]:
    """Silence transformers, datasets and hub chatter and their progress bars; download bars stay with downloads=True.

    Loading reports repeat what we check ourselves, and retries of an unreachable hub end in one sentence of ours.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as chatter

    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "datasets", "huggingface_hub.utils._http")]
    levels = [one.level for one in loggers]
    verbosity, bars = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    hub_bars_were_on = not are_progress_bars_disabled()
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()  # this also turns the hub's bars off
    (enable_progress_bars if downloads and hub_bars_were_on else disable_progress_bars)()
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        yield
    finally:
        chatter.set_verbosity(verbosity)
        if bars:
            chatter.enable_progress_bar()
        (enable_progress_bars if hub_bars_were_on else disable_progress_bars)()
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
