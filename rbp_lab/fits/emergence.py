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

from rbp_lab import metrics
from rbp_lab.errors import LabError
from rbp_lab.fits.cloglog import zero_bound
from rbp_lab.fits.documents import DocumentEffects
from rbp_lab.fits.gls import DocumentErrors, LineError, combined, fit_line
from rbp_lab.fits.points import FitPoints, Label
from rbp_lab.fits.power import fit_power, why_not
from rbp_lab.fits.result import FitResult
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
        table, model = record.documents, record.model
        for k in table.thresholds if ks is None else ks:
            if k not in table.thresholds:
                have = ", ".join(map(str, table.thresholds))
                raise LabError(f"run {record.key} keeps runs of hits for k = {have}; k = {k} needs a new measurement")
            rbp = metrics.rbp(record.stats, k)
            for length in windows:
                tried, hit = table.windows(length), table.window_hits(length, k)
                if not tried.sum():
                    continue
                base = (model.name, model.family, model.params.size(size), record.dataset.name, k, length)
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
    logarithm ends. by_window: the power law in S of each N. local: by pair of neighbouring N, the exponent of N between
    them with its interval. rmse_percent: 100·root mean square of the residual of ln(−log p) over models and N.
    lack_of_fit: p-value of one exponent for all N and all S, None with fewer than three N. beta_error: what
    beta_interval is from. status, message: "ok" or "refused" with a sentence.
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
    local: dict[tuple[int, int], tuple[float, float, float]] = field(default_factory=dict)
    rmse_percent: float | None = None
    lack_of_fit: float | None = None

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
            "rmse_percent": self.rmse_percent, "lack_of_fit": self.lack_of_fit, "models": self.models,
            "windows": " ".join(map(str, self.windows)),
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
    x, log_size = np.log(windows), np.log(size.to_numpy())
    dx = x - x.mean()
    along = dx / float(dx @ dx)
    beta, error = _common(y, every, along)
    half = error.half((1,), confidence)
    local = {}
    for j in range(len(windows) - 1):
        step = np.zeros(len(windows))
        step[j : j + 2] = np.array([-1.0, 1.0]) / (x[j + 1] - x[j])
        here, around = _common(y, every, step)
        reach = around.half((1,), confidence)
        local[windows[j], windows[j + 1]] = (here, here - reach, here + reach)
    in_size = fit_power(mean, confidence=confidence)
    alpha, log_c = in_size.params["alpha"], float(in_size.params["log_a"] - beta * x.mean())
    residual = y - (log_c + beta * x - alpha * log_size[:, None])
    lack = _lack_of_fit(y, every, x, log_size)
    bent = ("lack_of_fit",) if lack is not None and lack < 0.05 else ()
    return EmergenceFit(
        family, dataset, k, "ok", "fitted", beta, (beta - half, beta + half), alpha, in_size.intervals["alpha"], log_c,
        len(y), windows, dropped, confidence, warnings + bent + in_size.warnings, by_window, error, local,
        100 * math.sqrt(float((residual**2).mean())), lack,
    )  # fmt: skip


def _common(y: np.ndarray, errors: list[DocumentErrors | None], weights: np.ndarray) -> tuple[float, LineError]:
    """Mean over models of Σ weight·y over the window lengths, and its error."""
    (value,), error = fit_line(np.ones((len(y), 1)), y @ weights, combined(errors, weights))
    return float(value), error


def _lack_of_fit(
    y: np.ndarray, errors: list[DocumentErrors | None], x: np.ndarray, log_size: np.ndarray
) -> float | None:
    """Smaller p-value, times two, of: ln(−log p) bends in ln N, and the exponent of N changes with ln S."""
    if len(x) < 3:
        return None
    dx, ds = x - x.mean(), log_size - log_size.mean()
    bend = np.linalg.pinv(np.vander(dx, 3))[0]  # weights of the quadratic term
    tilt = dx / float(dx @ dx)
    bent = fit_line(np.ones((len(y), 1)), y @ bend, combined(errors, bend))
    tilted = fit_line(np.column_stack([np.ones(len(y)), ds]), y @ tilt, combined(errors, tilt))
    return min(1.0, 2 * min(error.p_value(beta, -1) for beta, error in (bent, tilted)))


def _law(p: pd.Series, size: pd.Series, label: Label, errors: DocumentErrors | None, confidence: float) -> FitResult:
    points = FitPoints(size.to_numpy(), -np.log(p.to_numpy()), tuple(p.index), errors=errors)
    return fit_power(points, label, confidence)
