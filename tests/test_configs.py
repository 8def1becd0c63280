"""Every YAML file composed, checked and built, as the command line would."""

import dataclasses
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from rbp_lab.cli import COMMANDS
from rbp_lab.commands.measure import job_from_config
from rbp_lab.config.build import build, locate
from rbp_lab.config.directory import CONF
from rbp_lab.errors import LabError
from rbp_lab.jobs.composition import plain
from rbp_lab.measurement.observers import Callback
from rbp_lab.text import si
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


@cache
def composed(command, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose(command, list(overrides)))


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
