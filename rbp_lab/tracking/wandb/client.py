"""The process that W&B runs in: one request a line on stdin, one answer a line on stdout, both JSON.

``session`` starts it as ``python -m rbp_lab.tracking.wandb.client``. What the wandb package does in its import, in its
threads or at the interpreter's exit, it does to this process only.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# How long the client's writer may take to write a file to the local disk after the client has returned.
FILE_SECONDS = 10.0
# Settings that only some of the wandb versions know; the others are given to wandb.init by all.
_BOUNDS = ("init_timeout", "login_timeout", "finish_timeout")


class Client:
    """One W&B run at a time. Each public method is a request; it takes and returns JSON and raises what W&B raises."""

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, where: Mapping[str, Any], timeout: float, directory: str, run: Mapping[str, Any]) -> str | None:
        """Open the run, or find it again when its id exists; its address when online.

        where: mode, server and key. run: the arguments of wandb.init, and ``step``, the x-axis of its curves.
        """
        # Off unless asked for: reports to W&B's makers hold up the end, and print, when the server does not answer.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        import wandb

        self._where, self._timeout = where, timeout
        online = where["mode"] == "online"
        Path(directory).mkdir(parents=True, exist_ok=True)
        bounds: dict[str, Any] = {name: timeout for name in _BOUNDS} | {"finish_timeout_raises": True}
        # The client would retry for many minutes; what it drops is on the disk, and rbp-lab sync sends it again.
        bounds |= {f"x_{part}_retry_max": 3 for part in ("graphql", "file_stream", "file_transfer")}
        bounds |= {f"x_{part}_timeout_seconds": timeout for part in ("graphql", "file_stream", "file_transfer")}
        known = type(wandb.Settings()).model_fields
        wandb.setup(settings=wandb.Settings(silent=True))  # else its terminal output ignores the run's own setting
        settings = wandb.Settings(
            silent=True,
            base_url=where["server"],
            console="off",
            save_code=False,
            disable_git=True,
            disable_job_creation=True,
            x_save_requirements=False,  # the record holds the versions that matter
            **({"api_key": where["key"]} if where["key"] and online else {}),
            **{name: value for name, value in bounds.items() if name in known},
        )
        step = run["step"]
        self._run = wandb.init(
            mode=where["mode"],
            dir=directory,
            # The same id is the same run; W&B cannot resume offline and would warn on every run.
            resume="allow" if online else None,
            reinit="create_new",
            settings=settings,
            **{name: value for name, value in run.items() if name != "step"},
        )
        self._run.define_metric(step)
        self._run.define_metric("*", step_metric=step)
        return self._run.url if online else None

    def log(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """One point of every curve per row. A value with ``counts`` and ``edges`` is a histogram."""
        for row in rows:
            self._run.log({name: _value(value) for name, value in row.items()})

    def summary(self, name: str) -> Any:
        """A summary value of a run that was found again; None when there is none."""
        value = self._run.summary.get(name)
        return value if isinstance(value, str | int | float) else None

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Set summary values: what tables and scatter plots of runs show."""
        self._run.summary.update(dict(values))

    def artifact(self, name: str, kind: str, directory: str, metadata: Mapping[str, Any]) -> None:
        """Log the files of ``directory`` as a version of an artifact; an unchanged directory is no new version."""
        import wandb

        artifact = wandb.Artifact(name, type=kind, metadata=dict(metadata))
        # Immutable: finished results are replaced, never changed, so W&B need not copy them aside.
        for file in sorted(p for p in Path(directory).iterdir() if p.is_file()):
            artifact.add_file(str(file.absolute()), name=file.name, policy="immutable", skip_cache=True)
        self._wait(self._run.log_artifact(artifact))

    def card(self, name: str, kind: str, card: Mapping[str, Any], use: bool) -> None:
        """Declare a small JSON artifact as made by this run, or as used by it (online only: W&B offline cannot)."""
        if use and self._where["mode"] != "online":
            return
        import wandb

        artifact = wandb.Artifact(name, type=kind, metadata=dict(card))
        with artifact.new_file("card.json") as file:
            json.dump(card, file, sort_keys=True, indent=1)
        self._wait(self._run.use_artifact(artifact) if use else self._run.log_artifact(artifact))

    def use(self, name: str, kind: str) -> None:
        """Declare an artifact as used; one that is not on the server is passed over: lineage, not data."""
        if self._where["mode"] != "online":
            return
        import wandb

        try:
            self._run.use_artifact(f"{self._run.entity}/{self._run.project}/{name}:latest", type=kind)
        except (wandb.errors.CommError, ValueError) as error:
            if "not found" not in str(error).lower() and "does not exist" not in str(error).lower():
                raise

    def show(self, tables: Sequence[str], images: Sequence[str], pages: Sequence[str]) -> None:
        """Log CSV files as tables, PNG files as images and HTML files as pages, under the names of the files."""
        import pandas as pd
        import wandb

        shown: dict[str, Any] = {}
        for file in map(Path, tables):
            table = pd.read_csv(file)
            plain = table.astype(object).where(table.notna(), None)  # W&B's tables know None, not NaN
            shown[f"tables/{file.stem}"] = wandb.Table(dataframe=plain)
        shown |= {f"figures/{Path(file).stem}": wandb.Image(file) for file in images}
        shown |= {f"report/{Path(file).stem}": wandb.Html(Path(file).read_text()) for file in pages}
        self._run.log(shown)

    def finish(self, exit_code: int, confirm: Sequence[Any] | None) -> None:
        """Close the run; raises unless all has arrived (online) or is on the disk (offline).

        confirm: name and value of a summary entry that the server must show in the end.
        """
        run, self._run = self._run, None
        path = f"{run.entity}/{run.project}/{run.id}"
        file = Path(run.dir).parent / f"run-{run.id}.wandb"
        run.finish(exit_code=exit_code)
        if self._where["mode"] != "online":
            _check_written(file, min(self._timeout, FILE_SECONDS))
        elif confirm is not None:
            self._confirm(path, *confirm)

    def abandon(self) -> None:
        """Close an unfinished run as failed."""
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=1)

    def _wait(self, logged: Any) -> None:
        if self._where["mode"] == "online":
            logged.wait(timeout=self._timeout)

    def _confirm(self, path: str, name: str, value: Any) -> None:
        """Ask the server: the client retries and then drops what a server refuses, without raising."""
        until = time.monotonic() + self._timeout
        api = public_api(self._where["server"], self._where["key"], self._timeout)
        while True:
            api.flush()  # it remembers runs it has seen
            if api.run(path).summary.get(name) == value:
                return
            if time.monotonic() > until:
                raise RuntimeError("the server does not show the run's summary")
            time.sleep(0.5)


def _value(value: Any) -> Any:
    if not (isinstance(value, dict) and value.keys() == {"counts", "edges"}):
        return value
    import wandb

    return wandb.Histogram(np_histogram=(value["counts"], value["edges"]))


def _check_written(file: Path, seconds: float) -> None:
    """Raise OSError when the run's file is empty or its disk is full: on a full disk the client is silent."""
    until = time.monotonic() + seconds
    while not file.is_file() or not file.stat().st_size:
        if time.monotonic() > until:
            raise OSError(f"{file} is empty; is the disk full?")
        time.sleep(0.02)
    try:
        with tempfile.TemporaryFile(dir=file.parent) as probe:
            probe.write(bytes(1 << 16))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise OSError(f"{file} may be cut short ({error.strerror}); is the disk full?") from None


def public_api(server: str, key: str | None, timeout: float) -> Any:
    """W&B's API for reading; each request is given ``timeout`` seconds."""
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True))
    return wandb.Api(overrides={"base_url": server}, api_key=key, timeout=max(1, round(timeout)))


def serve() -> None:
    """Answer requests until stdin ends: {"value": …}, or {"error": kind and first line}."""
    # Answers have the old stdout to themselves; what anybody prints goes where stderr goes.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    client = Client()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = {"value": getattr(client, name)(*arguments)}
        except BaseException as error:  # a library may even exit; the request failed, no more
            first = (str(error).strip().splitlines() or [""])[0]
            answer = {"error": f"{type(error).__name__}: {first}"}
        print(json.dumps(answer), file=answers, flush=True)
    client.abandon()


if __name__ == "__main__":
    serve()
