"""The parts of cross-entropy of simulated models, over documents drawn from many whose parts are the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from rbp_lab import metrics
from rbp_lab.fits.decomposition import PARTS, corrected_error_entropy, decomposition_table, part_scalings
from rbp_lab.fits.documents import DocumentEffects
from rbp_lab.records import RunRecord
from rbp_lab.stats import UNIT, DocumentTable, RankStats
from tests.coverage.intervals import inside
from tests.coverage.worlds import SIZES
from tests.fits_data import synthetic_record

ALL, TOKENS, RANKS = 1500, 150, 40  # documents of the truth, mean tokens of one, ranks


@dataclass(frozen=True)
class Parts:
    """A design; error as in ``worlds``. scatter: standard deviation of ln part between models."""

    documents: int
    models: int
    error: str
    scatter: float = 0.02

    @cached_property
    def all(self) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, Σ nll in units) by document, model and rank [ALL,n,RANKS].

        A document is harder or easier for all models, in its ranks and beyond them in its nll; both run along ln S or
        are each model's own.
        """
        rng, n = np.random.default_rng(7), self.models
        across = np.linspace(-1, 1, n)
        lift, tilt, own = (0.5, 0.3, 0.05) if self.error == "coherent" else (0.5, 0.0, 0.3)
        tokens = np.maximum(np.exp(0.4 * rng.standard_normal(ALL)) * TOKENS, 20).astype(int)

        def hardness() -> np.ndarray:
            shared = rng.standard_normal((ALL, n + 2))
            return lift * shared[:, :1] + tilt * shared[:, 1:2] * across + own * shared[:, 2:]

        in_rank, beyond = hardness(), 0.3 * hardness()
        counts, nll = np.zeros((2, ALL, n, RANKS), np.int64)
        for g in range(ALL):
            drawn = rng.standard_normal((tokens[g], 1)) * 1.6 + 0.9 - 0.2 * across + in_rank[g]
            rank = np.clip(np.exp(drawn).astype(int), 0, RANKS - 1)
            of_rank = 0.9 + np.log1p(rank) * 1.1 + 0.35 * np.cos(2 * np.log1p(rank)) - 0.25 * np.exp(0.1 * across)
            each = of_rank + beyond[g] + 0.4 * rng.standard_normal((tokens[g], n))
            for i in range(n):
                counts[g, i] = np.bincount(rank[:, i], minlength=RANKS)
                nll[g, i] = np.bincount(rank[:, i], np.maximum(each[:, i], 0.01) / UNIT, RANKS).astype(np.int64)
        return counts, nll

    @cached_property
    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        """(parts of all documents [4,n], their exponents [4])."""
        values = parts_of([stats_of(c, u) for c, u in zip(*(a.sum(0) for a in self.all), strict=True)])
        return values, -np.polyfit(np.log(SIZES[self.models]), np.log(values).T, 1)[0]


def parts_of(stats: Sequence[RankStats]) -> np.ndarray:
    """|part| of each run, in the order of PARTS [4,n]."""
    splits = [metrics.decomposition(s) for s in stats]
    return np.abs([[getattr(s, part) for s in splits] for part in PARTS])


def stats_of(counts: np.ndarray, nll_units: np.ndarray) -> RankStats:
    """Totals with these tokens and Σ nll in units by rank [RANKS]."""
    windows = np.zeros((1, RANKS), np.int64)
    return RankStats(counts, counts, nll_units, (1,), windows, 0, 0, 0, 0)


def runs(world: Parts, draw: np.ndarray) -> list[RunRecord]:
    """Runs of all models on the documents of these rows, each a document of its own."""
    records = []
    for i, size in enumerate(SIZES[world.models]):
        counts, nll = (a[draw, i] for a in world.all)
        row, rank = np.nonzero(counts)
        table = replace(
            DocumentTable.zeros(), document_id=np.arange(len(draw)), num_scored=counts.sum(1), nll_units=nll.sum(1),
            indptr=np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(draw)))]),
            rank=(rank + 1).astype(np.int32), count=counts[row, rank].astype(np.int32),
        )  # fmt: skip
        record = synthetic_record(f"m{i}", int(size), i, documents=1, tokens=1, dataset="D", family="F")
        records.append(replace(record, stats=stats_of(counts.sum(0), nll.sum(0)), documents=table))
    return records


def replicate(world: Parts, rng: np.random.Generator) -> dict[str, float]:
    """By interval of one study, whether it held the truth: exponents of the parts, α − α_CE, EE without its bias.

    "confidence, least squares": by residuals alone. The scatter between models is drawn, as in ``resampled``.
    """
    values, alphas = world.truth
    records = runs(world, rng.integers(ALL, size=world.documents))
    x = np.log(SIZES[world.models])
    line = np.stack([np.polyval(np.polyfit(x, y, 1), x) for y in np.log(values)])
    between = world.scatter * rng.standard_normal(values.shape)
    table = decomposition_table(records)
    for part, shift in zip(PARTS, line - np.log(values) + between, strict=True):
        table[part] *= np.exp(shift)
    found = part_scalings(table, "D", "F", effects=DocumentEffects(records))
    held = {p.part: inside(p.law.intervals["alpha"], alpha) for p, alpha in zip(found, alphas, strict=True)}
    for p, alpha in zip(found[1:], alphas[1:], strict=True):
        held[f"{p.part} − ce"] = inside((p.difference.low, p.difference.high), alpha - alphas[0])
    held["confidence, least squares"] = inside(found[3].law.least_squares["alpha"], alphas[3])
    held["EE without bias"] = inside(corrected_error_entropy(records[0])[1:], values[1, 0])
    return held
