"""What Hydra composes, as plain values; its complaints, as one line that names the config path.

hydra is imported where it is used: that takes a second, in which an interrupt must find ``cli.main``.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rbp_lab.config.arguments import Arguments
from rbp_lab.config.directory import CONF
from rbp_lab.errors import WrongUsage, first_line, no_such
from rbp_lab.jobs.config_comments import comments
from rbp_lab.jobs.subcommand_help import help_text
from rbp_lab.store.atomic import may_be_written
from rbp_lab.text import one_line

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

ANY = {"model": "hf model.path", "dataset": "hub dataset.path"}  # the choice of a group that takes any path
NO_JOB = "the sweep has no job: a glob() in it matches nothing; rbp-lab ls shows what there is"


def shown_jobs(command: str, arguments: Arguments) -> Iterator[str]:
    """The configuration of every job of a sweep as YAML below its overrides, as --cfg job shows that of one."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONF), version_base="1.3"):
        jobs = list(job_overrides(arguments.overrides))
        for overrides in jobs:
            yield f"--- # {' '.join(overrides)}\n{OmegaConf.to_yaml(compose(command, list(overrides)))}"
    if not jobs:
        raise WrongUsage(NO_JOB)


def job_overrides(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The overrides of each job of a sweep, as Hydra's own sweeper has them; whatever Hydra raises."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    def values(override: Override) -> list[str]:
        if override.is_sweep_override():
            return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        return [f"{override.get_key_element()}={override.get_value_element_as_str()}"]

    given = OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(words))
    choices = {override.get_key_element(): values(override) for override in given}  # the last of a key counts
    return product(*choices.values())


def writable(directory: object) -> str:
    """``directory``, or a temporary one when it is read-only or no text: Hydra keeps files of its own for each job."""
    return directory if isinstance(directory, str) and may_be_written(directory) else _temporary()


def register_resolvers(command: str, about: str) -> None:
    """What ``conf/output/store.yaml`` asks for. about: what the command is for."""
    from omegaconf import OmegaConf

    def template(*, _root_: DictConfig) -> str:
        nodes, said = OmegaConf.to_container(_root_), comments_of(_root_.hydra)
        del nodes["hydra"]
        text = help_text(command.partition("_")[0], about, _groups_of(command), choices, nodes, said)
        return text.replace("$", "$$")  # Hydra fills in what stands behind a single one

    OmegaConf.register_new_resolver("writable", writable, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("help_template", template, replace=True)


def comments_of(hydra: Any) -> dict[str, str]:
    """What the YAML files say of each key, by its path; hydra: what Hydra says of a composed configuration."""
    return comments(hydra.job.config_name, hydra.runtime.choices, users_first().directory)


@cache
def _temporary() -> str:
    return tempfile.mkdtemp(prefix="rbp-lab-")


@cache
def users_first() -> Any:
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


def refuse_hidden_files(sources: Any) -> None:
    """WrongUsage when a YAML file of hydra.searchpath has the name of a packaged one, which Hydra would take."""
    for source in sources:
        if "searchpath" in source.provider and source.schema == "file":
            for path in sorted(Path(source.path).rglob("*.yaml")):
                name = path.relative_to(source.path)
                if (CONF / name).is_file():
                    raise WrongUsage(
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
            raise WrongUsage("store must name a directory; got ''")
        if not override.is_sweep_override() or multirun:
            return
        reason = "several values are a sweep, which takes -m"
    except (HydraException, ValueError, RecursionError) as error:
        reason = first_line(error)
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


def choices(group: str) -> list[str]:
    """The names of a group's YAML files, packaged and the user's own."""
    from hydra.core.global_hydra import GlobalHydra

    return sorted(GlobalHydra.instance().config_loader().get_group_options(group))


def plain(config: DictConfig) -> dict[str, Any]:
    """The composed configuration as nested mappings, lists and scalars; WrongUsage when one cannot be resolved."""
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

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
        raise WrongUsage(_composed_sentence(error)) from None


def _composed_sentence(error: Any) -> str:
    """OmegaConf's complaint as one line: the config path, what is wrong, and the choices."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue

    full = str(error.full_key or "")
    first = str(error.msg or error).splitlines()[0]
    missing = isinstance(error, InterpolationToMissingValueError) and re.search(r"mandatory value: ([\w.]+)", first)
    if missing:  # of another key, which this one is made from
        full = missing[1]
    if missing or isinstance(error, MissingMandatoryValue):
        said = comments_of(HydraConfig.get()).get(full) if HydraConfig.initialized() else None
        return f"{full} must be given, as {full}=…" + (f" ({said})" if said else "")
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
        kind, _, inside = str(error.missing_cfg_file).partition("/")
        if kind in ANY and "/" in inside and command != "compare_models":
            any_path = "local dataset.files" if kind == "dataset" and Path(inside).suffix else ANY[kind]
            return f"{kind}={inside}: a path is no name of a {kind}; it is given as {kind}={any_path}={inside}"
        return no_such(group, f"{group}={given}", given, list(error.options), _lister(group, command))
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        return _composed_sentence(cause)
    if isinstance(error, OmegaConfBaseException):
        return _composed_sentence(error)
    if found := re.match(r"Could not override '([^']+)'\. No match in the defaults list", str(error)):
        return no_such(found[1], f"group of rbp-lab {command.partition('_')[0]}", found[1], _groups_of(command))
    if str(error).startswith("Config group override must be") and (no_name := _no_name(arguments.overrides, command)):
        return no_name
    return f"{one_line(str(error))} (composing {' '.join([f'{command}.yaml', *arguments.overrides])})"


def _groups_of(command: str) -> list[str]:
    """The groups of which a command's configuration is composed."""
    defaults = yaml.safe_load((CONF / f"{command}.yaml").read_text(encoding="utf-8"))["defaults"]
    names = [name for one in defaults if isinstance(one, Mapping) for name in one]
    return [name.removesuffix(".model") for name in names if not name.startswith("override ")]  # model@a, as typed


def _no_name(overrides: Sequence[str], command: str) -> str | None:
    """The sentence for a group that was given a number or the like in place of the name of one of its files."""
    for override in overrides:
        group, _, given = override.lstrip("+").partition("=")
        files = sorted(path.stem for path in (CONF / group.partition("@")[0]).glob("*.yaml"))
        for value in given.split(","):  # several in a sweep
            if files and re.fullmatch(r"[-+\d.e]+|true|false|null", value, re.IGNORECASE):
                own = f"; thresholds of your own are {group}.thresholds=[{value}]" if group == "k" else ""
                return no_such(group, f"{group}={value}", value, files, _lister(group, command)) + own
    return None


def _lister(group: str, command: str) -> str:
    """The command that lists the choices of a group."""
    kind = group.partition("@")[0]
    return f"rbp-lab ls {kind}s" if kind in ("model", "dataset") else f"rbp-lab {command.partition('_')[0]} --help"
