"""The stage: a record is made once, found again under every name, and nothing is left after a failure."""

import shutil
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from rbp_lab import metrics
from rbp_lab.analysis.sources import Selection, gather
from rbp_lab.commands.measure import measure
from rbp_lab.config.schemas import Filters, KSpec
from rbp_lab.errors import LabError
from rbp_lab.measurement.observers import Callback
from rbp_lab.models import HFModel
from rbp_lab.models.placement import load_pretrained
from rbp_lab.models.scorer import Scorer
from rbp_lab.scoring.linear import product_for
from rbp_lab.store.records import list_records, read_record
from tests.conftest import build_tiny_model
from tests.sources import measure_config


def test_the_implementation_is_known_before_the_run(tiny_model_dir, tmp_path):
    model = build_tiny_model("gpt2")
    assert Scorer(model, "cpu").implementation in ("numba", "torch")
    with pytest.raises(LabError, match=r"scoring.implementation=triton-chunked .*(GPU|triton)"):
        Scorer(model, "cpu", implementation="triton-chunked")
    outcome = measure(measure_config(tiny_model_dir, tmp_path, scoring__implementation="torch"))
    assert outcome.record.provenance["implementation"] == "torch"
    assert outcome.record.provenance["product"] == product_for("cpu", torch.float32)


def test_several_data_sets_load_a_model_once(tiny_model_dir, tiny_gpt2_dir, tmp_path, monkeypatch):
    loaded = []

    def counted(where, **arguments):
        loaded.append(Path(arguments["pretrained_model_name_or_path"]).name)
        return load_pretrained(where, **arguments)

    monkeypatch.setattr("rbp_lab.models.hf.load_pretrained", counted)
    for directory in (tiny_gpt2_dir, tiny_model_dir):
        for seed in (1, 2):
            assert measure(measure_config(directory, tmp_path, dataset__seed=seed)).measured
    measure(measure_config(tiny_model_dir, tmp_path, precision__dtype="bfloat16"))
    assert loaded == ["tiny-gpt2", "tiny-neox", "tiny-neox"]


class Seen(Callback):
    """Keeps the arguments of its last calls, for the tests of a whole measurement."""

    last: ClassVar[dict] = {}

    def on_start(self, run):
        Seen.last = {"header": run.header}

    def on_record(self, record, path):
        Seen.last |= {"record": record, "path": path}

    def on_error(self, error):
        Seen.last |= {"error": error}

    def close(self):
        Seen.last |= {"closed": True}


SEEN = {"seen": {"_target_": "tests.test_measurement.Seen"}}


def test_callbacks_get_the_record_once_it_is_in_the_store(tiny_model_dir, tmp_path):
    outcome = measure(measure_config(tiny_model_dir, tmp_path, callbacks=SEEN))
    seen = Seen.last
    assert seen["header"] == outcome.record.header == seen["record"].header and "error" not in seen
    assert seen["path"] == outcome.path and seen["record"].stats == outcome.record.stats and seen["closed"]


def test_callbacks_get_the_error_when_the_record_cannot_be_written(tiny_model_dir, tmp_path):
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises((OSError, LabError)) as raised:
        measure(measure_config(tiny_model_dir, tmp_path, callbacks=SEEN))
    assert Seen.last["error"] is raised.value and "record" not in Seen.last and Seen.last["closed"]


def test_a_measurement_is_found_again_and_forced_anew(tiny_model_dir, tmp_path):
    config = measure_config(tiny_model_dir, tmp_path)
    first = measure(config)
    assert first.measured and first.path.name == first.record.key
    again = measure({**config, "scoring": {"batch_tokens": 64}})
    assert not again.measured and again.record == first.record
    forced = measure({**config, "force": True})
    assert forced.measured and forced.record.stats == first.record.stats
    other = measure(measure_config(tiny_model_dir, tmp_path, dataset__num_documents=5))
    assert other.measured and other.record.key != first.record.key
    assert len(list_records(tmp_path)) == 2


def names_of(points):
    return set(zip(points["model"], points["family"], points["dataset"], strict=True))


def gathered(store, **filters):
    return gather(Selection(str(store), KSpec([1, 5]), filters=Filters(**filters))).points


def test_new_names_relabel_the_finished_record_and_the_old_ones_still_find_it(tiny_model_dir, tmp_path, capsys):
    config = measure_config(tiny_model_dir, tmp_path, dataset__name="corpusA")
    first = measure(config)
    capsys.readouterr()
    changed = {**config["model"], "name": "big", "family": "mine"}
    again = measure({**config, "model": changed, "dataset": {**config["dataset"], "name": "corpusB"}})
    assert not again.measured and again.path == first.path and again.record.stats == first.record.stats
    assert again.line().startswith("big on corpusB: found measured")
    (note,) = capsys.readouterr().err.splitlines()
    assert "tiny of family tiny on corpusA" in note and "now called big of family mine on corpusB" in note
    (record,) = list_records(tmp_path)
    assert record == again.record and record.header.names == ("big", "mine", "corpusB")
    new, old = ("big", "mine", "corpusB"), ("tiny", "tiny", "corpusA")
    assert names_of(gathered(tmp_path)) == {new}  # one record: a law counts the model once
    assert names_of(gathered(tmp_path, dataset="corpusB")) == names_of(gathered(tmp_path, dataset="corpus*")) == {new}
    assert names_of(gathered(tmp_path, dataset="corpusA")) == {("big", "mine", "corpusA")}
    assert names_of(gathered(tmp_path, model=["tiny"])) == {("tiny", "tiny", "corpusB")}
    assert names_of(gathered(tmp_path, family="tiny", dataset="corpusA")) == {old}
    with pytest.raises(LabError, match="none of 1 finished runs passes"):
        gathered(tmp_path, model="big", family="tiny")  # it was never called that
    measure(config)
    assert names_of(gathered(tmp_path)) == {old} and names_of(gathered(tmp_path, family="mine")) == {
        ("big", "mine", "corpusA")
    }
    assert measure(config).record.header.names == old and len(capsys.readouterr().err.splitlines()) == 1


def test_measuring_anew_keeps_the_names_too(tiny_model_dir, tmp_path):
    config = measure_config(tiny_model_dir, tmp_path, dataset__name="corpusA")
    measure(config)
    measure({**config, "force": True, "dataset": {**config["dataset"], "name": "corpusB"}})
    assert names_of(gathered(tmp_path, dataset="corpusA")) == {("tiny", "tiny", "corpusA")}
    assert names_of(gathered(tmp_path)) == {("tiny", "tiny", "corpusB")}


def test_a_sweep_over_data_sets_loads_the_weights_once_and_other_weights_anew(tiny_model_dir, tmp_path, monkeypatch):
    real, loaded = HFModel._load, []
    monkeypatch.setattr(HFModel, "_load", lambda self, *a: loaded.append(self.path) or real(self, *a))
    model = shutil.copytree(tiny_model_dir, tmp_path / "model")
    first, second = (measure(measure_config(model, tmp_path / "s", dataset__seed=seed)).record for seed in (1, 2))
    assert len(loaded) == 1 and second.stats != first.stats
    other = measure(measure_config(model, tmp_path / "s", dataset__seed=2, precision__dtype="bfloat16")).record
    assert len(loaded) == 2 and other.stats != second.stats
    weights = load_file(model / "model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, model / "model.safetensors", {"format": "pt"})
    changed = measure(measure_config(model, tmp_path / "s", dataset__seed=2, precision__dtype="bfloat16")).record
    assert len(loaded) == 3 and changed.stats != other.stats


def test_a_damaged_record_is_measured_again(tiny_model_dir, tmp_path, capsys):
    config = measure_config(tiny_model_dir, tmp_path)
    first = measure(config)
    table = first.path / "ranks.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    again = measure(config)
    assert again.measured and again.record.stats == first.record.stats
    assert "the checksum of ranks.parquet does not hold" in capsys.readouterr().err
    assert not measure(config).measured


def test_a_finished_record_is_found_where_nothing_may_be_written(tiny_model_dir, tmp_path, capsys, monkeypatch):
    config = measure_config(tiny_model_dir, tmp_path)
    first = measure(config)

    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    for name in ("open", "mkdir"):  # every atomic write begins with one of these
        monkeypatch.setattr(f"os.{name}", refuse)
    assert measure(config).record == first.record
    other = measure({**config, "dataset": {**config["dataset"], "name": "corpusB"}})
    assert other.record.header.names == ("tiny", "tiny", "corpusB") and other.record.stats == first.record.stats
    note = capsys.readouterr().err.splitlines()[-1]
    assert "stays called tiny of family tiny on made-up in the store" in note and "Read-only file system" in note
    assert read_record(first.path) == first.record


def test_what_a_record_says(tiny_model_dir, tmp_path):
    record = measure(measure_config(tiny_model_dir, tmp_path)).record
    assert record.model.vocab_rows == 384 and record.model.tokenizer_size == 300
    assert record.provenance["documents_without_tokens"] == 2
    assert record.dataset.num_documents == 25 and len(record.documents) == 23
    assert record.document_names[record.documents.document_id[0]] == f"text-{record.documents.document_id[0]}"
    assert record.summary["num_tokens"] == record.stats.num_tokens
    assert record.stats.num_bytes > 0 and record.summary["bits_per_byte"] > 0


def test_masking_padded_rows_changes_ranks_and_the_key(tiny_model_dir, tmp_path):
    rows = measure(measure_config(tiny_model_dir, tmp_path)).record
    masked = measure(measure_config(tiny_model_dir, tmp_path, scoring__candidates="tokenizer")).record
    assert masked.key != rows.key and metrics.cross_entropy(masked.stats) < metrics.cross_entropy(rows.stats)
    assert masked.stats.counts[300:].sum() == 0 < rows.stats.counts[300:].sum()


def test_an_interrupted_measurement_leaves_nothing_and_can_be_repeated(tiny_model_dir, tmp_path, monkeypatch):
    config = measure_config(tiny_model_dir, tmp_path, scoring__batch_tokens=64)
    real, calls = Scorer.__call__, []

    def killed(self, batch):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(Scorer, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        measure(config)
    assert list_records(tmp_path) == [] and not list(tmp_path.glob("runs/*"))
    monkeypatch.setattr(Scorer, "__call__", real)
    interrupted_then_whole = measure(config).record
    assert interrupted_then_whole.stats == measure(measure_config(tiny_model_dir, tmp_path / "x")).record.stats


def test_too_many_tokens_for_the_model(tiny_model_dir, tmp_path):
    with pytest.raises(LabError, match="max_tokens=512, but model tiny has only 128 positions"):
        measure(measure_config(tiny_model_dir, tmp_path, dataset__protocol={"max_tokens": 512}))


def test_bf16_is_recorded_and_ranked_in_float32(tiny_model_dir, tmp_path):
    full = measure(measure_config(tiny_model_dir, tmp_path)).record
    half = measure(measure_config(tiny_model_dir, tmp_path, precision__dtype="bfloat16")).record
    assert half.scoring.dtype == "bfloat16" and half.key != full.key
    assert metrics.cross_entropy(half.stats) == pytest.approx(metrics.cross_entropy(full.stats), rel=0.02)
    rounded = measure(
        measure_config(tiny_model_dir, tmp_path, precision={"dtype": "bfloat16", "logits": "model"})
    ).record
    assert metrics.tie_rate(rounded.stats) > 10 * metrics.tie_rate(half.stats)
