"""Where tracking goes: the schema of the group ``tracking``, and what it means on this machine."""

from __future__ import annotations

import configparser
import netrc
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from rbp_lab.config.build import OPEN
from rbp_lab.errors import LabError
from rbp_lab.measurement.observers import Callback

MODES = ("auto", "online", "offline", "none")
PUBLIC_SERVER = "https://api.wandb.ai"


@dataclass(frozen=True)
class Tracking:
    """Where results are mirrored (group ``tracking``); never part of a record's key. All but ``trackers`` is about W&B.

    mode: "online", "offline" (run directories below the store, for ``wandb sync``), "none", or "auto": online where
    a key is configured, else offline; WANDB_MODE overrides auto. project, entity: as W&B means them; entity null is
    the key's default. group, job_type: null for the model's family and for measure, train or analysis.
    seconds: between live values. timeout: seconds after which a single step of W&B's is given up; there are a few
    after the loop, and nothing waits before or within it. trackers: further callbacks of a measurement, by name, each
    a mapping with ``_target_``.
    """

    mode: str = "none"
    project: str = "rbp-lab"
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    seconds: float = 5.0
    timeout: float = 30.0
    trackers: dict[str, Annotated[Callback, OPEN]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise LabError(f"tracking.mode must be one of {', '.join(MODES)}; got {self.mode!r}")
        for name in ("seconds", "timeout"):
            if not getattr(self, name) > 0:
                raise LabError(f"tracking.{name} must be positive; got {getattr(self, name)}")
        if not self.project or "/" in self.project:
            raise LabError(f"tracking.project must be a name without a slash; got {self.project!r}")


NO_TRACKING = Tracking()


@dataclass(frozen=True)
class Destination:
    """Where runs go from here. mode: "online" or "offline". server: base URL. key: None when a login is not by key."""

    mode: str
    server: str
    key: str | None = field(repr=False, default=None)

    @property
    def online(self) -> bool:
        return self.mode == "online"


def destination(tracking: Tracking) -> Destination | None:
    """What ``tracking`` means with this environment; None when nothing is to be tracked. Uses no network."""
    mode = tracking.mode
    if mode == "auto":
        asked = os.environ.get("WANDB_MODE", "").lower()
        mode = {"dryrun": "offline", "disabled": "none", "online": "online", "offline": "offline"}.get(asked, "auto")
    if mode == "none":
        return None
    server = base_url()
    if mode == "offline":
        return Destination("offline", server)
    key = api_key(server)
    known = key is not None or bool(os.environ.get("WANDB_IDENTITY_TOKEN_FILE"))
    # Online without a key would make wandb ask for one at a terminal, so it is never attempted.
    return Destination("online" if known else "offline", server, key)


def base_url() -> str:
    """The W&B server: WANDB_BASE_URL, or that of a ``wandb login --host``, or the public one."""
    if os.environ.get("WANDB_BASE_URL"):
        return os.environ["WANDB_BASE_URL"].rstrip("/")
    directory = os.environ.get("WANDB_CONFIG_DIR") or os.path.expanduser("~/.config/wandb")
    settings = configparser.ConfigParser()
    try:
        settings.read(Path(directory) / "settings")
        return settings.get("default", "base_url", fallback=PUBLIC_SERVER).rstrip("/")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return PUBLIC_SERVER


def api_key(server: str) -> str | None:
    """The key for ``server`` from WANDB_API_KEY or from netrc, where ``wandb login`` puts it; None without one."""
    if os.environ.get("WANDB_API_KEY"):
        return os.environ["WANDB_API_KEY"]
    named = os.environ.get("NETRC")
    for path in [named] if named else ["~/.netrc", "~/_netrc"]:
        try:
            found = netrc.netrc(os.path.expanduser(path)).hosts.get(urlsplit(server).hostname or "")
        except (OSError, ValueError, netrc.NetrcParseError):
            continue
        if found and found[2]:
            return found[2]
    return None
