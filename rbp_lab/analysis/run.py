"""The analysis: points in; fits, tables and figures out. No model, no GPU, no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from rbp_lab import __version__
from rbp_lab.analysis.power_laws import fit_all
from rbp_lab.comparison.record import StoredPair
from rbp_lab.config.schemas import FitChoices
from rbp_lab.errors import LabError, WrongUsage, no_such
from rbp_lab.fits.points import Label
from rbp_lab.fits.result import FitResult, fits_to_frame
from rbp_lab.laws import questions, vocabularies
from rbp_lab.laws.base import Inputs, Law
from rbp_lab.laws.registry import LAWS, POWER_LAWS, TOKEN_LAWS, Results, compute, section_of, sections, tables
from rbp_lab.laws.trajectories import fit_along, shown_of
from rbp_lab.measurement.devices import processors
from rbp_lab.papers.run import PAPER_LAWS, AgainstPapers, against_papers
from rbp_lab.papers.section import papers_section
from rbp_lab.papers.terminal import show_papers
from rbp_lab.points import with_sizes
from rbp_lab.records import RunRecord
from rbp_lab.report.beside import Drawer, DrawerBeside
from rbp_lab.report.page import write_report
from rbp_lab.report.provenance import provenance
from rbp_lab.report.sections import Section, some
from rbp_lab.report.terminal import print_line, show
from rbp_lab.store.atomic import atomic_path
from rbp_lab.store.layout import AnalysisFiles
from rbp_lab.store.tables import write_csv

ONLY_POWER_LAWS = FitChoices(laws=False)
MANY = 10  # records, from which on a second process for figures takes less time than its start; see the benchmarks


@dataclass(frozen=True, eq=False)
class Analysis:
    """What an analysis found, and its files in the order of writing."""

    points: pd.DataFrame
    fits: tuple[FitResult, ...]
    files: tuple[Path, ...]

    def fit(self, family: str | None, dataset: str, metric: str, k: int | None = None) -> FitResult:
        """The fit of one law; LabError when the analysis has none of that name."""
        label = Label(family, dataset, metric, k)
        for fit in self.fits:
            if fit.label == label:
                return fit
        raise LabError(f"this analysis has no fit of {label}")


def analyze(
    points: pd.DataFrame,
    out_dir: str | Path,
    fit: FitChoices = ONLY_POWER_LAWS,
    *,
    size: str = "non_embedding_params",
    records: Sequence[RunRecord] = (),
    papers: bool = False,
    source: str = "",
    axis: str = "size",
    console: Console | None = None,
    compared: Sequence[StoredPair] = (),
    beside: bool = False,
) -> Analysis:
    """Fit the laws to a table of points and write points.csv, fits.csv, fits.parquet and report.html with its figures.

    fit: how laws are fitted and shown. Of its ``figure_ks`` those that were measured are shown, the first three
    measured ones when none was; with ``laws`` every law of ``laws.registry`` is written as law_*.csv with its figures,
    and those of ranks need the runs; in each of its ``formats`` figures are files as well. size: what S is, for labels.
    records: the runs behind the points, when there are; they show where ties or one document decide. papers: also ours
    beside the published numbers, paper_comparison.csv and a section of the report, with the laws that are compared.
    source: where values without runs came from, such as the name of a file; the report names it for every point.
    axis: "size" for laws in S; "tokens" for the laws along trainings in place of them, "size+tokens" for the joint laws
    as well. compared: comparisons in one pass of the records, for what precision costs. beside: whether a second
    process may draw the figures of many records; the files are the same.
    Every file appears complete or not at all; files of an earlier analysis in the same place that this one does not
    write are removed; a finished analysis of the same inputs is found and its files are kept as they are. Prints
    tables and paths to ``console`` when one is given. Raises LabError when there are no points.
    """
    if points.empty:
        raise LabError("there are no points to analyse")
    out, along = Path(out_dir), axis != "size"
    if papers and along:
        raise WrongUsage(f"papers=true is of laws in S, and axis={axis} of laws in tokens; give one of the two")
    every = TOKEN_LAWS[axis] if along else LAWS
    chosen = _only(every if along or fit.laws else POWER_LAWS, fit.only)
    points = points if along else with_sizes(points, fit.least_sizes)
    fits = (
        fit_along(points, fit.least_tokens, fit.confidence, records) if along
        else fit_all(points, fit.confidence, records, size)
    )  # fmt: skip
    measured = sorted(int(k) for k in points["k"].dropna().unique())
    shown = tuple(k for k in fit.figure_ks if k in measured) or tuple(measured[:3])
    inputs = Inputs(points, fits, tuple(records), shown, size, fit, tuple(compared))
    digest = _digest(points, records, fit, size, papers, source, axis, sorted(one.header.key for one in compared))
    files = _found(out, digest)
    fresh = not files
    compared = [law for law in LAWS if law in PAPER_LAWS] if papers else []
    told = [law for law in chosen if law is questions and fit.only]  # its sentences are printed
    needed = [law for law in every if law in compared or law in told or (fresh and law in chosen)]
    if not fresh:
        results = compute(needed, inputs)
        papers_too = against_papers(inputs, results) if papers else None
    else:
        earlier = _manifest(out)["files"]
        if earlier:
            _write_manifest(out, "", earlier)  # interrupted from here on, nothing in this place counts as finished
        shown_laws = [law for law in every if law in chosen or law in compared]
        many = beside and len(records) >= MANY and processors() > 1
        with (DrawerBeside if many else Drawer)(out, fit.formats) as drawer:
            results, made = _compute_and_begin(needed, shown_laws, inputs, drawer)
            papers_too = against_papers(inputs, results) if papers else None
            files = _write_all(out, inputs, sections(shown_laws, results, made), results, papers_too, drawer, source)
        names = [f.name for f in files]
        for stale in set(earlier) - set(names):
            (out / Path(stale).name).unlink(missing_ok=True)
        _write_manifest(out, digest, names)
    if console is not None:
        bits = results.get(vocabularies.name) or vocabularies.compute(inputs)
        printed = shown_of(fits, shown) if along else fits
        show(console, points, printed, shown, bits.tables.get("bits_per_byte"), f"{vocabularies.NOT_COMPARABLE}:")
        for law in told:
            for line in results[law.name].lines():
                print_line(console, line)
        if papers_too is not None:
            show_papers(console, papers_too.comparisons, papers_too.lines)
        figures = [f for f in files if fit.formats and f.suffix == f".{fit.formats[0]}"]
        formats = fit.formats[0] if len(fit.formats) == 1 else f"{{{','.join(fit.formats)}}}"
        lines = [f"{f.with_suffix('')}.{formats}" for f in figures]
        what = "tables and figures" if fresh else "tables and figures, found as they were left,"
        for line in (*lines, f"{len(files)} files of {what} in {out}", str(AnalysisFiles(out).report)):
            print_line(console, line)
    return Analysis(points, fits, tuple(files))


def _only(laws: Sequence[Law], names: Sequence[str]) -> list[Law]:
    """The laws of these names, all without any; WrongUsage for a name that none has."""
    there = [law.name for law in laws]
    for name in names:
        if name not in there:
            raise WrongUsage(no_such("fit.only", f"law {name!r}", name, there))
    return [law for law in laws if not names or law.name in names]


def _compute_and_begin(
    laws: Sequence[Law], shown: Sequence[Law], inputs: Inputs, drawer: Drawer
) -> tuple[Results, dict[str, Section | None]]:
    """The results of these laws, and the sections of those shown, whose figures are begun before the next law."""
    results: Results = {}
    made: dict[str, Section | None] = {}
    for law in laws:
        results |= compute([law], inputs)
        if law.name not in results or law not in shown:
            continue
        section = made[law.name] = section_of(law, results[law.name])
        for figure in section.figures if section is not None else ():
            drawer.begin(figure)
    return results, made


def _write_all(
    out: Path,
    inputs: Inputs,
    shown: list[Section],
    results: Results,
    papers_too: AgainstPapers | None,
    drawer: Drawer,
    source: str,
) -> list[Path]:
    """Every table, figure and the report, in that order; returns their paths."""
    at, fits = AnalysisFiles(out), fits_to_frame(inputs.fits)
    files = [
        write_csv(inputs.points, at.points),
        write_csv(fits, at.fits),
        _write(at.fits_parquet, lambda path: fits.to_parquet(path, index=False)),
    ]
    files += [write_csv(table, at.law(name)) for name, table in tables(results).items()]
    if papers_too is not None:
        files.append(write_csv(papers_too.to_frame(), at.paper_comparison))
        shown = [*shown[:1], papers_section(papers_too.comparisons, papers_too.claims, papers_too.notes), *shown[1:]]
    families, datasets = (some(sorted(inputs.points[name].unique())) for name in ("family", "dataset"))
    title = f"Scaling of {families} on {datasets}"
    where = provenance(inputs.points, inputs.records, source, inputs.size)
    return files + write_report(at.report, title, shown, where, drawer=drawer)


def _digest(points: pd.DataFrame, records: Sequence[RunRecord], *choices: object) -> str:
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


def _found(out: Path, digest: str) -> list[Path]:
    """The files of a finished analysis of the same inputs; [] when there is none, or one of its files is gone."""
    manifest = _manifest(out)
    files = [out / name for name in manifest["files"]]
    return files if manifest["inputs"] == digest and all(f.is_file() for f in files) else []


def _write(path: Path, write) -> Path:
    with atomic_path(path) as temporary:
        write(temporary)
    return path
