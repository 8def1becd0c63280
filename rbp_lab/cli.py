"""The command line: lets Hydra compose a configuration, and gives it to a command.

hydra is imported where it is used, so that an interrupt in the second which that takes finds ``main``; torch is
imported by the commands alone.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rbp_lab import __version__
from rbp_lab.config.arguments import Arguments, parse
from rbp_lab.config.directory import CONF
from rbp_lab.errors import LabError, WrongUsage, no_such
from rbp_lab.garbage import look_seldom
from rbp_lab.interrupts import CODES, end_on_signals
from rbp_lab.jobs.composition import (
    NO_JOB,
    check_override,
    register_resolvers,
    shown_jobs,
    users_first,
)
from rbp_lab.jobs.failures import Failures, print_error
from rbp_lab.jobs.slurm import check_slurm
from rbp_lab.jobs.subcommand_help import wrapped
from rbp_lab.running import Jobs

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Subcommand → what it is for. Each is a module of rbp_lab.commands with ``run(config)``, and a YAML file of conf/.
COMMANDS = {
    "demo": "train a ladder of small models, measure it and fit its laws, offline",
    "train": "train one model of the ladder (-m 'model=glob(ladder-*)' for all)",
    "measure": "measure one model on one corpus (-m for a sweep)",
    "analyze": "fit the laws of finished runs, or of a CSV of published values",
    "compare": "how two finished runs differ (A B), or two models token by token (model@a=A model@b=B), loaded in turn "
    "when they do not fit together",
    "sync": "mirror to Weights & Biases what the store has and W&B lacks; safe to repeat",
    "dashboard": "create or update the W&B workspace with the papers' panels",
    "ls": "list models, datasets, finished and unfinished runs",
    "clean": "remove what crashes left in a store, and on request unfinished work",
}
# Commands that make figures by the dozen, see ``garbage.look_seldom``.
DRAWING = ("analyze", "compare", "compare_models")
GONE = {"bench": "the benchmarks run from a clone of the project: make bench, or python -m tests.benchmarks"}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``rbp-lab``; exits with 0 when everything held, 1 on a failure, 2 on wrong usage that kept all
    work from beginning.

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
            *(wrapped(f"  {name:11}{text}", " " * 13) for name, text in COMMANDS.items()),
            "",
            wrapped(
                "rbp-lab SUBCOMMAND --help shows its keys and what they mean, --cfg job prints the composed "
                "configuration, -m sweeps, --config-dir DIR puts YAML files of your own before the packaged ones "
                "(DIR/model/mine.yaml: model=mine).",
                "",
            ),
            wrapped("Exit codes: 0 all held, 1 something failed, 2 wrong usage, seen before any work began.", "  "),
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
        raise WrongUsage(
            "rbp-lab starts its own processes: run it without torchrun or accelerate launch, use launch.processes=N"
        )
    arguments = parse(command, rest)
    if arguments.launcher and not arguments.asks:
        if not arguments.multirun:
            raise WrongUsage("hydra/launcher takes -m: it runs the jobs of a sweep, which may be a single one")
        if arguments.launcher == "slurm":
            check_slurm()
    failures = _compose_and_run(arguments.command, arguments)
    if summary := failures.summary():
        print(f"\n{summary}", flush=True)
    if table := failures.table():
        print(f"\n{table}", file=sys.stderr)
    if not failures.jobs and arguments.multirun and not arguments.asks:
        raise WrongUsage(NO_JOB)
    return failures.code()


def _compose_and_run(command: str, arguments: Arguments) -> Failures:
    """Let Hydra compose and run the command's jobs. LabError when there is nothing to run."""
    import hydra

    from rbp_lab.jobs.sweeps import Refused

    for override in arguments.overrides:
        check_override(override, arguments.multirun)
    jobs, full_errors = Jobs(command, arguments), "HYDRA_FULL_ERROR" in os.environ
    with _hydra_as_told(command, arguments, jobs.begin):
        try:
            if arguments.shows_jobs:
                for text in shown_jobs(command, arguments):
                    print(text)
                return jobs.failures
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)(jobs.run)()
        except (LabError, BrokenPipeError):
            raise
        except Refused as refused:
            raise refused.mistake from None
        except Exception as error:
            if full_errors:
                raise
            jobs.broke(error)
    jobs.finish()
    return jobs.failures


@contextmanager
def _hydra_as_told(command: str, arguments: Arguments, begin: Callable[[DictConfig], None]) -> Iterator[None]:
    """Within, Hydra finds the command line's words, the user's files, and what to do before a sweep; restored after."""
    from rbp_lab.jobs.sweeps import SweepStart

    looks, argv, full_errors = gc.get_threshold(), sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    if command not in DRAWING:
        look_seldom()
    register_resolvers(command, COMMANDS[command.partition("_")[0]])
    # Hydra would print its own shortened report and exit; asked for full errors it lets exceptions through to us.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [f"rbp-lab {command}", *arguments.flags, *arguments.overrides]
    users_first().directory = arguments.config_dir
    SweepStart.hook = staticmethod(begin)
    try:
        yield
    finally:
        sys.argv = argv
        gc.set_threshold(*looks)
        users_first().directory = None
        SweepStart.hook = staticmethod(lambda sweep: None)
        if full_errors is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
