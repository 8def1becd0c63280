"""Mirror to W&B what a store holds and W&B does not: records, trainings, analyses, comparisons. Safe to repeat."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbp_lab.errors import LabError
from rbp_lab.store.layout import Store
from rbp_lab.store.records import list_headers, read_record
from rbp_lab.tracking.ledger import Ledger
from rbp_lab.tracking.settings import Tracking, destination
from rbp_lab.tracking.wandb import comparison
from rbp_lab.tracking.wandb.analysis import identity, mirror_analysis
from rbp_lab.tracking.wandb.measurement import mirror_record
from rbp_lab.tracking.wandb.names import MEASURE, run_id
from rbp_lab.tracking.wandb.session import Session, digest_files
from rbp_lab.tracking.wandb.training import finish_training, mirror_losses, training_digest, training_id, training_spec


@dataclass(frozen=True)
class Missing:
    """Something the store has and the mirror lacks. send: mirrors it; returns the run's address."""

    what: str
    send: Callable[[], str | None]


def mirror_store(store: Store, tracking: Tracking, force: bool) -> str:
    """Mirror everything of ``store`` that has not been mirrored to where ``tracking`` points; returns a line about it.

    force: also what has been mirrored. Raises LabError when W&B cannot be reached or refuses (here it is the user's
    aim), and at the end when a result of the store could not be read.
    """
    where = destination(tracking)
    if where is None or (not where.online and tracking.mode != "offline"):
        raise LabError(_nowhere(tracking))
    ledger = Ledger(store.root, tracking, where)
    count, damaged = 0, []
    # Models before records before analyses, so that each finds what it used.
    kinds = (_trainings, _records, _analyses, _comparisons)
    for item in (i for find in kinds for i in find(tracking, store, ledger, force)):
        try:
            url = item.send()
        except LabError as error:  # one damaged result does not keep the others from W&B
            damaged.append(f"{item.what}: {error}")
            continue
        if where.online and url is None:
            raise LabError(f"{item.what} could not be mirrored; {count} were, and rbp-lab sync goes on from there")
        print(f"{item.what}: {url or 'written offline'}", flush=True)
        count += 1
    if damaged:
        raise LabError(f"{count} results mirrored, {len(damaged)} could not be read: {'; '.join(damaged)}")
    if not count and not any(True for find in kinds for _ in find(tracking, store, ledger, True)):
        return f"{store.root} has no results that could be mirrored"
    return f"{count} results mirrored to {where.server if where.online else store.offline_runs}" + (
        "" if count else "; everything was there already"
    )


def _nowhere(tracking: Tracking) -> str:
    """Why there is nothing to mirror to, and what to change."""
    asked = os.environ.get("WANDB_MODE", "")
    if tracking.mode == "none":
        return "tracking.mode=none asks for no mirror; rbp-lab sync takes tracking=auto"
    if tracking.mode == "auto" and asked.lower() in {"disabled", "offline", "dryrun"}:
        return f"WANDB_MODE={asked} keeps W&B off; unset it, or write offline runs with tracking.mode=offline"
    return (
        "no W&B key is configured here, so there is nowhere to mirror to: run wandb login, set WANDB_API_KEY, or write "
        "offline runs with tracking.mode=offline"
    )


def _records(tracking: Tracking, store: Store, ledger: Ledger, force: bool) -> Iterator[Missing]:
    for files in store.records():
        if force or not ledger.has(run_id(MEASURE, files.key), digest_files(list(files.directory.iterdir()))):
            yield Missing(
                f"record {files.key}",
                lambda f=files: mirror_record(tracking, store.root, read_record(f.directory, f.key), f.directory),
            )


def _trainings(tracking: Tracking, store: Store, ledger: Ledger, force: bool) -> Iterator[Missing]:
    for path in store.trainings():
        name = path.parent.name
        try:
            training = json.loads(path.read_text(encoding="utf-8"))
            if "step" in training:  # a checkpoint that was kept, of a training that has a run
                continue
            id, digest = training_id(training["settings"], training["corpus"]["fingerprint"]), training_digest(training)
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield Missing(f"training of {name}", _refuse(f"{path} is not readable ({type(error).__name__}: {error})"))
            continue
        if force or not ledger.has(id, digest):
            yield Missing(
                f"training of {name}",
                lambda d=path.parent, t=training, i=id: _mirror_training(tracking, store, ledger, d, t, i),
            )


def _mirror_training(
    tracking: Tracking, store: Store, ledger: Ledger, directory: Path, training: Mapping[str, Any], id: str
) -> str | None:
    from rbp_lab.models.hf import HFModel

    where = destination(tracking)
    if where is None:
        return None
    name, family = _names(store, directory, training)
    model = HFModel(
        path=str(directory.absolute()), name=name, family=family, training_tokens=training["training_tokens"]
    )
    info = model.open().info
    session = Session(tracking, where, store.root, "; the model is kept: rbp-lab sync can be repeated")
    session.start(training_spec(name, family, training["settings"], training["corpus"]))
    mirror_losses(session, training)
    return finish_training(session, ledger, id, info, training)


def _names(store: Store, directory: Path, training: Mapping[str, Any]) -> tuple[str, str]:
    """Name and family of a trained model: its training's own, else those of a record that measured it."""
    name, family = training.get("name"), training.get("family")
    for header in [] if family else list_headers(store.root)[0]:
        if header["model"]["path"] == str(directory.absolute()):
            name, family = header["model"]["name"], header["model"]["family"]
    return str(name or directory.name), str(family or "ladder")


def _refuse(message: str) -> Callable[[], None]:
    def send() -> None:
        raise LabError(message)

    return send


def _analyses(tracking: Tracking, store: Store, ledger: Ledger, force: bool) -> Iterator[Missing]:
    for directory in (files.directory for files in store.analyses()):
        found = identity(directory)
        if found is not None and (force or not ledger.has(*found)):
            yield Missing(
                f"analysis {directory.name}", lambda d=directory: mirror_analysis(tracking, store.root, d, force=force)
            )


def _comparisons(tracking: Tracking, store: Store, ledger: Ledger, force: bool) -> Iterator[Missing]:
    for directory in store.comparisons():
        found = comparison.identity(directory)
        if found is not None and (force or not ledger.has(*found)):
            yield Missing(
                f"comparison {directory.name}",
                lambda name=directory.name: comparison.mirror_comparison(tracking, store.root, name, force=force),
            )
