"""A comparison of two models in one pass as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from rbp_lab.comparison.accepted import Accepted
from rbp_lab.comparison.differences import Difference
from rbp_lab.comparison.findings import PERCENTILES as WANTED
from rbp_lab.comparison.findings import WHOLE, Finding, calibration, percentiles, transitions
from rbp_lab.comparison.page import CAPTION, differences_frame, documents_frame, run_row
from rbp_lab.comparison.record import PairRecord
from rbp_lab.figures.comparison import comparison_figure
from rbp_lab.figures.distances import calibration_figure, confidence_figure, transition_figure
from rbp_lab.report.page import write_report
from rbp_lab.report.sections import ReportFigure, ReportTable, Section, TokenText
from rbp_lab.text import bracket, count, percent, significant


def write_pair_page(
    path: Path, record: PairRecord, found: Sequence[Difference], about: Sequence[Finding], drafts: Sequence[Accepted],
    documents: pd.DataFrame, said: Sequence[str], floor: Mapping[str, Sequence[Finding]], level: float,
    tokens: Sequence[TokenText] = (),
) -> Path:  # fmt: skip
    """Write the page. said: its headlines. documents: as ``show_pair.documents_table`` has them. floor: findings over
    all tokens of a against itself, by perturbation. tokens: documents to show token by token."""
    a, b = record.header.a, record.header.b
    title = f"{b.model.name} against {a.model.name} on {a.dataset.name}"
    lead = " ".join(f"{line[:1].upper()}{line[1:]}." for line in said)
    return write_report(path, title, [
        _differences(found, documents, title, lead),
        _distances(record, about, floor, title, level),
        _ranks(record, title),
        _drafts(drafts, level),
        _calibration(record, title, level),
        *([_tokens(tokens)] if tokens else []),
    ], pd.DataFrame([run_row("a", a), run_row("b", b)]))[-1]  # fmt: skip


def _tokens(tokens: Sequence[TokenText]) -> Section:
    return Section(
        "tokens", "Documents token by token",
        "Blue: the right token has a better rank under b; orange: a worse one; the darker, the further it moved. Grey "
        "tokens are not scored. Point at a token for its ranks and probabilities.",
        tokens=tuple(tokens),
    )  # fmt: skip


def _differences(found: Sequence[Difference], documents: pd.DataFrame, title: str, lead: str) -> Section:
    figures: tuple[ReportFigure, ...] = ()
    if any(d.low is not None and d.a != 0 for d in found):
        figures = (ReportFigure("comparison", lambda: comparison_figure(found, documents, title), CAPTION),)
    return Section("differences", "b − a", lead, figures, (
        ReportTable("Differences", differences_frame(found)),
        ReportTable("Documents, those that carry the difference first", documents_frame(documents), folded=True),
    ), () if figures else ("One document has no interval.",))  # fmt: skip


def _distances(
    record: PairRecord, about: Sequence[Finding], floor: Mapping[str, Sequence[Finding]], title: str, level: float
) -> Section:
    caption = f"By the largest probability of a; bars are {percent(level)} intervals over documents."
    rows = []
    for f in about:
        row = {"confidence of a": f.cell, "quantity": f.name, "unit": f.unit, "tokens": count(f.tokens),
               "value": significant(f.value), f"{percent(level)} interval": bracket(f.low, f.high, 6)}  # fmt: skip
        for name, findings in floor.items():
            below = {one.name: one.value for one in findings} if f.cell == WHOLE else {}
            row[f"a with {name}"] = significant(below.get(f.name))
        rows.append(row)
    frame = pd.DataFrame(rows)
    whole = frame["confidence of a"] == WHOLE
    moved = pd.DataFrame({"percent of tokens below": [f"{p:g}" for p in WANTED],
                          "Δp": [significant(p, 3) for p in percentiles(record.sums)]})  # fmt: skip
    notes = [] if not floor else [
        "Below what a differs by from itself, nothing means anything: with noise, its hidden states are multiplied by "
        "1 ± 2⁻⁹, the rounding of bf16; with batch, every row is computed beside another one."
    ]  # fmt: skip
    return Section(
        "distances", "How far the distributions are apart",
        "Over all candidates at every token, from the hidden states of both models.",
        (ReportFigure("confidence", lambda: confidence_figure(about, title), caption),),
        (
            ReportTable("All tokens", frame[whole].drop(columns="confidence of a")),
            ReportTable("By the confidence of a", frame[~whole].drop(columns=[f"a with {n}" for n in floor]),
                        folded=True),
            ReportTable("Change of the right token's probability", moved, folded=True),
        ),
        tuple(notes),
    )  # fmt: skip


def _ranks(record: PairRecord, title: str) -> Section:
    caption = "Tokens by their rank under a (down) and under b (across), with their share of the row."
    moves = transitions(record.sums)
    return Section("ranks", "Ranks under a and under b",
                   "Tokens on the diagonal keep their bin; those below it have a better rank under b.",
                   (ReportFigure("transitions", lambda: transition_figure(moves, title), caption),))  # fmt: skip


def _drafts(drafts: Sequence[Accepted], level: float) -> Section:
    rows = [
        {"tokens of a draft": count(one.draft), "accepted": significant(one.accepted),
         f"{percent(level)} interval": bracket(one.low, one.high), "if independent": significant(one.independent),
         "ratio": significant(one.ratio)} for one in drafts
    ]  # fmt: skip
    return Section("drafts", "Speculative decoding",
                   "How many tokens of a draft of either model the other accepts, when both decode greedily after the "
                   "text of the corpus: Σ p_n over the draft, with p_n the share of n tokens in a row at which the "
                   "first choices are the same. Independent agreement would give Σ p_1^n.",
                   (), (ReportTable("Accepted tokens", pd.DataFrame(rows)),))  # fmt: skip


def _calibration(record: PairRecord, title: str, level: float) -> Section:
    found = calibration(record.sums, level)
    caption = f"Right: the right token is the only first choice. Bars are {percent(level)} intervals over documents."
    rows = [
        {"run": c.side, "confidence": c.cell, "tokens": count(c.tokens), "mean confidence": significant(c.confidence),
         "right": significant(c.correct), f"{percent(level)} interval": bracket(c.low, c.high)} for c in found
    ]  # fmt: skip
    return Section("calibration", "Calibration of both",
                   "A model is calibrated where it is right as often as it is sure.",
                   (ReportFigure("calibration", lambda: calibration_figure(found, title), caption),),
                   (ReportTable("By the confidence of each", pd.DataFrame(rows), folded=True),))  # fmt: skip
