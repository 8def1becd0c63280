"""An analysis as a W&B run: the records it used, its fits as a table, its figures, its files as an artifact."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rbp_lab.store.layout import AnalysisFiles
from rbp_lab.store.tables import read_csv
from rbp_lab.tracking.ledger import Ledger
from rbp_lab.tracking.settings import Tracking, destination
from rbp_lab.tracking.wandb import names
from rbp_lab.tracking.wandb.session import RunSpec, Session, digest_files

NOT_LOST = "; the analysis is on the disk: rbp-lab sync mirrors it later"
FITTED = ("alpha", "r2")  # curves against k, where the table of fits has them


def identity(directory: Path) -> tuple[str, str] | None:
    """Run id and version of an analysis; None when the directory holds none.

    The run is named by the analysis' name, its points and its fits, so analysing the same again is the same run.
    """
    files = _files(directory)
    if not files:
        return None
    at = AnalysisFiles(directory)
    content = digest_files([f for f in files if f in (at.points, at.fits)])
    id = names.run_id(names.ANALYSIS, hashlib.sha256(f"{directory.name}\0{content}".encode()).hexdigest()[:16])
    return id, digest_files([f for f in files if f.suffix == ".csv"])


def mirror_analysis(
    tracking: Tracking,
    store: str | Path,
    directory: Path,
    config: Mapping[str, Any] | None = None,
    force: bool = False,
) -> str | None:
    """Mirror what an analysis wrote to ``directory`` unless it has been; the run's address when online.

    Offline, W&B cannot declare used artifacts: the configuration lists the records' keys all the same. force: also
    what the ledger has as mirrored.
    """
    where = destination(tracking)
    if where is None:
        return None
    session = Session(tracking, where, store, NOT_LOST)
    with session.guarded("mirroring an analysis"):
        found = identity(directory)
        ledger = Ledger(store, tracking, where)
        if found is not None and (force or not ledger.has(*found)):
            return _mirror(session, ledger, directory, *found, config or {})
    return None


def _mirror(
    session: Session, ledger: Ledger, directory: Path, id: str, digest: str, config: Mapping[str, Any]
) -> str | None:
    files = _files(directory)
    points = read_csv(AnalysisFiles(directory).points, dtype={"key": str}, keep_default_na=False)
    keys = sorted(set(points["key"]) - {""})
    shown = {
        "records": keys,
        "families": sorted(points["family"].unique()),
        "datasets": sorted(points["dataset"].unique()),
        "rbp_lab": dict(config),
    }
    session.start(RunSpec(id, f"analysis {directory.name}", names.ANALYSIS, names.ANALYSIS, shown, step="k"))
    for key in keys:
        session.call("use", names.record_artifact(key), names.RECORD_TYPE)
    if session.call("summary", names.RECORD) != digest:
        _log(session, directory, files)
    name = f"analysis-{names.safe(directory.name)}"
    session.call("artifact", name, names.REPORT_TYPE, str(directory), {"records": keys})
    session.call("summarize", {names.RECORD: digest})
    if session.finish(confirm=(names.RECORD, digest)):
        ledger.note(id, digest)
        return session.url
    return None


def _files(directory: Path) -> list[Path]:
    try:
        listed = json.loads(AnalysisFiles(directory).manifest.read_text())["files"]
    except (OSError, ValueError, KeyError):
        return []
    return [directory / name for name in listed if (directory / name).is_file()]


def _log(session: Session, directory: Path, files: list[Path]) -> None:
    """Fits and laws as tables, exponents and R² as curves against k, figures as images."""
    names = {"family": str, "dataset": str}  # as converters, so that a family called NA stays one
    at = AnalysisFiles(directory)
    fits = read_csv(at.fits, converters=names) if at.fits.stat().st_size > 1 else pd.DataFrame()
    session.call("log", _curves(fits))
    tables = [f for f in files if f.suffix == ".csv" and f != at.points and f.stat().st_size > 1]
    images, pages = ([f for f in files if f.suffix == suffix] for suffix in (".png", ".html"))
    session.call("show", *([str(f) for f in chosen] for chosen in (tables, images, pages)))


def _curves(fits: pd.DataFrame) -> list[dict[str, Any]]:
    """Exponent and R² of every law of −log RBP_k against k: one row per k, one curve per data set and family.

    The curve of all families is named by its data set alone.
    """
    if not {"metric", "k", "dataset", "family"} <= set(fits.columns):
        return []
    laws = fits[(fits["metric"] == "neg_log_rbp") & fits["k"].notna()].sort_values("k")
    rows: dict[int, dict[str, Any]] = {}
    for law in laws.to_dict("records"):
        row = rows.setdefault(int(law["k"]), {"k": int(law["k"])})
        about = law["dataset"] if law.get("pooled") else f"{law['dataset']}/{law['family']}"
        for name in FITTED:
            if name in law and not pd.isna(law[name]):
                row[f"{name}/{about}"] = float(law[name])
    return list(rows.values())
