"""Writing a file or a directory so that it is either complete or absent, also after a power cut.

Contents are on the disk before they get their name, and the name is on the disk before the caller goes on. Temporary
names are hidden, random and made exclusively, so writers on several machines that share a disk never meet. They say
which process made them: those that a killed one left behind are removed by the next writer in the same place, and those
of other machines a day later. A directory that replaces another is exchanged with it where the system can do that in
one step; elsewhere the old one is moved aside first, and ``aside.recovered`` finds it when the writer was killed then.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rbp_lab.errors import LabError
from rbp_lab.store.aside import aside_of
from rbp_lab.store.machine import is_of_a_gone_process, mark

ABANDONED_SECONDS = 24 * 3600.0
_TEMPORARY = re.compile(r"\..+\.(?:([0-9a-f]{12})[0-9a-f]{8}|[0-9a-f]{16})\.part(\.[^.]*)?")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux' renameat2(2)
# What a disk or its owner can refuse. Any other OSError is a mistake of ours and keeps its traceback.
REFUSALS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR,
    errno.EEXIST, errno.ENAMETOOLONG, errno.EIO,
}  # fmt: skip


class AlreadyThere(Exception):
    """A directory of that name is there, and was not to be replaced."""


def may_be_written(directory: str | Path) -> bool:
    """Whether files can be made in a directory, or the directory itself, as far as the system knows beforehand."""
    path = Path(directory).absolute()
    there = next(d for d in (path, *path.parents) if d.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


@contextmanager
def atomic_path(path: str | Path, make_directory: bool = True) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; renamed to ``path`` on success, removed on failure.

    Keeps the suffix, so that writers that go by it (matplotlib, pandas) see the right one. make_directory: create the
    directory when it is not there; otherwise FileNotFoundError. Raises LabError when the disk is full or may not be
    written.
    """
    path = Path(path)
    with _refusals_as_errors(path):
        if make_directory:
            _prepare(path.parent)
        temporary = _temporary(path)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        _flush(path.parent)


@contextmanager
def atomic_directory(path: str | Path, replace: bool = True, make_directory: bool = True) -> Iterator[Path]:
    """A temporary directory that becomes ``path`` on success (replacing what is there) and vanishes on failure.

    Of several that write the same path at once, the last one stays; without ``replace`` the first one does, and the
    others get AlreadyThere. make_directory, and LabError: as of ``atomic_path``.
    """
    path = Path(path)
    with _refusals_as_errors(path):
        if make_directory:
            _prepare(path.parent)
        temporary = _temporary(path)
        temporary.mkdir()
        try:
            yield temporary
            for inner in (*temporary.rglob("*"), temporary):
                if not inner.is_symlink():
                    _flush(inner)
            _take_place(temporary, path, replace)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _flush(path.parent)


def _temporary(path: Path) -> Path:
    """A hidden name beside ``path`` that nobody else has; a long name is cut, since file systems allow 255 bytes."""
    stem = path.stem.encode("utf-8", "surrogateescape")[:150].decode("utf-8", "ignore")
    return path.with_name(f".{stem}.{mark()}{secrets.token_hex(4)}.part{path.suffix}")


def remove_directory(path: Path) -> None:
    """Remove a directory, or a file in its place, so that it is whole or absent under its name; FileNotFoundError when
    it is absent."""
    shutil.rmtree(aside_of(path), ignore_errors=True)  # an older one must not be found in its place
    aside = _temporary(path)
    path.rename(aside)
    delete(aside)


def _take_place(temporary: Path, path: Path, replace: bool) -> None:
    """Give a directory the name ``path``; what had it is removed, but only once the new one is in its place.

    Rename replaces empty directories only, so that another that is there is exchanged, or moved aside. Raises
    AlreadyThere when there is one and ``replace`` is False.
    """
    aside = aside_of(path)
    moved = aside.is_dir()  # by a writer that was killed
    while not _renamed(temporary, path):
        if not replace:
            raise AlreadyThere(path)
        if _exchange(temporary, path):
            break  # the old one has the temporary name, which the caller removes
        if aside.is_dir() and path.exists():  # that writer had given the new one its place
            shutil.rmtree(aside, ignore_errors=True)
        with suppress(FileNotFoundError):  # another writer moved it aside: the name is free again
            moved = _renamed(path, aside)
    if moved:
        shutil.rmtree(aside, ignore_errors=True)


def _renamed(old: Path, new: Path) -> bool:
    """Rename a directory; False when another that is not empty has the name."""
    try:
        old.rename(new)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old C library
        return False
    return renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def _prepare(directory: Path) -> None:
    """Create a directory, on the disk as well, and remove what killed writers left in it long ago."""
    missing = [d for d in (directory, *directory.parents) if not d.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for made in missing:
        _flush(made.parent)
    with os.scandir(directory) as entries:
        leftovers = [Path(e.path) for e in entries if _TEMPORARY.fullmatch(e.name)]
    for leftover in leftovers:
        with suppress(OSError):  # another writer may be removing it
            if is_abandoned(leftover):
                delete(leftover)


def is_abandoned(path: Path) -> bool:
    """Whether a file or directory has a temporary name, and whoever gave it has ended, or may have a day ago."""
    match = _TEMPORARY.fullmatch(path.name)
    if match is None:
        return False
    if match[1] and is_of_a_gone_process(match[1]):
        return True
    return max(p.lstat().st_mtime for p in (path, *path.rglob("*"))) < time.time() - ABANDONED_SECONDS


def delete(path: Path) -> None:
    """Delete a file, or a directory with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Have the contents of a file, or the names in a directory, written to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot flush a directory; they order renames by themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(handle)


@contextmanager
def _refusals_as_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        number = _errno(error)
        if number not in REFUSALS:
            raise
        raise LabError(f"cannot write {path}: {os.strerror(number)}; nothing half-written is left") from error


def _errno(error: Exception) -> int | None:
    """The system's number for an error, also where a library hides it."""
    if re.fullmatch(r"\d+ requested and \d+ written", str(error)):  # numpy's short write, which has no number
        return errno.ENOSPC
    rust = re.search(r"\(os error (\d+)\)", str(error))  # safetensors and tokenizers raise no OSError
    return int(rust[1]) if rust else getattr(error, "errno", None)
