"""Made-up texts as a source, a small model of the ladder, and configurations; none reads the machine's files."""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rbp_lab.config.directory import CONF
from rbp_lab.data.corpus import Corpus, build_corpus
from rbp_lab.data.windows import Windowing
from rbp_lab.jobs.composition import plain
from rbp_lab.measurement.prepare import prepare
from rbp_lab.models import LadderModel
from rbp_lab.store.shards import Partial

WORDS = (
    "def", "add", "left", "right", "return", "index", "range", "print", "quick", "brown", "fox", "lazy", "dog", "best",
    "worst", "times", "age", "wisdom",
)  # fmt: skip


def composed(name: str, *overrides: str) -> dict[str, Any]:
    """What the command line composes of a file of conf/ and overrides."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose(name, list(overrides)))


@dataclass(frozen=True)
class MadeUpText:
    """num_documents texts of very uneven length, the first one empty and the second a single letter."""

    name: str = "made-up"
    num_documents: int = 25
    seed: int = 0
    protocol: Windowing = field(default_factory=lambda: Windowing(max_tokens=64))

    def corpus(self) -> Corpus:
        rng = random.Random(self.seed)
        texts = ["", "a"]
        while len(texts) < self.num_documents:
            texts.append(" ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 150))) + "é\n")
        return build_corpus(
            self.name,
            texts[: self.num_documents],
            [f"text-{i}" for i in range(self.num_documents)],
            shuffle_seed=None,
            num_documents=None,
            min_chars=0,
            info={"source": "made up"},
        )


def measure_config(model_dir, store, **changes):
    """A composed configuration of ``measure``: the tiny model in ``model_dir`` on MadeUpText."""
    config = {
        "model": {"_target_": "rbp_lab.models.HFModel", "path": str(model_dir), "name": "tiny", "family": "tiny"},
        "dataset": {"_target_": "tests.sources.MadeUpText", "protocol": {"max_tokens": 64}},
        "k": {"thresholds": [1, 5, 50], "windows": [1, 2, 5]},
        "precision": {"dtype": "float32"},
        "scoring": {"batch_tokens": 2048},
        "launch": {"processes": 1, "device": "cpu"},
        "callbacks": {},
        "store": str(store),
        "force": False,
    }
    for path, value in changes.items():
        *groups, key = path.split("__")
        node = config
        for group in groups:
            node = node[group]
        node[key] = value
    return config


PAIR_KS = [1, 5, 50]


def pair_config(a, b, store, **changes):
    """A composed configuration of ``compare_models``: the models in two directories on MadeUpText."""
    config = measure_config(a, store, **changes)
    model, precision = config.pop("model"), config.pop("precision")
    config.pop("callbacks")
    sides = {side: {"model": {**model, "path": str(path), "name": f"tiny-{side}"}, "precision": precision}
             for side, path in (("a", a), ("b", b))}  # fmt: skip
    return {**config, **sides, "ks": PAIR_KS}


@contextmanager
def interrupted_after(shards: int, monkeypatch):
    """Ctrl-C where the shard after so many is to be kept."""
    kept, real = [], Partial.write

    def write(self, *what):
        if len(kept) == shards:
            raise KeyboardInterrupt
        kept.append(real(self, *what))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Partial, "write", write)
        yield


def begin(job) -> None:
    """What the process that gives a job to others does first."""
    corpus = job.dataset.corpus()
    prepare(job, corpus, job.identify(corpus), "cpu")


def tiny_ladder(store: Path, name: str = "tiny", steps: int = 2, **changes) -> LadderModel:
    """A model of the ladder whose training steps take 2 rows of 16 tokens."""
    fields = {"width": 16, "vocabulary": 300, "tokens": 32 * steps, "context": 16, "batch": 2, **changes}
    return LadderModel(name=name, directory=str(store / "models" / name), **fields)
