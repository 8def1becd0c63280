"""Train a model of the ladder: find the finished one or make it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rbp_lab.data.corpus import Corpus
from rbp_lab.errors import LabError, note
from rbp_lab.ladder.checkpoint import Checkpoints, alone, remove, remove_abandoned
from rbp_lab.ladder.hooks import StepHook, Tracker
from rbp_lab.ladder.model import LadderModel, training_key
from rbp_lab.models.source import ModelSource
from rbp_lab.store.layout import Store
from rbp_lab.text import count, number

CHECKPOINT_SECONDS = 10.0


class Source(Protocol):
    """Anything that gives a corpus."""

    def corpus(self) -> Corpus: ...


@dataclass(frozen=True)
class TrainedModel:
    """Outcome of ``train_or_find``. trained: False when the finished model was found. record: its ``training.json``."""

    name: str
    directory: Path
    trained: bool
    record: dict[str, Any]

    def __str__(self) -> str:
        size, tokens = self.record["non_embedding_parameters"], self.record["training_tokens"]
        tail, resumed = self.record["loss"][-20:], self.record.get("resumed_at", [])
        return (
            f"{self.name}: {'trained' if self.trained else 'found trained'}, S = {count(size)}, {count(tokens)} "
            f"tokens, last loss {number(sum(tail) / len(tail), 3)}, {number(self.record['seconds'], 0)} s, "
            + (f"resumed at step {', '.join(map(str, resumed))}, " if resumed and self.trained else "")
            + str(self.directory)
        )


def train_or_find(
    model: ModelSource,
    source: Source,
    store: Store,
    tracker: Callable[[LadderModel, Corpus], Tracker],
    hooks: Sequence[StepHook] = (),
    force: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> TrainedModel:
    """Train ``model`` on the corpus of ``source`` unless the same model is there already, or ``force``.

    The same: trained with the same settings on the same text, with the checkpoints that are to be kept. One trained
    otherwise is replaced, with a line that says why. A training that was interrupted goes on from its last checkpoint,
    also under ``force``, which concerns finished models; one that another process is at is waited for. Tokenizer and
    token ids are kept below ``store``/cache. hooks: called after each step. tracker: makes the tracker of a training; a
    model that is found has none. checkpoint_seconds: between two checkpoints.

    Raises:
        LabError: the model is not one that rbp_lab trains, or the source has no usable text.
    """
    if not isinstance(model, LadderModel):
        raise LabError(
            f"model {model.name} is not trained here, only measured; choose one of the ladder: model=ladder-1"
        )
    corpus = source.corpus()
    if corpus.info.get("split") == "heldout":
        raise LabError(
            f"dataset {corpus.name} is the held-out split, which models are measured on and must not have seen; "
            "train on dataset=stdlib-train"
        )

    def why() -> str | None:
        lacks = model.lacks(corpus)
        other = f"its checkpoint of step {lacks} was not kept" if lacks is not None else None
        return "force=true" if force else model.differs(corpus) or other

    where, trained = store.checkpoints(training_key(model.settings(), corpus.fingerprint)), False
    if why() is None:
        remove_abandoned(where)
    else:
        with alone(where, model.name):
            if (reason := why()) is not None:  # it was not trained while this process waited
                if model.trained_on() is not None:
                    print(f"train {model.name} anew: {reason}", flush=True)
                with tracker(model, corpus) as tracked:
                    checkpoints = Checkpoints(where, checkpoint_seconds, tracked.kept, before=model.lacks(corpus))
                    _train(model, corpus, store, (*hooks, tracked), checkpoints)
                    tracked.finish(model.open().info, _record(model))
                trained = True
            remove(where)
    return TrainedModel(model.name, Path(model.directory), trained, _record(model))


def _train(
    model: LadderModel, corpus: Corpus, store: Store, hooks: tuple[StepHook, ...], checkpoints: Checkpoints
) -> None:
    """Train; an interrupt says what is kept."""
    try:
        model.train(corpus, store, hooks, checkpoints)
    except (KeyboardInterrupt, SystemExit):
        note(f"training of {model.name}: {checkpoints.kept()}")
        raise


def _record(model: LadderModel) -> dict[str, Any]:
    record = model.trained_on()
    if record is None:
        raise RuntimeError(f"no finished model in {model.directory} after training")
    return record
