"""Downloads that go wrong: each ends well or as one sentence, and the next run finds nothing in its way."""

from __future__ import annotations

import json
import shutil
from functools import partial

import pytest

from rbp_lab.commands.measure import measure
from rbp_lab.store.records import list_records
from tests import hub_server
from tests.conftest import TINY_TEXTS, save_tiny_model
from tests.test_configs import composed

TRY = """
import json, sys, time
slept = []
time.sleep = slept.append  # the client waits between its retries
import torch
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 1000
from rbp_lab.errors import LabError
from rbp_lab.models import HFModel
out = {}
for name in sys.argv[1:]:
    try:
        HFModel(path=f"some/{name}").open().load(torch.float32, "cpu")
        out[name] = "ok"
    except LabError as error:
        out[name] = str(error)
print(json.dumps([out, sum(slept)]))
"""


def attempt(server, home, names, **more) -> tuple[dict[str, str], float]:
    """What came of opening and loading each model in a new process, and for how many seconds it wanted to wait."""
    return json.loads(hub_server.run_client(TRY, server, home, *names, **more))


def html(content: bytes) -> bytes:
    return b"<html>" + content[6:]


def flipped(content: bytes) -> bytes:
    return content[:-100] + bytes(byte ^ 0x80 for byte in content[-100:])


BROKE = "the connection broke off, also when it was tried again; run again when the network holds"
DAMAGED = "arrived damaged, with another checksum than the hub gives, and is removed from the local cache; run again"
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer_config.json"
# Repository → what goes wrong, with which file, how, and what is said.
FAULTS = {
    "ends": ("cut", WEIGHTS, [20_000, 50_000], "ok"),
    "resets": ("reset", WEIGHTS, [20_000, 50_000], "ok"),
    "gone": ("cut", WEIGHTS, [0] * 99, BROKE),
    "lost": ("reset", WEIGHTS, [0] * 99, BROKE),
    "short": ("damage", WEIGHTS, lambda content: content[:-100], "arrived shorter than it is on the hub; run again"),
    "flipped": ("damage", WEIGHTS, flipped, f"some/flipped: {WEIGHTS} {DAMAGED}"),
    "page": ("damage", CONFIG, html, f"some/page: {CONFIG} {DAMAGED}"),
    "words": ("damage", TOKENIZER, html, f"some/words: {TOKENIZER} {DAMAGED}"),
    "away": ("refuse", WEIGHTS, (503, {}), "cannot read the weights of some/away: the hub is out of order"),
    # transformers would make a tokenizer without it.
    "half": ("refuse", TOKENIZER, (503, {}), "cannot read the config of some/half: the hub is out of order"),
}


@pytest.fixture
def hub(tiny_model_dir, tmp_path):
    """A server with a copy of the tiny model for every case; each copy is a commit of its own."""
    for name in (*FAULTS, "other"):
        repo = shutil.copytree(tiny_model_dir, tmp_path / "hub" / "models" / "some" / name)
        (repo / "README.md").write_text(name)
    server = hub_server.serve(tmp_path / "hub")
    yield server
    server.shutdown()
    server.server_close()


def test_a_download_that_goes_wrong_is_a_sentence_and_leaves_nothing_in_the_way(hub, tmp_path):
    for name, (kind, file, fault, _) in FAULTS.items():
        getattr(hub, kind)[f"/some/{name}/resolve/*/{file}"] = fault
    said, _ = attempt(hub, tmp_path / "home", FAULTS)
    for name, (*_, words) in FAULTS.items():
        if words == "ok":  # which "broke" has in it as well
            assert said[name] == "ok"
        else:
            assert said[name].startswith(f"model {name}: ") and words in said[name] and "\n" not in said[name]
    assert [first for file, first in hub.ranges if file == WEIGHTS][:2] == ["bytes=20000-", "bytes=70000-"]
    for faults in (hub.cut, hub.reset, hub.damage, hub.refuse):
        faults.clear()
    again, _ = attempt(hub, tmp_path / "home", FAULTS)
    assert set(again.values()) == {"ok"}
    # What is here needs no hub, and what is not is said at once.
    requests = len(hub.log)
    for offline, why in (
        (True, "it is not in the local cache and HF_HUB_OFFLINE is set; unset it or download it first"),
        (False, "the hub cannot be reached and it is not in the local cache; check the network"),
    ):
        if not offline:
            hub.shutdown()
            hub.server_close()
        said, waited = attempt(hub, tmp_path / "home", ["ends", "other"], offline=offline)
        assert said == {"ends": "ok", "other": f"model other: cannot read the config of some/other: {why}"}
        assert waited == 0
    assert len(hub.log) == requests


SWEEP = """
import io, json, sys, time
from contextlib import redirect_stderr, redirect_stdout
time.sleep = lambda seconds: None
from rbp_lab.cli import main
with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
    try:
        main(sys.argv[1:])
    except SystemExit as end:
        code = end.code
print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


@pytest.mark.slow
def test_a_sweep_of_three_architectures_goes_on_where_connections_broke_off(tmp_path):
    kinds = ("gpt2", "gpt_neox", "llama")
    hub, mine = tmp_path / "hub" / "models" / "some", tmp_path / "mine" / "model"
    mine.mkdir(parents=True)
    for kind in kinds:
        save_tiny_model(hub / kind, kind)
        (mine / f"{kind}.yaml").write_text(f"defaults: [hf, _self_]\npath: some/{kind}\n")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TINY_TEXTS))
    common = ["dataset=local", f"dataset.files={tmp_path / 'texts.jsonl'}", "dataset.protocol.max_tokens=32"]
    common += ["callbacks=none", "tracking=none"]
    sweep = ["measure", f"--config-dir={mine.parent}", "-m", f"model={','.join(kinds)}", f"store={tmp_path}/store"]
    server = hub_server.serve(tmp_path / "hub")
    server.reset[f"*/gpt2/*/{WEIGHTS}"] = [10_000]
    server.cut[f"*/gpt_neox/*/{WEIGHTS}"] = [0] * 99
    server.cut[f"*/llama/*/{WEIGHTS}"] = [10_000]
    client = partial(hub_server.run_client, SWEEP, server, tmp_path / "home", *sweep, *common)
    code, out, err = json.loads(client())
    assert (code, out.splitlines()[-1]) == (1, "3 jobs: 2 measured, 1 failed")
    sentence = f"model gpt_neox: cannot read the weights of some/gpt_neox: {BROKE}"
    assert "\n1 of 3 jobs failed:\n  model=gpt_neox " in err and err.endswith(f": {sentence}\n")
    assert "Traceback" not in err
    server.cut.clear()
    code, out, err = json.loads(client())
    assert (code, out.splitlines()[-1]) == (0, "3 jobs: 2 found, 1 measured")
    server.shutdown()
    server.server_close()
    records = {record.model.name: record.stats for record in list_records(tmp_path / "store")}
    assert set(records) == set(kinds)
    for kind, stats in records.items():
        here = composed("measure", "model=hf", f"model.path={hub / kind}", f"store={tmp_path}/here", *common)
        assert measure(here).record.stats == stats
