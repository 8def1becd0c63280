"""Mirror to W&B what a store holds and W&B does not: records, trainings, analyses. Safe to repeat."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbp_lab.config.build import read
from rbp_lab.errors import LabError
from rbp_lab.store.layout import Store
from rbp_lab.store.records import read_record
from rbp_lab.tracking.ledger import Ledger
from rbp_lab.tracking.settings import NO_TRACKING, Tracking, destination
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


@dataclass(frozen=True)
class SyncRequest:
    """What ``conf/sync.yaml`` composes. force: also what has been mirrored."""

    store: str
    tracking: Tracking = NO_TRACKING
    force: bool = False


def run(config: Mapping[str, Any]) -> None:
    """``rbp-lab sync``."""
    print(sync(config), flush=True)


def sync(config: Mapping[str, Any]) -> str:
    """Mirror everything of ``store`` that has not been mirrored to where ``tracking`` points; a line that says so.

    Raises LabError when W&B cannot be reached or refuses: here it is the user's aim.
    """
    request = read(SyncRequest, config)
    tracking, store, force = request.tracking, Store(request.store), request.force
    where = destination(tracking)
    if where is None or (not where.online and tracking.mode != "offline"):
        raise LabError(
            "no W&B key is configured here, so there is nowhere to mirror to: run wandb login, set WANDB_API_KEY, "
            "or write offline runs with tracking.mode=offline"
        )
    ledger = Ledger(store.root, tracking, where)
    count = 0
    # Models before records before analyses, so that each finds what it used.
    for item in (i for find in (_trainings, _records, _analyses) for i in find(tracking, store, ledger, force)):
        url = item.send()
        if where.online and url is None:
            raise LabError(f"{item.what} could not be mirrored; {count} were, and rbp-lab sync goes on from there")
        print(f"{item.what}: {url or 'written offline'}", flush=True)
        count += 1
    return f"{count} results mirrored to {where.server if where.online else store.offline_runs}" + (
        "" if count else "; everything was there already"
    )


def _records(tracking: Tracking, store: Store, ledger: Ledger, force: bool) -> Iterator[Missing]:
    for directory in (files.directory for files in store.records()):
        if force or not ledger.has(run_id(MEASURE, directory.name), digest_files(list(directory.iterdir()))):
            yield Missing(
                f"record {directory.name}", lambda d=directory: mirror_record(tracking, store.root, read_record(d), d)
            )


def _trainings(tracking: Tracking, store: Store, ledger: Ledger, force: bool) -> Iterator[Missing]:
    from rbp_lab.models.hf import HFModel

    for path in store.trainings():
        training = json.loads(path.read_text(encoding="utf-8"))
        name, settings = path.parent.name, training["settings"]
        id = training_id(settings, training["corpus"]["fingerprint"])
        if not force and ledger.has(id, training_digest(training)):
            continue

        def send(directory: Path = path.parent, training: dict[str, Any] = training, id: str = id) -> str | None:
            model = HFModel(
                path=str(directory.absolute()), name=directory.name, family="ladder",
                training_tokens=training["training_tokens"],
            )  # fmt: skip
            where = destination(tracking)
            session = Session(tracking, where, store.root, "; the model is kept: rbp-lab sync can be repeated")
            session.start(training_spec(directory.name, "ladder", training["settings"], training["corpus"]))
            mirror_losses(session, training)
            return finish_training(session, ledger, id, model.open().info, training)

        yield Missing(f"training of {name}", send)


def _analyses(tracking: Tracking, store: Store, ledger: Ledger, force: bool) -> Iterator[Missing]:
    for directory in (files.directory for files in store.analyses()):
        found = identity(directory)
        if found is not None and (force or not ledger.has(*found)):
            yield Missing(
                f"analysis {directory.name}", lambda d=directory: mirror_analysis(tracking, store.root, d, force=force)
            )
