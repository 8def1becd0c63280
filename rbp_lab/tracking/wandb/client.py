"""One W&B run, held at arm's length: bounded in time, silent, and broken at most once.

Whatever W&B raises ends in one warning; from then on the session, and every later one of this process to the same
server, does nothing. The caller's work goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rbp_lab.errors import LabError
from rbp_lab.tracking.offline import read_offline_run
from rbp_lab.tracking.settings import Destination, Tracking
from rbp_lab.tracking.wandb.names import STEP

# Servers that failed in this process: a sweep waits for a dead one once, and its user reads one warning.
_given_up: set[str] = set()
# How long the client's writer may take to close a file on the local disk after the client has returned.
FILE_SECONDS = 10.0
# Settings that only some of the wandb versions know; the others are given to wandb.init by all.
_BOUNDS = ("init_timeout", "login_timeout", "finish_timeout")


@dataclass(frozen=True)
class RunSpec:
    """What a run is: its id within the project, names to show, and the configuration it starts with."""

    id: str
    name: str
    group: str
    job_type: str
    config: Mapping[str, Any]
    step: str = STEP


class Session:
    """A W&B run that may fail. ``ok`` tells whether it is open and has not failed."""

    def __init__(self, tracking: Tracking, where: Destination, store: str | Path, hint: str = ""):
        """store: offline runs go to <store>/wandb. hint: end of the warning's sentence, what is not lost."""
        self._tracking, self._where, self._store = tracking, where, Path(store)
        self._hint = hint
        self._run: Any = None
        self.failed = where.server in _given_up and where.online
        self.url: str | None = None

    @property
    def ok(self) -> bool:
        return self._run is not None and not self.failed

    @property
    def online(self) -> bool:
        return self._where.online

    @contextmanager
    def guarded(self, doing: str) -> Iterator[None]:
        """Turns an exception inside into the session's one warning."""
        try:
            yield
        except Exception as error:  # W&B raises many kinds, of its own and of the network
            self.give_up(doing, error)

    def give_up(self, doing: str, error: BaseException | str) -> None:
        """Warn once and do nothing from here on."""
        if self.failed:
            return
        self.failed = True
        if self._where.online:
            _given_up.add(self._where.server)
        first = (str(error).strip().splitlines() or [""])[0]
        kind = "" if isinstance(error, str) else f"{type(error).__name__}: "
        print(
            f"warning: W&B ({self._where.server if self.online else 'offline'}) failed while {doing}: {kind}{first}; "
            f"tracking is off{self._hint}",
            file=sys.stderr,
            flush=True,
        )

    def start(self, spec: RunSpec) -> None:
        """Open the run, or find it again when its id exists; takes at most ``timeout`` seconds."""
        if self.failed:
            return
        with self.guarded("starting a run"):
            self._run = _init(self._tracking, self._where, self._store, spec)
            self.url = self._run.url if self.online else None
            self._run.define_metric(spec.step)
            self._run.define_metric("*", step_metric=spec.step)

    def log(self, row: Mapping[str, Any]) -> None:
        """One point of every curve in ``row``; queued, never sent from here."""
        if self.ok:
            with self.guarded("logging"):
                self._run.log(dict(row))

    def call(self, doing: str, action: Callable[[Any, Any], None]) -> None:
        """``action(wandb, run)`` for what has no method here, guarded."""
        if self.ok:
            with self.guarded(doing):
                import wandb

                action(wandb, self._run)

    def histogram(self, counts: np.ndarray, edges: np.ndarray) -> Any:
        """A native W&B histogram of exact counts; None when the session does nothing."""
        if not self.ok:
            return None
        import wandb

        return wandb.Histogram(np_histogram=(counts, edges))

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Set summary values: what tables and scatter plots of runs show."""
        if self.ok:
            with self.guarded("writing the summary"):
                self._run.summary.update(dict(values))

    def summary(self, name: str) -> Any:
        """A summary value of a run that was found again; None when there is none."""
        return self._run.summary.get(name) if self.ok else None

    def artifact(self, name: str, kind: str, directory: Path, metadata: Mapping[str, Any]) -> None:
        """Log the files of ``directory`` as a version of an artifact; an unchanged directory is no new version."""
        if not self.ok:
            return
        with self.guarded("logging an artifact"):
            import wandb

            artifact = wandb.Artifact(name, type=kind, metadata=dict(metadata))
            # Immutable: finished results are replaced, never changed, so W&B need not copy them aside.
            for file in sorted(p for p in directory.iterdir() if p.is_file()):
                artifact.add_file(str(file.absolute()), name=file.name, policy="immutable", skip_cache=True)
            logged = self._run.log_artifact(artifact)
            if self.online:
                logged.wait(timeout=self._tracking.timeout)

    def card(self, name: str, kind: str, card: Mapping[str, Any], use: bool) -> None:
        """Declare a small JSON artifact as made by this run, or as used by it (online only: W&B offline cannot)."""
        if not self.ok or (use and not self.online):
            return
        with self.guarded("declaring an artifact"):
            import wandb

            artifact = wandb.Artifact(name, type=kind, metadata=dict(card))
            with artifact.new_file("card.json") as file:
                json.dump(card, file, sort_keys=True, indent=1)
            logged = self._run.use_artifact(artifact) if use else self._run.log_artifact(artifact)
            if self.online:
                logged.wait(timeout=self._tracking.timeout)

    def finish(self, exit_code: int = 0, confirm: tuple[str, Any] | None = None) -> bool:
        """Close the run; True when everything has arrived (online) or is on the disk (offline).

        confirm: a summary value that the server must show in the end. Takes a bounded time in any case.
        """
        run, self._run = self._run, None
        if run is None:
            return False
        with self.guarded("finishing a run"):
            path = f"{run.entity}/{run.project}/{run.id}"
            file = Path(run.dir).parent / f"run-{run.id}.wandb"
            run.finish(exit_code=exit_code)
            if not self.failed and not self.online:
                self._confirm_file(file, *(confirm or (None, None)))
            elif not self.failed and confirm is not None:
                self._confirm(path, *confirm)
        return not self.failed

    def _confirm(self, path: str, name: str, value: Any) -> None:
        """The client retries and then drops what a server refuses, without raising: so ask the server."""
        until = time.monotonic() + self._tracking.timeout
        api = public_api(self._where, self._tracking.timeout)
        while True:
            api.flush()  # it remembers runs it has seen
            if api.run(path).summary.get(name) == value:
                return
            if time.monotonic() > until:
                self.give_up("finishing a run", "the server does not show the run's summary")
                return
            time.sleep(0.5)

    def _confirm_file(self, file: Path, name: str | None, value: Any) -> None:
        """Wait until the run's file ends as it should: the client returns before its writer has closed it, and on a
        full disk it says nothing and leaves an empty file."""
        until = time.monotonic() + min(self._tracking.timeout, FILE_SECONDS)
        while not _is_complete(file, name, value):
            if time.monotonic() > until:
                self.give_up("finishing a run", f"{file} is not complete; is the disk full?")
                return
            time.sleep(0.02)


def _is_complete(file: Path, name: str | None, value: Any) -> bool:
    """Whether an offline run's file holds its end, and the summary value, if one is named."""
    if not file.is_file() or not file.stat().st_size:
        return False
    try:
        run = read_offline_run(file)
    except LabError:  # still being written
        return False
    return run.exit_code is not None and (name is None or run.summary.get(name) == value)


def _init(tracking: Tracking, where: Destination, store: Path, spec: RunSpec) -> Any:
    # Off unless asked for: reports to W&B's makers hold up the end, and print, when the server does not answer.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    import wandb

    store.mkdir(parents=True, exist_ok=True)
    bounds: dict[str, Any] = {name: tracking.timeout for name in _BOUNDS} | {"finish_timeout_raises": True}
    # The client would retry for many minutes; what it drops is on the disk, and rbp-lab sync sends it again.
    bounds |= {f"x_{part}_retry_max": 3 for part in ("graphql", "file_stream", "file_transfer")}
    bounds |= {f"x_{part}_timeout_seconds": tracking.timeout for part in ("graphql", "file_stream", "file_transfer")}
    known = type(wandb.Settings()).model_fields
    wandb.setup(settings=wandb.Settings(silent=True))  # else its terminal output ignores the run's own setting
    settings = wandb.Settings(
        silent=True,  # rbp_lab says what there is to say
        base_url=where.server,
        console="off",
        save_code=False,
        disable_git=True,
        disable_job_creation=True,
        x_save_requirements=False,  # the record holds the versions that matter
        **({"api_key": where.key} if where.key and where.online else {}),
        **{name: value for name, value in bounds.items() if name in known},
    )
    return wandb.init(
        mode=where.mode,
        project=tracking.project,
        entity=tracking.entity,
        id=spec.id,
        name=spec.name,
        group=tracking.group or spec.group,
        job_type=tracking.job_type or spec.job_type,
        tags=list(tracking.tags) or None,
        notes=tracking.notes,
        config=dict(spec.config),
        dir=str(store),
        # The same id is the same run; W&B knows no resuming offline and would say so on every run.
        resume="allow" if where.online else None,
        reinit="create_new",
        settings=settings,
    )


def public_api(where: Destination, timeout: float) -> Any:
    """W&B's API for reading, at the server of ``where``; each request is given ``timeout`` seconds."""
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True))
    overrides = {"base_url": where.server}
    return wandb.Api(overrides=overrides, api_key=where.key, timeout=max(1, round(timeout)))


def digest_files(files: Sequence[Path]) -> str:
    """sha256 (16 digits) over names and bytes: which version of a result was mirrored."""
    what = hashlib.sha256()
    for file in sorted(files):
        what.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        what.update(file.read_bytes())
    return what.hexdigest()[:16]
