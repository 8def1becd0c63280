"""What comes out of a fit: ``FitResult``, with warnings by code.

Legend: n models in a fit, P parameters of a form. Residuals are differences of natural logarithms, so 0.01 is 1 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from rbp_lab.fits.gls import LineError
from rbp_lab.fits.points import NO_LABEL, POOLED, FitPoints, Label
from rbp_lab.text import number, percent, significant

STATUSES = ("ok", "refused", "not_converged")

NOT_FALLING = "not_falling"

# What each warning code means to a reader; every code a fit may carry is a key here.
WARNINGS = {
    "few_models": "fewer than 7 models: the form of the law cannot be tested, and the interval is wide; measuring more "
    "narrows it",
    "saturated": "fewer than 3 models have at least 5 effective events on both sides of the threshold; more text or a "
    "smaller k gives them",
    "zero_counts": "some models never missed (or never hit): their values are bounds, not measurements; more text "
    "measures them",
    "curvature": "the residuals bend: a quadratic term in log S (log D) differs from zero at the 5 % level; α is an "
    "average slope over these points and no basis for a forecast",
    "lack_of_fit": "the exponent of N changes with N or with S at the 5 % level: no one exponent holds for all "
    "windows; the table of exponents between neighbouring N shows how",
    "ridge": "the likelihood is flat along a ridge: the parameters trade off and their intervals say little; compare "
    "fitted values instead",
    "tie_sensitive": "the exponent moves by more than a tenth of its interval when ties are broken the other way; "
    "logits in fp32 (precision.logits=float32) have fewer ties",
    "one_document_dominates": "one document left out moves the exponent by more than half of the residuals' interval; "
    "look at it, or measure more documents",
    "few_documents": "fewer than 20 documents by (Σn)²/Σn² of their tokens n: intervals over documents are too "
    "narrow; measure more documents, or of more equal length",
    "k_near_v": "k is more than half of the vocabulary or of the classes, where RBP_k nears 1 whatever the model; "
    "leave such k out",
    "not_reproduced": "few of the starting points agree on the optimum; read its parameters as one of several that fit",
    NOT_FALLING: "α ≤ 0, or its interval holds 0: these points do not show that the value falls; points further apart "
    "may",
    "earlier_checkpoints": "of the checkpoints of one size only the longest trained takes part",
}

FEW_MODELS = 7
FEW_DOCUMENTS = 20


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
