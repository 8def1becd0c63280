"""The hub as a place: what is asked of it again, when only the cache is used, and which files are compared."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import datasets
import pytest
from huggingface_hub import constants

from rbp_lab.errors import LabError
from rbp_lab.hub import files
from rbp_lab.hub.files import cache_alone_when_unreachable, persistently, sound_files


def named(name: str) -> Exception:
    return type(name, (Exception,), {})("it failed")


# -- out of reach ------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """A hub that may be asked: ``hub.error`` is raised by its client, ``hub.asked`` counts the questions."""
    hub = SimpleNamespace(error=None, asked=0, clock=1.0)  # seconds after the machine started

    def head(address, timeout):
        hub.asked += 1
        if hub.error is not None:
            raise hub.error

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: SimpleNamespace(head=head))
    monkeypatch.setattr(files, "_asked", {})
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=lambda: hub.clock))
    return hub


def offline_within() -> tuple[bool, bool]:
    with cache_alone_when_unreachable():
        return constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE


@pytest.mark.parametrize("name", ["ConnectError", "ConnectTimeout", "ConnectionError", "TimeoutException"])
def test_a_hub_out_of_reach_means_the_cache_alone_until_it_is_asked_again(name, hub, capsys):
    hub.error = named(name)
    assert offline_within() == (True, True) and hub.asked == 1
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (False, False)
    hub.clock, hub.error = hub.clock + files.ASK_AGAIN - 1, None
    assert offline_within() == (True, True) and hub.asked == 1
    hub.clock += 1
    assert offline_within() == (False, False) and hub.asked == 2
    hub.clock, hub.error = hub.clock + files.ASK_AGAIN - 1, named(name)
    assert offline_within() == (False, False) and hub.asked == 2


def test_a_hub_whose_proxy_refuses_is_asked_and_one_that_may_not_be_asked_is_not(hub, monkeypatch):
    hub.error = named("ProxyError")
    assert offline_within() == (False, False) and hub.asked == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(files, "_asked", {})
    assert offline_within() == (True, False) and hub.asked == 1


# -- connections that are reset ----------------------------------------------------------------------------------------


def caused_by(cause: Exception) -> Exception:
    error = named("Other")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error, tries",
    [(named("ReadError"), 5), (ConnectionResetError("reset"), 5), (caused_by(named("ReadError")), 5), (OSError(), 1)],
    ids=["read", "reset", "cause", "other"],
)
def test_what_is_reset_is_tried_five_times_a_second_apart(error, tries, monkeypatch):
    waited, calls = [], []
    monkeypatch.setattr(files, "time", SimpleNamespace(sleep=waited.append))

    def fail():
        calls.append(1)
        raise error

    with pytest.raises(type(error)) as caught:
        persistently(fail)
    assert caught.value is error and len(calls) == tries and waited == [1] * (tries - 1)
    assert persistently(lambda: len(calls)) == tries


# -- files -------------------------------------------------------------------------------------------------------------


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


class Cache:
    """The local cache of the repository some/one."""

    def __init__(self, root, kind: str):
        self.folder = root / f"{kind}s--some--one"

    def put(self, file: str, name: str, content: bytes):
        blob, link = self.folder / "blobs" / name, self.folder / "snapshots" / "commit" / file
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)

    def files(self) -> set[str]:
        found = self.folder.glob("snapshots/commit/**/*")
        return {path.relative_to(self.folder / "snapshots" / "commit").as_posix() for path in found if path.is_file()}


@pytest.fixture(params=["model", "dataset"])
def cache(request, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return Cache(tmp_path, request.param), request.param


def test_large_files_that_arrive_are_compared_and_small_and_earlier_ones_are_not(cache):
    cache, kind = cache
    cache.put("earlier.bin", "1" * 64, b"not that")
    called = []
    with (
        pytest.raises(LabError, match=r"^model m: data/new\.bin arrived damaged"),
        sound_files("model m", "some/one", kind, lambda: called.append(1)),
    ):
        cache.put("small.json", "2" * 40, b"not that")
        cache.put("data/new.bin", "3" * 64, b"not that")
        cache.put("sound.bin", hashlib.sha256(b"that").hexdigest(), b"that")
    assert called == [1] and cache.files() == {"earlier.bin", "small.json", "sound.bin"}
    assert not (cache.folder / "blobs" / ("3" * 64)).exists()


@pytest.mark.parametrize("name", sorted(files.UNREADABLE))
def test_all_files_are_compared_when_what_is_read_is_damaged(name, cache, monkeypatch):
    cache, kind = cache
    monkeypatch.setattr(files, "SMALL", 6)
    cache.put("git.json", sha1(b"blob 4\0that"), b"that")
    cache.put("mirror.json", sha1(b"that"), b"that")
    cache.put("wrong.json", "4" * 40, b"not that")
    cache.put("part", "5" * 40 + ".incomplete", b"not")
    (cache.folder / "snapshots" / "commit" / "own.txt").write_text("no link")
    called = []
    with (
        pytest.raises(LabError, match=r"wrong\.json arrived damaged"),
        sound_files("m", "some/one", kind, lambda: called.append(1)),
    ):
        raise named(name)
    assert called == [1] and cache.files() == {"git.json", "mirror.json", "part", "own.txt"}


def test_an_error_about_the_hub_says_nothing_about_files(cache):
    cache, kind = cache
    cache.put("wrong.json", "4" * 40, b"not that")
    error = named("ConnectError")
    with pytest.raises(type(error)) as caught, sound_files("m", "some/one", kind):
        raise error
    assert caught.value is error and cache.files() == {"wrong.json"}
