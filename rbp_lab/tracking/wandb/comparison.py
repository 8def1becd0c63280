"""A comparison as a W&B run: its tables, its page and its files as an artifact, linked to the runs of both records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rbp_lab.errors import LabError
from rbp_lab.records import RunHeader
from rbp_lab.store.header import read_header, run_header
from rbp_lab.store.layout import PairFiles, Store, compared
from rbp_lab.store.tables import read_csv
from rbp_lab.tracking.ledger import Ledger
from rbp_lab.tracking.settings import Tracking, destination
from rbp_lab.tracking.wandb import names
from rbp_lab.tracking.wandb.session import RunSpec, Session, digest_files

NOT_LOST = "; the comparison is on the disk: rbp-lab sync mirrors it later"


def identity(directory: Path) -> tuple[str, str] | None:
    """Run id and version of a comparison; None when the directory holds none."""
    tables = sorted(directory.glob("*.csv"))
    if not PairFiles(directory).differences.is_file():
        return None
    return names.run_id(names.COMPARISON, _short(directory)), digest_files(tables)


def _short(directory: Path) -> str:
    """What W&B may call a comparison: the keys, and of one with a name a hash of it, which may be in any letters."""
    keys = "-".join(compared(directory.name))
    return keys if directory.name == keys else f"{keys}-{hashlib.sha256(directory.name.encode()).hexdigest()[:8]}"


def mirror_comparison(
    tracking: Tracking,
    store: str | Path,
    name: str,
    config: Mapping[str, Any] | None = None,
    force: bool = False,
) -> str | None:
    """Mirror a comparison, of records or in one pass, unless it has been; the run's address when online.

    name: of its directory. Its configuration names the runs of both records (``run_a``,
    ``run_b``), and their artifacts count as used where they are there. force: also what the ledger has as mirrored.
    """
    where = destination(tracking)
    if where is None:
        return None
    session, directory = Session(tracking, where, store, NOT_LOST), Store(store).comparisons_directory / name
    with session.guarded("mirroring a comparison"):
        found = identity(directory)
        ledger = Ledger(store, tracking, where)
        if found is not None and (force or not ledger.has(*found)):
            return _mirror(session, ledger, Store(store), directory, *found, config or {})
    return None


def _mirror(
    session: Session, ledger: Ledger, store: Store, directory: Path, id: str, digest: str, config: Mapping[str, Any]
) -> str | None:
    sides = dict(zip("ab", _headers(store, directory), strict=True))
    title = f"{sides['b'].model.name} against {sides['a'].model.name} on {sides['a'].dataset.name}"
    if called := directory.name.partition("_")[2]:
        title = f"{title}, {called}"
    about: dict[str, Any] = {"rbp_lab": dict(config), "dataset": sides["a"].dataset.name}
    for side, header in sides.items():
        about |= {f"run_{side}": names.run_id(names.MEASURE, header.key), side: names.record_config(header)}
    session.start(RunSpec(id, title, names.COMPARISON, names.COMPARISON, about))
    for header in sides.values():
        session.call("use", names.record_artifact(header.key), names.RECORD_TYPE)
    files, pages = PairFiles(directory), [str(file) for file in sorted(directory.glob("*.html"))]
    if session.call("summary", names.RECORD) != digest:
        session.call("show", [str(file) for file in sorted(directory.glob("*.csv"))], [], pages)
    keys = {"records": [header.key for header in sides.values()]}
    session.call("artifact", f"comparison-{_short(directory)}", names.COMPARISON_TYPE, str(directory), keys)
    session.call("summarize", _summary(files) | {names.RECORD: digest})
    if session.finish(confirm=(names.RECORD, digest)):
        ledger.note(id, digest)
        return session.url
    return None


def _headers(store: Store, directory: Path) -> tuple[RunHeader, RunHeader]:
    """What was compared: of a comparison in one pass its own headers, else those of the records."""
    keys = compared(directory.name)
    if len(keys) == 2:
        a, b = (run_header(read_header(store.record(key), key)) for key in keys)
        return a, b
    try:
        about = json.loads(store.pair(*keys).header.read_bytes())
        return run_header(about["a"]), run_header(about["b"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(f"{directory} is not a readable comparison ({error}); compare again") from error


def _summary(files: PairFiles) -> dict[str, float]:
    """b − a of every quantity with its interval, and the distances over all tokens."""
    found: dict[str, float] = {}
    for row in read_csv(files.differences).to_dict("records"):
        values = {"": row["difference"], "/lower": row["low"], "/upper": row["high"], "/p": row["p"]}
        found |= {f"difference/{row['name']}{end}": value for end, value in values.items()}
    if files.distances.is_file():
        for row in read_csv(files.distances).query("cell == 'all'").to_dict("records"):
            values = {"": row["value"], "/lower": row["low"], "/upper": row["high"]}
            found |= {f"distance/{row['name']}{end}": value for end, value in values.items()}
    return {name: float(value) for name, value in found.items() if value == value}
