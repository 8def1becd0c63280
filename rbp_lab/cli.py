"""The command line: the only file that knows hydra and omegaconf. Composes a configuration and gives it to a command.

hydra is imported where it is used, so that an interrupt in the second which that takes finds ``main``; torch is
imported by the commands alone.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rbp_lab import __version__
from rbp_lab.config.arguments import Arguments, WrongUsage, parse
from rbp_lab.config.directory import CONF
from rbp_lab.errors import LabError, no_such
from rbp_lab.failures import Failures, print_error, sentence
from rbp_lab.interrupts import CODES, end_on_signals
from rbp_lab.slurm import check_slurm, job_failure
from rbp_lab.store.atomic import may_be_written
from rbp_lab.text import one_line

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Subcommand → what it is for. Each is a module of rbp_lab.commands with ``run(config)``, and a YAML file of conf/.
COMMANDS = {
    "demo": "train a ladder of small models, measure it and fit its laws, offline",
    "train": "train one model of the ladder (-m 'model=glob(ladder-*)' for all)",
    "measure": "measure one model on one corpus (-m for a sweep)",
    "analyze": "fit the laws of finished runs, or of a CSV of published values",
    "compare": "the differences of two finished runs: rbp-lab compare A B",
    "sync": "mirror to Weights & Biases what the store has and W&B lacks; safe to repeat",
    "dashboard": "create or update the W&B workspace with the papers' panels",
    "ls": "list models, datasets, finished and unfinished runs",
    "clean": "remove what crashes left in a store, and on request unfinished work",
}
GONE = {"bench": "the benchmarks run from a clone of the project: make bench, or python -m tests.benchmarks"}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``rbp-lab``; exits with 0 when everything held, 1 on a failure, 2 on wrong usage.

    Interrupted by Ctrl-C it exits with 130, terminated with 143, and with 141 when nobody reads what it prints.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that the terminal lacks is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        with end_on_signals():
            code = _run(sys.argv[1:] if arguments is None else arguments)
            sys.stdout.flush()
    except LabError as error:
        code = 2 if isinstance(error, WrongUsage) else 1
        print_error(str(error))
    except KeyboardInterrupt:
        print("interrupted; finished work is kept, nothing half-done is left", file=sys.stderr)
        code = 130
    except SystemExit as error:
        if error.code != CODES[signal.SIGTERM]:
            raise
        print("terminated; finished work is kept, nothing half-done is left", file=sys.stderr, flush=True)
        code = error.code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes
        code = 141
    sys.exit(code)


def usage() -> str:
    """What ``rbp-lab --help`` prints."""
    return "\n".join(
        [
            "usage: rbp-lab SUBCOMMAND [flags and hydra overrides, in any order]",
            "",
            "subcommands:",
            *(f"  {name:11}{text}" for name, text in COMMANDS.items()),
            "",
            "rbp-lab SUBCOMMAND --help shows its configuration, --cfg job prints it composed, -m sweeps,",
            "--config-dir DIR puts YAML files of your own before the packaged ones (DIR/model/mine.yaml: model=mine).",
            "Exit codes: 0 all held, 1 something failed, 2 wrong usage.",
        ]
    )


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    command, *rest = words
    if command == "--version" or "--version" in rest:
        print(f"rbp-lab {__version__}")
        return 0
    if command in GONE:
        raise WrongUsage(GONE[command])
    if command not in COMMANDS:
        raise WrongUsage(no_such("rbp-lab", f"subcommand {command!r}", command, COMMANDS))
    if {"RANK", "WORLD_SIZE"} <= set(os.environ):
        raise LabError(
            "rbp-lab starts its own processes: run it without torchrun or accelerate launch, use launch.processes=N"
        )
    arguments = parse(command, rest)
    if arguments.launcher and not arguments.asks:
        if not arguments.multirun:
            raise WrongUsage("hydra/launcher takes -m: it runs the jobs of a sweep, which may be a single one")
        if arguments.launcher == "slurm":
            check_slurm()
    failures = _compose_and_run(command, arguments)
    if summary := failures.summary():
        print(f"\n{summary}", flush=True)
    if table := failures.table():
        print(f"\n{table}", file=sys.stderr)
    if not failures.jobs and arguments.multirun and not arguments.asks and not arguments.launcher:
        raise LabError("the sweep has no job: a glob() in it matches nothing; rbp-lab ls shows what there is")
    return 1 if failures.failed else 0


def _compose_and_run(command: str, arguments: Arguments) -> Failures:
    """Let Hydra compose and run the command's jobs. LabError when there is nothing to run."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for override in arguments.overrides:
        check_override(override, arguments.multirun)
    failures, process = Failures(), os.getpid()

    def job(config: DictConfig) -> None:
        failures.jobs += 1
        chosen = HydraConfig.get()
        name, store = "", None
        try:
            if chosen.mode == RunMode.MULTIRUN:
                name = " ".join(chosen.overrides.task) or f"job {chosen.job.num}"
            _refuse_hidden_files(chosen.runtime.config_sources)
            composed = plain(config)
            store = composed["store"] if isinstance(composed.get("store"), str) else None
            failures.ended[importlib.import_module(f"rbp_lab.commands.{command}").run(composed) or "done"] += 1
        except BrokenPipeError:
            raise
        except Exception as error:
            if os.getpid() != process:  # a launcher's own process: the launcher must see the failure
                raise
            failures.add(name, error, store)  # a sweep goes on; what failed is listed at its end

    def ahead() -> None:
        """Before the first job of a sweep of measurements in this process, look at all of its models."""
        if command == "measure" and arguments.multirun and not (arguments.asks or arguments.launcher):
            from rbp_lab.commands.sweep import look_ahead

            look_ahead(_jobs(command, arguments))

    # Hydra would print its own shortened report and exit; asked for full errors it lets exceptions through to us.
    OmegaConf.register_new_resolver("writable", _writable, replace=True)
    asked = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    argv, sys.argv = sys.argv, [f"rbp-lab {command}", *arguments.flags, *arguments.overrides]
    _users_first().directory = arguments.config_dir
    try:
        ahead()
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)(job)()
    except (LabError, BrokenPipeError):
        raise
    except Exception as error:
        if asked:
            raise
        if isinstance(error, OSError) and error.errno is not None:
            raise LabError(f"cannot write {error.filename or 'the store'}: {error.strerror}") from error
        if (failed := job_failure(error)) is not None:
            raise LabError(failed) from error
        # Jobs that run here keep their exceptions, so this one is of composing; other launchers pass them on.
        composing = not arguments.launcher or isinstance(
            error, (HydraException, OmegaConfBaseException, yaml.YAMLError)
        )
        raise LabError(explain(error, command, arguments) if composing else sentence(error, None)) from error
    finally:
        sys.argv = argv
        _users_first().directory = None
        if asked is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
    return failures


def _jobs(command: str, arguments: Arguments) -> list[dict[str, Any]]:
    """The configuration of every job of a sweep; none when one cannot be composed, as running it says why."""
    from hydra import compose, initialize_config_dir
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            parser = OverridesParser.create(GlobalHydra.instance().config_loader())
            (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides(list(arguments.overrides)), None)
            return [plain(compose(command, job)) for job in jobs]
    except (LabError, HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError):
        return []


def _writable(directory: object) -> str:
    """``directory``, or a temporary one when it is read-only or no text: Hydra keeps files of its own for each job."""
    return directory if isinstance(directory, str) and may_be_written(directory) else _temporary()


@cache
def _temporary() -> str:
    return tempfile.mkdtemp(prefix="rbp-lab-")


@cache
def _users_first() -> Any:
    """A Hydra plugin that looks for YAML files in ``directory`` before the packaged ones."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class UsersFirst(SearchPathPlugin):
        directory: str | None = None

        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            if self.directory is not None:
                search_path.prepend("user", f"file://{self.directory}", anchor="main")

    Plugins.instance().register(UsersFirst)
    return UsersFirst


def _refuse_hidden_files(sources: Any) -> None:
    """LabError when a YAML file of hydra.searchpath has the name of a packaged one, which Hydra would take instead."""
    for source in sources:
        if "searchpath" in source.provider and source.schema == "file":
            for path in sorted(Path(source.path).rglob("*.yaml")):
                name = path.relative_to(source.path)
                if (CONF / name).is_file():
                    raise LabError(
                        f"{path} would be ignored: rbp_lab has a {name} of its own, which comes before "
                        "hydra.searchpath; give the directory with --config-dir, or the file another name"
                    )


def check_override(text: str, multirun: bool) -> None:
    """WrongUsage, with how to write it, when Hydra's grammar refuses an override, or it is a sweep that is not one."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    try:
        override = parser.parse_override(text)
        if not override.key_or_group:
            raise WrongUsage(f"an override is key=value; got {text!r}")
        if override.key_or_group == "store" and override.value() == "":  # Hydra would make directories at the root
            raise LabError("store must name a directory; got ''")
        if not override.is_sweep_override() or multirun:
            return
        reason = "several values are a sweep, which takes -m"
    except (HydraException, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise WrongUsage(f"an override is key=value; got {text!r}")
    # Within Hydra's quotes a backslash is itself, unless it stands before a quote.
    quoted = key + '="' + re.sub(r'(\\*)("|\Z)', lambda m: m[1] * 2 + (m[2] and '\\"'), value) + '"'
    try:
        parser.parse_override(quoted)
    except (HydraException, ValueError):
        raise WrongUsage(f"cannot read the override {text!r}: {reason}") from None
    raise WrongUsage(f"cannot read the override {text!r}: {reason}; a text with such characters is quoted twice, "
                     f"for Hydra and for the shell: {_for_the_shell(quoted)}")  # fmt: skip


def _for_the_shell(word: str) -> str:
    """A word as it is typed; characters that would not survive being printed and copied as the shell's escapes."""
    if word.isprintable() and "  " not in word:
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'").replace("  ", " \\x20")
    return "$'" + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in escaped) + "'"


def plain(config: DictConfig) -> dict[str, Any]:
    """The composed configuration as nested mappings, lists and scalars; LabError on a missing or unresolvable value."""
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

    def choices(group: str) -> list[str]:
        return sorted(GlobalHydra.instance().config_loader().get_group_options(group))

    def nodes(group: str, patterns: Any) -> dict[str, Any]:
        """Every choice of a group whose name matches, composed; those that lack a value are left out."""
        from hydra import compose

        wanted = [patterns] if isinstance(patterns, str) else list(patterns or ())
        found = {}
        for name in choices(group):
            if any(fnmatchcase(name, pattern) for pattern in wanted):
                one = compose(overrides=[f"+{group}={name}", "+store=null"])
                one.store = config.store
                with suppress(MissingMandatoryValue, InterpolationToMissingValueError):
                    found[name] = OmegaConf.to_container(one[group], resolve=True, throw_on_missing=True)
        return found

    OmegaConf.register_new_resolver("choices", choices, replace=True)
    OmegaConf.register_new_resolver("nodes", nodes, replace=True)
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise LabError(_composed_sentence(error)) from None


def _composed_sentence(error: Any) -> str:
    """OmegaConf's complaint as one line: the config path, what is wrong, and the choices."""
    from omegaconf.errors import MissingMandatoryValue

    full = str(error.full_key or "")
    first = str(error.msg or error).splitlines()[0]
    if isinstance(error, MissingMandatoryValue):
        return f"{full} must be given, e.g. {full}=…"
    if first.startswith("Key ") and "not in" in first and isinstance(error.parent_node, Mapping):
        return no_such(full, "key", str(error.key), [str(k) for k in error.parent_node if k != "hydra"])
    return f"{full}: {first}" if full else first


def explain(error: Exception, command: str, arguments: Arguments) -> str:
    """A composition that failed, as one line that names the config path and the choices."""
    from hydra.errors import ConfigCompositionException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: not YAML: {error.problem or error.context}"
    if isinstance(error, UnicodeDecodeError):
        files = sorted(Path(arguments.config_dir).rglob("*.yaml")) if arguments.config_dir else []
        file = next((f for f in files if f.read_bytes().startswith(error.object)), "a YAML file")
        line = error.object[: error.start].count(b"\n") + 1
        return f"{file}, line {line}: not UTF-8 ({error.reason})"
    if isinstance(error, RecursionError):
        return "a YAML file names itself in its defaults; give a file that extends a packaged one a name of its own"
    plugin = re.search(r"hydra/launcher/(submitit_slurm|ray)\b", f"{getattr(error, 'missing_cfg_file', '')} {error}")
    if plugin:
        name, extra = {"submitit_slurm": ("slurm", "slurm"), "ray": ("devices", "ray")}[plugin[1]]
        return f"hydra/launcher={name} needs a plugin of Hydra's: pip install 'rbp-lab[{extra}]'"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, given = str(error.missing_cfg_file).rpartition("/")
        return no_such(group, f"{group}={given}", given, list(error.options))
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        return _composed_sentence(cause)
    if isinstance(error, OmegaConfBaseException):
        return _composed_sentence(error)
    return f"{one_line(str(error))} (composing {' '.join([f'{command}.yaml', *arguments.overrides])})"
