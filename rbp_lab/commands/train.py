"""Train one model of the ladder: find the finished one or make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from rbp_lab.config.build import MADE, read
from rbp_lab.data.corpus import Corpus, TextSource
from rbp_lab.errors import LabError
from rbp_lab.ladder.model import LadderModel
from rbp_lab.models.source import ModelSource
from rbp_lab.store.layout import Store
from rbp_lab.tracking.settings import NO_TRACKING, Tracking
from rbp_lab.tracking.wandb.training import TrainingTracker

if TYPE_CHECKING:
    from rbp_lab.ladder.training import StepHook


class Source(Protocol):
    """Anything that gives a corpus."""

    def corpus(self) -> Corpus: ...


@dataclass(frozen=True)
class TrainedModel:
    """Outcome of ``train``. trained: False when the finished model was found. record: its ``training.json``."""

    name: str
    directory: Path
    trained: bool
    record: dict[str, Any]

    def __str__(self) -> str:
        size, tokens = self.record["non_embedding_parameters"], self.record["training_tokens"]
        tail = self.record["loss"][-20:]
        return (
            f"{self.name}: {'trained' if self.trained else 'found trained'}, S = {size:,}, {tokens:,} tokens, "
            f"last loss {sum(tail) / len(tail):.3f}, {self.record['seconds']:.0f} s, {self.directory}"
        )


@dataclass(frozen=True)
class TrainRequest:
    """What ``conf/train.yaml`` composes."""

    model: Annotated[ModelSource, MADE]
    dataset: Annotated[TextSource, MADE]
    store: str
    force: bool = False
    tracking: Tracking = NO_TRACKING


def run(config: Mapping[str, Any]) -> None:
    """``rbp-lab train``."""
    r = read(TrainRequest, config)
    print(train(r.model, r.dataset, r.store, force=r.force, tracking=r.tracking, config=config), flush=True)


def train(
    model: Any,
    source: Source,
    store: str | Path,
    force: bool = False,
    hooks: Sequence[StepHook] = (),
    tracking: Tracking = NO_TRACKING,
    config: Mapping[str, Any] | None = None,
) -> TrainedModel:
    """Train ``model`` on the corpus of ``source`` unless the same model is there already, or ``force``.

    The same: trained with the same settings on the same text. One trained otherwise is replaced, with a line that
    says why. Tokenizer and token ids are kept below ``store``/cache. hooks: called after each step. tracking: mirrors
    the training to W&B, with ``config`` as its configuration; a model that is found is not mirrored.

    Raises:
        LabError: the model is not one that rbp_lab trains, or the source has no usable text.
    """
    if not isinstance(model, LadderModel):
        name = getattr(model, "name", type(model).__name__)
        raise LabError(f"model {name} is not trained here, only measured; choose one of the ladder: model=ladder-1")
    corpus = source.corpus()
    if corpus.info.get("split") == "heldout":
        raise LabError(
            f"dataset {corpus.name} is the held-out split, which models are measured on and must not have seen; "
            "train on dataset=stdlib-train"
        )
    why = "force=true" if force else model.differs(corpus)
    if why is not None:
        if model.trained_on() is not None:
            print(f"train {model.name} anew: {why}", flush=True)
        about = {"name": corpus.name, "fingerprint": corpus.fingerprint}
        with TrainingTracker(tracking, store, model, about, config or {}) as tracker:
            model.train(corpus, Store(store), (*hooks, tracker))
            tracker.finish(model.open().info, _record(model))
    record = _record(model)
    return TrainedModel(model.name, Path(model.directory), why is not None, record)


def _record(model: LadderModel) -> dict[str, Any]:
    record = model.trained_on()
    if record is None:
        raise RuntimeError(f"no finished model in {model.directory} after training")
    return record
