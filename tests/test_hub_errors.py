"""Every way in which the hub can refuse is its own sentence; the real client asks a server on the loopback."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from types import SimpleNamespace

import huggingface_hub.utils as hub_utils
import pytest
import torch
from huggingface_hub import constants

from rbp_lab.errors import LabError
from rbp_lab.hub import files as hub_files
from rbp_lab.hub.errors import chain, explain, explained, is_about_the_hub, quiet
from tests import hub_server

OPEN = """
import json, sys, time
time.sleep = lambda seconds: None  # the client waits between its retries
from rbp_lab.errors import LabError
from rbp_lab.models import HFModel
out = {}
for path in sys.argv[1:]:
    try:
        HFModel(path=path).open()
        out[path] = "opened"
    except LabError as error:
        out[path] = str(error)
print(json.dumps(out))
"""
# Repository → (status, headers) of every answer about it, and what the sentence says.
REFUSED = {
    "token": (401, {}, "does not accept the token"),
    "forbidden": (403, {}, "forbids access to it (403)"),
    "gated": (403, {"X-Error-Code": "GatedRepo"}, "the repository is gated"),
    "nowhere": (404, {}, "nothing at this address (404)"),
    "unknown": (404, {"X-Error-Code": "RepoNotFound"}, "no such public repository"),
    "limited": (429, {"Retry-After": "0"}, "allows no more requests for now (429)"),
    "broken": (500, {}, "out of order at the moment (500)"),
    "away": (503, {}, "out of order at the moment (503)"),
}


def test_each_refusal_of_the_hub_is_a_sentence_of_its_own(tiny_model_dir, tmp_path):
    server = hub_server.serve(tmp_path / "hub")
    server.refuse = {f"/some/{name}/*": (status, headers) for name, (status, headers, _) in REFUSED.items()}
    for name, files in {"whole": [], "adapter": ["adapter_config.json"], "quantised": ["m-Q4.gguf"]}.items():
        repo = shutil.copytree(tiny_model_dir, tmp_path / "hub" / "models" / "some" / name)
        for file in files:
            (repo / file).write_text("{}")
            (repo / "config.json").unlink()
    both = shutil.copytree(tiny_model_dir, tmp_path / "hub" / "models" / "some" / "both")
    (both / "adapter_config.json").write_text("{}")
    names = [*REFUSED, "whole", "adapter", "both", "quantised"]
    said = json.loads(hub_server.run_client(OPEN, server, tmp_path / "home", *(f"some/{name}" for name in names)))
    server.shutdown()
    server.server_close()
    assert said.pop("some/whole") == "opened"
    for name in ("adapter", "both"):
        assert "holds an adapter (adapter_config.json), not a whole model; merge it" in said.pop(f"some/{name}")
    assert "measure one with model=gguf model.path=some/quantised model.file=m-Q4.gguf" in said.pop("some/quantised")
    for name, (_, _, words) in REFUSED.items():
        assert said[f"some/{name}"].startswith(f"model {name}: cannot read the config of some/{name}: ")
        assert words in said[f"some/{name}"] and "\n" not in said[f"some/{name}"]


LOG_IN = """
import os, sys
from pathlib import Path
from rbp_lab.errors import LabError
from rbp_lab.models import HFModel
os.environ["HF_TOKEN"] = "hf_theirs"
try:
    HFModel(path="some/ours").open()
except LabError as error:
    print(error)
os.environ["HF_TOKEN"] = "hf_ours"
print(HFModel(path="some/ours").open().info.name)
del os.environ["HF_TOKEN"]
Path(os.environ["HF_HOME"], "token").write_text("hf_ours")  # where hf auth login puts it
print(HFModel(path="some/mine").open().info.name)
"""


def test_a_private_hub_gives_its_models_for_the_token_of_the_environment_or_of_a_login(tiny_model_dir, tmp_path):
    server = hub_server.serve(tmp_path / "hub")
    for name in ("ours", "mine"):
        shutil.copytree(tiny_model_dir, tmp_path / "hub" / "models" / "some" / name)
        server.private[f"*/some/{name}*"] = "hf_ours"
    refused, *opened = hub_server.run_client(LOG_IN, server, tmp_path / "home").splitlines()
    server.shutdown()
    server.server_close()
    assert "the hub has no such public repository; check the id, or log in" in refused
    assert opened == ["ours", "mine"]


@pytest.mark.parametrize(
    ("error", "small", "removed"),
    [
        (LabError("a mistake"), 2**26, False),
        (ValueError("what may be damage"), 2**26, True),
        (ValueError("what may be damage"), 4, False),
        (EOFError("what is damage"), 4, True),
        (None, 4, False),
    ],
    ids=["mistake", "small", "large", "damage", "fine"],
)
def test_files_that_were_here_are_hashed_only_where_they_may_be_the_reason(
    error, small, removed, tmp_path, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub_files, "SMALL", small)
    blob, link = (
        tmp_path / "models--a--b" / "blobs" / ("0" * 64),
        tmp_path / "models--a--b" / "snapshots" / "1" / "w.bin",
    )
    for path in (blob, link):
        path.parent.mkdir(parents=True)
    blob.write_bytes(b"other content")
    link.symlink_to(blob)
    said = None
    try:
        with hub_files.sound_files("model b: a/b", "a/b"):
            if error is not None:
                raise error
    except Exception as raised:
        said = raised
    if removed:
        assert isinstance(said, LabError) and "model b: a/b: w.bin arrived damaged" in str(said)
    else:
        assert said is error
    assert blob.exists() is not removed and link.is_symlink() is not removed


def named(name: str, *bases: type) -> type:
    return type(name, bases or (Exception,), {})


def of(cause: BaseException, error: BaseException, raised: bool = True) -> BaseException:
    """An error with its cause; raised=False: that was raised as another was handled."""
    error.__cause__, error.__context__ = (cause, None) if raised else (None, cause)
    return error


def answered(status: int, name: str = "HfHubHTTPError") -> Exception:
    error = named(name)(f"{status} of the client's")
    error.response = SimpleNamespace(status_code=status)
    return error


NOT_HERE = "not in the local cache"
PACKAGES = "pip install sentencepiece protobuf"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (named("ConnectTimeout", named("TimeoutException"))("timed out"), "did not answer in time"),
        (named("ProxyError")("407"), "check HTTPS_PROXY"),
        (ValueError("`tiktoken` is required to read a `tiktoken` file."), PACKAGES),
        (ImportError("X requires the SentencePiece library but"), PACKAGES),
        (ValueError("Couldn't instantiate the backend tokenizer"), PACKAGES),
        (ImportError("X requires the protobuf library but"), PACKAGES),
        (ValueError("\n\nfirst\nsecond"), "first"),
        (ValueError(), "ValueError"),
        (ValueError("set trust_remote_code=True"), "read that code, then set trust_remote_code=true"),
        (of(OSError(errno.ENOSPC, "full"), ValueError("x")), "the disk is full"),
        (OSError(errno.EDQUOT, "quota"), "the disk is full"),
        (OSError("Consistency check failed: 1 < 2\nmore"), "run again (Consistency check failed: 1 < 2)"),
        (named("DatasetNotFoundError")("'x' is a gated dataset on the Hub"), "the repository is gated"),
        (named("DatasetNotFoundError")("x"), "no such public data set"),
        (named("RevisionNotFoundError", named("HfHubHTTPError"))("x"), "exists, but not this revision"),
        (of(ValueError("row 7"), named("DatasetGenerationError")("it went wrong")), "row 7"),
        (named("OfflineModeIsEnabled", ConnectionError)("x"), f"cannot be reached and it is {NOT_HERE}"),
        (named("LocalEntryNotFoundError", named("EntryNotFoundError"))("x"), f"cannot be reached and it is {NOT_HERE}"),
        (ConnectionError("x"), f"cannot be reached and it is {NOT_HERE}"),
        (named("ConnectError")("x"), "check the network, or give a local path"),
        (named("RemoteProtocolError")("x"), "the connection broke off"),
        (of(named("ReadError")("x"), RuntimeError("y"), raised=False), "the connection broke off"),
        (of(of(named("ReadError")("x"), KeyError("z")), RuntimeError("y")), "the connection broke off"),
        (named("EntryNotFoundError")("404\nx.json"), "lacks a file that is needed (404)"),
        (named("JSONDecodeError", ValueError)("line 1"), "should be JSON is not (line 1)"),
        (answered(418), "the hub answered with an error (418 of the client's)"),
        (answered(404, "EntryNotFoundError"), "lacks a file that is needed (404 of the client's)"),
        (of(answered(401), named("LocalEntryNotFoundError")("x")), "does not accept the token"),
        (answered(500), "out of order at the moment (500)"),
        (answered(499), "the hub answered with an error (499"),
    ],
)
def test_causes_without_a_server_are_explained_too(error, words, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert words in explain(error)


@pytest.mark.parametrize("value", ["1", "on", "Yes", "TRUE"])
def test_a_hub_that_may_not_be_asked_is_not_said_to_be_out_of_reach(value, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    for error in (ConnectionError("x"), named("LocalEntryNotFoundError")("x")):
        assert explain(error) == f"it is {NOT_HERE} and HF_HUB_OFFLINE is set; unset it or download it first"


def test_an_error_in_a_circle_of_causes_is_explained():
    error = ValueError("round")
    of(of(error, KeyError("about")), error)
    assert explain(error) == "round" and len(chain(error)) == 10


def test_an_error_about_content_is_not_one_about_the_hub():
    assert is_about_the_hub(of(named("ReadError")("x"), ValueError("y")))
    assert not is_about_the_hub(named("JSONDecodeError", ValueError)("x"))


def test_what_is_a_sentence_already_and_a_lack_of_memory_pass():
    for error in (LabError("a sentence"), torch.OutOfMemoryError("CUDA out of memory")):
        with pytest.raises(type(error)) as caught, explained("reading"):
            raise error
        assert caught.value is error


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("downloads", [True, False])
def test_the_hubs_libraries_are_silent_within_and_as_before_afterwards(shown, downloads):
    import datasets.utils
    import transformers.utils.logging as chatter

    places = [
        (hub_utils.are_progress_bars_disabled, hub_utils.enable_progress_bars, hub_utils.disable_progress_bars, False),
        (chatter.is_progress_bar_enabled, chatter.enable_progress_bar, chatter.disable_progress_bar, True),
        (datasets.utils.is_progress_bar_enabled, datasets.utils.enable_progress_bars,
         datasets.utils.disable_progress_bars, True),
    ]  # fmt: skip
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "transformers", "datasets")]

    def seen():
        return [asked() is enabled for asked, _, _, enabled in places], [one.level for one in loggers]

    before = seen()
    try:
        for _, on, off, _ in reversed(places):
            (on if shown else off)()
        for one in loggers:
            one.setLevel(logging.INFO)
        with quiet(downloads):
            assert seen() == ([shown and downloads, False, False], [logging.ERROR] * 3)
        assert seen() == ([shown] * 3, [logging.INFO] * 3)
    finally:
        for (_, on, off, _), was_on in zip(reversed(places), before[0][::-1], strict=True):
            (on if was_on else off)()
        for one, level in zip(loggers, before[1], strict=True):
            one.setLevel(level)
