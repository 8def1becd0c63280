"""What goes into a fit and what comes out: ``FitPoints``, ``Label`` and ``FitResult``.

Legend: n models in a fit, P parameters of a form. Residuals are differences of natural logarithms, so 0.01 is 1 %.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from rbp_lab.errors import LabError
from rbp_lab.fits.gls import DocumentErrors, LineError
from rbp_lab.quantities import QUANTITIES
from rbp_lab.text import number, percent, significant

STATUSES = ("ok", "refused", "not_converged")

NOT_FALLING = "not_falling"

# What each warning code means to a reader; every code a fit may carry is a key here.
WARNINGS = {
    "few_models": "fewer than 7 models: the form of the law cannot be tested, and the interval is wide",
    "saturated": "fewer than 3 models have at least 5 effective events on both sides of the threshold",
    "zero_counts": "some models missed (or hit) never: their values are bounds, not measurements",
    "curvature": "the residuals bend: a quadratic term in log S (log D) differs from zero at the 5 % level",
    "lack_of_fit": "the exponent of N changes with N or with S at the 5 % level: no one exponent holds for all windows",
    "ridge": "the likelihood is flat along a ridge: the parameters trade off and their intervals say little",
    "tie_sensitive": "the exponent moves by more than a tenth of its interval when ties are broken the other way",
    "one_document_dominates": "one document left out moves the exponent by more than half of the residuals' interval",
    "few_documents": "fewer than 20 documents by (Σn)²/Σn² of their tokens n: intervals over documents are too narrow",
    "k_near_v": "k is more than half of the vocabulary or of the classes, where RBP_k nears 1 whatever the model",
    "not_reproduced": "few of the starting points agree on the optimum",
    NOT_FALLING: "α ≤ 0, or its interval holds 0: these points do not show that the value falls",
    "earlier_checkpoints": "of the checkpoints of one size only the longest trained takes part",
}

FEW_MODELS = 7
FEW_DOCUMENTS = 20
POOLED = None  # the family of a fit over all families; not a string, so no family that a user names equals it
ALL_FAMILIES = "all families"  # POOLED in print


def family_name(family: str | None) -> str:
    """A family in print; "all families" for POOLED, also where a table holds it as a missing value."""
    return ALL_FAMILIES if pd.isna(family) else family


@dataclass(frozen=True)
class Label:
    """What a fit is about. family: POOLED for all of a data set. metric: a name in QUANTITIES, or any other.

    k: None for CE. window: N (1 for RBP). training: of a law along one training, what its models are called; "" else.
    """

    family: str | None = ""
    dataset: str = ""
    metric: str = ""
    k: int | None = None
    window: int = 1
    training: str = ""

    @property
    def columns(self) -> dict[str, object]:
        """What the tables of laws say of each."""
        return {
            "dataset": self.dataset, "family": self.family, "metric": self.metric, "k": self.k, "window": self.window,
        }  # fmt: skip

    @property
    def quantity(self) -> str:
        """The quantity in print, e.g. "−log RBP_10"."""
        entry = QUANTITIES.get(self.metric)
        return entry.printed(self.k, self.window) if entry else self.metric or "value"

    @property
    def tex(self) -> str:
        """The quantity in TeX, without dollars."""
        entry = QUANTITIES.get(self.metric)
        return entry.in_tex(self.k, self.window) if entry else r"\mathrm{value}"

    def __str__(self) -> str:
        where = ", ".join(part for part in (self.training or family_name(self.family), self.dataset) if part)
        return f"{self.quantity} ({where})" if where else self.quantity


NO_LABEL = Label()


# What a law may run along → its name in a sentence, and what one of its points is.
AXES = {
    "S": ("size S", "model"),
    "D": ("number of training tokens D", "checkpoint"),
    "compute": ("training compute C", "model"),
    "k": ("threshold k", "threshold"),
}


@dataclass(frozen=True, eq=False)
class FitPoints:
    """The points of one fit, sorted by x.

    x: [n], positive, of what ``axis`` names in AXES (model sizes S by default). value: [n] ≥ 0 in the metric's unit
    (nats); 0 and +inf (an event never seen) are legal here, a fit refuses them. names: of the models [n]. se_log:
    standard error of ln value over documents [n], NaN if unknown. documents: how many these are [n], NaN if unknown.
    errors: of documents in ln value, None when unknown (published values).
    """

    x: np.ndarray
    value: np.ndarray
    names: tuple[str, ...] = ()
    se_log: np.ndarray | None = None
    documents: np.ndarray | None = None
    axis: str = "S"
    errors: DocumentErrors | None = None

    def __post_init__(self) -> None:
        if self.axis not in AXES:
            raise ValueError(f"axis must be one of {', '.join(AXES)}, not {self.axis!r}")
        x = np.asarray(self.x, dtype=np.float64).reshape(-1)
        value = np.asarray(self.value, dtype=np.float64).reshape(-1)
        names = self.names or tuple(f"model {i + 1}" for i in range(len(x)))
        if not len(x) == len(value) == len(names):
            raise LabError(f"as many points as values and names are needed; got {len(x)}, {len(value)}, {len(names)}")
        what, _ = AXES[self.axis]
        for name, at, v in zip(names, x, value, strict=True):
            if not (math.isfinite(at) and at > 0):
                raise LabError(f"every {what} must be positive and finite; {name} has {self.axis} = {at}")
            if math.isnan(v):
                raise LabError(f"{name} has no value (NaN); leave the model out of the points")
        order = np.argsort(x, kind="stable")
        object.__setattr__(self, "x", x[order])
        object.__setattr__(self, "value", value[order])
        object.__setattr__(self, "names", tuple(names[i] for i in order))
        for field_name in ("se_log", "documents"):
            given = getattr(self, field_name)
            given = np.full(len(x), np.nan) if given is None else np.asarray(given, np.float64).reshape(-1)
            if len(given) != len(x):
                raise LabError(f"as many {field_name} as points are needed; got {len(given)} and {len(x)}")
            object.__setattr__(self, field_name, given[order])
        if self.errors is not None:
            object.__setattr__(self, "errors", self.errors.of(order))

    def __len__(self) -> int:
        return len(self.x)

    def without_largest(self, held: int = 1) -> FitPoints:
        """The same points without the ``held`` of largest x."""
        return self._take(range(len(self) - held))

    def of(self, names: Collection[str]) -> FitPoints:
        """The points of the models of these names."""
        return self._take([i for i, name in enumerate(self.names) if name in names])

    def _take(self, rows: Sequence[int]) -> FitPoints:
        rows = list(rows)
        taken = {name: getattr(self, name)[rows] for name in ("x", "value", "se_log", "documents")}
        errors = None if self.errors is None else self.errors.of(rows)
        return replace(self, names=tuple(self.names[i] for i in rows), errors=errors, **taken)

    def with_errors(self, errors: DocumentErrors | None) -> FitPoints:
        """The same points with the errors of documents in their ln value, a column per point in order."""
        return replace(self, errors=errors)

    @property
    def half_log(self) -> np.ndarray:
        """Half of the 95 % interval of ln value over documents [n], NaN if unknown.

        Student t with documents − 1 degrees of freedom, as in ``metrics.ratio_estimate``; normal where only the
        standard error is known.
        """
        freedom = np.where(np.isfinite(self.documents), self.documents - 1, np.inf)
        return stdtrit(freedom, 0.975) * self.se_log

    @property
    def hash(self) -> str:
        """12 hexadecimal digits that name these points (names, sizes and values to 12 digits)."""
        rows = sorted(f"{m}|{s:.12g}|{v:.12g}" for m, s, v in zip(self.names, self.x, self.value, strict=True))
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class FitResult:
    """One fitted law, or the reason why there is none.

    form: name in ``forms.FORMS``. status: "ok", "refused" (no numbers, ``message`` says why) or "not_converged".
    params: by name; covariance [P,P] in their order; intervals (low, high) at level ``confidence``.
    r2: in the space ``r2_space`` names. rmse_percent: 100·root mean square of the residual of ln value.
    aicc: corrected Akaike criterion of the residuals of ln value (the scatter counts as a parameter), None where it
    is undefined (n ≤ P + 2). leave_largest_out: percent by which the fit without the largest model misses that model.
    error: of a line in ln S, the covariance in its two parts and their degrees of freedom; None for other forms.
    method: estimator and interval in words. starts, agree: starting points tried and those that reached the optimum.
    """

    form: str
    points: FitPoints
    status: str
    message: str
    label: Label = NO_LABEL
    params: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    covariance: np.ndarray | None = None
    confidence: float = 0.95
    dof: int | None = None
    r2: float | None = None
    r2_space: str | None = None
    rmse_percent: float | None = None
    aicc: float | None = None
    leave_largest_out: float | None = None
    warnings: tuple[str, ...] = ()
    method: str = ""
    starts: int = 1
    agree: int = 1
    error: LineError | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {STATUSES}, not {self.status!r}")
        unknown = [code for code in self.warnings if code not in WARNINGS]
        if unknown:
            raise ValueError(f"unknown warning codes {unknown}")

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def n(self) -> int:
        """Number of models in the fit."""
        return len(self.points)

    @property
    def se(self) -> dict[str, float]:
        """Standard errors by parameter name; empty when there is no covariance."""
        if self.covariance is None:
            return {}
        return dict(zip(self.params, np.sqrt(np.diag(self.covariance)).tolist(), strict=True))

    @property
    def least_squares(self) -> dict[str, tuple[float, float]]:
        """Intervals from the residuals alone, t(n−2), as least squares gives them; empty for other forms."""
        if self.error is None:
            return {}
        half = stdtrit(self.dof, 0.5 + self.confidence / 2) * np.sqrt(np.diag(self.error.residuals))
        return {name: (v - h, v + h) for (name, v), h in zip(self.params.items(), half.tolist(), strict=True)}

    @property
    def document_share(self) -> float | None:
        """Share of the variance of the first parameter that documents add to the residuals', None when unknown."""
        if self.error is None or math.isnan(self.error.freedom_documents):
            return None
        total = self.error.covariance[0, 0]
        return float(self.error.documents[0, 0] / total) if total > 0 else 0.0

    def __repr__(self) -> str:
        if self.status == "refused":
            return f"<{self.form} law of {self.label}: refused, {self.message}>"
        parts = []
        for name, value in self.params.items():
            interval = self.intervals.get(name)
            ends = f" [{significant(interval[0])}, {significant(interval[1])}]" if interval else ""
            parts.append(f"{name} = {significant(value)}{ends}")
        if self.r2 is not None:
            parts.append(f"R² = {number(self.r2)} ({self.r2_space})")
        if self.rmse_percent is not None:
            parts.append(f"RMSE {number(self.rmse_percent, 2)} %")
        parts.append(f"n = {self.n}, dof = {self.dof}")
        if self.warnings:
            parts.append("warnings: " + ", ".join(self.warnings))
        state = "" if self.ok else f" [{self.status}: {self.message}]"
        return f"<{self.form} law of {self.label}: {'; '.join(parts)}; intervals at {percent(self.confidence)}>{state}"

    def to_frame(self) -> pd.DataFrame:
        """One row with everything but the points themselves; absent numbers are missing values, never NaN in print.

        A law of all families has no family and is marked in the column "pooled".
        """
        return pd.DataFrame([self.row()]).astype({"k": "Int64", "window": "Int64", "n": "Int64", "dof": "Int64"})

    def row(self) -> dict[str, object]:
        """The row of ``to_frame``."""
        row: dict[str, object] = {
            "family": self.label.family, "pooled": self.label.family is POOLED, "dataset": self.label.dataset,
            "metric": self.label.metric, "k": self.label.k, "window": self.label.window, "form": self.form,
            "status": self.status, "message": self.message, "n": self.n, "dof": self.dof,
        }  # fmt: skip
        if self.points.axis != "S":
            row |= {"axis": self.points.axis, "training": self.label.training}
        for name, value in self.params.items():
            low, high = self.intervals.get(name, (None, None))
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        least_low, least_high = self.least_squares.get("alpha", (None, None))
        return row | {
            "alpha_least_squares_low": least_low, "alpha_least_squares_high": least_high,
            "document_share": self.document_share,
            "confidence": self.confidence, "r2": self.r2, "r2_space": self.r2_space,
            "rmse_percent": self.rmse_percent, "aicc": self.aicc, "leave_largest_out_percent": self.leave_largest_out,
            "warnings": " ".join(self.warnings), "method": self.method, "starts": self.starts, "agree": self.agree,
            "models": " ".join(self.points.names), "points_hash": self.points.hash,
        }  # fmt: skip


def refused(form: str, points: FitPoints, label: Label, why: str, warnings: tuple[str, ...] = ()) -> FitResult:
    """A fit that was not made: one readable sentence and no numbers."""
    return FitResult(form=form, points=points, status="refused", message=why, label=label, warnings=warnings)


def fits_to_frame(fits: list[FitResult] | tuple[FitResult, ...]) -> pd.DataFrame:
    """One row per fit; columns of parameters that a form lacks are missing there."""
    if not fits:
        return pd.DataFrame()
    return pd.DataFrame([fit.row() for fit in fits]).convert_dtypes()
