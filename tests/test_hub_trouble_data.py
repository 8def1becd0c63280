"""Data sets of a hub in trouble, and a full disk: each ends well or as one sentence, and no half copy is kept."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import hub_server
from tests.test_hub_trouble import BROKE, DAMAGED

ROWS = [{"text": f"row {i} " + "of a corpus " * 12} for i in range(300)]
TRY = """
import json, sys, time
slept = []
time.sleep = slept.append  # the clients wait between their retries
from rbp_lab.data import HubText
from rbp_lab.errors import LabError
out = {}
for fields in map(json.loads, sys.argv[1:]):
    try:
        corpus = HubText(**fields).corpus()
        out[json.dumps(fields)] = corpus.fingerprint
    except LabError as error:
        out[json.dumps(fields)] = str(error)
print(json.dumps([out, sum(slept)]))
"""
FILE = "train-00000-of-00001.parquet"


def flipped(content: bytes) -> bytes:
    """Another letter in a row; the file can still be read."""
    return content.replace(b"row 7 ", b"row 8 ")


# Repository → what goes wrong, how, and what is said; None where it ends well.
FAULTS = {
    "ends": ("cut", [1_000, 5_000], None),
    "resets": ("reset", [1_000, 5_000], None),
    "gone": ("cut", [0] * 99, BROKE),
    "short": ("damage", lambda content: content[:-100], "arrived shorter than it is on the hub; run again"),
    "flipped": ("damage", flipped, f"some/flipped: {FILE} {DAMAGED}"),
    "away": ("refuse", (503, {}), "the hub is out of order at the moment (503)"),
    "busy": ("refuse", (429, {"Retry-After": "0"}), "the hub allows no more requests for now (429)"),
    "token": ("refuse", (401, {}), "the hub does not accept the token"),
    "gated": ("refuse", (403, {"X-Error-Code": "GatedRepo"}), "the repository is gated"),
}


@pytest.fixture
def hub(tmp_path):
    """A server with the same data set under the name of every case; each is a commit of its own."""
    for name in (*FAULTS, "whole", "other"):
        repo = tmp_path / "hub" / "datasets" / "some" / name
        repo.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(ROWS), repo / FILE, compression="none", use_dictionary=False)
        (repo / "README.md").write_text(name)
    server = hub_server.serve(tmp_path / "hub")
    yield server
    server.shutdown()
    server.server_close()


def attempt(server, home, names, **more) -> tuple[dict[str, str], float]:
    """What came of reading each data set in a new process, and for how many seconds it wanted to wait."""
    asked = [name if isinstance(name, dict) else {"path": f"some/{name}"} for name in names]
    out, waited = json.loads(hub_server.run_client(TRY, server, home, *map(json.dumps, asked), **more))
    return dict(zip(map(str, names), out.values(), strict=True)), waited


def test_a_data_set_that_goes_wrong_is_a_sentence_and_leaves_no_half_copy(hub, tmp_path):
    for name, (kind, fault, _) in FAULTS.items():
        getattr(hub, kind)[f"/datasets/some/{name}/resolve/*/{'*' if kind == 'refuse' else FILE}"] = fault
    late = {"path": "some/whole", "revision": "v9"}
    said, _ = attempt(hub, tmp_path / "home", [*FAULTS, "whole", late])
    for name, (*_, words) in FAULTS.items():
        if words is None:
            assert said[name] == said["whole"], name
        else:
            assert words in said[name] and "\n" not in said[name], name
            assert said[name].startswith(f"dataset '{name}': ")
    assert "the repository exists, but not this revision" in said[str(late)]
    for faults in (hub.cut, hub.reset, hub.damage, hub.refuse):
        faults.clear()
    again, _ = attempt(hub, tmp_path / "home", FAULTS)
    assert set(again.values()) == {said["whole"]}
    requests = len(hub.log)
    for offline, why in ((True, "HF_HUB_OFFLINE is set"), (False, "the hub cannot be reached and it is not in the")):
        if not offline:
            hub.shutdown()
            hub.server_close()
        without, waited = attempt(hub, tmp_path / "home", ["whole", "other"], offline=offline)
        assert without["whole"] == said["whole"] and why in without["other"]
        assert waited == 0 and len(hub.log) == requests


AWAY = """
from rbp_lab.hub.files import cache_alone_when_unreachable
with cache_alone_when_unreachable():
    import datasets, huggingface_hub
    print(datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE)
print(datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE)
"""


def test_a_hub_that_was_away_for_a_moment_is_asked_again(hub, tmp_path):
    hub.shutdown()
    hub.server_close()
    assert hub_server.run_client(AWAY, hub, tmp_path / "home").split() == ["True", "True", "False", "False"]


@contextmanager
def small_disk(path: Path, size: int):
    """A file system of ``size`` bytes at path; gives a function that makes it larger. Skips where none can be had."""
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", path], check=True)
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize(
    "room", [pytest.param(40_000, marks=pytest.mark.slow, id="file"), pytest.param(90_000, id="copy")]
)
def test_a_full_disk_is_a_sentence_and_leaves_no_half_copy(hub, tmp_path, room):
    """There is no room for the file of the data set, or none for the copy that datasets makes of it."""
    with small_disk(tmp_path / "small", room) as grow:
        said, _ = attempt(hub, tmp_path / "small", ["whole"])
        assert "the disk is full; make room, or choose another place for the hub's cache (HF_HOME, " in said["whole"]
        held = list((tmp_path / "small").rglob(f"snapshots/*/{FILE}"))
        assert len(held) == (room == 90_000), "this size does not try what it should"
        grow("30m")
        again, _ = attempt(hub, tmp_path / "small", ["whole", "other"])
        assert again["whole"] == again["other"] and len(again["whole"]) == 64
