"""The section that sets ours beside the papers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from rbp_lab.fits.points import family_name
from rbp_lab.papers.comparison import Comparison, remarks
from rbp_lab.papers.published import Claim
from rbp_lab.report.sections import ReportTable, Section
from rbp_lab.text import interval, number

LEAD = (
    "Ours beside the numbers of [RBP] arXiv 2510.20387 (tables 1 and 2) and [EE] arXiv 2510.04067. Below a published "
    "slope stands the interval that it implies with its R² and number of models. Ours agrees when it is the printed "
    "number within one unit of its last digit."
)


def papers_section(comparisons: Sequence[Comparison], claims: Sequence[Claim], notes: Sequence[str]) -> Section:
    """Every comparison, one table per published table, and the claims of [RBP] held against its own numbers."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for c in comparisons:
        groups.setdefault((c.source, c.what), []).append(c)
    tables = [ReportTable(f"{source}: {what}", _frame(mine)) for (source, what), mine in groups.items()]
    rows = [{"claim": c.claim, "published numbers against it": "\n".join(c.counterexamples) or "none"} for c in claims]
    tables.append(ReportTable("Claims of [RBP] held against its own table 2", pd.DataFrame(rows)))
    return Section("papers", "Against the papers", LEAD, tables=tuple(tables), notes=(*remarks(comparisons), *notes))


def _frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Columns that say nothing in this table are left out."""
    frame = pd.DataFrame([
        {
            "data set": c.dataset, "family": family_name(c.family), "model": c.model.rpartition("/")[2] or None,
            "law": c.quantity, "ours": interval(c.ours, c.ours_low, c.ours_high),
            "published": interval(c.published, c.published_low, c.published_high, 3),
            "R² ours": number(c.ours_r2) if c.published_r2 is not None else None,
            "R² published": None if c.published_r2 is None else number(c.published_r2, 3),
            "n ours": c.ours_n, "n published": c.published_n, "verdict": c.verdict_in_print,
        }
        for c in comparisons
    ])  # fmt: skip
    return frame.dropna(axis=1, how="all")
