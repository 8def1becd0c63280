"""N right tokens in a row ([RBP] section 5.1, figure 7): measured p_{N,k}, its law in N and S, and when it emerges.

Under independence p_{N,k} = RBP_k^N. Successes cluster, so the law −log p_{N,k} = c·N^β·S^−α is fitted with the
exponent of N free; β = 1 is independence, and the measured ratio ln p_N/(N·ln p_1) is reported with every point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from rbp_lab import metrics
from rbp_lab.errors import LabError
from rbp_lab.fits.against_k import REACH
from rbp_lab.fits.cloglog import zero_bound
from rbp_lab.fits.documents import DocumentEffects
from rbp_lab.fits.gls import DocumentErrors, LineError, combined, fit_line
from rbp_lab.fits.power import fit_power, why_not
from rbp_lab.fits.result import FitPoints, FitResult, Label
from rbp_lab.records import RunRecord

COLUMNS = (
    "model", "family", "size", "dataset", "k", "window", "p", "low", "high", "bound", "independent", "ratio",
    "windows", "documents", "se_log",
)  # fmt: skip


def emergence_table(
    records: Sequence[RunRecord],
    windows: Sequence[int],
    ks: Sequence[int] | None = None,
    size: str = "non_embedding_params",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Measured p_{N,k} per model, k and window length N, from the runs of hits that records keep for their thresholds.

    Columns: p; low, high, its interval over documents (missing where it is undefined); bound, True when no window
    was hit: then p = 0, high is an upper bound and each document counts as one trial, since windows of a document
    are far from independent; independent = RBP_k^N; ratio = ln p/(N ln RBP_k), 1 under independence; windows,
    documents tried. ks: among the records' thresholds, all of them by default. Window lengths that no document reaches
    are left out. A record without a wanted k raises LabError.
    """
    rows = []
    for record in records:
        table, params = record.documents, record.model.params
        s = params.non_embedding if size == "non_embedding_params" else params.total
        for k in table.thresholds if ks is None else ks:
            if k not in table.thresholds:
                have = ", ".join(map(str, table.thresholds))
                raise LabError(f"run {record.key} keeps runs of hits for k = {have}; k = {k} needs a new measurement")
            rbp = metrics.rbp(record.stats, k)
            for length in windows:
                tried, hit = table.windows(length), table.window_hits(length, k)
                if not tried.sum():
                    continue
                base = (record.model.name, record.model.family, float(s), record.dataset.name, k, length)
                rows.append((*base, *_measured(hit, tried, rbp, length, confidence)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _measured(hit: np.ndarray, tried: np.ndarray, rbp: float, length: int, confidence: float) -> tuple:
    p = float(hit.sum() / tried.sum())
    documents = int((tried > 0).sum())
    estimate = metrics.ratio_estimate(hit, tried, confidence, "neg_log")
    low = high = ratio = se = math.nan
    if estimate is not None:
        low, high, se = math.exp(-estimate.upper), math.exp(-estimate.lower), estimate.se_log
    if p == 0:
        low, high = 0.0, zero_bound(documents, confidence)
    if 0 < p < 1 and 0 < rbp < 1:  # ln 1 = 0 measures no dependence
        ratio = math.log(p) / (length * math.log(rbp))
    return p, low, high, p == 0, rbp**length, ratio, int(tried.sum()), documents, se


@dataclass(frozen=True, eq=False)
class EmergenceFit:
    """The law −log p_{N,k} = c·N^beta·S^−alpha of one family at one k.

    beta, beta_interval: exponent of N (1 under independence; the paper assumes it), from one slope per model, so that
    the windows of a model, which overlap, count as one. alpha, alpha_interval: exponent of S over the mean of the
    window lengths. log_c. windows: the N used; dropped: N left out because some model had p = 0 or 1, where the
    logarithm ends. by_window: the power law in S of each N. beta_error: what beta_interval is from. status, message:
    "ok" or "refused" with a sentence.
    """

    family: str
    dataset: str
    k: int
    status: str
    message: str
    beta: float | None = None
    beta_interval: tuple[float, float] | None = None
    alpha: float | None = None
    alpha_interval: tuple[float, float] | None = None
    log_c: float | None = None
    models: int = 0
    windows: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()
    confidence: float = 0.95
    warnings: tuple[str, ...] = ()
    by_window: dict[int, FitResult] = field(default_factory=dict)
    beta_error: LineError | None = None

    @property
    def independent(self) -> bool | None:
        """Whether the exponent of N is compatible with 1; None when refused."""
        return None if self.beta_interval is None else self.beta_interval[0] <= 1 <= self.beta_interval[1]

    def predict(self, window: np.ndarray | float, size: np.ndarray | float) -> np.ndarray:
        """p_{N,k} at window lengths N and sizes S, in [0, 1]; LabError when the fit was refused."""
        if self.alpha is None:
            raise LabError(f"there is no law of emergence to predict from: {self.message}")
        with np.errstate(over="ignore"):  # far below the models the rate is infinite and p is 0
            return np.exp(-np.exp(self.log_c + self.beta * np.log(window) - self.alpha * np.log(size)))

    def to_frame(self) -> pd.DataFrame:
        """One row with the numbers and their intervals."""
        none = (None, None)
        beta, alpha = self.beta_interval or none, self.alpha_interval or none
        return pd.DataFrame([{
            "family": self.family, "dataset": self.dataset, "k": self.k, "status": self.status,
            "message": self.message, "beta": self.beta, "beta_low": beta[0], "beta_high": beta[1],
            "alpha": self.alpha, "alpha_low": alpha[0], "alpha_high": alpha[1], "log_c": self.log_c,
            "models": self.models, "windows": " ".join(map(str, self.windows)),
            "dropped": " ".join(map(str, self.dropped)), "warnings": " ".join(self.warnings),
        }])  # fmt: skip


def fit_emergence(
    table: pd.DataFrame,
    family: str,
    dataset: str,
    k: int,
    confidence: float = 0.95,
    effects: DocumentEffects | None = None,
) -> EmergenceFit:
    """Fit −log p_{N,k} = c·N^β·S^−α to the rows of an emergence table, with β free.

    Uses the N for which every model of the family has 0 < p < 1, so that the design is balanced: then the exponent of
    N is the mean of the models' own slopes and that of S comes from the models' means, each with one value per model.
    effects: of the documents of the data set's runs; intervals count them beside the residuals (``fits.gls``).
    Refused with a sentence below three models or two such N.
    """
    rows = table[(table["family"] == family) & (table["dataset"] == dataset) & (table["k"] == k)]
    p = rows.pivot(index="model", columns="window", values="p")
    size = rows.drop_duplicates("model").set_index("model")["size"].reindex(p.index)
    usable = ((p > 0) & (p < 1)).all(axis=0)
    windows = tuple(int(n) for n in p.columns[usable])
    dropped = tuple(int(n) for n in p.columns[~usable])
    labels = {n: Label(family, dataset, "neg_log_p", k, n) for n in windows}
    errors = {n: None if effects is None else effects.of(label, tuple(p.index)) for n, label in labels.items()}
    by_window = {n: _law(p[n], size, labels[n], errors[n], confidence) for n in windows}
    warnings = ("zero_counts",) if dropped else ()

    def refuse(why: str) -> EmergenceFit:
        return EmergenceFit(
            family, dataset, k, "refused", why, models=len(p), windows=windows, dropped=dropped, warnings=warnings,
            by_window=by_window,
        )  # fmt: skip

    if len(windows) < 2:
        return refuse(f"the exponent of N needs two window lengths with 0 < p < 1 for every model; got {len(windows)}")
    y = np.log(-np.log(p[list(windows)].to_numpy()))
    every = list(errors.values())
    mean = FitPoints(
        size.to_numpy(), np.exp(y.mean(axis=1)), tuple(p.index), errors=combined(every, [1 / len(every)] * len(every))
    )
    why = why_not(mean)
    if why:
        return refuse(why)
    x = np.log(windows)
    dx = x - x.mean()
    along = dx / float(dx @ dx)
    slopes = y @ along
    n = len(slopes)
    (beta,), error = fit_line(np.ones((n, 1)), slopes, combined(every, along))
    half = error.half((1,), confidence)
    in_size = fit_power(mean, confidence=confidence)
    return EmergenceFit(
        family, dataset, k, "ok", "fitted", float(beta), (float(beta - half), float(beta + half)),
        in_size.params["alpha"], in_size.intervals["alpha"], float(in_size.params["log_a"] - beta * x.mean()), n,
        windows, dropped, confidence, warnings + in_size.warnings, by_window, error,
    )  # fmt: skip


def _law(
    p: pd.Series, size: pd.Series, label: Label, errors: DocumentErrors | None, confidence: float
) -> FitResult:
    points = FitPoints(size.to_numpy(), -np.log(p.to_numpy()), tuple(p.index), errors=errors)
    return fit_power(points, label, confidence)


@dataclass(frozen=True)
class SizeAtLevel:
    """The S at which a law reaches a level. size None when the law does not fall; low or high None: unbounded there.

    extrapolates: the size lies outside the models of the fit. message: what to read into it.
    """

    level: float
    size: float | None
    low: float | None
    high: float | None
    extrapolates: bool
    message: str


def size_at_level(law: FitResult, level: float) -> SizeAtLevel:
    """S at which p_{N,k} (or RBP_k) reaches ``level`` by a fitted power law of −log p in S, with Fieller's interval.

    The interval is the set of S whose fitted curve is compatible with the level at the law's confidence: it says
    where the curve crosses, not where a single new model will. It is unbounded on a side where the interval of the
    exponent holds zero. A size more than a thousandfold outside the models is no number to read: it is None, and the
    message says on which side.
    """
    if not 0 < level < 1:
        raise LabError(f"a level lies between 0 and 1; got {level}")
    if not law.ok:
        return SizeAtLevel(level, None, None, None, False, law.message)
    alpha, log_a = law.params["alpha"], law.params["log_a"]
    if alpha <= 0:
        return SizeAtLevel(
            level, None, None, None, False, "the law does not fall with size: the level is never reached"
        )
    target = math.log(-math.log(level))
    x = (log_a - target) / alpha
    _, freedom = law.error.variance((-x, 1))  # of the curve where it crosses the level
    t2 = stats.t.ppf(0.5 + law.confidence / 2, freedom) ** 2
    c = law.covariance
    # (α·δ)² ≤ t²·variance of the curve at x + δ, a quadratic in δ, the distance from the crossing in ln S
    a2 = alpha**2 - t2 * c[0, 0]
    a1 = -2 * t2 * (x * c[0, 0] - c[0, 1])
    a0 = -t2 * max(c[1, 1] - 2 * x * c[0, 1] + x**2 * c[0, 0], 0.0)
    sizes = law.points.x
    first, last = math.log(sizes.min()), math.log(sizes.max())

    def within_reach(log_size: float) -> float | None:
        return math.exp(log_size) if first - REACH <= log_size <= last + REACH else None

    if within_reach(x) is None:
        side = "below" if x < first else "above"
        why = f"the level lies more than a thousandfold {side} the sizes measured"
        return SizeAtLevel(level, None, None, None, True, why)
    outside = not first - 1e-9 <= x <= last + 1e-9
    note = "outside the sizes measured" if outside else "within the sizes measured"
    root = a1**2 - 4 * a2 * a0
    if a2 <= 0 or root < 0:
        return SizeAtLevel(level, within_reach(x), None, None, outside, f"{note}; its interval is unbounded")
    low, high = (within_reach(x + (-a1 + sign * math.sqrt(root)) / (2 * a2)) for sign in (-1, 1))
    if low is None or high is None:
        note += "; its interval reaches more than a thousandfold outside them"
    return SizeAtLevel(level, within_reach(x), low, high, outside, note)


def carrying_documents(record: RunRecord, window: int, k: int, top: int = 5) -> pd.DataFrame:
    """The documents that carry p_{N,k}: name, share of all windows hit, hits, windows tried; largest share first.

    For large N a few repeated strings often make the whole point, and a reader should see which.
    """
    table = record.documents
    hit, tried = table.window_hits(window, k), table.windows(window)
    order = np.argsort(-hit, kind="stable")[:top]
    order = order[hit[order] > 0]
    names = [record.document_names[i] for i in table.document_id[order]]
    share = hit[order] / max(1, hit.sum())
    return pd.DataFrame({"document": names, "share": share, "hits": hit[order], "windows": tried[order]})
