"""The Hugging Face Hub as a place that may be out of reach, and whose files may arrive damaged."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rbp_lab.errors import LabError, note_once
from rbp_lab.hub.errors import chain, is_about_the_hub

T = TypeVar("T")
TRIES = 5
SMALL = 2**26  # bytes that are hashed in an instant
# Errors of damaged weights and data files, by name, as their libraries need not be there.
UNREADABLE = {"SafetensorError", "UnpicklingError", "DatasetGenerationError", "ArrowInvalid", "BadGzipFile", "EOFError",
              "ZstdError", "JSONDecodeError", "UnicodeDecodeError"}  # fmt: skip
ASK_AGAIN = 60.0  # seconds for which the hub is taken to be as it was, within reach or not
_asked: dict[str, tuple[float, bool]] = {}  # the hub's address → when it was asked, and whether it answered


@contextmanager
def cache_alone_when_unreachable() -> Iterator[None]:
    """Within, a hub that cannot be reached is not asked again: what is in the local cache is used, at once.

    The clients would try each file again for half a minute. A hub that answers with an error is within reach.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT, float(constants.HF_HUB_ETAG_TIMEOUT)):
        yield
        return
    note_once(f"the hub ({constants.ENDPOINT}) cannot be reached; only what is in the local cache is used")
    _set_offline(True)
    try:
        yield
    finally:
        _set_offline(False)


def _set_offline(offline: bool) -> None:
    """Set what HF_HUB_OFFLINE sets when the clients are imported, of those that are imported by now."""
    from huggingface_hub import constants

    for one in [constants, *([sys.modules["datasets"].config] if "datasets" in sys.modules else [])]:
        one.HF_HUB_OFFLINE = offline


def _answers(endpoint: str, timeout: float) -> bool:
    """Whether anything answers at the hub's address. A proxy that refuses counts: the client says it best."""
    from huggingface_hub.utils import get_session

    when, answered = _asked.get(endpoint, (-ASK_AGAIN, True))
    if time.monotonic() - when >= ASK_AGAIN:
        try:
            get_session().head(endpoint, timeout=timeout)
            answered = True
        except Exception as error:
            names = {cls.__name__ for cls in type(error).__mro__}
            answered = not names & {"ConnectError", "ConnectTimeout", "ConnectionError", "TimeoutException"}
        _asked[endpoint] = time.monotonic(), answered
    return answered


def persistently(call: Callable[[], T]) -> T:
    """What ``call`` returns; it is called again, at most TRIES times in all, when the connection is reset under it.

    The clients go on by themselves after a connection that ends or falls silent, but not after one that is reset.
    """
    for left in reversed(range(TRIES)):
        try:
            return call()
        except Exception as error:
            if not left or not any(type(one).__name__ in ("ReadError", "ConnectionResetError") for one in chain(error)):
                raise
        time.sleep(1)
    raise AssertionError("TRIES is at least 1")


@contextmanager
def sound_files(what: str, path: str, kind: str = "model", then: Callable[[], None] = lambda: None) -> Iterator[None]:
    """What is read within of the repository ``path`` is what the hub has.

    Large files that arrive within are compared with their checksums. When reading fails, all small ones in the local
    cache are too, and all large ones when the error is one of damaged files. A file that differs is removed, so that
    the next run fetches it anew, ``then`` is called, and a LabError, beginning with ``what``, names it. The clients
    compare sizes alone. kind: "model" or "dataset".
    """
    folder = _folder(path, kind)
    before = set(_blobs(folder))
    try:
        yield
    except Exception as error:
        if isinstance(error, LabError) or is_about_the_hub(error):
            raise
        unreadable = UNREADABLE & {cls.__name__ for one in chain(error) for cls in type(one).__mro__}
        doubtful = [blob for blob in _blobs(folder) if unreadable or blob.stat().st_size <= SMALL]
        if wrong := _remove_damaged(folder, doubtful):
            then()
            raise _damaged(what, wrong) from error
        raise
    arrived = [blob for blob in _blobs(folder) if blob not in before and len(blob.name) == 64]
    if wrong := _remove_damaged(folder, arrived):
        then()
        raise _damaged(what, wrong)


def _damaged(what: str, names: list[str]) -> LabError:
    return LabError(
        f"{what}: {', '.join(names)} arrived damaged, with another checksum than the hub gives, and is removed from "
        "the local cache; run again to fetch it anew"
    )


def _folder(path: str, kind: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=path, repo_type=kind))


def _blobs(folder: Path) -> list[Path]:
    """The files of a repository in the local cache, named by their checksums: SHA-256, or git's SHA-1 of small ones."""
    blobs = folder / "blobs"
    return [one for one in blobs.glob("*") if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", one.name)]


def _remove_damaged(folder: Path, blobs: list[Path]) -> list[str]:
    """Remove those of the files that their names do not describe; returns what the repository calls them."""
    wrong = {blob.name for blob in blobs if blob.name not in _checksums(blob)}
    links = [link for link in folder.glob("snapshots/**/*") if link.is_symlink()]
    gone = [link for link in links if os.path.basename(os.readlink(link)) in wrong]
    names = sorted({link.relative_to(folder / "snapshots").as_posix().partition("/")[2] for link in gone})
    for path in (*gone, *(folder / "blobs" / name for name in wrong)):
        path.unlink(missing_ok=True)
    return names


def _checksums(blob: Path) -> set[str]:
    """What a hub, or a mirror of one, may call the content."""
    with blob.open("rb") as stream:
        if len(blob.name) == 64:
            return {hashlib.file_digest(stream, "sha256").hexdigest()}
        content: Any = stream.read()
    return {hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), hashlib.sha1(content).hexdigest()}
