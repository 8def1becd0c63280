"""Points pulled back from W&B through the real client, equal to the local ones to the last bit."""

import copy
import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from rbp_lab.analysis.sources import gather
from rbp_lab.commands.analyze import AnalysisRequest
from rbp_lab.commands.measure import measure
from rbp_lab.config.build import read
from rbp_lab.config.schemas import Filters
from rbp_lab.errors import LabError
from rbp_lab.points import points_from_records
from rbp_lab.store.records import list_records, with_header, write_record
from rbp_lab.tracking.wandb.names import record_config
from rbp_lab.tracking.wandb.pull import query
from rbp_lab.tracking.wandb.remote_run import header_from_config
from tests.sources import measure_config
from tests.wandb_server import WandbServer
from tests.wandb_use import ONLINE, analyze_config, sync

KS = [1, 5, 50]
HELD = ("runs", "artifacts", "uses", "views", "files")  # the state of a server


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_model_dir, tiny_gpt2_dir):
    """Three records, measured without W&B: two models on one text, one of them on another. Do not write into it."""
    store = tmp_path_factory.mktemp("measured")
    for name, directory, seed in (("a", tiny_model_dir, 0), ("b", tiny_gpt2_dir, 0), ("b", tiny_gpt2_dir, 1)):
        changes = {"model__path": str(directory), "model__name": name, "dataset__name": f"text-{seed}",
                   "model__training_tokens": 1000, "model__warmup_tokens": 10}  # fmt: skip
        measure(measure_config(directory, store, dataset__seed=seed, **changes))
    return store


@pytest.fixture(scope="module")
def mirror(store, tmp_path_factory):
    """(server, local store, what the server holds): all of the local store is on the server."""
    home = tmp_path_factory.mktemp("mirror")
    shutil.copytree(store / "runs", home / "local" / "runs")
    with WandbServer() as server:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment(home / "wandb-places").items():
                patch.setenv(name, value)
            sync(home / "local")
        yield server, home / "local", copy.deepcopy({name: getattr(server.lab, name) for name in HELD})


@pytest.fixture
def mirrored(mirror, tmp_path, monkeypatch):
    """(server, local store, an empty store to pull into), as they were before any test; the environment leads there."""
    server, local, held = mirror
    shutil.copytree(local, tmp_path / "local")
    server.fault, server.errors = None, []
    vars(server.lab).update(copy.deepcopy(held))
    for name, value in server.environment(tmp_path / "wandb-places").items():
        monkeypatch.setenv(name, value)
    yield server, tmp_path / "local", tmp_path / "elsewhere"
    assert server.errors == []


def pull(store, **changes):
    return gather(read(AnalysisRequest, analyze_config(store, **{"source": "wandb", **changes})))


def same(points, store):
    """Equal to the points of the local records in every cell and bit."""
    expected = points_from_records(list_records(store), KS)
    pd.testing.assert_frame_equal(points, expected, check_exact=True)
    for a, b in zip(points["value"], expected["value"], strict=True):
        assert a.hex() == b.hex()
    return True


def test_pulled_points_are_the_local_ones_and_files_are_fetched_once(mirrored):
    server, local, elsewhere = mirrored
    fetched = []
    server.fault = lambda path, number: fetched.append(path) if path.startswith("/storage/blobs") else None
    gathered = pull(elsewhere)
    assert gathered.notes == []
    assert same(gathered.points, local) and len(gathered.records) == 3
    for mine, theirs in zip(gathered.records, list_records(local), strict=True):
        assert mine == theirs or (mine.stats == theirs.stats and mine.documents == theirs.documents)
    assert len(fetched) == 3 * 6
    assert same(pull(elsewhere).points, local) and len(fetched) == 3 * 6
    assert not (elsewhere / "runs").exists()


def test_filters_choose_among_runs(mirrored):
    _, _, elsewhere = mirrored
    filters = dict.fromkeys(("model", "family", "dataset", "dtype", "key", "wandb"))
    for chosen, count in (
        ({"model": ["b"]}, 2),
        ({"dataset": "text-1"}, 1),
        ({"model": "[b]"}, 2),
        ({"model": "x"}, 0),
    ):
        if count:
            assert len(pull(elsewhere, filters=filters | chosen).records) == count
        else:
            with pytest.raises(LabError, match=r"no finished run that passes filters\.model=x"):
                pull(elsewhere, filters=filters | chosen)
    assert len(pull(elsewhere, filters=filters | {"wandb": {"config.dataset": "text-0"}}).records) == 2


def test_a_project_without_measurements_is_named(mirrored):
    _, local, elsewhere = mirrored
    with pytest.raises(LabError, match=r"no run that can be analysed; http://\S+ has no finished measurement in the "
                                       r"project me/nosuch; check project and entity, or mirror"):  # fmt: skip
        pull(elsewhere, project="nosuch", entity="me")
    asked = dict.fromkeys(("model", "family", "dataset", "dtype", "key")) | {"wandb": {"tags": "none"}}
    with pytest.raises(LabError, match="in the project rbp-lab that the filters ask for;"):
        pull(elsewhere, filters=asked)
    assert any("project nosuch" in note for note in pull(local, source="local+wandb", project="nosuch").notes)


def test_the_servers_share_of_filters():
    assert query(Filters()) == {}
    assert query(Filters(model="a", family=["x*"], dtype=["float32"])) == {
        "$and": [{"config.model": {"$in": ["a"]}}, {"config.precision": {"$in": ["float32"]}}]
    }


def test_a_missing_artifact_leaves_the_summary_and_says_what_that_rules_out(mirrored):
    server, local, elsewhere = mirrored
    record = next(r for r in list_records(local) if r.dataset.name == "text-1")
    for artifact in server.lab.artifacts.values():
        if artifact["name"] == f"record-{record.key}":
            artifact["state"] = "DELETED"
    gathered = pull(elsewhere, k={"thresholds": [1, 5, 7, 50]})
    assert len(gathered.records) == 2
    (note,) = gathered.notes
    assert "its artifact is missing" in note and "lognormal" in note and "of these k: 7" in note
    mine = gathered.points[gathered.points["key"] == record.key].reset_index(drop=True)
    expected = points_from_records([record], KS)
    pd.testing.assert_frame_equal(mine, expected, check_exact=True)  # what the summary tells is exact too


def test_a_run_that_never_finished_is_left_out(mirrored):
    server, _, elsewhere = mirrored
    next(iter(server.lab.runs.values()))["summary"].pop("record_digest")
    gathered = pull(elsewhere)
    assert len(gathered.records) == 2 and "1 runs of source wandb are not finished" in gathered.notes[0]


def test_the_same_record_from_two_places_counts_once(mirrored):
    server, local, _ = mirrored
    gathered = pull(local, source="local+wandb")
    assert same(gathered.points, local) and len(gathered.notes) == 3
    assert all("kept the one of source local, left out one of wandb, equal" in note for note in gathered.notes)
    for artifact in server.lab.artifacts.values():
        artifact["state"] = "DELETED"
    gathered = pull(local, source="wandb+local")  # the record is preferred to the summary, whatever comes first
    assert same(gathered.points, local) and len(gathered.records) == 3


def test_other_counts_under_one_key_are_noted(mirrored):
    _, local, _ = mirrored
    first, second = list_records(local)[:2]
    write_record(local, replace(second, header=first.header))
    assert "with other counts" in " ".join(pull(local, source="local+wandb").notes)


def test_runs_of_different_protocols_are_told_apart(mirrored, tiny_model_dir, tmp_path):
    server, local, elsewhere = mirrored
    changes = {"dataset__name": "text-0", "dataset__protocol": {"max_tokens": 32}, "model__name": "c"}
    outcome = measure(measure_config(tiny_model_dir, local, **changes))
    sync(local)
    expected = {"text-0, max tokens 64", "text-0, max tokens 32"}
    assert expected <= set(pull(elsewhere).points["dataset"])
    for artifact in server.lab.artifacts.values():
        if artifact["name"] == f"record-{outcome.record.key}":
            artifact["state"] = "DELETED"
    assert expected <= set(pull(elsewhere).points["dataset"])  # known by their summaries alone, too


def test_files_other_than_those_mirrored_are_not_used(mirrored):
    server, _, elsewhere = mirrored
    for artifact in server.lab.artifacts.values():
        meta = json.loads(artifact["metadata"])
        artifact["metadata"] = json.dumps(meta | {"record_digest": "0" * 16})
    for run in server.lab.runs.values():
        run["summary"]["record_digest"] = "0" * 16
    gathered = pull(elsewhere)
    assert not gathered.records and len(gathered.notes) == 3
    assert all("not those that were mirrored" in note for note in gathered.notes)
    assert not list((elsewhere / "cache" / "wandb").iterdir())


def a_run(lab):
    return next(iter(lab.runs.values()))


def change_config(lab, **changes):
    run = a_run(lab)
    config = json.loads(run["config"])
    run["config"] = json.dumps(config | {name: {"value": value} for name, value in changes.items()})


def change_summary(lab, **changes):
    a_run(lab)["summary"] |= changes


def change_manifest(lab, change):
    """Change the list of files in the artifact of ``a_run``."""
    made = next(a for a in lab.artifacts.values() if a["run"] == a_run(lab)["name"] and a["type"] == "rbp-record")
    manifest = json.loads(lab.files[f"manifests/{made['id']}"])
    change(manifest["contents"])
    lab.files[f"manifests/{made['id']}"] = json.dumps(manifest).encode()


def rename(old, new):
    return lambda files: files.update({new: files.pop(old)})


UP = "../../../outside"
LEFT_OUT = {  # what a run on the server says, and what the note about it says
    "a key that is a path": (lambda lab: change_config(lab, key=UP), "its key is"),
    "a key that is no text": (lambda lab: change_config(lab, key=["a"]), "its key is"),
    "a name with control characters": (lambda lab: change_config(lab, model="a\x1b[2Jb"), "model must be a text"),
    "a name of the wrong type": (lambda lab: change_config(lab, family={"a": 1}), "family must be a text"),
    "a size that is no number": (lambda lab: change_config(lab, total_params="1e9"), "total_params must be"),
    "a protocol that is no mapping": (lambda lab: change_config(lab, protocol="x"), "protocol must be"),
    "a configuration that is no JSON": (lambda lab: a_run(lab).update(config="{broken"), "left out"),
    "a probability above 1": (lambda lab: change_summary(lab, **{"rbp/5": 1.5}), "rbp/5 = 1.5"),
    "a value that is no number": (lambda lab: change_summary(lab, ce="low"), "ce = low"),
    "a number of tokens below 1": (lambda lab: change_summary(lab, tokens=0), "tokens"),
}
BY_SUMMARY = {
    "a digest that is a path": (lambda lab: change_summary(lab, record_digest=UP), "hexadecimal"),
    "a digest of the wrong type": (lambda lab: change_summary(lab, record_digest=[1]), "hexadecimal"),
    "a file above its directory": (lambda lab: change_manifest(lab, rename("ranks.parquet", UP)), "other files"),
    "a file with an absolute path": (lambda lab: change_manifest(lab, rename("ranks.parquet", "/outside")), "other"),
    "one file too many": (lambda lab: change_manifest(lab, lambda f: f.update(x=f["ranks.parquet"])), "other files"),
    "a reference to a local file": (
        lambda lab: change_manifest(lab, lambda f: f["ranks.parquet"].update(ref="file:///etc/passwd")), "reference",
    ),
    "a damaged file": (
        lambda lab: change_manifest(lab, lambda f: f.update({"ranks.parquet": f["record.json"]})), "not those that",
    ),
}  # fmt: skip


def test_bad_runs_are_noted_and_the_others_are_pulled(mirrored):
    """Copies of a run, each spoiled in its way, beside the sound ones."""
    server, _, elsewhere = mirrored
    lab = server.lab
    sound = copy.deepcopy(lab.runs)
    spoilt = {}
    for number, (name, (spoil, _)) in enumerate(LEFT_OUT.items()):
        lab.runs = copy.deepcopy(sound)
        spoil(lab)
        spoilt[name] = a_run(lab) | {"name": f"measure-bad-{number}-", "id": f"bad-{number}"}
    lab.runs = sound | {(run["project"], run["name"]): run for run in spoilt.values()}
    gathered = pull(elsewhere / "store")
    assert len(gathered.records) == len(sound) == 3 and len(gathered.notes) == len(LEFT_OUT), gathered.notes
    for name, (_, why) in LEFT_OUT.items():
        (note,) = [note for note in gathered.notes if spoilt[name]["name"] in note]
        assert why in note and note.isprintable() and len(note) < 700, (name, note)
        assert "its summary is used" not in note, (name, note)
    assert nothing_elsewhere(elsewhere, sound)


def nothing_elsewhere(directory, runs):
    """Every file below ``directory`` is in a folder that is named by the digest of a record of ``runs``."""
    digests = {run["summary"]["record_digest"] for run in runs.values()}
    return {path.parent.name for path in directory.rglob("*") if path.is_file()} <= digests


def test_a_bad_record_is_noted_and_its_summary_used(mirrored):
    """Whatever the files of a run on the server say, nothing of them is written elsewhere."""
    server, _, elsewhere = mirrored
    lab = server.lab
    sound = copy.deepcopy((lab.runs, lab.artifacts, lab.files))
    for number, (name, (spoil, why)) in enumerate(BY_SUMMARY.items()):
        lab.runs, lab.artifacts, lab.files = copy.deepcopy(sound)
        spoil(lab)
        gathered = pull(elsewhere / str(number) / "store")
        assert len(gathered.records) == 2 and len(gathered.notes) == 1, (name, gathered.notes)
        (note,) = gathered.notes
        assert why in note and note.isprintable() and len(note) < 700, (name, note)
        assert "its summary is used" in note, (name, note)
        assert nothing_elsewhere(elsewhere / str(number), sound[0]), name


def test_a_record_under_the_wrong_key_is_not_used(mirrored):
    """Two runs exchange their records, digest, artifact and all."""
    server, _, elsewhere = mirrored
    runs = list(server.lab.runs.values())[:2]
    first, second = (run["summary"]["record_digest"] for run in runs)
    runs[0]["summary"]["record_digest"], runs[1]["summary"]["record_digest"] = second, first
    made = [a for a in server.lab.artifacts.values() if a["type"] == "rbp-record"][:2]
    made[0]["run"], made[1]["run"] = made[1]["run"], made[0]["run"]
    gathered = pull(elsewhere)
    assert len(gathered.records) == 1 and all("not the one that its configuration names" in n for n in gathered.notes)


def test_names_of_documents_in_a_pulled_record_are_of_a_length_that_names_have(mirrored):
    _, local, elsewhere = mirrored
    record, *others = list_records(local)
    write_record(local, replace(record, document_names=tuple("x" * 4097 for _ in record.document_names)))
    sync(local)
    gathered = pull(elsewhere)
    assert [found.key for found in gathered.records] == [other.key for other in others]
    assert "names a document with more than 4096 characters" in " ".join(gathered.notes)


def test_names_inside_a_pulled_record_are_as_foreign_as_its_run(mirrored):
    server, local, elsewhere = mirrored
    for number, record in enumerate(list_records(local)[:2]):
        for name in ["a\x1b[2Jb", "fine"][: number + 1]:  # once as the present name, once as an earlier one
            record = with_header(local, record, record.header.named(name, record.model.family, record.dataset.name))
    sync(local)
    for number, run in enumerate(server.lab.runs.values()):
        config = json.loads(run["config"])
        run["config"] = json.dumps(config | {"model": {"value": f"harmless {number}"}})
    gathered = pull(elsewhere)
    assert len(gathered.records) == 1 and len(gathered.notes) == 2
    assert "model must be a text" in " ".join(gathered.notes) and "other names" in " ".join(gathered.notes)
    assert all(note.isprintable() for note in gathered.notes)


@pytest.mark.parametrize(
    "change",
    [
        {"key": "0" * 15}, {"key": "A" * 16}, {"key": None}, {"model": ""}, {"model": "x" * 301}, {"model": None},
        {"model": "a\0b"}, {"dataset": 3}, {"total_params": -1}, {"total_params": True}, {"total_params": 1 << 63},
        {"total_params": float("nan")}, {"non_embedding_params": 1 << 61}, {"vocab_rows": 1.5}, {"thresholds": "12"},
        {"thresholds": []}, {"thresholds": [0]}, {"windows": [1] * 10_001}, {"tf32": "yes"}, {"protocol": {"a": {}}},
        {"protocol": {"a": "b\n"}}, {"protocol": {"a": float("inf")}}, {"training_tokens": "many"},
        {"attention": ["sdpa"]},
    ],
)  # fmt: skip
def test_a_configuration_that_rbp_lab_did_not_write_is_refused(store, change):
    header = list_records(store)[0].header
    config = record_config(header)
    again = header_from_config(config)
    assert (again.key, again.scoring, again.model.params.total) == (
        header.key, header.scoring, header.model.params.total,
    )  # fmt: skip
    assert header_from_config(config | {"training_tokens": 0}).model.training_tokens == 0  # step0 of a training
    with pytest.raises(LabError) as refused:
        header_from_config(config | change)
    assert str(refused.value).isprintable() and next(iter(change)).split("_")[0] in str(refused.value)


def test_a_server_that_is_not_there_is_one_sentence(server, tmp_path):
    server.fault = lambda path, number: 500
    with pytest.raises(LabError, match=r"cannot pull runs of rbp-lab from http://127"):
        pull(tmp_path, tracking={**ONLINE, "timeout": 2.0})


def test_sources_that_cannot_be(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for source, message in (
        ("cloud", "source must be one of local, wandb, csv"),
        ("local+csv", "cannot be joined"),
        ("wandb", "needs a W&B key"),
        ("wandb-offline", "use source=local, or upload them with wandb sync"),
    ):
        with pytest.raises(LabError, match=message):
            pull(tmp_path, source=source)
