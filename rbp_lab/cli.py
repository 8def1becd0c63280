"""The command line: the only file that knows hydra and omegaconf. Composes, checks, and calls one stage.

torch is not imported here, so composing a sweep is quick; stages import what they need.
"""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from rbp_lab import __version__
from rbp_lab.config.build import locate
from rbp_lab.config.directory import CONF
from rbp_lab.config.schemas import KSpec, Launch, Precision, Scoring
from rbp_lab.errors import LabError
from rbp_lab.tracking.settings import Tracking

# The types of the root's own keys, and the schemas of its nodes that are not open sets (those carry a _target_).
SCALARS = {
    "store": str, "force": bool, "papers": bool, "source": str, "csv": str, "size": str, "name": str, "project": str,
    "entity": str,
}  # fmt: skip
NODES = {"k": KSpec, "precision": Precision, "scoring": Scoring, "launch": Launch, "tracking": Tracking}


# What a disk or its owner can refuse; every other OSError keeps its traceback.
DISK_ERRORS = {
    getattr(errno, name) for name in ("ENOSPC", "EACCES", "EROFS", "EDQUOT", "EPERM", "ENOTDIR", "EEXIST", "EISDIR")
}


def run_demo(config: dict[str, Any]) -> None:
    from rbp_lab.commands.demo import demo

    demo(config)


def run_train(config: dict[str, Any]) -> None:
    from rbp_lab.commands.train import train
    from rbp_lab.config.build import build, call

    model, source = build(config["model"], "model"), build(config["dataset"], "dataset")
    tracking = call(Tracking, config["tracking"], "tracking")
    done = train(model, source, config["store"], force=config["force"], tracking=tracking, config=config)
    print(done, flush=True)


def run_measure(config: dict[str, Any]) -> None:
    from rbp_lab.commands.measure import measure

    print(measure(config).line(), flush=True)


def run_analyze(config: dict[str, Any]) -> None:
    from rbp_lab.commands.analyze import analyze_sources

    analyze_sources(config)


def run_sync(config: dict[str, Any]) -> None:
    from rbp_lab.commands.sync import sync

    print(sync(config), flush=True)


def run_dashboard(config: dict[str, Any]) -> None:
    from rbp_lab.commands.dashboard import dashboard

    print(dashboard(config), flush=True)


def run_ls(config: dict[str, Any]) -> None:
    from rbp_lab.commands.ls import listing

    loader = GlobalHydra.instance().config_loader()
    listing(loader.get_group_options("model"), loader.get_group_options("dataset"), config["store"])


COMMANDS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "demo": (run_demo, "train a ladder of small models, measure it and fit its laws, offline"),
    "train": (run_train, "train one model of the ladder (-m 'model=glob(ladder-*)' for all)"),
    "measure": (run_measure, "measure one model on one corpus (-m for a sweep)"),
    "analyze": (run_analyze, "fit the laws of finished runs, or of a CSV of published values"),
    "sync": (run_sync, "mirror to Weights & Biases what the store has and W&B lacks; safe to repeat"),
    "dashboard": (run_dashboard, "create or update the W&B workspace with the papers' panels"),
    "ls": (run_ls, "list models, datasets and finished runs"),
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``rbp-lab``; exits with 0 when everything held, 1 on a failure, 2 on wrong usage."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--version"]:
        print(f"rbp-lab {__version__}")
        return
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        sys.exit(0 if arguments else 2)
    command, *overrides = arguments
    if command == "bench":
        _fail("the benchmarks run from a clone of the project: make bench, or python -m tests.benchmarks", 2)
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        _fail(f"no subcommand {command!r}: {hint}choose from {', '.join(COMMANDS)}", 2)
    if {"RANK", "WORLD_SIZE"} <= set(os.environ):
        _fail("rbp-lab starts its own processes: run it without torchrun or accelerate launch, use launch.processes=N")
    sys.exit(_compose_and_run(command, overrides))


def usage() -> str:
    """What ``rbp-lab --help`` prints."""
    lines = ["usage: rbp-lab SUBCOMMAND [hydra overrides]", "", "subcommands:"]
    lines += [f"  {name:11}{text}" for name, (_, text) in COMMANDS.items()]
    lines += [
        "",
        "rbp-lab SUBCOMMAND --help shows its configuration, --cfg job prints it composed, -m sweeps,",
        "--config-dir DIR adds your own YAML files (DIR/model/mine.yaml makes model=mine).",
    ]
    return "\n".join(lines)


def _compose_and_run(command: str, overrides: list[str]) -> int:
    """Let Hydra compose and run the command's jobs; returns the exit code."""
    run, _ = COMMANDS[command]
    failures: list[tuple[str, str]] = []
    jobs, process = 0, os.getpid()

    def job(config: DictConfig) -> None:
        nonlocal jobs
        jobs += 1
        try:
            run(plain(config))
        except LabError as error:
            if os.getpid() != process:  # a launcher's own process: the launcher must see the failure
                raise
            sweep = HydraConfig.get().mode == RunMode.MULTIRUN
            name = " ".join(HydraConfig.get().overrides.task) if sweep else ""
            failures.append((name, str(error)))
            _say(f"{name}: {error}" if sweep else str(error))  # a sweep goes on; what failed is listed at its end

    # Hydra would print its own shortened report and exit; asked for full errors it lets exceptions through to us.
    asked = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    argv, sys.argv = sys.argv, [f"rbp-lab {command}", *overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)(job)()
    except LabError as error:
        return _say(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        if asked:
            raise
        return _say(explain(error, CONF / f"{command}.yaml"))
    except KeyboardInterrupt:
        print("interrupted; finished work is kept, nothing half-done is left", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno in DISK_ERRORS:
            return _say(f"cannot write {error.filename or 'the store'}: {error.strerror}; nothing half-written is left")
        raise
    finally:
        sys.argv = argv
        if asked is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
    if failures and jobs > 1:
        print(f"\n{len(failures)} of {jobs} jobs failed:", file=sys.stderr)
        for name, message in failures:
            print(f"  {name}: {message}", file=sys.stderr)
    if not jobs and {"-m", "--multirun"} & set(overrides) and _runs_here(overrides):
        return _say("the sweep has no job: a glob() in it matches nothing; rbp-lab ls shows what there is")
    return 1 if failures else 0


def _runs_here(overrides: list[str]) -> bool:
    """Whether jobs would run in this process: no question about the configuration, no launcher of another kind."""
    return not any(o.startswith(("--", "-h", "-c", "-i", "hydra/launcher")) and o != "--multirun" for o in overrides)


def _say(message: str) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return 1


def _fail(message: str, code: int = 1) -> None:
    _say(message)
    sys.exit(code)


def plain(config: DictConfig) -> dict[str, Any]:
    """The composed configuration as plain nested mappings, its nodes checked against their schemas.

    Raises LabError naming the config path on an unknown key, a wrong type or a missing value.
    """
    result: dict[str, Any] = {}
    for name in config:
        node = OmegaConf.select(config, str(name), throw_on_missing=False)
        expected = SCALARS.get(str(name))
        if expected and node is not None and not isinstance(node, expected):
            raise LabError(f"{name}: expected {_TYPE_NAMES[expected]}, got {node!r}")
        result[str(name)] = _checked(node, str(name))
    return result


_TYPE_NAMES = {str: "a text", bool: "true or false"}


def _checked(node: Any, path: str) -> Any:
    if not isinstance(node, DictConfig):
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    schema = NODES.get(path)
    target = node.get("_target_") if schema is None else None
    if target is not None:
        found = locate(str(target), path)
        schema = found if is_dataclass(found) else None
    try:
        if schema is None:
            if target is None:  # a mapping of nodes, such as callbacks
                return {str(k): _checked(node[k], f"{path}.{k}") for k in node}
            return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
        typed = OmegaConf.structured(schema)
        _writable(typed)
        given = OmegaConf.to_container(node, resolve=True)
        given.pop("_target_", None)
        merged = OmegaConf.merge(typed, given)
        plain = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise LabError(_sentence(error, path, schema)) from None
    return {"_target_": str(target), **plain} if target is not None else plain


def _writable(node: Any) -> None:
    """Frozen dataclasses give read-only schemas; merging needs them open, all the way down."""
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        OmegaConf.set_readonly(node, False)
        for key in node:
            _writable(node._get_node(key))


def _sentence(error: OmegaConfBaseException, path: str, schema: Any = None) -> str:
    """One line: the config path, what is wrong, and the choices."""
    full = ".".join(p for p in (path, str(error.full_key or "")) if p)
    first = str(error.msg or error).splitlines()[0]
    if isinstance(error, MissingMandatoryValue):
        return f"{full} must be given, e.g. {full}=…"
    if "not in" in first and first.startswith("Key "):
        parent = error.parent_node
        choices = (
            [str(k) for k in parent]
            if isinstance(parent, Mapping | DictConfig)
            else [f.name for f in fields(schema)]
            if schema
            else []
        )
        return f"{full}: no such key; " + _choices(str(error.key), choices)
    return f"{full}: {first}"


def _choices(given: str, choices: list[str]) -> str:
    choices = [c for c in choices if not c.startswith("_") and c != "hydra"]
    close = difflib.get_close_matches(given, choices, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}expected one of {', '.join(choices)}" if choices else "see --cfg job for the keys there are"


def explain(error: Exception, config_file: Path) -> str:
    """Hydra's report of a composition that failed, as one line that names the config path and the choices."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, given = str(error.missing_cfg_file).rpartition("/")
        return f"{group}: there is no {group}={given}; " + _choices(given, list(error.options))
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        return _sentence(cause, "")
    if isinstance(error, OmegaConfBaseException):
        return _sentence(error, "")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines) + f" (composing {config_file.name})"
