"""The numbers of the papers, and which of their claims these numbers bear out.

[RBP] arXiv 2510.20387 (tables 1 and 2), [EE] arXiv 2510.04067. The numbers are data files, read by the analysis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rbp_lab.fits.points import POOLED

# Our names (in lower case) and the papers'. Values read off the papers carry the papers' own names.
DATASETS = {
    "wikipedia": "Wikipedia", "humaneval": "HumanEval", "hotpotqa": "HotpotQA", "auslegal": "AusLegal", "c4": "C4",
    "github": "Github",
}  # fmt: skip
FAMILIES = {"gpt2": "GPT2", "opt": "OPT", "pythia": "Pythia", "qwen2.5": "Qwen", "qwen": "Qwen", POOLED: "all"}


@dataclass(frozen=True, eq=False)
class Papers:
    """The published numbers, in the papers' names.

    table2: (data set, family, k or None for CE) → (slope, R²) against S. table1: (data set, family, model) → (slope,
    R²) against k. parts: (data set, family or "all", part of cross-entropy) → R² against S. models: family → S of its
    models by name.
    """

    table2: Mapping[tuple[str, str, int | None], tuple[float, float]]
    table1: Mapping[tuple[str, str, str], tuple[float, float]]
    parts: Mapping[tuple[str, str, str], float]
    models: Mapping[str, Mapping[str, float]]


def papers_from(table2: Mapping, table1: Mapping, parts: Mapping) -> Papers:
    """The published numbers from the nested mappings of the data files: values[data set][family][k, model or part]."""

    def flat(table: Mapping) -> dict:
        return {
            (dataset, family, key): value
            for dataset, families in table["values"].items()
            for family, row in families.items()
            for key, value in row.items()
        }

    by_k = {(d, f, None if k == "CE" else k): tuple(value) for (d, f, k), value in flat(table2).items()}
    by_model = {(d, f, str(m).casefold()): tuple(value) for (d, f, m), value in flat(table1).items()}
    sizes = {f: {str(m).casefold(): float(s) for m, s in models.items()} for f, models in table2["models"].items()}
    return Papers(by_k, by_model, flat(parts), sizes)


def published_name(name: str | None, names: Mapping[str | None, str]) -> str | None:
    """What a paper calls this data set or family of ours; None when it has no such."""
    return names.get(name if name is POOLED else name.casefold())


@dataclass(frozen=True)
class Claim:
    """A claim of [RBP] and the published numbers that do not bear it out. counterexamples: in words, worst first."""

    code: str
    claim: str
    counterexamples: tuple[str, ...]
    checked: int

    @property
    def sentence(self) -> str:
        """The claim and what table 2 says of it."""
        if not self.counterexamples:
            return f"{self.claim}: all {self.checked} published numbers bear it out"
        shown = "; ".join(self.counterexamples)
        return (
            f"{self.claim}: {len(self.counterexamples)} of {self.checked} published numbers do not bear it out: {shown}"
        )


def published_claims(papers: Papers) -> tuple[Claim, ...]:
    """The claims of [RBP] held against its own table 2: no number of ours is involved."""
    by_k = {key: value for key, value in papers.table2.items() if key[2] is not None}
    small = {key: value for key, value in by_k.items() if key[2] <= 100}
    low = sorted((r2, key) for key, (_, r2) in small.items() if r2 < 0.97)
    rising = sorted(((slope, r2, key) for key, (slope, r2) in by_k.items() if slope > 0), reverse=True)
    flat = [key for key, (slope, r2) in by_k.items() if degenerate(slope, r2)]
    return (
        Claim("r2_small_k", "R² ≥ 0.97 for k ≤ 100 everywhere",
              tuple(f"{_named(key)} R² {r2:.3f}" for r2, key in low), len(small)),
        Claim("falls", "−log RBP_k falls as S grows",
              tuple(f"{_named(key)} slope +{slope:.3f} (R² {r2:.3f})" for slope, r2, key in rising), len(by_k)),
        Claim("is_a_fit", "every R² is of a fit",
              tuple(f"{_named(key)} R² 1.000 with slope 0.000: degenerate" for key in flat),
              len(by_k)),
    )  # fmt: skip


def _named(key: tuple[str, str, int | None]) -> str:
    return f"{key[0]}/{key[1]} k={key[2]}"


def degenerate(slope: float, r2: float) -> bool:
    """Whether a published row is no fit: slope 0.000 with R² 1.000, as a model with RBP_k = 1 gives."""
    return slope == 0 and r2 == 1
