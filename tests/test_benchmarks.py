"""The benchmark: its arithmetic on made numbers, its check of answers, its record from a real short run."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rbp_lab.config.build import build
from rbp_lab.errors import LabError
from tests.benchmarks import contenders as contenders_module
from tests.benchmarks.__main__ import OWN_CONF, composed, main
from tests.benchmarks.rounds import (
    Round,
    calls_needed,
    chosen,
    others_share,
    own_times,
    ratios,
    run_rounds,
    spread,
    used,
)
from tests.benchmarks.settings import Bench

ROOT = Path(__file__).resolve().parent.parent
SHAPES = sorted(p.stem for p in (OWN_CONF / "shape").glob("*.yaml"))
QUICK = (
    "shape=tiny", "bench.rows=2", "bench.tokens=40", "bench.rounds=2", "bench.call_seconds=0.002", "bench.threads=1",
    "bench.loop_seconds=0.1", "bench.memory=false", "launch.device=cpu",
)  # fmt: skip


def made_round(others, a=1.0, b=2.0):
    return Round({"a": a, "b": b}, ("a", "b"), others)


class Meter:
    """Says of each round what it was told to say."""

    def __init__(self, *shares):
        self.shares = list(shares)

    def start(self):
        pass

    def stop(self):
        return self.shares.pop(0)


# ── arithmetic on made numbers ────────────────────────────────────────────────────────────────────────────────────


def test_spread_of_made_numbers():
    found = spread([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (found.least, found.low, found.median, found.high) == (1.0, 2.0, 3.0, 4.0)
    assert spread([7.0]).median == spread([7.0]).least == 7.0


def test_ratios_are_taken_within_a_round():
    rounds = [made_round(0.0, 1.0, 2.0), made_round(0.0, 10.0, 30.0)]  # the second on a machine ten times slower
    assert ratios(rounds, "b", "a") == [2.0, 3.0]
    assert ratios(rounds, "a", "a") == [1.0, 1.0]


@pytest.mark.parametrize(
    ("wall", "busy", "own", "processors", "share"),
    [
        (2.0, 4.0, 4.0, 2, 0.0),  # all of it ours
        (2.0, 4.0, 2.0, 2, 0.5),  # one of two processors in other hands
        (1.0, 0.9, 1.0, 4, 0.0),  # the two clocks tick differently
        (1.0, 9.0, 0.0, 4, 1.0),
        (0.0, 0.0, 0.0, 2, None),
        (1.0, 1.0, 0.0, 0, None),
    ],
)
def test_share_of_others(wall, busy, own, processors, share):
    assert others_share(wall, busy, own, processors) == share


def test_a_round_is_dirty_above_a_tenth():
    assert [made_round(x).dirty for x in (None, 0.0, 0.10, 0.11)] == [False, False, False, True]


def test_calls_needed():
    assert [calls_needed(x, 0.05) for x in (0.02, 0.05, 1.0, 1e-9, 0.0)] == [3, 1, 1, 1000, 1000]


def test_rounds_alternate_and_dirty_ones_are_repeated():
    called = []
    calls = {name: lambda name=name: called.append(name) for name in "abc"}
    told = []
    done = run_rounds(calls, 3, call_seconds=1e-12, meter=Meter(0.0, 0.5, 0.0, 0.0), told=lambda *n: told.append(n))
    assert [r.order for r in done] == [tuple("abc"), tuple("cba"), tuple("abc"), tuple("cba")]
    assert called == list("abc" + "abc" + "cba" + "abc" + "cba")  # the first three are to see how long one takes
    assert told == [(1, 0), (1, 1), (2, 1), (3, 1)]
    assert [r.others for r in chosen(done, 3)] == [0.0, 0.0, 0.0]


def test_repeating_has_a_bound_and_the_least_dirty_rounds_are_kept():
    done = run_rounds({"a": lambda: None}, 2, call_seconds=1e-12, meter=Meter(0.9, 0.3, 0.05, 0.2))
    assert len(done) == 4
    kept = chosen(done, 2)
    assert [r.others for r in kept] == [0.05, 0.2] and [r.dirty for r in kept] == [False, True]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("rows", 0), ("tokens", 1), ("rounds", 0), ("warmup", 1), ("threads", 0), ("loop_seconds", 0.0), ("tables", [])],
)
def test_settings_that_make_no_sense(setting, value):
    with pytest.raises(LabError, match=f"bench.{setting} must be"):
        replace(Bench(), **{setting: value})


# ── shapes ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_composes_and_has_the_published_size(name):
    """Parameters beside embeddings and head as published ([RBP] Table 2's S), from the configuration alone."""
    from rbp_lab.models.params import count_parameters, empty_model

    shape = build(composed([f"shape={name}"])["shape"], "shape")
    assert shape.name == name
    sizes = {
        "pythia-14m": 1_189_888, "pythia-160m": 85_056_000, "pythia-410m": 302_311_424, "pythia-1b": 805_736_448,
        "qwen2.5-0.5b": 357_898_112, "qwen2.5-7b": 6_525_621_760,
    }  # fmt: skip
    if name in sizes:
        assert count_parameters(empty_model(shape.config(2048))).non_embedding == sizes[name]


def test_weights_follow_the_seed_and_logits_are_spread_as_trained_ones():
    import torch

    shape = build(composed(["shape=tiny"])["shape"], "shape")
    one, same, other = (shape.load(torch.float32, "cpu", seed=s) for s in (0, 0, 1))
    assert torch.equal(one.get_output_embeddings().weight, same.get_output_embeddings().weight)
    assert not torch.equal(one.get_output_embeddings().weight, other.get_output_embeddings().weight)
    assert 1.5 < one(torch.arange(60)[None]).logits.std() < 4


# ── the check before timing ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def case():
    return tiny_case("float32")


def tiny_case(dtype, logits="float32"):
    import torch

    from tests.benchmarks.case import make_case, random_ids

    shape = build(composed(["shape=tiny"])["shape"], "shape")
    model = shape.load(getattr(torch, dtype), "cpu")
    ids = random_ids(2, 40, shape.vocabulary, 0)
    for column in range(1, 40, 2):  # half of the first row is what the model finds likeliest
        ids[0, column] = model(torch.from_numpy(ids[:1, :column])).logits[0, -1].argmax()
    return make_case(model, "cpu", ids, logits=logits)


@pytest.mark.parametrize(("dtype", "logits"), [("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "model")])
def test_all_contenders_are_right(dtype, logits):
    import torch

    from tests.benchmarks.table import admitted

    mine = tiny_case(dtype, logits)
    both = [*contenders_module.end_to_end(mine), *contenders_module.head_stage(mine)]
    with torch.inference_mode():
        assert {c.name: admitted(mine, c)[1] for c in both} == {c.name: "" for c in both}


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("nll", lambda x: x + 1e-3),
        ("num_greater", lambda x: x - 1),
        ("num_greater", lambda x: x + 1),
        ("num_not_less", lambda x: x - 1),
        ("num_not_less", lambda x: x + 1),
        ("greedy", lambda x: ~x),
        ("logits", lambda x: x + 1e-2),
        ("row_nll", lambda x: x + 1.0),
    ],
)
def test_the_check_sees_each_kind_of_mistake(case, field, change):
    from rbp_lab.models.head import full_logits
    from tests.benchmarks.case import Answer, judge

    z = full_logits(case.model, case.ids)[:, :-1]
    flat = z.flatten(0, 1)
    t = flat.gather(-1, case.targets[:, None])
    nll = flat.logsumexp(-1) - t[:, 0]
    greater = (flat > t).sum(-1)
    right = Answer(nll, greater, greater.clone(), greater == 0, z[-1, -8:], nll.reshape(2, -1).sum(-1))
    assert judge(case, right, "float32") == ""
    wrong = replace(right, **{field: change(getattr(right, field))})
    assert "its " in judge(case, wrong, "float32")
    nothing = replace(Answer(), **{field: getattr(wrong, field)})
    if field in ("nll", "logits", "row_nll", "greedy"):
        assert judge(case, nothing, "float32")


# ── a real short run ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    from tests.benchmarks.run import bench

    store = tmp_path_factory.mktemp("bench")
    out = io.StringIO()
    path = bench(composed([*QUICK, f"store={store}"]), Console(file=out, width=160))
    assert path.parent == store / "bench" and path.name.endswith("-tiny.json")
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    return json.loads(path.read_text()), out.getvalue()


def test_the_record_has_every_contender_and_where_it_was(record):
    made, shown = record
    ours = [f"ours: {name}" for name in contenders_module.implementations("cpu")[0]]
    assert "ours: torch" in ours
    names = {table: [row["name"] for row in made["tables"][table]["contenders"]] for table in ("end_to_end", "head")}
    assert names["end_to_end"] == ["body", "bare", *ours, "naive", "the paper's way", "lm-eval's operations"]
    assert [n for n in names["head"] if n != "F.linear_cross_entropy"] == ["product", *ours, "naive", "the paper's way"]
    assert all(row["status"] == "timed" for t in names for row in made["tables"][t]["contenders"])
    assert made["machine"]["cpu"] and made["machine"]["threads"] == 1 and "torch" in made["machine"]["versions"]
    everyone = {*made["unavailable"], *(name.removeprefix("ours: ") for name in ours)}
    assert everyone == {"torch", "numba", "triton-chunked", "triton-fused"}
    for name in (*names["end_to_end"], *names["head"]):
        assert name in shown


def test_ratios_and_times_are_those_of_the_rounds(record):
    made, _ = record
    for table, tokens in (("end_to_end", 2 * 40), ("head", 2 * 39)):
        found = made["tables"][table]
        assert found["tokens"] == tokens and sum(r["counts"] for r in found["rounds"]) == 2
        used = [r for r in found["rounds"] if r["counts"]]
        for row in found["contenders"]:
            times = [r["seconds"][row["name"]] for r in used]
            over = [r["seconds"][row["name"]] / r["seconds"][found["baseline"]] for r in used]
            assert row["us_per_token"]["least"] == pytest.approx(min(times) / tokens * 1e6)
            assert row["us_per_token"]["median"] == pytest.approx(sum(times) / 2 / tokens * 1e6)
            assert row["ratio"]["median"] == pytest.approx(sum(over) / 2)
        assert next(r for r in found["contenders"] if r["name"] == found["baseline"])["ratio"]["median"] == 1.0


def test_the_loop_counts_its_time(record):
    loop = record[0]["tables"]["loop"]
    assert loop["tokens"] == loop["documents"] * 40 and len(loop["runs"]) == 3
    for one in loop["runs"]:
        assert 0 < one["outside"] < one["seconds"]
    rates = sorted(one["tokens"] / one["seconds"] for one in loop["runs"])
    assert loop["tokens_per_second"]["median"] == pytest.approx(rates[1])


def test_a_wrong_contender_is_shown_not_timed_and_fails_the_command(tmp_path, monkeypatch, capsys):
    true = contenders_module.naive_scores

    def off_by_one(z, targets):
        nll, greater, equal = true(z, targets)
        return nll, greater + 1, equal

    monkeypatch.setattr(contenders_module, "naive_scores", off_by_one)
    monkeypatch.chdir(tmp_path)
    assert main([*QUICK, "bench.tables=[head]"]) == 1
    assert "1 of the contenders failed and were not timed: head, naive: its rank is wrong" in capsys.readouterr().err
    (path,) = (tmp_path / "multirun" / "bench").iterdir()
    rows = {r["name"]: r for r in json.loads(path.read_text())["tables"]["head"]["contenders"]}
    assert rows["naive"]["status"] == "failed" and "us_per_token" not in rows["naive"]
    assert rows["product"]["status"] == rows["the paper's way"]["status"] == "timed"


def test_without_its_baseline_a_table_has_no_times(case):
    from tests.benchmarks.table import run_table

    def fails(case):
        raise RuntimeError("no memory\nat all")

    first, *others = contenders_module.head_stage(case)
    broken = [replace(first, prepare=fails), *others]
    table = run_table(case, broken, "product", 78, Bench(rounds=1), lambda line: None, Meter(*[0.0] * 9))
    assert table["contenders"][0]["reason"] == "RuntimeError: no memory"
    assert {r["status"] for r in table["contenders"][1:]} == {"not timed"}


def test_memory_is_measured_in_a_process_of_its_own():
    from tests.benchmarks.memory import measure_memory

    vocabulary, n = 20_000, 2 * 511
    job = {
        "table": "head", "device": "cpu", "threads": 1, "dtype": "float32", "rows": 2, "tokens": 512, "seed": 0,
        "logits": "float32", "tf32": False,
        "head": {"vocabulary": vocabulary, "width": 32, "bias": False, "scale": 1.0, "softcap": None},
    }  # fmt: skip
    found = measure_memory(job, ["ours: torch", "naive", "nobody"])
    logits = n * vocabulary * 4 / 2**20  # 78 MB
    assert logits < found["naive"] < 4 * logits
    assert found["ours: torch"] < 16
    assert found["nobody"] == "KeyError: 'nobody'"


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("shape=pythia-14", "error: In 'bench': Could not find 'shape/pythia-14' Available options in 'shape': "),
        ("bench.round=3", "error: Could not override 'bench.round'."),
        ("bench.rows=0", "error: bench.rows must be at least 1; got 0"),
        ("bench.tables=[all]", "error: bench.tables must be some of end_to_end, head, loop; got ['all']"),
        ("launch.processes=2", "error: a benchmark is one process; got launch.processes=2"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, override, sentence):
    monkeypatch.chdir(tmp_path)
    assert main([override]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(sentence)
    assert list(tmp_path.iterdir()) == []


def test_peers_that_are_absent_are_one_line_and_a_user_s_own_model_runs(tmp_path, tiny_gpt2_dir, monkeypatch, capsys):
    from tests.benchmarks.peers import PEERS, installed

    monkeypatch.chdir(tmp_path)
    present, absent = installed()
    assert main(["--peers", "model=hf", f"model.path={tiny_gpt2_dir}", *QUICK[1:]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny-gpt2, 2 × 40 tokens, float32, logits float32, on cpu"
    if len(present) < len(PEERS):
        assert absent in lines
    (path,) = (tmp_path / "multirun" / "bench").iterdir()
    assert json.loads(path.read_text())["peers"] == {"installed": present, "absent": absent}
    assert lines[-1] == f"record: {path.relative_to(tmp_path)}"


def test_a_model_too_short_for_the_rows(tmp_path, tiny_gpt2_dir, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["model=hf", f"model.path={tiny_gpt2_dir}", "bench.tokens=200"]) == 1
    assert "has only 128 positions" in capsys.readouterr().err


def test_the_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "python -m tests.benchmarks" in done.stdout and "rounds: 5" in done.stdout


# Stands for vLLM where it is not installed: the calls that are made of it, answered by transformers.
STAND_IN = """
import torch
from types import SimpleNamespace as Some
from transformers import AutoModelForCausalLM

def SamplingParams(**given):
    assert given["prompt_logprobs"] == 0 and given["max_tokens"] == 1
    return Some(**given)

class LLM:
    def __init__(self, model, dtype, max_model_len, **_):
        print("noise on the same channel")
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))

    def generate(self, prompts, sampling, use_tqdm):
        found = []
        for row in (p["prompt_token_ids"] for p in prompts):
            log_p = self.model(torch.tensor([row])).logits[0, :-1].float().log_softmax(-1)
            at = [{t: Some(logprob=float(p[t]))} for p, t in zip(log_p, row[1:])]
            found.append(Some(prompt_logprobs=[None, *at]))
        return found
"""


@pytest.mark.parametrize("broken", [False, True])
def test_vllm_answers_from_a_process_of_its_own(tmp_path, monkeypatch, broken):
    import torch

    from tests.benchmarks.case import make_case, random_ids
    from tests.benchmarks.peers import peer_contenders
    from tests.benchmarks.table import admitted
    from tests.conftest import build_tiny_model

    crash = 'raise SystemExit("no room for the cache")\n' if broken else ""
    (tmp_path / "vllm.py").write_text(crash + STAND_IN)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    case = make_case(build_tiny_model("gpt_neox"), "cpu", random_ids(2, 20, 384, 0))
    (contender,) = peer_contenders(["vllm"])
    with torch.inference_mode():
        call, why = admitted(case, contender)
    if broken:
        assert call is None and why == "RuntimeError: its process ended: no room for the cache"
    else:
        assert why == "" and call() == pytest.approx(call())
        assert contender.answer([0.0, 0.0], case).row_nll.tolist() == [0.0, 0.0]


def test_the_work_of_a_child_is_not_others_work():
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    before = own_times() | {0: 99.0}  # and a process that ends meanwhile, which takes nothing away
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert 0.4 < used(before, own_times()) < 99.0
        child.stdin.close()
