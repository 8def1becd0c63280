"""Every YAML file composed, checked and built, as the command line would."""

import dataclasses
import re
from functools import cache
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from rbp_lab.cli import COMMANDS
from rbp_lab.commands.measure import job_from_config
from rbp_lab.config.build import build, locate
from rbp_lab.config.directory import CONF
from rbp_lab.config.schemas import (
    LARGEST_K,
    MOST_MB,
    MOST_PROCESSES,
    Filters,
    FitChoices,
    KSpec,
    Launch,
    Precision,
    Scoring,
)
from rbp_lab.errors import LabError
from rbp_lab.measurement.observers import Callback
from rbp_lab.text import si
from tests import sources
from tests.published_models import MODELS, TOTALS
from tests.sources import measure_config

GROUPS = {
    group: sorted(p.stem for p in (CONF / group).glob("*.yaml"))
    for group in ("model", "dataset", "k", "precision", "callbacks", "tracking")
}
REQUIRED = {
    "gguf": "model.path=a/b",
    "hf": "model.path=a/b",
    "hub": "dataset.path=a/b",
    "ladder": "model.width=64",
    "local": "dataset.files=x.txt",
}
STORE = "+store=here"
OWN_MODELS = {name for name in GROUPS["model"] if name in REQUIRED or name.startswith("ladder-")}


composed = cache(sources.composed)


@pytest.mark.parametrize(("group", "name"), [(g, n) for g, names in GROUPS.items() for n in names])
def test_every_choice_of_every_group_is_what_its_class_expects(group, name):
    required = [REQUIRED[name]] if name in REQUIRED else []
    whole = group != "model" or name in OWN_MODELS  # the published ones refer to nothing but the store
    node = (composed("measure", f"{group}={name}", *required) if whole else composed(f"{group}/{name}", STORE))[group]
    if group in ("model", "dataset"):
        built = build(node, group)
        assert built.name and "/" not in built.name
        # Every field is written out, so that any of them can be overridden and --cfg job shows it.
        shown = set(node) - {"_target_"}
        assert shown == {f.name for f in dataclasses.fields(locate(node["_target_"], group))}
    elif group == "callbacks":
        assert all(isinstance(build(n, k), Callback) for k, n in node.items())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(command):
    assert composed(command)["store"] == "multirun"


def test_the_packaged_models_are_the_published_ones():
    hub = {n: composed(f"model/{n}", STORE)["model"] for n in GROUPS["model"] if n not in OWN_MODELS}
    assert {n: (m["name"], m["path"], m["family"]) for n, m in hub.items()} == {
        n: (n, m.path, m.family) for n, m in MODELS.items()
    }
    assert len(hub) >= 90 and all(m["licence"] for m in hub.values())
    for name, total in TOTALS.items():
        assert hub[name]["display_size"] == si(total)


def test_the_papers_models_are_a_selection():
    sweep = "model=glob([gpt2*,opt-*,pythia-*,qwen2.5-*],exclude=[*-deduped,opt-13b,opt-30b,opt-66b,*-32b,*-72b])"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        (override,) = OverridesParser.create(loader).parse_overrides([sweep])
        chosen = [one.split("=")[-1] for one in override.sweep_string_iterator()]
    families = {"gpt2": 4, "opt": 5, "pythia": 10, "qwen2.5": 5}  # section 4 of arXiv 2510.20387
    assert {f: sum(MODELS[n].family == f for n in chosen) for f in families} == families and len(chosen) == 24


@pytest.mark.parametrize("name", ["wikipedia", "humaneval", "hotpotqa", "auslegal", "c4", "github"])
def test_the_papers_corpora_follow_its_protocol(name):
    node = composed("measure", f"dataset={name}")["dataset"]
    protocol = {k: node["protocol"][k] for k in ("windows", "max_tokens", "bos", "mask_special")}
    assert protocol == {"windows": "truncate", "max_tokens": 512, "bos": "tokenizer", "mask_special": True}
    assert node["shuffle_seed"] == 42 and node["num_documents"] == 1000


def test_the_demo_is_the_whole_ladder_and_its_short_form_keeps_apart():
    full, short = composed("demo"), composed("demo", "experiment=short")
    assert [n["name"] for n in full["models"].values()] == [f"ladder-{i}" for i in range(1, 7)]
    assert full["training"]["split"] == "train" and full["dataset"]["split"] == "heldout"
    assert short["store"] != full["store"]
    assert all(n["directory"].startswith("multirun/short/") for n in short["models"].values())
    assert all(
        n["tokens"] < f["tokens"] for n, f in zip(short["models"].values(), full["models"].values(), strict=True)
    )


def test_the_grid_is_the_papers():
    k = composed("measure")["k"]
    assert k["thresholds"][:6] == [1, 2, 3, 5, 7, 10] and len(k["thresholds"]) == 22
    assert k["windows"] == [1, 2, 5, 10, 20, 50, 100, 200, 500]


def test_configuration_files_are_in_the_package_or_beside_it():
    assert (Path(CONF) / "measure.yaml").is_file()


def test_a_class_that_is_no_source_is_refused(tmp_path):
    config = measure_config(tmp_path, tmp_path)
    assert job_from_config(config).dataset.name == "made-up"
    with pytest.raises(LabError, match=r"^model must be a ModelSource; got MadeUpText"):
        job_from_config(config | {"model": config["dataset"]})
    with pytest.raises(LabError, match=r"^dataset must be a TextSource; got HFModel"):
        job_from_config(config | {"dataset": config["model"]})


@pytest.mark.parametrize(
    "schema, fields, words",
    [
        (KSpec, {"thresholds": [1, LARGEST_K], "windows": [1]}, None),
        (KSpec, {"thresholds": []}, "k.thresholds must be a rising list of integers of at least 1; got []"),
        (KSpec, {"thresholds": [0, 1]}, "k.thresholds must be a rising list"),
        (KSpec, {"thresholds": [1, 1]}, "k.thresholds must be a rising list"),
        (KSpec, {"thresholds": [2, 1]}, "k.thresholds must be a rising list"),
        (KSpec, {"thresholds": [1], "windows": [3, 2]}, "k.windows must be a rising list"),
        (KSpec, {"thresholds": [LARGEST_K + 1]}, f"k.thresholds must be at most {LARGEST_K}; got {LARGEST_K + 1}"),
        (Precision, {"dtype": "float64"}, "precision.dtype must be one of"),
        (Precision, {"logits": "float16"}, "precision.logits must be one of"),
        (Launch, {"processes": 1, "shard_tokens": 1}, None),
        (Launch, {"processes": MOST_PROCESSES, "max_memory": {"cpu": "1.5GiB", "0": 7, "1": "20MB"}}, None),
        (Launch, {"processes": 0}, "launch.processes must be auto or 1 to"),
        (Launch, {"processes": MOST_PROCESSES + 1}, "launch.processes must be auto or 1 to"),
        (Launch, {"shard_tokens": 0}, "launch.shard_tokens must be at least 1, or null; got 0"),
        (Launch, {"device": "tpu"}, "launch.device must be one of"),
        (Launch, {"placement": "even"}, "launch.placement must be one of"),
        (Launch, {"max_memory": {"gpu": 7}}, "launch.max_memory: expected cpu or the number of a GPU; got 'gpu'"),
        (Launch, {"max_memory": {"0": "1TB"}}, "launch.max_memory.0 must be a number of bytes"),
        (Launch, {"max_memory": {"0": "1.5"}}, "launch.max_memory.0 must be a number of bytes"),
        (Scoring, {"batch_tokens": 1, "logits_mb": MOST_MB}, None),
        (Scoring, {"batch_tokens": 0}, "scoring.batch_tokens must be at least 1; got 0"),
        (Scoring, {"logits_mb": 0}, "scoring.logits_mb must be more than 0"),
        (Scoring, {"logits_mb": MOST_MB * 1.01}, "scoring.logits_mb must be more than 0"),
        (Scoring, {"candidates": "all"}, "scoring.candidates must be one of"),
        (Scoring, {"implementation": "fast"}, "scoring.implementation must be one of"),
        (FitChoices, {"E": 0, "E_source": "here", "least_sizes": 1, "formats": ["svg"]}, None),
        (FitChoices, {"E": -0.1, "E_source": "here"}, "fit.E must be a cross-entropy of at least 0 nats"),
        (FitChoices, {"E": 1.69, "E_source": " "}, "fit.E must be a cross-entropy of at least 0 nats"),
        (FitChoices, {"confidence": 0}, "fit.confidence must lie between 0 and 1; got 0"),
        (FitChoices, {"confidence": 1}, "fit.confidence must lie between 0 and 1; got 1"),
        (FitChoices, {"least_sizes": 0}, "fit.least_sizes must be at least 1; got 0"),
        (FitChoices, {"formats": ["png", "gif"]}, "fit.formats must be one of"),
        (FitChoices, {"loss": "square"}, "fit.loss must be one of"),
    ],
)
def test_the_last_value_that_is_allowed_is_and_the_next_is_a_sentence(schema, fields, words):
    if words is None:
        assert vars(schema(**fields)) == vars(schema(**fields)) | fields
        return
    with pytest.raises(LabError, match=re.escape(words)):
        schema(**fields)


def test_filters_are_lists_of_patterns_and_say_what_they_are():
    given = Filters(model="a*", family=["b", "c"], dataset=[], key="0*")
    assert [given.as_list(name) for name in ("model", "family", "dataset", "dtype")] == [["a*"], ["b", "c"], [], []]
    assert str(given) == "filters.model=a* and filters.family=b or c and filters.key=0*" and str(Filters()) == ""
