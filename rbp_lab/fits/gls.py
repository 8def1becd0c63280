"""A line through points with two sources of error: documents, which all models share, and the models themselves.

y = X·β + e with Cov e = V + τ²·I. V [n,n] is the paired covariance of the models' values over documents and τ² the
scatter between models. Documents are common to all models, so their error may run along S as the law does; it then
leaves no residual, and an interval from residuals alone does not see it. β is the least squares of the paper (with
weights where values are counts): weights from V itself, V estimated from few documents, cover less and err more.

The variance of β has two parts that are estimated apart. The residual mean square s² holds the scatter and what
documents add to each model by itself, tr(M·V)/(n − p) on average, with M the residual projection. What is left of V
along the columns of X, beyond that average, is added from the documents. With V alike in all directions nothing is
left and the interval is Student's with n − p degrees of freedom, as with V = 0; with V along S the documents' part
dominates, with the degrees of freedom of documents. In between neither variance is known (the problem of Behrens and
Fisher): Welch and Satterthwaite's quantile is rather short where models are few, Cochran and Cox's rather long; their
mean is taken. tests/coverage/RESULTS.md holds what it covers.

Legend: n models, p columns of X, G documents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special


@dataclass(frozen=True, eq=False)
class DocumentErrors:
    """What each document moves the fitted values y by: values [G,n], scaled so that V = valuesᵀ·values.

    Rows are the delete-one jackknife of ``metrics.ratio_influence``, 0 for a document that a model lacks. ids: of the
    documents [G]. effective: the least number of equal documents that some model's weigh as much as, (Σn)²/Σn².
    """

    values: np.ndarray
    ids: np.ndarray
    effective: float

    @property
    def covariance(self) -> np.ndarray:
        """V [n,n]."""
        return self.values.T @ self.values

    def of(self, models: Sequence[int]) -> DocumentErrors:
        """The errors of these models, in this order."""
        return replace(self, values=self.values[:, list(models)])


def combined(errors: Sequence[DocumentErrors | None], weights: Sequence[float]) -> DocumentErrors | None:
    """Errors of Σ weight·y over quantities of the same models; None where one is unknown or of other documents."""
    first = errors[0]
    if any(e is None or not np.array_equal(e.ids, first.ids) for e in errors):
        return None
    values = sum(w * e.values for w, e in zip(weights, errors, strict=True))
    return DocumentErrors(values, first.ids, min(e.effective for e in errors))


def independent(errors: Sequence[DocumentErrors | None], weights: Sequence[float]) -> DocumentErrors | None:
    """As ``combined``, of quantities on different corpora: no document is in two of them."""
    if any(e is None for e in errors):
        return None
    values = np.concatenate([w * e.values for w, e in zip(weights, errors, strict=True)])
    return DocumentErrors(values, np.arange(len(values)), min(e.effective for e in errors))


def beside(first: DocumentErrors | None, second: DocumentErrors | None) -> DocumentErrors | None:
    """Errors of the models of both, on the same documents; None where one is unknown or of other documents."""
    if first is None or second is None or not np.array_equal(first.ids, second.ids):
        return None
    values = np.concatenate([first.values, second.values], axis=1)
    return DocumentErrors(values, first.ids, min(first.effective, second.effective))


@dataclass(frozen=True, eq=False)
class LineError:
    """Covariance of fitted parameters in two parts [p,p]: of documents beyond the residuals, and of the residuals.

    freedom_documents, freedom_residuals: degrees of freedom of each. mean_square: of the residuals, what a new model
    adds. Where the errors of documents are unknown, documents is 0 and freedom_documents NaN.
    """

    documents: np.ndarray
    residuals: np.ndarray
    freedom_documents: float
    freedom_residuals: float
    mean_square: float

    @property
    def covariance(self) -> np.ndarray:
        """Both parts [p,p]."""
        return self.documents + self.residuals

    def transformed(self, change: np.ndarray) -> LineError:
        """The error of change·parameters."""
        parts = {name: change @ getattr(self, name) @ change.T for name in ("documents", "residuals")}
        return replace(self, **parts)

    def variance(self, gradient: Sequence[float], new_model: bool = False) -> tuple[float, float]:
        """Variance of gradient·parameters and its degrees of freedom (Welch–Satterthwaite).

        new_model: of the value of one more model at that place instead.
        """
        g = np.asarray(gradient, np.float64)
        documents, residuals = float(g @ self.documents @ g), float(g @ self.residuals @ g)
        residuals += self.mean_square if new_model else 0.0
        total = documents + residuals
        if documents <= 0 or total <= 0:
            return max(total, 0.0), self.freedom_residuals
        freedom = 1 / (
            (documents / total) ** 2 / self.freedom_documents + (residuals / total) ** 2 / self.freedom_residuals
        )
        return total, freedom

    def p_value(self, parameters: np.ndarray, which: int) -> float:
        """Two-sided p-value of one of the parameters being 0. A variance below 1e-24 counts as 1e-24."""
        gradient = np.zeros(len(parameters))
        gradient[which] = 1.0
        variance, freedom = self.variance(gradient)
        return float(2 * special.stdtr(freedom, -abs(parameters[which]) / max(variance, 1e-24) ** 0.5))

    def critical(self, gradient: Sequence[float], confidence: float, new_model: bool = False) -> float:
        """Half of the interval of gradient·parameters in standard errors.

        The mean of Welch and Satterthwaite's quantile and Cochran and Cox's, Student's two weighted by the variances.
        """
        variance, freedom = self.variance(gradient, new_model)
        g, level = np.asarray(gradient, np.float64), 0.5 + confidence / 2
        residuals = float(special.stdtrit(self.freedom_residuals, level))
        share = float(g @ self.documents @ g) / variance if variance > 0 else 0.0
        if share == 0:
            return residuals
        documents = float(special.stdtrit(self.freedom_documents, level))
        return (float(special.stdtrit(freedom, level)) + share * documents + (1 - share) * residuals) / 2

    def half(self, gradient: Sequence[float], confidence: float, new_model: bool = False) -> float:
        """Half of the interval of gradient·parameters."""
        return self.critical(gradient, confidence, new_model) * self.variance(gradient, new_model)[0] ** 0.5


def fit_line(
    design: np.ndarray, y: np.ndarray, errors: DocumentErrors | None = None, weight: np.ndarray | None = None
) -> tuple[np.ndarray, LineError]:
    """Least squares of y [n] on design [n,p], n > p, and the error of β [p].

    errors: of documents in y; None when they are unknown, then the error is that of residuals alone. weight: [n], 1
    over the variance that a model has by itself, up to a factor; equal by default.
    """
    n, p = design.shape
    root = np.ones(n) if weight is None else np.sqrt(weight / np.mean(weight))
    basis, triangle = np.linalg.qr(design * root[:, None])
    inside = basis.T @ (root * y)
    residual = root * y - basis @ inside
    change = np.linalg.inv(triangle)
    mean_square = float(residual @ residual) / (n - p)
    documents, freedom = np.zeros((p, p)), math.nan
    if errors is not None:
        scaled = errors.values * root
        along = scaled @ basis
        span = along.T @ along
        outside = max(float((scaled**2).sum()) - float(np.trace(span)), 0.0) / (n - p)
        size, direction = np.linalg.eigh(span - outside * np.eye(p))
        documents = (direction * np.maximum(size, 0.0)) @ direction.T
        freedom = max(errors.effective - 1, 1.0)
    error = LineError(documents, mean_square * np.eye(p), freedom, float(n - p), mean_square)
    return change @ inside, error.transformed(change)
