"""The analysis: points in; fits, tables and figures out. No model, no GPU, no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from rbp_lab import __version__
from rbp_lab.errors import LabError
from rbp_lab.fits.influence import sensitivity_warnings
from rbp_lab.fits.power import fit_power
from rbp_lab.fits.result import FitResult, Label, fits_to_frame
from rbp_lab.laws.registry import all_laws
from rbp_lab.papers.run import AgainstPapers, against_papers
from rbp_lab.papers.section import papers_section
from rbp_lab.papers.terminal import show_papers
from rbp_lab.points import POOLED, series
from rbp_lab.records import RunRecord
from rbp_lab.report.laws import provenance, sections
from rbp_lab.report.page import write_report
from rbp_lab.report.terminal import show
from rbp_lab.store.atomic import atomic_path
from rbp_lab.store.layout import AnalysisFiles


@dataclass(frozen=True, eq=False)
class Analysis:
    """What an analysis found, and its files in the order of writing."""

    points: pd.DataFrame
    fits: tuple[FitResult, ...]
    files: tuple[Path, ...]

    def fit(self, family: str | None, dataset: str, metric: str, k: int | None = None) -> FitResult:
        """The fit of one law; LabError when the analysis has none of that name."""
        wanted = Label(family, dataset, metric, k)
        for fit in self.fits:
            if fit.label == wanted:
                return fit
        raise LabError(f"this analysis has no fit of {wanted}")


def fit_all(
    points: pd.DataFrame,
    confidence: float = 0.95,
    records: Sequence[RunRecord] = (),
    size: str = "non_embedding_params",
) -> tuple[FitResult, ...]:
    """A power law of every quantity against S, per (family, dataset), and pooled where a data set has several families.

    Ordered by data set, quantity (cross-entropy first, then k), family. Refused fits are among them. records: the runs
    behind the points, when there are: fits are then marked where ties or a single document decide.
    """
    runs = {(r.dataset.name, r.model.family): [] for r in records}
    for record in records:
        runs[record.dataset.name, record.model.family].append(record)
    fits = []
    for dataset in sorted(points["dataset"].unique()):
        here = points[points["dataset"] == dataset]
        families = sorted(here["family"].unique())
        quantities = here[["metric", "k", "window"]].drop_duplicates()
        quantities = quantities.sort_values(["metric", "window", "k"], na_position="first", kind="stable")
        for metric, k, window in quantities.itertuples(index=False):
            for family in [*families, *([POOLED] if len(families) > 1 else [])]:
                label = Label(family, dataset, metric, None if pd.isna(k) else int(k), int(window))
                data = series(here, label)
                if len(data):
                    fit = fit_power(data, label, confidence)
                    marks = sensitivity_warnings(fit, runs.get((dataset, family), ()), size)
                    fits.append(replace(fit, warnings=fit.warnings + marks))
    return tuple(fits)


def analyze(
    points: pd.DataFrame,
    out_dir: str | Path,
    *,
    figure_ks: Sequence[int] = (1, 10, 100),
    confidence: float = 0.95,
    size: str = "non_embedding_params",
    formats: Sequence[str] = ("png", "svg", "pdf"),
    records: Sequence[RunRecord] = (),
    laws: bool = False,
    papers: bool = False,
    source: str = "",
    console: Console | None = None,
) -> Analysis:
    """Fit the laws to a table of points and write points.csv, fits.csv, fits.parquet, figures and report.html.

    figure_ks: the k drawn against S and listed per model, where they were measured (the first three otherwise). size:
    what S is, for labels. records: the runs behind the points, when there are; they tell where ties or one document
    decide. laws: also every law of ``stages.laws``, as law_*.csv with figures; those of ranks need the runs.
    papers: also ours beside the published numbers, paper_comparison.csv and a section of the report. source:
    where values without runs came from, such as the name of a file; the report names it for every point.
    Every file appears complete or not at all; files of an earlier analysis in the same place that this one does not
    write are removed; a finished analysis of the same inputs is found and its files are kept as they are. Prints
    tables and paths to ``console`` when one is given. Raises LabError when there are no points.
    """
    if points.empty:
        raise LabError("there are no points to analyse")
    out = Path(out_dir)
    fits = fit_all(points, confidence, records, size)
    measured = sorted(int(k) for k in points["k"].dropna().unique())
    shown = [k for k in figure_ks if k in measured] or measured[:3]
    beside = against_papers(points, fits, records, size, confidence) if papers else None
    inputs = _inputs(points, records, shown, confidence, size, formats, laws, papers, source)
    files = _found(out, inputs)
    fresh = not files
    if fresh:
        earlier = _manifest(out)["files"]
        if earlier:
            _write_manifest(out, "", earlier)  # interrupted from here on, nothing in this place counts as finished
        files = _write_all(out, points, fits, records, shown, confidence, size, formats, laws, beside, source)
        names = [f.name for f in files]
        for stale in set(earlier) - set(names):
            (out / Path(stale).name).unlink(missing_ok=True)
        _write_manifest(out, inputs, names)
    if console is not None:
        show(console, points, fits, shown)
        if beside is not None:
            show_papers(console, beside.comparisons, beside.lines)
        figures = [f for f in files if formats and f.suffix == f".{formats[0]}"]
        lines = [f"{f.with_suffix('')}.{{{','.join(formats)}}}" for f in figures]
        what = "tables and figures" if fresh else "tables and figures, found as they were left,"
        for line in (*lines, f"{len(files)} files of {what} in {out}", str(AnalysisFiles(out).report)):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return Analysis(points, fits, tuple(files))


def _write_all(
    out: Path,
    points: pd.DataFrame,
    fits: tuple[FitResult, ...],
    records: Sequence[RunRecord],
    shown: Sequence[int],
    confidence: float,
    size: str,
    formats: Sequence[str],
    laws: bool,
    beside: AgainstPapers | None,
    source: str,
) -> list[Path]:
    """Every table, figure and the report, in that order; returns their paths."""
    at = AnalysisFiles(out)
    files = [
        _write(at.points, lambda path: points.to_csv(path, index=False)),
        _write(at.fits, lambda path: fits_to_frame(fits).to_csv(path, index=False)),
        _write(at.fits_parquet, lambda path: fits_to_frame(fits).to_parquet(path, index=False)),
    ]
    found = all_laws(points, fits, records, size, confidence) if laws else {}
    for name, table in found.items():
        files.append(_write(at.law(name), lambda path, table=table: table.to_csv(path, index=False)))
    parts = sections(points, fits, found, records, shown, _size_name(size), confidence)
    if beside is not None:
        table = beside.to_frame()
        files.append(_write(at.paper_comparison, lambda path: table.to_csv(path, index=False)))
        parts.insert(1, papers_section(beside.comparisons, beside.claims, beside.notes))
    for figure in (figure for part in parts for figure in part.figures):
        files += figure.save(out, formats)
    families, datasets = (", ".join(sorted(points[name].unique())) for name in ("family", "dataset"))
    title = f"Scaling of {families} on {datasets}"
    files.append(write_report(at.report, title, parts, provenance(points, records, source)))
    return files


def _inputs(points: pd.DataFrame, records: Sequence[RunRecord], *choices: object) -> str:
    """Hash of what determines the files of an analysis: the values, the runs, every choice, and the version."""
    what = [__version__, points.to_csv(index=False), sorted(r.key for r in records), [repr(c) for c in choices]]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _manifest(out: Path) -> dict[str, Any]:
    """What the last analysis in this place said of itself; nothing when there was none."""
    try:
        return {"inputs": "", "files": [], **json.loads(AnalysisFiles(out).manifest.read_text())}
    except (OSError, ValueError):
        return {"inputs": "", "files": []}


def _write_manifest(out: Path, inputs: str, names: Sequence[str]) -> None:
    text = json.dumps({"inputs": inputs, "files": list(names)}, indent=1)
    _write(AnalysisFiles(out).manifest, lambda path: path.write_text(text))


def _found(out: Path, inputs: str) -> list[Path]:
    """The files of a finished analysis of the same inputs; [] when there is none, or one of its files is gone."""
    manifest = _manifest(out)
    files = [out / name for name in manifest["files"]]
    return files if manifest["inputs"] == inputs and all(f.is_file() for f in files) else []


def _size_name(size: str) -> str:
    """A size column in words: non-embedding parameters."""
    return size.replace("_", " ").replace("params", "parameters").replace("non ", "non-")


def _write(path: Path, write) -> Path:
    with atomic_path(path) as temporary:
        write(temporary)
    return path
