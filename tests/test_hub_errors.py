"""Every way in which the hub can refuse is its own sentence; the real client asks a server on the loopback."""

from __future__ import annotations

import json
import shutil

import pytest
from huggingface_hub import constants

from rbp_lab.errors import LabError
from rbp_lab.hub import files as hub_files
from rbp_lab.hub.errors import explain
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


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (named("ConnectTimeout", named("TimeoutException"))("timed out"), "did not answer in time"),
        (named("ProxyError")("407"), "check HTTPS_PROXY"),
        (ValueError("`tiktoken` is required to read a `tiktoken` file."), "pip install sentencepiece protobuf"),
        (ImportError("X requires the SentencePiece library but"), "pip install sentencepiece protobuf"),
        (ValueError("\n\nfirst\nsecond"), "first"),
        (ValueError(), "ValueError"),
    ],
)
def test_causes_without_a_server_are_explained_too(error, words):
    assert words in explain(error)
