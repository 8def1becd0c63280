"""Two models in one pass: the numbers of two measurements, however the work is cut; what cannot be compared is said."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from rbp_lab import metrics
from rbp_lab.commands.compare_models import job_from_config
from rbp_lab.commands.compare_models import run as compare_models
from rbp_lab.commands.measure import measure
from rbp_lab.comparison.differences import compare
from rbp_lab.comparison.findings import WHOLE, calibration, findings, paired, transitions
from rbp_lab.comparison.percentiles import PERCENTILES, percentiles
from rbp_lab.comparison.record import read_pair
from rbp_lab.comparison.run import floors, run_pair
from rbp_lab.comparison.summary import summary
from rbp_lab.config.arguments import parse
from rbp_lab.errors import LabError, WrongUsage
from rbp_lab.measurement import instrument
from rbp_lab.measurement.worker import answer_to
from rbp_lab.store.layout import Store
from tests.conftest import build_tiny_model, build_tiny_tokenizer
from tests.sources import PAIR_KS, begin, interrupted_after, measure_config, pair_config


def run(config):
    return run_pair(job_from_config(config))[0]


@pytest.fixture(scope="module")
def whole(tiny_model_dir, tiny_near_dir, tmp_path_factory):
    return run(pair_config(tiny_model_dir, tiny_near_dir, tmp_path_factory.mktemp("whole")))


def test_what_a_measurement_counts_as_well_is_what_it_counts(tiny_model_dir, tiny_near_dir, whole, tmp_path):
    for side, path in (("a", tiny_model_dir), ("b", tiny_near_dir)):
        record = measure(measure_config(path, tmp_path)).record
        assert record.key == getattr(whole.header, side).key
        n = whole.sums.column("tokens").sum()
        assert n == record.stats.num_tokens
        for name, value in (("nll", metrics.cross_entropy), ("entropy", metrics.predictive_entropy)):
            mean = whole.sums.column(f"{name}_{side}").sum() / 2**24 / n
            assert mean == pytest.approx(value(record.stats), rel=1e-6)
        for k in PAIR_KS:  # tiles of another shape may round a logit otherwise
            assert abs(whole.sums.column(f"hit_{side}_{k}").sum() - metrics.rbp(record.stats, k) * n) <= 2


@pytest.mark.parametrize("changes", [
    {"launch__shard_tokens": 100, "scoring__batch_tokens": 64}, {"scoring__batch_tokens": 10**5},
], ids=["shards", "batches"])  # fmt: skip
def test_shards_and_batches_change_nothing(tiny_model_dir, tiny_near_dir, whole, tmp_path, changes):
    config = pair_config(tiny_model_dir, tiny_near_dir, tmp_path)
    for path, value in changes.items():
        group, key = path.split("__")
        config[group] = {**config[group], key: value}
    record = run(config)
    assert record.sums == whole.sums and record.names == whole.names and record.header.key == whole.header.key
    assert read_pair(tmp_path, record.header.key) == record
    config["a"] = config["a"] | {"model": config["a"]["model"] | {"name": "another name"}}
    found, made = run_pair(job_from_config(config))
    assert not made and found.sums == whole.sums and found.header.a.model.name == "another name"


def test_swapping_the_models_mirrors_everything(tiny_model_dir, tiny_near_dir, whole, tmp_path):
    back = run(pair_config(tiny_near_dir, tiny_model_dir, tmp_path))
    assert back.sums == whole.sums.mirrored() and back.header.key != whole.header.key


def test_a_model_differs_from_itself_by_nothing_and_noise_by_little(tiny_model_dir, tiny_near_dir, whole, tmp_path):
    same = run(pair_config(tiny_model_dir, tiny_model_dir, tmp_path)).sums
    for name in ("kl_a", "kl_b", "variation", "moved", "rank_move", "delta_p", "delta_p_square"):
        assert not same.column(name).any(), name
    assert (same.column("agree") == same.column("tokens")).all()
    found = floors(job_from_config(pair_config(tiny_model_dir, tiny_near_dir, tmp_path)))
    kl = {name: one.sums.column("kl_a").sum() for name, one in found.items()}
    assert 0 < kl["noise"] < whole.sums.column("kl_a").sum() / 100 and kl["batch"] < kl["noise"]
    assert len({one.header.key for one in found.values()}) == 2


def test_the_floor_takes_rows_as_long_as_the_model_has_positions(tiny_gpt2_dir, tmp_path):
    rows = {"windows": "packed", "max_tokens": 128}  # GPT-2 has a table of 128 positions
    config = pair_config(tiny_gpt2_dir, tiny_gpt2_dir, tmp_path, dataset__protocol=rows)
    found = floors(job_from_config(config))
    assert all(one.sums.column("tokens").sum() > 128 for one in found.values())


def test_an_interrupted_comparison_goes_on(tiny_model_dir, tiny_near_dir, whole, tmp_path, monkeypatch, capsys):
    config = pair_config(tiny_model_dir, tiny_near_dir, tmp_path, launch__shard_tokens=100)
    with interrupted_after(3, monkeypatch):
        run(config)
    (partial,) = Store(tmp_path).partials()
    assert len(partial.finished()) == 3 and not list(tmp_path.glob("comparisons/*"))
    with monkeypatch.context() as patch, pytest.raises(LabError, match="computed on cpu with rows"):
        patch.setattr(instrument, "probe_rows", lambda *_: instrument.RowRules(padded=False))
        run(config)
    partial.shard(1).write_bytes(b"damaged")
    record = run(config)
    assert record.sums == whole.sums and not Store(tmp_path).partials()
    assert "it is measured again" in capsys.readouterr().err


def test_a_worker_does_its_part(tiny_model_dir, tiny_near_dir, whole, tmp_path, monkeypatch):
    config = pair_config(tiny_model_dir, tiny_near_dir, tmp_path, launch__shard_tokens=100)
    begin(job_from_config(config))
    order = {"command": "compare_models", "config": config, "key": whole.header.key}
    assert answer_to(order | {"place": {"rank": 1, "world": 2}}) == {"done": True}
    monkeypatch.delattr("rbp_lab.measurement.prepare.prepare")  # one that comes later finds everything done
    assert answer_to(order | {"place": {"rank": 0, "world": 2}}) == {"done": True}
    assert read_pair(tmp_path, whole.header.key).sums == whole.sums


@pytest.mark.slow
def test_two_processes_give_the_record_of_one(tiny_model_dir, tiny_near_dir, whole, tmp_path):
    config = pair_config(tiny_model_dir, tiny_near_dir, tmp_path, launch__shard_tokens=100, launch__processes=2)
    record = run(config)
    assert record.sums == whole.sums and record.provenance["processes"] == 2


def test_findings_are_those_of_the_tokens(whole):
    about = findings(whole.sums)
    all_tokens = {f.name: f for f in about if f.cell == WHOLE}
    for name, column in (("KL(a‖b)", "kl_a"), ("KL(b‖a)", "kl_b"), ("total variation", "variation")):
        cells = [f for f in about if f.name == name and f.cell != WHOLE]
        assert sum(f.value * f.tokens for f in cells) == pytest.approx(whole.sums.column(column).sum() / 2**24)
        assert all_tokens[name].low < all_tokens[name].value < all_tokens[name].high
    assert sum(f.tokens for f in about if f.name == "mean Δp") == 2 * all_tokens["mean Δp"].tokens
    low, middle, high = (one.value for one in percentiles(whole.sums, wanted=(1, 50, 99)))
    assert low < middle < high and abs(all_tokens["mean Δp"].value) < all_tokens["RMS Δp"].value < high
    moves = transitions(whole.sums)
    assert np.trace(moves) > moves.sum() / 2 and moves.sum() == all_tokens["rank moved"].tokens
    assert np.tril(moves, -1).sum() <= whole.sums.column("moved_up").sum()  # below the diagonal b is better
    sides = {side: [c for c in calibration(whole.sums) if c.side == side] for side in "ab"}
    assert all(sum(c.tokens for c in side) == moves.sum() for side in sides.values())


def test_the_command_prints_and_keeps_it_with_a_page(tiny_model_dir, tiny_near_dir, tmp_path, capsys):
    assert compare_models(pair_config(tiny_model_dir, tiny_near_dir, tmp_path) | {"floor": True}) == "compared"
    out = capsys.readouterr().out
    assert "b − a of cross-entropy" in out and "the first choice is the same at" in out and "a with noise" in out
    assert "tokens of a draft of either that the other accepts" in out
    pairs = Store(tmp_path).pairs()  # and a with noise, and a in another batch
    assert len(pairs) == 3 and all(p.header.is_file() and p.table("runs").is_file() for p in pairs)
    (made,) = [p for p in pairs if p.report.is_file()]
    page = made.report.read_text()
    assert len(pd.read_csv(made.accepted)) == 4
    moves = pd.read_csv(made.percentiles)
    assert len(moves) % 9 == 0 and set(moves[moves["cell"] == "all"]["percent"]) == set(PERCENTILES)
    noise = next(read_pair(tmp_path, p.directory.name) for p in pairs if p != made)  # the other floor is 0
    floor = summary(read_pair(tmp_path, made.directory.name), {"noise": noise}, 0.95).floor["noise"]
    for d in compare(paired(noise.sums)):
        assert floor.differences[d.name] == max(-d.low, d.high) >= abs(d.difference)
    for what in ("tiny-b against tiny-a on made-up", "Ranks under a and under b", "Calibration of both",
                 "Accepted tokens", "By the confidence of a", "Of b − a it is the end of the interval",
                 "Documents, those that carry the difference first"):  # fmt: skip
        assert what in page


def test_what_cannot_be_compared_is_said(tiny_model_dir, tiny_near_dir, tmp_path):
    other = shutil.copytree(tiny_near_dir, tmp_path / "other")
    build_tiny_tokenizer(290).save_pretrained(other)
    with pytest.raises(LabError, match="make other tokens of made-up, so only bits per byte of text can be compared"):
        run(pair_config(tiny_model_dir, other, tmp_path))
    config = pair_config(tiny_model_dir, tiny_near_dir, tmp_path)
    for perturbation, why in (("nose", "perturbation must be one of noise, batch"), ("noise", "must be the same")):
        with pytest.raises(LabError, match=why):
            run(config | {"perturbation": perturbation})
    with pytest.raises(LabError, match=r"precision\.tf32 must be the same"):
        run(config | {"b": config["b"] | {"precision": {"tf32": True}}})
    seen = build_tiny_tokenizer()("quick brown fox")["input_ids"]
    late = next(iter(set(seen) - {i * 7919 % 384 for i in range(64)}))  # a token that is not tried before the pass
    for token, why in ((late, r"models tiny-a: .*tiny-b: its weight .*holds NaN.*: non-finite logits in document"),
                       (slice(None), "model tiny-b: its weight .*holds NaN")):  # fmt: skip
        broken = tmp_path / f"broken-{token == late}"
        shutil.copytree(tiny_near_dir, broken)
        model = type(build_tiny_model("gpt_neox")).from_pretrained(tiny_near_dir)
        model.get_input_embeddings().weight.data[token, 0] = torch.nan
        model.save_pretrained(broken)
        with pytest.raises(LabError, match=why):
            run(pair_config(tiny_model_dir, broken, tmp_path))
    with pytest.raises(LabError, match="ks must be a rising list"):
        run(config | {"ks": [5, 1]})


def test_one_document_has_no_interval(tiny_model_dir, tiny_near_dir, tmp_path, capsys):
    config = pair_config(tiny_model_dir, tiny_near_dir, tmp_path)
    compare_models(config | {"dataset": config["dataset"] | {"num_documents": 3}})
    assert "one document has no interval" in capsys.readouterr().out


def test_words_of_the_command_line():
    words = ["model@a=gpt2", "model@b=hf", "b.model.path=x", "precision=bf16", "dataset=x"]
    given = parse("compare", words)
    assert given.command == "compare_models" and given.overrides == (
        "model@a.model=gpt2", "model@b.model=hf", "b.model.path=x", "precision@a=bf16", "precision@b=bf16", "dataset=x",
    )  # fmt: skip
    assert parse("compare", ["one", "two"]).command == "compare" and parse("measure", ["model=x"]).command == "measure"
    with pytest.raises(WrongUsage, match="two models, model@a=… and model@b=…"):
        parse("compare", ["model@a=gpt2"])


def test_names_are_not_part_of_the_key(whole):
    header = whole.header
    renamed = replace(header, a=header.a.named("other", "family", "corpus"))
    assert renamed.key == header.key and replace(header, ks=(1,)).key != header.key
