"""A training as a W&B run: loss, learning rate and speed while it runs, the model's card when it is finished."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rbp_lab.data.corpus import Corpus
from rbp_lab.ladder.model import LadderModel, training_key
from rbp_lab.records import ModelInfo
from rbp_lab.tracking.ledger import Ledger
from rbp_lab.tracking.settings import Destination, Tracking, destination
from rbp_lab.tracking.wandb import names
from rbp_lab.tracking.wandb.session import RunSpec, Session

NOT_LOST = "; the training goes on and its losses are kept with the model: rbp-lab sync mirrors them later"


def training_id(settings: Mapping[str, Any], corpus_fingerprint: str) -> str:
    """The run of a training: named by its key, so the same training is the same run."""
    return names.run_id(names.TRAIN, training_key(settings, corpus_fingerprint))


def training_spec(name: str, family: str, settings: Mapping[str, Any], corpus: Mapping[str, Any]) -> RunSpec:
    """Run of a training, live or from its ``training.json``. corpus: name, fingerprint."""
    config = {"model": name, "family": family, "dataset": corpus["name"], "dataset_fingerprint": corpus["fingerprint"]}
    id = training_id(settings, corpus["fingerprint"])
    return RunSpec(id, f"train {name}", family, names.TRAIN, config | {"training": dict(settings)})


class TrainingTracker:
    """A training's hook: a point at most every ``tracking.seconds``; a context manager, as MeasurementTracker is.

    Points are sent once a checkpoint covers them (``kept``), so that none comes twice when the training is resumed.
    """

    def __init__(
        self, tracking: Tracking, store: str | Path, config: Mapping[str, Any], model: LadderModel, corpus: Corpus
    ):
        """config: as composed."""
        self._tracking, self._store = tracking, store
        self._where: Destination | None = destination(tracking)
        self._session: Session | None = None
        about = {"name": corpus.name, "fingerprint": corpus.fingerprint}
        spec = training_spec(model.name, model.family, model.settings(), about)
        self._spec = RunSpec(spec.id, spec.name, spec.group, spec.job_type, {**spec.config, "rbp_lab": dict(config)})
        self._steps, self._tokens = model.steps, model.batch * model.context
        self._logged = -float("inf")
        self._points: list[dict[str, float]] = []

    def __enter__(self) -> TrainingTracker:
        if self._where is not None:
            self._session = Session(self._tracking, self._where, self._store, NOT_LOST)
            self._session.start(self._spec)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._session is None:
            return
        if kind is None or issubclass(kind, Exception):
            self._session.finish(exit_code=0 if kind is None else 1)
        else:  # interrupted or terminated: whoever did that does not wait for a server
            self._session.abandon()

    def __call__(self, step: int, loss: float, lr: float, tokens_per_s: float) -> None:
        now = time.monotonic()
        if self._session is None or (now - self._logged < self._tracking.seconds and step < self._steps):
            return
        self._logged = now
        row = {"train/loss": loss, "train/lr": lr, "train/tokens_per_s": tokens_per_s}
        self._points.append(row | {names.STEP: step * self._tokens})
        if step == self._steps:  # no later point stands for the last one, so it is waited for
            with self._session.guarded("logging"):
                self._session.call("log", self._points)

    def kept(self, step: int) -> None:
        """Send the points so far: the training does not go back behind ``step``."""
        if self._session is not None and self._points and self._session.log(self._points):
            self._points = []

    def finish(self, info: ModelInfo, training: Mapping[str, Any]) -> None:
        """Close the run with what the finished model is. training: its ``training.json``."""
        if self._session is not None and self._session.ok and self._where is not None:
            session, self._session = self._session, None
            finish_training(session, Ledger(self._store, self._tracking, self._where), self._spec.id, info, training)


def training_digest(training: Mapping[str, Any]) -> str:
    """Which version of the training is mirrored."""
    return hashlib.sha256(json.dumps(training, sort_keys=True).encode()).hexdigest()[:16]


def finish_training(
    session: Session, ledger: Ledger, id: str, info: ModelInfo, training: Mapping[str, Any]
) -> str | None:
    """Summary and model card into an open session, close it, note that it arrived; its address when online."""
    digest = training_digest(training)
    tail = training["loss"][-20:]
    with session.guarded("mirroring a training"):
        session.call("card", names.model_artifact(info.name), names.MODEL_TYPE, names.model_card(info), False)
        session.call(
            "summarize",
            {"train/final_loss": sum(tail) / len(tail), "seconds": training["seconds"],
             "training_tokens": training["training_tokens"], names.RECORD: digest}
            | {"non_embedding_params": info.params.non_embedding, "total_params": info.params.total}
        )  # fmt: skip
    if session.finish(confirm=(names.RECORD, digest)):
        with session.guarded("noting that it has arrived"):
            ledger.note(id, digest)
            return session.url
    return None


def mirror_losses(session: Session, training: Mapping[str, Any]) -> None:
    """The loss curve of a finished training, when the run has none yet."""
    if session.call("summary", "train/loss") is None:
        per_step = training["training_tokens"] / len(training["loss"])
        losses = enumerate(training["loss"], start=1)
        session.call("log", [{"train/loss": loss, names.STEP: round(step * per_step)} for step, loss in losses])
