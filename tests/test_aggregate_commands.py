"""Classifiers from the command line: every YAML choice, one training, and what is refused; tasks made of texts."""

import dataclasses

import numpy as np
import pytest

from rbp_lab.cli import main
from rbp_lab.config.build import build, locate
from rbp_lab.config.directory import CONF
from rbp_lab.data.corpus import build_corpus
from rbp_lab.data.windows import Windowing
from rbp_lab.errors import LabError
from rbp_lab.ladder.aggregate.characters import CLASSES, NextCharacter
from rbp_lab.ladder.aggregate.networks import Architecture
from rbp_lab.ladder.aggregate.observations import Observation
from rbp_lab.ladder.aggregate.tasks import Task
from rbp_lab.store.records import list_records
from tests.sources import composed

GROUPS = {"classifier": Architecture, "task": Task, "observation": Observation}
NO_TASK = "next-token"  # of the language model
CHOICES = [(g, path.stem) for g in GROUPS for path in sorted((CONF / g).glob("*.yaml")) if path.stem != NO_TASK]
REQUIRED = {
    ("task", "hub"): ["task.path=a/b", "task.image=image"],
    ("classifier", "mlp"): ["classifier.width=8"],
    ("task", "bags"): ["task.path=bags.csv"],
    ("observation", "enumerated"): ["observation.table=[0,1,1,0]", "observation.m=2", "observation.classes=2"],
}


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_is_what_its_class_expects(group, name):
    objective = "likelihood" if group == "observation" else "supervised"
    node = composed("train", f"objective={objective}", f"{group}={name}", *REQUIRED.get((group, name), []))[group]
    assert isinstance(build(node, group), GROUPS[group])
    assert set(node) - {"_target_"} == {f.name for f in dataclasses.fields(locate(node["_target_"], group)) if f.init}


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "objective").glob("*.yaml")))
def test_an_objective_brings_what_it_needs(name):
    config = composed("train", f"objective={name}", "task.label_noise=0.1")
    assert config["objective"]["kind"] == name and config["task"]["label_noise"] == 0.1
    assert (config.get("observation") is None) == (name == "supervised")
    assert composed("train", f"objective={name}", "classifier=mlp-1")["classifier"]["width"] == 8


def command_line(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(["train", *words])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def test_train_makes_models_and_records_and_finds_them(tmp_path, capsys):
    words = ["objective=aggregate", "objective.loss=gce", "observation.m=3", "classifier=mlp-2", "training.epochs=3",
             "seeds=2", f"store={tmp_path}"]  # fmt: skip
    code, out, err = command_line(capsys, *words)
    lines = out.splitlines()
    assert (code, len(lines), err) == (0, 2, "") and all("trained in" in line for line in lines)
    records = list_records(tmp_path)
    assert [r.dataset.name for r in records] == ["digits-split0", "digits-split1"]
    assert {r.model.family for r in records} == {"proportions m=3 gce stored never"}
    assert f"RBP_1 {records[0].summary['rbp']['1'][0]:.4f}" in lines[0]
    code, out, _ = command_line(capsys, *words)
    assert code == 0 and out.count("found trained") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["observation=bag"], "observation is of classifiers; choose objective="),
        (["objective=supervised", "observation=bag"], "objective=supervised sees every label"),
        (["objective=aggregate", "observation=bag"], "choose task.positive"),
        (["objective=aggregate", "objective.loss=gcee"], "did you mean gce"),
        (["objective=aggregate", "objective.loss=mae", "objective.weights=current"], "the loss is not proper"),
        (["objective=aggregate", "training.draw=balanced"], "training.draw must be blind"),
        (["objective=aggregate", "observation.m=0"], "observation.m must be at least 1"),
        (["objective=likelihood", "training.epochs=many"], "training.epochs must be a whole number"),
        (["objective=likelihood", "seeds=0"], "seeds must be at least 1"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, capsys):
    code, out, err = command_line(capsys, *words, f"store={tmp_path}/s")
    assert code == (1 if "task.positive" in err else 2) and out == "" and message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "s" / "runs").exists()


@dataclasses.dataclass(frozen=True)
class Texts:
    """A corpus of the texts given."""

    texts: tuple[str, ...]
    name: str = "texts"
    protocol: Windowing = dataclasses.field(default_factory=Windowing)

    def corpus(self):
        ids = [f"text {i}" for i in range(len(self.texts))]
        return build_corpus(self.name, self.texts, ids, shuffle_seed=None, num_documents=None, min_chars=0, info={})


def test_characters_come_with_what_stands_before_them_in_their_own_text():
    train, heldout = ("def f(x):\n    return x\n", "a = 'é'\n"), ("if x_1:\n", "\ty = 2.5")
    task = NextCharacter(context=3, instances=20, training=Texts(train), heldout=Texts(heldout))
    split = task.split(0)
    assert split.documents.tolist() == [0] * 8 + [1] * 8 and split.document_names == ("text 0", "text 1")
    names = [split.classes[c] for c in split.test_labels]
    assert names == ["vowel", "other small", "space", "other small", "underscore", "digit", "separator", "newline",
                     "space", "other small", "space", "other", "space", "digit", "dot", "digit"]  # fmt: skip
    assert split.test_inputs[0].tolist() == [0, 0, 0] and split.test_inputs[8].tolist() == [0, 0, 0]
    assert split.test_inputs[9].tolist()[:2] == [0, 0] and len(set(split.test_inputs[3].tolist())) == 3
    assert len(split.labels) == 20 and len(split.classes) == len(CLASSES) == 14
    assert not np.array_equal(split.labels, task.split(1).labels)
    with pytest.raises(LabError, match="only 31 characters"):
        dataclasses.replace(task, instances=33).split(0)
    with pytest.raises(LabError, match="the same texts"):
        dataclasses.replace(task, heldout=Texts(train)).split(0)


def study_words(tmp_path, *more):
    return ["experiment=aggregate", f"store={tmp_path}", "study.seeds=1", "fit.least_sizes=1",
            "study.k.thresholds=[1,2]", "k.thresholds=[1]",
            "study.runs=[{tasks: [digits], classifiers: [mlp_1], objective: {kind: supervised}, training: {epochs: 4}},"
            "{tasks: [digits], classifiers: [mlp_1], objective: {kind: likelihood}, training: {epochs: 4}, observation:"
            "{_target_: rbp_lab.ladder.aggregate.observations.Proportions, m: 3}}]", *more]  # fmt: skip


def test_a_study_trains_measures_analyses_and_goes_on_where_it_was(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", *study_words(tmp_path)])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and "[2/2] digits mlp-1 proportions m=3 likelihood: RBP_1" in out
    results = tmp_path / "analysis" / "aggregate"
    page, table = results / "report.html", results / "law_aggregate_accuracy.csv"
    assert "Classification from aggregate observations" in page.read_text() and "proportions m=3" in table.read_text()
    written = table.stat().st_mtime_ns
    with pytest.raises(SystemExit) as stop:
        main(["demo", *study_words(tmp_path)])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and "trained;" not in out and out.count("(found;") == 2
    assert table.stat().st_mtime_ns == written and len(list_records(tmp_path)) == 2


def test_analyze_takes_the_experiment_without_its_study(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["analyze", "experiment=aggregate", f"store={tmp_path}"])
    captured = capsys.readouterr()
    assert stop.value.code == 1 and "there is no finished run" in captured.err


def test_the_packaged_study_goes_together():
    from rbp_lab.config.build import read
    from rbp_lab.ladder.aggregate.study import Study

    config = composed("demo", "experiment=aggregate")
    study = read(Study, config["study"])
    families = {(c.task.name, c.family) for c in study.configurations()}
    assert {("digits", "supervised"), ("characters", "proportions m=8 likelihood")} <= families
    assert len({c.classifier.name for c in study.configurations() if c.task.name == "characters"}) == 6
    config["study"]["runs"][0]["tasks"] = ["digitz"]
    with pytest.raises(LabError, match=r"study.runs.0.tasks: no such task 'digitz'; did you mean digits"):
        read(Study, config["study"])
