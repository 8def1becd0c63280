"""A comparison of two models in one pass as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rbp_lab.comparison.findings import WHOLE, transitions
from rbp_lab.comparison.percentiles import Percentile
from rbp_lab.comparison.record import PairRecord
from rbp_lab.comparison.summary import Summary, TokenText
from rbp_lab.figures.comparison import comparison_figure
from rbp_lab.figures.distances import calibration_figure, confidence_figure, transition_figure
from rbp_lab.report.comparison.page import CAPTION, differences_frame, documents_frame, run_row, title_of
from rbp_lab.report.page import write_report
from rbp_lab.report.sections import ReportFigure, ReportTable, Section
from rbp_lab.text import between, bracket, count, percent, significant

FLOOR = (
    "Below what a differs by from itself, nothing means anything: with noise, its hidden states are multiplied by "
    "1 ± 2⁻⁹, the rounding of bf16; with batch, every row is computed beside another one. Of b − a it is the end of "
    "the interval that is farther from 0."
)


def write_pair_page(
    path: Path,
    record: PairRecord,
    found: Summary,
    said: Sequence[str],
    detect: float | None,
    tokens: Sequence[TokenText],
) -> Path:
    """Write the page. said: its headlines. detect: as of ``differences_frame``. tokens: documents to show token by
    token."""
    a, b = record.header.a, record.header.b
    title = title_of(a, b, a.dataset.name)
    lead = " ".join(f"{line[:1].upper()}{line[1:]}." for line in said)
    return write_report(path, title, [
        _differences(found, title, lead, detect),
        _distances(found, title),
        _ranks(record, title),
        _drafts(found),
        _calibration(found, title),
        *([_tokens(tokens)] if tokens else []),
    ], pd.DataFrame([run_row("a", a), run_row("b", b)]))[-1]  # fmt: skip


def _tokens(tokens: Sequence[TokenText]) -> Section:
    return Section(
        "tokens", "Documents token by token",
        "Blue: the right token has a better rank under b; orange: a worse one; the darker, the further it moved. Grey "
        "tokens are not scored. Point at a token for its ranks and probabilities.",
        tokens=tuple(tokens),
    )  # fmt: skip


def _differences(found: Summary, title: str, lead: str, detect: float | None) -> Section:
    figures: tuple[ReportFigure, ...] = ()
    if any(d.low is not None and d.a != 0 for d in found.differences):
        figures = (
            ReportFigure("comparison", lambda: comparison_figure(found.differences, found.documents, title), CAPTION),
        )
    notes = () if figures else ("One document has no interval.",)
    return Section("differences", "b − a", lead, figures, (
        ReportTable("Differences", differences_frame(found.differences, detect, found.floor)),
        ReportTable("Documents, those that carry the difference first", documents_frame(found.documents), folded=True),
    ), (*notes, FLOOR) if found.floor else notes)  # fmt: skip


def _distances(found: Summary, title: str) -> Section:
    level = percent(found.level)
    caption = f"By the largest probability of a; bars are {level} intervals over documents."
    rows = []
    for f in found.findings:
        row = {"confidence of a": f.cell, "quantity": f.name, "unit": f.unit, "tokens": count(f.tokens),
               "value": significant(f.value), f"{level} interval": between(f.low, f.high)}  # fmt: skip
        for name, floor in found.floor.items():
            row[f"a with {name}"] = significant(floor.distances[f.name]) if f.cell == WHOLE else None
        rows.append(row)
    frame = pd.DataFrame(rows)
    whole = frame["confidence of a"] == WHOLE
    return Section(
        "distances", "How far the distributions are apart",
        "Over all candidates at every token, from the hidden states of both models.",
        (ReportFigure("confidence", lambda: confidence_figure(found.findings, title), caption),),
        (
            ReportTable("All tokens", frame[whole].drop(columns="confidence of a")),
            ReportTable("By the confidence of a", frame[~whole].drop(columns=[f"a with {n}" for n in found.floor]),
                        folded=True),
            ReportTable("Change of the right token's probability, p_b − p_a", _moves(found.percentiles, level),
                        folded=True),
        ),
    )  # fmt: skip


def _moves(found: Sequence[Percentile], level: str) -> pd.DataFrame:
    """Percentiles of Δp: a row for each, all tokens first."""
    return pd.DataFrame([
        {"confidence of a": one.cell, "tokens": count(one.tokens), "percent of tokens at or below": f"{one.percent:g}",
         "Δp": significant(one.value, 3), f"{level} interval": between(one.low, one.high, 3)} for one in found
    ])  # fmt: skip


def _ranks(record: PairRecord, title: str) -> Section:
    caption = "Tokens by their rank under a (down) and under b (across), with their share of the row."
    moves = transitions(record.sums)
    return Section("ranks", "Ranks under a and under b",
                   "Tokens on the diagonal keep their bin; those below it have a better rank under b.",
                   (ReportFigure("transitions", lambda: transition_figure(moves, title), caption),))  # fmt: skip


def _drafts(found: Summary) -> Section:
    rows = [
        {"tokens of a draft": count(one.draft), "accepted": significant(one.accepted),
         f"{percent(found.level)} interval": bracket(one.low, one.high),
         "if independent": significant(one.independent), "ratio": significant(one.ratio)} for one in found.accepted
    ]  # fmt: skip
    return Section("drafts", "Speculative decoding",
                   "How many tokens of a draft of either model the other accepts, when both decode greedily after the "
                   "text of the corpus: Σ p_n over the draft, with p_n the share of n tokens in a row at which the "
                   "first choices are the same. Independent agreement would give Σ p_1^n.",
                   (), (ReportTable("Accepted tokens", pd.DataFrame(rows)),))  # fmt: skip


def _calibration(found: Summary, title: str) -> Section:
    level = percent(found.level)
    caption = f"Right: the right token is the only first choice. Bars are {level} intervals over documents."
    rows = [
        {"run": c.side, "confidence": c.cell, "tokens": count(c.tokens), "mean confidence": significant(c.confidence),
         "right": significant(c.correct), f"{level} interval": bracket(c.low, c.high)} for c in found.calibration
    ]  # fmt: skip
    return Section("calibration", "Calibration of both",
                   "A model is calibrated where it is right as often as it is sure.",
                   (ReportFigure("calibration", lambda: calibration_figure(found.calibration, title), caption),),
                   (ReportTable("By the confidence of each", pd.DataFrame(rows), folded=True),))  # fmt: skip
