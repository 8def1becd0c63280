"""The command line in this process: composing, mistakes in one line, exit codes, sweeps, from any directory."""

import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from rbp_lab.cli import COMMANDS, main
from rbp_lab.errors import LabError
from tests.sources import MadeUpText

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Done:
    """What a command line left: exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The single line on stderr of a command that refused; asserts that it is one, and no traceback."""
        assert self.code != 0 and "Traceback" not in self.err + self.out
        (line,) = [x for x in self.err.splitlines() if x.strip()]
        assert line.startswith("error: ")
        return line.removeprefix("error: ")


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """``rbp-lab WORDS`` in this process, in the directory ``cwd`` (a new one by default)."""

    def run(*words, cwd=tmp_path):
        monkeypatch.chdir(cwd)
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit:
            main([str(w) for w in words])
        return Done(exit.value.code, *capfd.readouterr())

    return run


def start(*words, cwd, **options):
    """``rbp-lab WORDS`` as a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    command = [sys.executable, "-m", "rbp_lab", *words]
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, **pipes)


@pytest.fixture(scope="module")
def family(tmp_path_factory, tiny_model_dir, tiny_gpt2_dir):
    """A user's own directory: two models of a family, a dataset of text files, and nothing else."""
    home = tmp_path_factory.mktemp("user")
    for group in ("model", "dataset"):
        (home / "mine" / group).mkdir(parents=True)
    for name, path in (("our-a", tiny_model_dir), ("our-b", tiny_gpt2_dir)):
        node = {"defaults": ["hf", "_self_"], "name": name, "family": "ours", "path": str(path)}
        (home / "mine" / "model" / f"{name}.yaml").write_text(yaml.safe_dump(node))
    texts = [f"the quick brown fox number {i} " + "jumps over the lazy dog " * (3 + i % 5) for i in range(12)]
    (home / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    node = {"defaults": ["local", "_self_"], "name": "foxes", "files": "texts.jsonl", "protocol": {"max_tokens": 64}}
    (home / "mine" / "dataset" / "foxes.yaml").write_text(yaml.safe_dump(node))
    return home


# ── usage ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_usage_and_version(run):
    done = run("--help")
    assert done.code == 0 and "usage: rbp-lab SUBCOMMAND" in done.out
    assert run().code == 2
    assert run("--version").out.startswith("rbp-lab ") and run("measure", "--version").code == 0


@pytest.mark.parametrize(
    ("words", "starts"),
    [
        (["mesure"], "rbp-lab: no such subcommand 'mesure'; did you mean measure? expected one of demo, train"),
        (["bench"], "the benchmarks run from a clone of the project: make bench"),
        (["ls", "foo"], "an override is key=value; got 'foo'"),
        (["ls", "=x"], "an override is key=value; got '=x'"),
        (["measure", "--nope"], "unrecognized arguments: --nope; rbp-lab measure --help"),
        (["measure", "--config-dir"], "argument -cd/--config-dir: expected one argument"),
        (["measure", "-m", "--cfg", "all"], "only one of --run, --multirun, --cfg and --info"),
        (["measure", "--info", "x"], "argument -i/--info: invalid choice"),
        (["measure", "--cfg", "jobs"], "argument -c/--cfg: invalid choice"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(run, words, starts):
    done = run(*words)
    assert done.code == 2 and done.error.startswith(starts)


def test_a_process_group_from_outside_is_refused(run, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "without torchrun or accelerate launch" in run("measure").error


def test_hydras_own_flags(run):
    node = yaml.safe_load(run("measure", "--cfg", "job", "model=pythia-14m", "k=table2").out)
    assert node["model"]["path"] == "EleutherAI/pythia-14m" and node["k"]["thresholds"][-1] == 10000
    assert run("measure", "-c", "job", "-p", "model.name").out.strip() == "ladder-1"


def test_a_sweep_shows_the_configuration_of_each_of_its_jobs(run):
    done = run("measure", "-m", "--cfg", "job", "model=gguf,gpt2-xl", "dataset=c4,pile")
    shown = list(yaml.safe_load_all(done.out))
    assert done.code == 0 and len(shown) == 4 and done.out.startswith("--- # model=gguf dataset=c4\n")
    assert {one["dataset"]["name"] for one in shown} == {"c4", "pile"}
    assert {one["model"]["path"] for one in shown} >= {"???", "openai-community/gpt2-xl"}
    assert "no such dataset=c5" in run("measure", "-m", "--cfg", "job", "dataset=c5").error
    assert "the sweep has no job" in run("measure", "-m", "--cfg", "job", "model=glob(nothing*)").error


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_its_configuration(run, command):
    done = run(command, "--help")
    assert done.code == 0 and "store" in done.out


def test_nobody_reading_the_output_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    process = start("--help", cwd=tmp_path, stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 141 and err == ""


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "term")]
)
def test_a_signal_ends_a_job_quietly(run, tmp_path, number, code, said):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text(f"_target_: tests.test_cli.interrupted\nn: {int(number)}\n")
    done = run("measure", "--config-dir", ".", "dataset=mine", "tracking=none")
    assert done.code == code and done.err.startswith(said) and "Traceback" not in done.err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def interrupted(n):
    """A dataset whose making is interrupted by signal ``n``."""
    os.kill(os.getpid(), n)
    raise AssertionError("the signal was not seen")


# ── mistakes in the configuration ─────────────────────────────────────────────────────────────────────────────────────


SEEN_AT_WORK = ("dataset.files: no file", "model ladder-1 is not in", "cannot write")


@pytest.mark.parametrize(
    ("overrides", "starts", "contains"),
    [
        (["model=pythia-12bb"], "model: no such model=pythia-12bb; did you mean pythia-12b", "rbp-lab ls models lists"),
        (["model=owner/tiny"], "model=owner/tiny: a path is no name of a model", "model=hf model.path=owner/tiny"),
        (["dataset.max_tokens=12"], "dataset.max_tokens: no such key;", "protocol"),
        (["+dataset.max_tokens=12"], "dataset.max_tokens: no such key;", "protocol"),
        (["+nothing=12"], "nothing: no such key;", "model"),
        (["dataset.protocol.max_tokens=many"], "dataset.protocol.max_tokens must be a whole number; got 'many'", ""),
        (["dataset.protocol.max_tokens=1.5"], "dataset.protocol.max_tokens must be a whole number; got 1.5", ""),
        (["scoring.batch_tokens=true"], "scoring.batch_tokens must be a number; got true", ""),
        (["dataset.protocol.windows=sliding"], "dataset.protocol.windows must be one of", "truncate, rolling, packed"),
        (["dataset.protocol=7"], "dataset.protocol must be a mapping; got 7", ""),
        (["scoring.batch_tokens=x"], "scoring.batch_tokens must be a whole number; got 'x'", ""),
        (["scoring.implementation=fast"], "scoring.implementation must be one of", "auto"),
        (["scoring=null", "scoring.candidates=x"], "", "scoring"),
        (["scoring.logits_mb=nan"], "scoring.logits_mb must be more than 0", "got nan"),
        (["scoring.logits_mb=inf"], "scoring.logits_mb must be more than 0", "got inf"),
        (["scoring.logits_mb=-1"], "scoring.logits_mb must be more than 0", "got -1.0"),
        (["modle=ladder-1"], "modle: no such key; did you mean model?", "precision"),
        (["force=maybe"], "force must be true or false; got 'maybe'", ""),
        (["store=[a,b]"], "store must be a text; got ['a', 'b']", ""),
        (["precision=fp9"], "precision: no such precision=fp9", "bf16, fp16, fp32"),
        (["precision.dtype=float31"], "precision.dtype must be one of", "did you mean float32?"),
        (["k.thresholds=[3,1]"], "k.thresholds ", "rising list"),
        (["k.thresholds=3"], "k.thresholds must be a list; got 3", ""),
        (["k.thresholds=[1,x]"], "k.thresholds.1 must be a whole number; got 'x'", ""),
        (["k.thresholds=[1,99999999999]"], "k.thresholds must be at most", "99999999999"),
        (["k=10"], "k: no such k=10; expected one of", "k.thresholds=[10]"),
        (["-m", "k=paper,7"], "k: no such k=7; expected one of", "k.thresholds=[7]"),
        (["experiment=paper"], "experiment: no such group of rbp-lab measure; expected one of model, dataset", ""),
        (["k.windows=[]"], "k.windows ", "rising list"),
        (["model=ladder"], "model.width must be given, as model.width=… (a multiple of 4)", ""),
        (["model=hf"], "model.path must be given, as model.path=… (hub id (owner/model) or local directory)", ""),
        (["model=null"], "", "model=null"),
        (["model._target_=no.such.Thing"], "model._target_: cannot import 'no.such.Thing'", ""),
        (["model._target_=os.sep"], "model._target_: expected a class or function", ""),
        (["~model._target_"], "model must be a mapping with _target_", ""),
        (["model._target_=tests.sources.MadeUpText"], "model.", "no such key"),
        (["model.name=12e45"], "model.name must be a text; got 1.2e+46, a number", "quote"),
        (["model.name=true"], "model.name must be a text; got true, a truth value", "quote"),
        (["model.name=null"], "model.name must be a text; got null", ""),
        (["launch.processes=0"], "launch.processes must be ", "got 0"),
        (["launch.processes=100000"], "launch.processes must be ", "got 100000"),
        (["callbacks.progress=7"], "callbacks.progress must be a mapping with _target_", ""),
        (["+callbacks.mine.x=7"], "callbacks.mine must be a mapping with _target_", ""),
        (["store=${nowhere}"], "", "Interpolation key 'nowhere' not found"),
        (["tracking.mode=cloud"], "tracking.mode must be one of", "offline"),
        (["model=ladder-1,ladder-2"], "cannot read the override 'model=ladder-1,ladder-2'", "a sweep, which takes -m"),
        (["dataset=local", 'dataset.files="~nobody-here.txt"'], "dataset.files: no file ~nobody-here.txt", ""),
        (["model=[a,b]"], "", "model"),
        (["model=ladder-1"], "model ladder-1 is not in ", "run: rbp-lab train model=ladder-1"),
        (["dataset=local", "dataset.files=nowhere.txt"], "", "nowhere.txt"),
        (["-m", "model=glob(nothing-*)"], "the sweep has no job", "rbp-lab ls"),
        (["-m", "hydra/launcher=nowhere"], "hydra/launcher: no such hydra/launcher=nowhere", "basic"),
        (["hydra/launcher=slurm"], "hydra/launcher takes -m", "a sweep"),
        (["store="], "store must name a directory; got ''", ""),
        (["store=/proc/nowhere"], "cannot write /proc/nowhere", ""),
        (["--config-dir", "nowhere"], "--config-dir must be a directory", "nowhere"),
        (["--config-name", "nowhere"], "", "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_a_mistake_is_one_line_with_path_and_choices(run, tmp_path, overrides, starts, contains):
    done = run("measure", "tracking=none", *overrides)
    assert done.error.startswith(starts) and contains in done.error
    assert done.code == (1 if done.error.startswith(SEEN_AT_WORK) else 2)
    assert not (tmp_path / "multirun" / "runs").exists() and not (tmp_path / "multirun" / "errors").exists()


@pytest.mark.parametrize(
    "name",
    ["in/eq=1.jsonl", "in/a[1].jsonl", "in/ha#sh.jsonl", "naïve.jsonl", "a(1).jsonl", "it's.jsonl", 'sa"id.jsonl',
     "a{1}", "a!b", "a&b", "a;b", "日本.txt", "back\\sl[ash", "a,b.txt"],
)  # fmt: skip
def test_a_file_name_that_the_grammar_refuses_is_named_with_its_cure(run, tmp_path, name):
    """The cure that the message names, taken as a shell takes it, leads to that very file."""
    done = run("measure", "tracking=none", "dataset=local", f"dataset.files={name}")
    assert done.code == 2 and done.error.startswith("cannot read the override ")
    (cure,) = shlex.split(done.error.partition("for the shell: ")[2])
    again = run("measure", "tracking=none", "dataset=local", cure)
    assert again.code == 1 and f"no file {name}" in again.error


@pytest.mark.parametrize("name", ["a\nb", "a\tb[", "\x1b[31m", "a  b[", "it's\\\n"])
def test_a_name_that_cannot_be_printed_is_cured_in_the_shells_escapes(run, name):
    done = run("measure", "tracking=none", "dataset=local", f"dataset.files={name}")
    cure = subprocess.run(
        ["bash", "-c", f"printf %s {done.error.partition('for the shell: ')[2]}"], capture_output=True, text=True
    ).stdout
    assert done.code == 2 and cure == 'dataset.files="' + name + ('\\"' if name.endswith("\\") else '"')


def test_the_home_directory_and_escaped_interpolations(run, monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    local = ("measure", "tracking=none", "dataset=local")
    assert "/somewhere/x.jsonl" in run(*local, "dataset.files=~/x.jsonl").error
    assert "/somewhere/y.txt" in run(*local, "dataset.files=[~/y.txt]").error
    assert "a~b.txt" in run(*local, "dataset.files='a~b.txt'").error
    assert "${x}.jsonl" in run(*local, r"dataset.files=\${x}.jsonl").error


def test_output_of_any_character_reaches_any_terminal(run):
    line = run("measure", "tracking=none", 'model.name="a\x1b[31mb"').error
    assert "\x1b" not in line
    assert "\\udce9" in run("measure", "tracking=none", "dataset=local", 'dataset.files="caf\udce9.txt"').error


# ── a user's own YAML files ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_users_yaml_comes_before_a_packaged_one_of_its_name(run, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "ladder-1.yaml").write_text("defaults: [ladder, _self_]\nname: my-own\nwidth: 28\n")
    asked = ("--cfg", "job", "-p", "model.name")
    assert run("measure", "--config-dir", "mine", *asked, "model=ladder-1").out.strip() == "my-own"
    assert run("measure", *asked, "model=ladder-1").out.strip() == "ladder-1"
    assert run("measure", *asked, "model=ladder-1", "--config-dir", "mine").out.strip() == "my-own"
    hidden = run("measure", f"hydra.searchpath=[{tmp_path}/mine]", "tracking=none").error
    assert "ladder-1.yaml would be ignored" in hidden and "--config-dir" in hidden


@pytest.mark.parametrize(
    ("text", "contains"),
    [
        ("defaults: [hf, _self_\nname: x\n", "bad.yaml, line 2: not YAML"),
        ("name: x\n  path: y\n", "bad.yaml, line 2: not YAML"),
        ("name: x\nname: y\n", "bad.yaml, line 2: not YAML: found duplicate key name"),
        ("defaults: [bad, _self_]\n", "names itself in its defaults"),
        ("defaults: [nowhere, _self_]\n", "nowhere"),
        ("[1, 2]\n", "model must be a mapping with _target_"),
        ("name: café\n".encode("latin-1"), "bad.yaml"),
        ("path: \0\n", "bad.yaml"),
        ("name: !!python/object:os.system x\n", "bad.yaml"),
        ("", "model must be a mapping with _target_"),
    ],
)
def test_a_mistake_in_a_users_yaml_names_the_file(run, tmp_path, text, contains):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "bad.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    asked = ("measure", "--config-dir", "mine", "model=bad", "tracking=none")
    assert contains in run(*asked).error
    if "model must be" not in contains:  # which is seen when it is read
        assert contains in run(*asked, "--cfg", "job").error


def test_flags_stand_anywhere(run, family):
    done = run("measure", "-m", "model=our-a", "--config-dir", "mine", "dataset=foxes", "tracking=none",
               "store=anywhere", cwd=family)  # fmt: skip
    assert done.code == 0 and done.out.startswith("our-a on foxes: measured in")


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sweep_looks_at_all_of_its_models_before_the_first_job(run, family):
    (family / "mine" / "model" / "lost.yaml").write_text("defaults: [hf, _self_]\npath: /nowhere\nname: lost\n")
    done = run("measure", "--config-dir", "mine", "-m", "model=our-a,lost", "dataset=foxes", "tracking=none",
               "store=ahead", cwd=family)  # fmt: skip
    assert done.code == 1 and done.out.startswith("our-a on foxes: measured in")
    ahead, after = done.err.split("it goes on with the others")
    assert "\nlost: no model directory /nowhere" in ahead and "1 of 2 models of this sweep" in ahead
    assert "error: model=lost" in after and "1 of 2 jobs failed" in after


def test_sweep_over_a_users_own_family_then_analysis(run, family):
    """One command measures a family from YAML files alone; the next finds it done; the next fits it."""
    sweep = ["measure", "--config-dir", "mine", "-m", "model=glob(our-*)", "dataset=foxes", "k=table2"]
    first = run(*sweep, cwd=family)
    assert first.code == 0, first.err
    assert [line.split(":")[0] for line in first.out.splitlines()] == ["our-a on foxes", "our-b on foxes", "", "2 jobs"]
    assert first.out.endswith("\n\n2 jobs: 2 measured\n")
    assert first.out.count("measured in") == 2
    records = sorted((family / "multirun" / "runs").glob("*/record.json"))
    assert len(records) == 2
    again = run(*sweep, cwd=family)
    assert again.code == 0 and again.out.count("found measured") == 2 and again.out.endswith("2 jobs: 2 found\n")
    listed = run("ls", "--config-dir", "mine", cwd=family)
    assert "our-a" in listed.out and records[0].parent.name in listed.out
    other_tables = run(*sweep[:4], "model=our-a", "dataset=foxes", "k=emergence", cwd=family)
    assert other_tables.code == 0 and other_tables.out.count("measured in") == 1
    fitted = run("analyze", "k=table2", "fit=power", cwd=family)
    assert "counted the same tokens for other thresholds" in fitted.out
    assert fitted.code == 0, fitted.err
    assert (family / "multirun" / "analysis" / "default" / "fits.csv").is_file()
    assert "nan" not in fitted.out.lower()
    page = (family / "multirun" / "analysis" / "default" / "report.html").read_bytes()
    assert "analysis/tokens/report.html" in run("analyze", "axis=tokens", "k=table2", "fit=power", cwd=family).out
    assert (family / "multirun" / "analysis" / "default" / "report.html").read_bytes() == page
    nothing = run("analyze", "filters.model=7", cwd=family).error
    assert nothing == "none of 3 finished runs passes filters.model=7; there is model: our-a, our-b"
    assert "there is key: " in run("analyze", "filters.key=1234567890123456", cwd=family).error
    assert run("analyze", "filters=null", "k=table2", "fit=power", cwd=family).code == 0


class Failing(MadeUpText):
    """A dataset that fails as its name says."""

    def corpus(self):
        if self.name == "fine":
            return super().corpus()
        if self.name == "full":
            raise OSError(28, "No space left on device", "a/file")
        raise {"user": LabError, "key": KeyError, "silent": RuntimeError}[self.name](
            *[] if self.name == "silent" else ["x"]
        )


def test_a_sweep_goes_on_after_failures_of_every_kind_and_lists_them(run, family):
    (family / "mine" / "dataset" / "failing.yaml").write_text(
        "_target_: tests.test_cli.Failing\nname: ???\nprotocol: {max_tokens: 64}\n"
    )
    names = ("user", "key", "silent", "full", "fine", "7.5")
    done = run(
        "measure", "--config-dir", "mine", "-m", "model=our-a", "dataset=failing", f"dataset.name={','.join(names)}",
        "tracking=none", "store=failing", cwd=family,
    )  # fmt: skip
    assert done.code == 1 and done.out.startswith("our-a on fine: measured in") and "Traceback" not in done.err
    assert done.out.endswith("\n\n6 jobs: 1 measured, 5 failed\n")
    table = done.err.partition("\n\n")[2].splitlines()
    assert table[0] == "5 of 6 jobs failed:"
    for line, name, says in zip(
        table[1:], ("user", "key", "silent", "full", "7.5"),
        ("x", "KeyError: 'x' (unexpected", "RuntimeError (unexpected", "cannot write a/file: No", "must be a text"),
        strict=True,
    ):  # fmt: skip
        assert f"dataset.name={name}" in line and says in line
    logs = sorted((family / "failing" / "errors").glob("*.log"))
    assert len(logs) == 2 and all("Traceback" in log.read_text() and "in corpus" in log.read_text() for log in logs)


def test_several_processes_from_the_command_line(run, family, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = run(
        "measure", "--config-dir", "mine", "model=our-b", "dataset=foxes", "launch.processes=2", "launch.device=cpu",
        "store=two", "tracking=none", cwd=family,
    )  # fmt: skip
    assert done.code == 0, done.err
    (record,) = (family / "two" / "runs").glob("*/record.json")
    assert json.loads(record.read_text())["provenance"]["processes"] == 2


def test_a_forbidden_store_is_one_line(run, family, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    words = ("measure", "--config-dir", family / "mine", "model=our-a", "dataset=foxes", "tracking=none")
    assert "file" in run(*words, f"dataset.files={family / 'texts.jsonl'}", "store=file").error


def test_a_read_only_store_is_listed_analysed_and_found_in(run, family, tmp_path, monkeypatch):
    store, access = tmp_path / "store", os.access
    texts = f"dataset.files={family / 'texts.jsonl'}"
    sweep = ("measure", "--config-dir", family / "mine", "dataset=foxes", texts, f"store={store}", "tracking=none")
    assert run(*sweep, "-m", "model=our-a,our-b", "k=table2").code == 0

    def there():
        return {path: path.stat().st_mtime_ns for path in store.rglob("*")}

    before = there()

    def answer(path, mode, **options):  # the system's would be another one for root, who may write anywhere
        return not Path(path).is_relative_to(store) and access(path, mode, **options)

    monkeypatch.setattr(os, "access", answer)
    assert run(*sweep, "model=our-a", "k=table2").out.count("found measured") == 1
    key = next(store.glob("runs/*")).name
    assert key in run("ls", f"store={store}").out
    refused = run("analyze", f"store={store}", "tracking=none").error
    assert refused == f"cannot write the results to {store}/analysis/default; choose another directory with out=DIR"
    analysed = run("analyze", f"store={store}", "tracking=none", "k=table2", "fit=power", "out=results")
    assert analysed.code == 0 and f"in {Path('results')}" in analysed.out
    assert (tmp_path / "results" / "fits.csv").is_file() and there() == before


def test_analysis_of_nothing_and_of_a_missing_csv(run):
    assert "no finished run to analyse in multirun" in run("analyze").error
    assert "no CSV file at here.csv" in run("analyze", "source=csv", "csv=here.csv").error
    assert "source must be one of" in run("analyze", "source=cloud").error
    assert "csv=here.csv is read with source=csv alone" in run("analyze", "csv=here.csv").error


@pytest.mark.parametrize("command", ["analyze", "demo"])
def test_an_experiment_that_does_not_exist_is_refused(run, command):
    refused = run(command, "experiment=questoins").error
    assert refused.startswith("experiment: no such experiment=questoins; did you mean questions?")
