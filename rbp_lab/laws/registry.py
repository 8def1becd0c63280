"""Every law beyond the power law in S, as tidy tables: functions of points, of fits, and of finished runs.

Tables that need the stored histograms are there only when there are runs; published values have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from rbp_lab.errors import LabError
from rbp_lab.fits import lognormal
from rbp_lab.fits.against_k import fit_against_k, iso_rbp, table1, trade_off
from rbp_lab.fits.calibration import calibration_table, calibration_trend
from rbp_lab.fits.cloglog import counts_from_records, fit_cloglog
from rbp_lab.fits.decomposition import decomposition_table, part_scalings
from rbp_lab.fits.emergence import emergence_table, fit_emergence, size_at_level
from rbp_lab.fits.fit import compare
from rbp_lab.fits.forecast import backtest
from rbp_lab.fits.paired import exponent_difference, simultaneous_band
from rbp_lab.fits.result import POOLED, FitResult, Label, fits_to_frame
from rbp_lab.metrics import cross_entropy
from rbp_lab.records import RunRecord

ISO_LEVELS = (0.3, 0.5, 0.7, 0.9)
EMERGENCE_LEVEL = 0.5


def all_laws(
    points: pd.DataFrame,
    fits: Sequence[FitResult],
    records: Sequence[RunRecord],
    size: str = "non_embedding_params",
    confidence: float = 0.95,
) -> dict[str, pd.DataFrame]:
    """Every table by name; those of ``laws_of_records`` only when there are runs."""
    tables = laws_of_points(points, fits)
    if not records:
        return tables
    ks = sorted(int(k) for k in points["k"].dropna().unique())
    windows = sorted(set.intersection(*(set(r.scoring.window_lengths) for r in records)) | {1})
    return tables | laws_of_records(records, ks, windows, size, confidence)


def laws_of_points(points: pd.DataFrame, fits: Sequence[FitResult]) -> dict[str, pd.DataFrame]:
    """Tables that need values alone, by name.

    forms: AICc of other forms against the power law, with the verdict; bands: exponents over k with a simultaneous
    band; differences: α of cross-entropy minus α of each k; against_k: [RBP] table 1; trade_off: α_k/α_S per model and
    k; iso_rbp: curves of equal RBP; backtest: forecasts of the largest models.
    """
    tables: dict[str, list[pd.DataFrame]] = {
        name: [] for name in ("forms", "bands", "differences", "trade_off", "iso_rbp", "backtest")
    }
    for dataset, family in _groups(points):
        mine = [f for f in fits if (f.label.dataset, f.label.family) == (dataset, family)]
        where = {"dataset": dataset, "family": family}
        by_k = [f for f in mine if f.label.metric == "neg_log_rbp"]
        for law in mine:
            what = where | {"metric": law.label.metric, "k": law.label.k}
            verdict = compare(law.points, law.label)
            tables["forms"].append(verdict.to_frame().assign(**what, verdict=verdict.verdict))
            tables["backtest"].append(backtest(law).assign(**what))
        tables["bands"].append(simultaneous_band(by_k).assign(**where))
        tables["iso_rbp"].append(iso_rbp(by_k, ISO_LEVELS).assign(**where))
        ce = [f for f in mine if f.label.metric == "ce"]
        tables["differences"] += [
            exponent_difference(ce[0], f).to_frame().assign(**where, k=f.label.k) for f in by_k if ce
        ]
        tables["trade_off"].append(_trade_offs(points, by_k).assign(**where))
    return {"against_k": table1(points), **{name: _join(parts) for name, parts in tables.items()}}


def laws_of_records(
    records: Sequence[RunRecord],
    ks: Sequence[int],
    windows: Sequence[int],
    size: str = "non_embedding_params",
    confidence: float = 0.95,
) -> dict[str, pd.DataFrame]:
    """Tables that need the statistics of runs, by name.

    counts: exponents from counts, for k where misses are few; emergence: measured p_{N,k}; emergence_fits: exponents
    of N and S; emergence_levels: S at which p_{N,k} is one half; lognormal: both laws of ranks per run, with what they
    imply beside what was measured; decomposition: the three parts of cross-entropy; parts: how they scale;
    calibration, calibration_trends: entropy gap.
    """
    frames: dict[str, list[pd.DataFrame]] = {n: [] for n in ("counts", "emergence_fits", "emergence_levels", "parts")}
    emergence = emergence_table(records, windows, _common_thresholds(records), size, confidence)
    split, gap = decomposition_table(records, size), calibration_table(records, size, confidence)
    trends = []
    for dataset, family, mine in _families(records):
        for k in ks:
            label = Label(family, dataset, "neg_log_rbp", k)
            law = fit_cloglog(counts_from_records(mine, k, size=size), label, confidence)
            frames["counts"].append(fits_to_frame([law]))
        for k in _common_thresholds(records):
            law = fit_emergence(emergence, family, dataset, k, confidence)
            frames["emergence_fits"].append(law.to_frame())
            for window, in_size in law.by_window.items():
                level = vars(size_at_level(in_size, EMERGENCE_LEVEL))
                frames["emergence_levels"].append(
                    pd.DataFrame([{"family": family, "dataset": dataset, "k": k, "window": window, **level}])
                )
        frames["parts"] += [part.to_frame() for part in part_scalings(split, dataset, family, confidence)]
        trend = calibration_trend(gap, dataset, family, confidence)
        trends.append({"dataset": dataset, "family": family, **vars(trend)})
    for dataset in sorted({r.dataset.name for r in records}):
        if len({r.model.family for r in records if r.dataset.name == dataset}) > 1:
            frames["parts"] += [part.to_frame() for part in part_scalings(split, dataset, POOLED, confidence)]
    return {
        "emergence": emergence, "decomposition": split, "calibration": gap,
        "calibration_trends": pd.DataFrame(trends), "lognormal": lognormal_table(records, confidence),
        **{name: _join(parts) for name, parts in frames.items()},
    }  # fmt: skip


def lognormal_table(records: Sequence[RunRecord], confidence: float = 0.95) -> pd.DataFrame:
    """Both lognormals of ranks per run: "rounded" from rank 2 (as published) and "pmf" from rank 1 of V.

    Beside the parameters: implied_neg_log_p1 and implied_rank_entropy of [RBP] appendix D (for the pmf, which they are
    about), and the measured −log RBP_1 and cross-entropy.
    """
    rows = []
    for record in records:
        ranks, counts, block = lognormal.rank_pairs(record.documents)
        params = record.model.params.non_embedding
        for model, xmin in (("rounded", 2), ("pmf", 1)):
            law = lognormal.fit_lognormal(ranks, counts, model, xmin, record.stats.vocab_rows, block, confidence)
            known = law.mu is not None and model == "pmf"
            rows.append(law.to_frame().assign(
                name=record.model.name, family=record.model.family, dataset=record.dataset.name, size=float(params),
                implied_neg_log_p1=lognormal.neg_log_p1(law.mu, law.sigma) if known else None,
                implied_rank_entropy=lognormal.rank_entropy(law.mu, law.sigma) if known else None,
                measured_rbp_1=record.stats.counts[0] / record.stats.num_tokens,
                measured_cross_entropy=cross_entropy(record.stats),
            ))  # fmt: skip
    return _join(rows)


def _trade_offs(points: pd.DataFrame, laws: Sequence[FitResult]) -> pd.DataFrame:
    rows = []
    for law in laws:
        for model, size in zip(law.points.names, law.points.size, strict=True):
            try:
                trade = trade_off(law, fit_against_k(points, model, law.label.dataset, confidence=law.confidence), size)
            except LabError:  # one of the two laws was refused, which its own table says
                continue
            rows.append({"model": model, **vars(trade)})
    return pd.DataFrame(rows, columns=["model", "exponent", "low", "high", "k", "size"])


def _groups(points: pd.DataFrame) -> Iterator[tuple[str, str]]:
    pairs = points[["dataset", "family"]].drop_duplicates().sort_values(["dataset", "family"])
    yield from pairs.itertuples(index=False, name=None)


def _families(records: Sequence[RunRecord]) -> Iterator[tuple[str, str, list[RunRecord]]]:
    for dataset, family in sorted({(r.dataset.name, r.model.family) for r in records}):
        yield dataset, family, [r for r in records if (r.dataset.name, r.model.family) == (dataset, family)]


def _common_thresholds(records: Sequence[RunRecord]) -> list[int]:
    """The k for which every run keeps runs of hits, and which some rank of its vocabulary can miss."""
    common = set.intersection(*({k for k in r.documents.thresholds if k < r.stats.vocab_rows} for r in records))
    return sorted(common)


def _join(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of all that have rows; an empty one when none has."""
    filled = [frame.astype(object) for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True).convert_dtypes() if filled else pd.DataFrame()
