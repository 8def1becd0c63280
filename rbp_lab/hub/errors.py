"""What model and data-set sources share about the Hugging Face Hub: its errors in one sentence, its noise off."""

from __future__ import annotations

import errno
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rbp_lab.errors import LabError, first_line, out_of_memory

# First match along the chain of causes wins, so the specific names stand before the general ones.
_REASONS = (
    ("GatedRepoError", "the repository is gated: accept its terms on the hub and log in with `hf auth login`"),
    ("RevisionNotFoundError", "the repository exists, but not this revision; check the branch, tag or commit"),
    ("RepositoryNotFoundError", "the hub has no such public repository; check the id, or log in with `hf auth login`"),
    ("DatasetNotFoundError", "the hub has no such public data set; check the id, or log in with `hf auth login`"),
    ("OfflineModeIsEnabled", "it is not in the local cache and HF_HUB_OFFLINE is set; unset it or download it first"),
    ("RemoteProtocolError", "the connection broke off, also when it was tried again; run again when the network holds"),
    ("ReadError", "the connection broke off, also when it was tried again; run again when the network holds"),
    ("ProxyError", "the proxy does not let the request through; check HTTPS_PROXY"),
    ("TimeoutException", "the hub did not answer in time; check the network and try again"),
    ("LocalEntryNotFoundError", "the hub cannot be reached and it is not in the local cache; check the network"),
    ("EntryNotFoundError", "the repository lacks a file that is needed"),
    ("ConnectError", "the hub cannot be reached; check the network, or give a local path"),
    ("ConnectionError", "the hub cannot be reached; check the network, or give a local path"),
    ("HfHubHTTPError", "the hub answered with an error"),
    ("JSONDecodeError", "a file that should be JSON is not"),
)
# Errors that say more than the status of the answer they stand for; a file that is not there is a 404 as well.
_SPECIFIC = frozenset({"GatedRepoError", "RevisionNotFoundError", "RepositoryNotFoundError", "DatasetNotFoundError",
                       "OfflineModeIsEnabled", "EntryNotFoundError"})  # fmt: skip
_LOUD = ("huggingface_hub", "transformers", "datasets", "torchao", "torch.utils._pytree")
_FULL = {errno.ENOSPC, errno.EDQUOT}
# What a status of the hub means, where no error of the hub's library says it better.
_STATUS = {
    401: "the hub does not accept the token; log in again with `hf auth login`",
    403: "the hub forbids access to it (403): check what the token of `hf auth login` may read",
    404: "the hub has nothing at this address (404); check the id, and HF_ENDPOINT when it is set",
    429: "the hub allows no more requests for now (429): wait some minutes, or log in with `hf auth login`",
}


def explain(error: BaseException) -> str:
    """Why a hub or loading error happened, as one line: a known cause in words, else the error's own first line."""
    while type(error).__name__ == "DatasetGenerationError" and error.__cause__ is not None:
        error = error.__cause__  # its own message says only that something went wrong
    names = [_classes(one) for one in chain(error)]
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    if "trust_remote_code" in str(error):
        return "it ships its own code; read that code, then set trust_remote_code=true"
    if any(word in str(error) for word in ("backend tokenizer", "`tiktoken`", "SentencePiece library", "protobuf")):
        return (
            "its vocabulary files are missing, or need a package that is not installed: for tokenizer.model, "
            "spiece.model and the like pip install sentencepiece protobuf, for others pip install tiktoken"
        )
    if any(isinstance(one, OSError) and one.errno in _FULL for one in chain(error)):
        return _full()
    if "Consistency check failed" in str(error):
        return f"a file arrived shorter than it is on the hub; run again ({first_line(error)})"
    if "is a gated dataset" in str(error):  # one error of datasets for this and for one that is not there
        return dict(_REASONS)["GatedRepoError"]
    status = _status(error)
    for name, words in _REASONS:
        if any(name in mro for mro in names):
            if status is not None and name not in _SPECIFIC:
                return status
            if name in {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectionError"}:
                return dict(_REASONS)["OfflineModeIsEnabled" if offline else "LocalEntryNotFoundError"]
            if name in {"EntryNotFoundError", "HfHubHTTPError", "JSONDecodeError"}:
                return f"{words} ({first_line(error)})"
            return words
    return first_line(error)


def is_about_the_hub(error: BaseException) -> bool:
    """Whether an error says that something could not be had, and nothing of what is there."""
    known = {name for name, _ in _REASONS} - {"JSONDecodeError"}
    return any(_classes(one) & known for one in chain(error))


def chain(error: BaseException) -> list[BaseException]:
    """An error and its causes."""
    found: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and len(found) < 10:
        found.append(seen)
        seen = seen.__cause__ or seen.__context__
    return found


def _classes(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _status(error: BaseException) -> str | None:
    """The sentence for the HTTP status along the chain of causes, None when no server answered with a failure."""
    for one in chain(error):
        code = getattr(getattr(one, "response", None), "status_code", None)
        if code in _STATUS:
            return _STATUS[code]
        if isinstance(code, int) and code >= 500:
            return f"the hub is out of order at the moment ({code}); try again later"
    return None


def _full() -> str:
    from huggingface_hub import constants

    return (
        f"the disk is full; make room, or choose another place for the hub's cache (HF_HOME, now {constants.HF_HOME}) "
        f"or for temporary files (TMPDIR, now {tempfile.gettempdir()})"
    )


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever a hub library raises on bad files, ids or networks into the LabError "what: why"."""
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        if out_of_memory(error):  # the caller's case
            raise
        raise LabError(f"{what}: {explain(error)}") from error


@contextmanager
def quiet(downloads: bool = False) -> Iterator[None]:
    """Silence the chatter and progress bars of the hub libraries; bars of downloads stay with downloads=True.

    Loading reports repeat what we check ourselves, and retries of an unreachable hub end in one sentence of ours.
    Only bars of libraries that are imported already are silenced, so import what you use first. transformers imports
    torchao wherever it is installed, whose import has warnings for its developers.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [one.level for one in loggers]
    bars = [(lambda: not are_progress_bars_disabled(), enable_progress_bars, disable_progress_bars)]
    if "transformers" in sys.modules:
        from transformers.utils import logging as chatter

        # Its switch also turns the hub's bars, which is why the hub's own comes first and is set again below.
        bars.append((chatter.is_progress_bar_enabled, chatter.enable_progress_bar, chatter.disable_progress_bar))
    if "datasets" in sys.modules:
        from datasets.utils import disable_progress_bars as off
        from datasets.utils import enable_progress_bars as on
        from datasets.utils import is_progress_bar_enabled as is_on

        bars.append((is_on, on, off))
    were_on = [is_on() for is_on, _, _ in bars]
    for one in loggers:
        one.setLevel(logging.ERROR)
    for _, _, turn_off in bars:
        turn_off()
    if downloads and were_on[0]:
        enable_progress_bars()
    try:
        with warnings.catch_warnings():
            # The error that follows says it.
            warnings.filterwarnings("ignore", message="Not enough free disk space")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
        for (_, turn_on, turn_off), was_on in reversed(list(zip(bars, were_on, strict=True))):
            (turn_on if was_on else turn_off)()
